"""Counts that several units' cycles are made of."""

import numpy as np
import torch

from hwgen.units.stages import beats, tree_levels


def test_tree_levels_of_numbers_and_arrays():
    widths = [1, 2, 3, 4, 5, 8, 16, 17, 32, 33, 64]
    wanted = [0, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6]
    assert [tree_levels(width) for width in widths] == wanted
    assert tree_levels(np.asarray(widths)).tolist() == wanted
    assert tree_levels(torch.tensor(widths)).tolist() == wanted


def test_beats_round_up():
    assert [beats(n, 4) for n in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]
    assert beats(np.asarray([[7], [9]]), np.asarray([1, 8])).tolist() == [[7, 1], [9, 2]]
