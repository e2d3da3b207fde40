"""Measured error of an activation."""

from __future__ import annotations

import math

import numpy as np

from hwgen.units.accuracy import Accuracy
from hwgen.units.activation.golden import activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.activation.table import LARGEST_GAIN, LIMIT_LOG2

BOUND_ULP = 1.0
"""What `golden` promises for gelu."""

MAXIMUM_ARGUMENTS = 1 << 17
"""Arguments that are taken at most, evenly over the range."""


def measure(spec: ActivationSpec) -> list[Accuracy]:
    """Compare golden with float64 over the whole range of an argument; nothing where it is exact.

    The argument's exponent is the one with which it reaches just to ±2^LIMIT_LOG2, beyond which
    gelu is exactly x or 0; the output has the same ulp, and the finest that there is.
    """
    if spec.nonlinearity != "gelu":
        return []
    top = 1 << (spec.bits - 1)
    i_exponent = LIMIT_LOG2 - (spec.bits - 1)
    step = max(1, 2 * top // MAXIMUM_ARGUMENTS)
    # An odd step would leave no pattern in the last bits, but the ends of the range belong to it.
    value = np.unique(np.r_[np.arange(-top, top, step | 1), -1, 0, 1, top - 1])
    x = value * 2.0**i_exponent
    exact = x * np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    found = []
    for o_exponent in (i_exponent, i_exponent - LARGEST_GAIN):
        # What saturates is as near as the output's range allows.
        target = np.clip(exact / 2.0**o_exponent, -top, top - 1)
        found.append(
            Accuracy.of(
                f"gelu, exponent {o_exponent} of the result",
                f"{len(value):,} arguments from −{2**LIMIT_LOG2} to {2**LIMIT_LOG2}, exponents "
                f"{i_exponent} in and {o_exponent} out, against float64",
                "argument",
                x,
                activation(value, i_exponent, o_exponent, spec) - target,
                BOUND_ULP,
            )
        )
    return found
