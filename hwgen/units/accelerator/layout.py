"""Descriptors' bits as Amaranth layouts."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from hwgen.program import FIELDS, OPCODE_BITS


def descriptor_layout(opcode):
    """Return the layout of one kind of descriptor, `opcode` lowest."""
    return data.StructLayout({
        "opcode": OPCODE_BITS,
        **{name: signed(-bits) if bits < 0 else unsigned(bits) for name, bits in FIELDS[opcode]},
    })


def fields_of(layout, prefix):
    """Names of the fields that begin with `prefix` and an underscore, without it."""
    return [name[len(prefix) + 1:] for name, _ in layout if name.startswith(f"{prefix}_")]
