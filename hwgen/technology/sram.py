"""Memories: area, delay, energy and leakage fitted to published 45 nm SRAM macros (sram.yaml).

The macros have one read-write port. What a memory of one read and one write port costs more is a
factor, from two OpenRAM macros of the same size on FreePDK45. Two single-port banks would be
smaller, but they serve only one read and one write that fall into different banks.

Relative error at macros that were left out of the fit, median and largest: area 8 % and 24 %,
access time 6 % and 10 %, energy 6 % and 29 %, leakage 9 % and 45 % (CACTI chooses another
organisation of the array from one size to the next).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

SLICE_BITS = 116
"""Widest macro that is fitted; a wider memory is several slices side by side. The published macros
of 256 bits are left out: 64 entries are larger there than 128."""

NARROWEST_BITS, SHALLOWEST, DEEPEST = 7, 32, 2048
"""Range of the fitted macros. A smaller memory costs what the smallest macro costs."""

QUANTITIES = ("area_um2", "access_ns", "access_fj", "leakage_nw")


@dataclass(frozen=True)
class Memory:
    """What a memory of one write port and one read port costs.

    Parameters
    ----------
    slices : macros side by side
    area_um2 : area
    access_ns : clock edge to read data
    setup_ns : address, data and enables before the clock edge
    read_pj, write_pj : energy of an access
    leakage_mw : leakage
    """

    slices: int
    area_um2: float
    access_ns: float
    setup_ns: float
    read_pj: float
    write_pj: float
    leakage_mw: float


@dataclass(frozen=True)
class _Model:
    """Coefficients of the four fits, and their relative errors at points that were left out."""

    coefficients: dict[str, NDArray[np.float64]]
    errors: dict[str, NDArray[np.float64]]
    setup_ns: float
    factors: dict[str, float]


def memory(depth: int, width: int) -> Memory:
    """Cost of a memory of `depth` entries of `width` bits with a read and a write port.

    area = a · width · √depth + b · width · depth; access time = a + b · √(width · depth);
    energy of an access = a · width · √depth; leakage = a · depth^b · width^c.

    Raises
    ------
    ValueError
        If it is deeper than the macros that the model is fitted to.
    """
    if depth < 1 or width < 1:
        raise ValueError(f"a memory has at least 1 entry of 1 bit, not {depth} of {width}")
    if depth > DEEPEST:
        raise ValueError(
            f"the SRAM model covers up to {DEEPEST} entries, not {depth}: "
            "choose a shallower memory or several of them"
        )
    model = _model()
    slices = -(-width // SLICE_BITS)
    entries = np.array([max(depth, SHALLOWEST)], float)
    bits = np.array([max(width / slices, NARROWEST_BITS)])
    value = {name: float(_evaluate(name, model.coefficients[name], entries, bits)[0])
             for name in QUANTITIES}
    access_pj = slices * value["access_fj"] * model.factors["access_mw"] / 1000
    # An 8-transistor cell leaks on its second port too; the area stands for it.
    leakage_mw = slices * value["leakage_nw"] * model.factors["area_um2"] * 1e-6
    return Memory(
        slices,
        slices * value["area_um2"] * model.factors["area_um2"],
        value["access_ns"] * model.factors["access_ns"],
        model.setup_ns,
        access_pj,
        access_pj,
        leakage_mw,
    )


def left_out_errors() -> dict[str, NDArray[np.float64]]:
    """Relative error of each quantity at each macro, of a fit to all others."""
    return dict(_model().errors)


def two_port_factors() -> dict[str, float]:
    """Ratio of two ports to one, for area_um2, access_ns and access_mw."""
    return dict(_model().factors)


@cache
def _model() -> _Model:
    table = yaml.safe_load((files("hwgen") / "technology" / "sram.yaml").read_text())
    macros = [macro for macro in table["macros"] if macro["width"] <= SLICE_BITS]
    depth, width = _column(macros, "depth"), _column(macros, "width")
    coefficients, errors = {}, {}
    for name in QUANTITIES:
        values = _column(macros, name)
        coefficients[name] = _fit(name, depth, width, values)
        kept = ~np.eye(len(values), dtype=bool)
        errors[name] = np.array([
            _evaluate(name, _fit(name, depth[rest], width[rest], values[rest]),
                      depth[~rest], width[~rest])[0] / values[index] - 1
            for index, rest in enumerate(kept)
        ])
    single, double = table["two_port"]["single"], table["two_port"]["double"]
    factors = {name: double[name] / single[name] for name in single}
    return _Model(coefficients, errors, float(table["setup_ns"]), factors)


def _column(macros: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([macro[name] for macro in macros], float)


def _terms(name: str, depth: Any, width: Any) -> NDArray[np.float64]:
    one = np.ones_like(depth)
    terms = {
        "area_um2": (width * np.sqrt(depth), width * depth),
        "access_ns": (one, np.sqrt(width * depth)),
        "access_fj": (width * np.sqrt(depth),),
        "leakage_nw": (one, np.log(depth), np.log(width)),
    }
    return np.stack(terms[name], axis=1)


def _fit(name: str, depth: Any, width: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of the relative errors; of the logarithms for the power law."""
    terms = _terms(name, depth, width)
    if name == "leakage_nw":
        return np.asarray(np.linalg.lstsq(terms, np.log(values), rcond=None)[0])
    scaled = terms / values[:, None]
    return np.asarray(np.linalg.lstsq(scaled, np.ones_like(values), rcond=None)[0])


def _evaluate(
    name: str, coefficients: NDArray[np.float64], depth: Any, width: Any
) -> NDArray[np.float64]:
    value = _terms(name, depth, width) @ coefficients
    return np.exp(value) if name == "leakage_nw" else value
