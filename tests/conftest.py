"""Fixtures of several folders of tests."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from hwgen.technology.synthesised import UNITS
from hwgen.units import ppa

CHOICES = {
    "macs": (4, 8, 16, 32), "bits": (8, 12, 16, 20, 24), "nonlinearity": ("relu", "gelu"),
    "parallel": (1, 4, 8, 16, 32), "window": (16, 32, 64, 128), "fifo_depth": (4, 8, 16, 32),
    "word": (1, 4, 8, 16, 32), "mask_word": (8, 16, 32), "max_row": (128, 512, 4096),
    "epsilon": (1e-12,), "noise_bits": (0, 16), "accumulator_bits": (20, 28, 36, 44, 52, 60),
}
"""Parameters of made-up points."""


def made_up(unit):
    """Points whose figures are sums of the unit's terms, so that a fit gives them back."""
    cost = next(cost for name, cost in UNITS.values() if name == unit)
    names = cost.PPA.parameters
    rows = list(itertools.product(*(CHOICES[name] for name in names)))
    specs = [SimpleNamespace(**dict(zip(names, row, strict=True))) for row in rows]
    terms = np.array([cost.PPA.terms(spec) for spec in specs], float)
    cycle = np.array([cost.PPA.operations(spec) for spec in specs], float)
    total = terms.sum(axis=1)
    figures = {
        "area_um2": 5 * total, "leakage_mw": 1e-4 * total, "idle_mw": 1e-5 * total,
        "energy_density_1_pj": 1e-2 * total / cycle, "energy_density_0_5_pj": 7e-3 * total / cycle,
        "energy_density_0_25_pj": 5e-3 * total / cycle,
        "critical_path_ns": np.full(len(rows), 1.25),
    }
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True),
                                                              strict=True)}
    return ppa.Points(unit, {
        name: values if values.dtype.kind == "U" else values.astype(float)
        for name, values in {**columns, **figures}.items()})


@pytest.fixture
def points_of_every_unit(monkeypatch):
    """Made-up points for every unit: what is tested does not hang on what was synthesised."""
    from hwgen.technology import constants

    made = {unit: made_up(unit) for unit, _ in UNITS.values()}
    caches = ppa._fit, constants._load
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(ppa, "has_points", lambda unit: unit in made)
    monkeypatch.setattr(ppa, "_points", made.__getitem__)
    yield
    for cache in caches:
        cache.cache_clear()
