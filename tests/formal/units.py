"""Every unit that has RTL, at the least size at which it has all of its structure."""

from amaranth.lib.wiring import In

from hwgen.units.activation.rtl import Activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.registry import RTL_UNITS, component_of, spec_of

LEAST = {
    "mac_lane": {"macs": 2, "bits": 4, "accumulator_bits": 9, "nonlinearity": "gelu",
                 "noise_bits": 8},
    "dynatran": {"parallel": 2, "bits": 4},
    "pre_sparsity": {"macs": 2, "bits": 4, "window": 4, "fifo_depth": 4},
    "post_sparsity": {"bits": 4, "word": 2, "mask_word": 3},
    "softmax": {"parallel": 2, "bits": 4, "max_row": 4},
    "layer_norm": {"parallel": 2, "bits": 4, "max_row": 4, "epsilon": 1e-12},
    "residual_add": {"parallel": 2, "bits": 4},
    "stochastic_rounding": {"accumulator_bits": 9, "bits": 4, "noise_bits": 8},
    "fifo": {"bits": 2, "depth": 4},
}
"""Parameters by unit. A unit that the registry has and this list has not fails its tests."""

UNITS = (*RTL_UNITS, "relu", "gelu")
"""The units of the registry, and those that are parts of others."""


def component(name):
    """Return a new component.

    Raises
    ------
    KeyError
        If a unit of the registry is not in `LEAST`.
    """
    if name in ("relu", "gelu"):
        return Activation(ActivationSpec(4, name), carried_bits=2)
    if name not in LEAST:
        raise KeyError(f"{name} has RTL but no parameters in tests/formal/units.py: LEAST")
    return component_of(name)(spec_of(name, LEAST[name]))


def ports(unit):
    """Return a component's streams in, streams out and plain inputs, each by name."""
    sides = ({}, {}, {})
    for name, member in unit.signature.members.items():
        side = 2 if not member.is_signature else 0 if member.flow is In else 1
        sides[side][name] = getattr(unit, name)
    return sides
