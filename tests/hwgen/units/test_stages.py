"""Counts that several units' cycles are made of."""

import numpy as np
import torch

from hwgen.units.stages import DADDA, beats, carry_save_levels, dadda_below, tree_levels


def test_tree_levels_of_numbers_and_arrays():
    widths = [1, 2, 3, 4, 5, 8, 16, 17, 32, 33, 64]
    wanted = [0, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6]
    assert [tree_levels(width) for width in widths] == wanted
    assert tree_levels(np.asarray(widths)).tolist() == wanted
    assert tree_levels(torch.tensor(widths)).tolist() == wanted


def test_beats_round_up():
    assert [beats(n, 4) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]
    assert beats(np.asarray([[7], [9]]), np.asarray([1, 8])).tolist() == [[7, 1], [9, 2]]


def test_levels_of_full_adders():
    # Each level makes ⌈2·n / 3⌉ rows of n.
    for rows in range(1, 1067):
        left, levels = rows, 0
        while left > 2:
            left, levels = -(-2 * left // 3), levels + 1
        assert carry_save_levels(rows) == levels
    assert carry_save_levels(np.asarray([2, 3, 211, 212])).tolist() == [0, 1, 12, 13]
    assert carry_save_levels(torch.tensor([13, 14])).tolist() == [5, 6]


def test_rows_after_a_level_are_daddas_numbers():
    assert all(after == before * 3 // 2 for before, after in zip(DADDA, DADDA[1:], strict=False))
    assert [dadda_below(rows) for rows in (3, 4, 5, 211, 212, 1066)] == [2, 3, 4, 141, 211, 711]
