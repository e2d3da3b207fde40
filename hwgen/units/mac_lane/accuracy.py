"""Measured error of a lane's non-linearity; its dot products are exact until they are rounded."""

from __future__ import annotations

from hwgen.units.accuracy import Accuracy
from hwgen.units.activation.accuracy import measure as measure_activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.mac_lane.spec import MacLaneSpec


def measure(spec: MacLaneSpec) -> list[Accuracy]:
    """Errors of the non-linearity on rounded sums."""
    return measure_activation(ActivationSpec(spec.bits, spec.nonlinearity))
