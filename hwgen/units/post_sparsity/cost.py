"""Cycles of a post-sparsity module, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.ppa import Ppa

LATENCY = 2
"""The word that is collected, and the register slice at the output."""


def latency(spec: Any) -> int:
    """Cycles that a tile of n elements takes beyond n; the same for every spec."""
    return LATENCY


def cycles(spec: Any, elements: Any) -> Any:
    """Cycles of a tile from reset, first input transfer to last output transfer inclusive.

    Parameters
    ----------
    spec : PostSparsitySpec, or a namespace with arrays for its fields
    elements : elements of the tile, zeros included, at least 1; integer or array
    """
    return elements + latency(spec)


def cycles_back_to_back(spec: Any, elements: Any) -> Any:
    """Cycles that a tile adds which follows another without a gap."""
    return elements


def _terms(spec: Any) -> tuple[Any, ...]:
    """Registers of a word and of its selection, of the value that comes, of the masks.

    A word of one value needs no places.
    """
    return spec.word * spec.bits, spec.word, spec.bits, spec.mask_word, 1, 1 * (spec.word == 1)


PPA = Ppa(
    "post_sparsity", ("bits", "word", "mask_word"), _terms, operations=lambda spec: 1
)
"""What a module costs; an operation is an element."""
