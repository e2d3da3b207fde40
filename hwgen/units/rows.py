"""Rows with padding, as the jobs of units that take them beat by beat send and expect them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.stages import beats


def row_operands(rows: list[Any], valid_masks: list[Any]) -> dict[str, list[list[int]]]:
    """Operands of a job: the integers of each row, and which of them are valid."""
    return {
        "rows": [[int(v) for v in row] for row in rows],
        "valid_masks": [[int(v) for v in valid_mask] for valid_mask in valid_masks],
    }


def rows_of(job: Job) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of a job as int64 arrays, with their masks as booleans."""
    pairs = zip(job.operands["rows"], job.operands["valid_masks"], strict=True)
    return [(np.asarray(r, dtype=np.int64), np.asarray(v, dtype=bool)) for r, v in pairs]


def random_rows(
    max_row: int,
    rng: np.random.Generator,
    row_of: Callable[[int], np.ndarray],
    kept: Mapping[float, float],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One to four rows of one element, the longest or any length, with their masks.

    Parameters
    ----------
    max_row : longest row
    rng : source of lengths and masks
    row_of : draws a row of a length
    kept : shares of a row's elements that are valid, with the probability of each share
    """
    rows, valid_masks = [], []
    for _ in range(int(rng.integers(1, 5))):
        n = (1, max_row, int(rng.integers(1, max_row + 1)))[rng.integers(3)]
        rows.append(row_of(n))
        share = rng.choice(list(kept), p=list(kept.values()))
        valid_masks.append(rng.random(n) < share)
    return rows, valid_masks


def row_beats(row: np.ndarray, valid_mask: np.ndarray, parallel: int) -> list[dict[str, Any]]:
    """Beats of a row; positions beyond it are not valid and hold its first element."""
    size = beats(len(row), parallel) * parallel
    values, valid = np.full(size, row[0]), np.zeros(size, dtype=np.int64)
    values[: len(row)], valid[: len(row)] = row, valid_mask
    bits = valid.reshape(-1, parallel) @ (1 << np.arange(parallel))
    return [
        {"value": word, "valid_mask": mask, "last": int(number == len(bits) - 1)}
        for number, (word, mask) in enumerate(
            zip(values.reshape(-1, parallel).tolist(), bits.tolist(), strict=True)
        )
    ]


def padded_words(values: Any, parallel: int) -> list[list[int]]:
    """Values by the beat, zeros after the last."""
    padded = np.zeros(beats(len(values), parallel) * parallel, dtype=np.int64)
    padded[: len(values)] = values
    words: list[list[int]] = padded.reshape(-1, parallel).tolist()
    return words


def result_beats(values: Any, parallel: int) -> list[dict[str, Any]]:
    """Beats of a row's results, zeros after the last."""
    words = padded_words(values, parallel)
    return [
        {"value": word, "last": int(number == len(words) - 1)} for number, word in enumerate(words)
    ]
