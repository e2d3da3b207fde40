"""How a design sets its units' parameters, for one design and for arrays of designs alike."""

from __future__ import annotations

from typing import Any

import numpy as np

LAYER_NORM_EPSILON = 1e-12
"""What BERT adds to the variance."""

NOISE_BITS = 16
"""Width of the noise of stochastic rounding: a bias of at most 2^−16 of a last place."""


def _mac_lane(d: Any) -> dict[str, Any]:
    return {
        "macs": d.macs_per_lane,
        "bits": d.bits,
        "accumulator_bits": d.accumulator_bits,
        "nonlinearity": d.nonlinearity,
        "noise_bits": NOISE_BITS * d.stochastic_rounding,
    }


def _dynatran(d: Any) -> dict[str, Any]:
    return {"parallel": d.tile_y, "bits": d.bits}


def lane_dynatran(d: Any) -> dict[str, Any]:
    """Parameters of a lane's own dynatran; that of the row engines takes a beat of tile_y."""
    return {"parallel": 1 + 0 * d.tile_y, "bits": d.bits}


def _pre_sparsity(d: Any) -> dict[str, Any]:
    return {"macs": d.macs_per_lane, "bits": d.bits, "window": d.window, "fifo_depth": d.fifo_depth}


def _post_sparsity(d: Any) -> dict[str, Any]:
    return {"bits": d.bits, "word": d.piece, "mask_word": d.piece}


def _softmax(d: Any) -> dict[str, Any]:
    return {"parallel": d.tile_y, "bits": d.bits, "max_row": d.max_sequence_length}


def _layer_norm(d: Any) -> dict[str, Any]:
    # A row of hidden states is an operand of a product, so no longer than k_max; weight gradients
    # alone have longer products than the longest row of a module.
    longest = np.minimum(d.k_max, 4096)
    return {
        "parallel": d.tile_y,
        "bits": d.bits,
        "max_row": longest if isinstance(d.k_max, np.ndarray) else int(longest),
        "epsilon": LAYER_NORM_EPSILON,
    }


def _residual_add(d: Any) -> dict[str, Any]:
    return {"parallel": d.tile_y, "bits": d.bits}


def _fifo(d: Any) -> dict[str, Any]:
    # Operand pairs; a queue of fewer than four could not keep up with one a cycle.
    depth = np.maximum(d.fifo_depth, 4)
    return {
        "bits": 2 * d.bits,
        "depth": depth if isinstance(d.fifo_depth, np.ndarray) else int(depth),
    }


def _stochastic_rounding(d: Any) -> dict[str, Any]:
    return {"accumulator_bits": d.accumulator_bits, "bits": d.bits, "noise_bits": NOISE_BITS}


UNIT_PARAMETERS = {
    "mac_lane": _mac_lane,
    "dynatran": _dynatran,
    "pre_sparsity": _pre_sparsity,
    "post_sparsity": _post_sparsity,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "residual_add": _residual_add,
    "fifo": _fifo,
    "stochastic_rounding": _stochastic_rounding,
}
"""Parameters of each unit from a design or a batch, by the unit's name; stochastic rounding is only
in designs that have it."""
