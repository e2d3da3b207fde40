"""What blocks cost in a technology: area, power and energy, for whole populations of designs."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from functools import cache
from importlib.resources import files

import numpy as np
import yaml

from hwgen.design import DesignBatch

BUFFERS = ("activation", "weight", "mask")
"""The accelerator's buffers."""


class Technology(ABC):
    """What an accelerator's blocks cost, and where the figures come from.

    Tables are mappings from a block to arrays of shape (designs,). Every one of them refuses, with
    a ValueError that names the field and the design, what it has no figures for.

    Attributes
    ----------
    name : as in `Technology.load`
    source : publication or synthesis run, and licence
    notes : what a reader of a figure must know
    """

    name: str
    source: str
    notes: tuple[str, ...]

    @staticmethod
    def load(source: Technology | str) -> Technology:
        """Load a technology from its name, or from itself.

        Raises
        ------
        ValueError
            If there is no technology of that name.
        """
        return source if isinstance(source, Technology) else _load(source)

    @property
    @abstractmethod
    def not_priced(self) -> tuple[str, ...]:
        """Blocks of the machine without a figure."""

    @property
    @abstractmethod
    def block_bits(self) -> int:
        """Bits of one access of a buffer or of main memory."""

    @abstractmethod
    def check(self, designs: DesignBatch) -> None:
        """Refuse designs without figures.

        Raises
        ------
        ValueError
            Names the field, its value, what is priced, and the first design concerned.
        """

    @abstractmethod
    def area_um2(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Area of each kind of block, all its instances together."""

    @abstractmethod
    def dynamic_pj(self, designs: DesignBatch) -> dict[str, dict[str, np.ndarray]]:
        """Energy of a unit of each kind of work that a block is charged by.

        Kinds of work are those of `sim.energy`: "lane_cycles", "pairs", "softmax_elements", ….
        """

    @abstractmethod
    def access_pj(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Energy of one access of `block_bits` bits to each buffer and to main memory."""

    @abstractmethod
    def leakage_mw(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Power of each kind of block, all its instances together, whether or not it is busy."""

    @abstractmethod
    def source_of(self, component: str) -> str:
        """Name the figure behind a component of the energy, as in a report's breakdown."""


@cache
def _load(name: str) -> Technology:
    from hwgen.technology.published import PublishedTechnology
    from hwgen.technology.synthesised import NODES, SynthesisedTechnology

    root = files("hwgen") / "technology"
    tables = [entry.name[:-5] for entry in root.iterdir() if entry.name.endswith("nm.yaml")]
    known = sorted([*tables, *NODES])
    if name in NODES:
        return SynthesisedTechnology.named(name)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown technology {name!r}; {hint}known: {', '.join(known)}")
    return PublishedTechnology.of(yaml.safe_load((root / f"{name}.yaml").read_text()))
