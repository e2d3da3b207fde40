"""What a loader is told, and what it says to main memory, as Amaranth layouts."""

from amaranth.lib import data

from hwgen.program import FIELDS

JOBS = ("copy", "prefetch")
"""What a loader does, in this order in a step."""

BIASES, MASKS, VALUES = range(3)
"""Kinds of words, in a tag."""

IMAGE = data.StructLayout({
    name.removeprefix("prefetch_"): bits for name, bits in FIELDS["configure"]
    if name.startswith("prefetch_")})

TAG = data.StructLayout({"kind": 2, "job": 1})

REQUEST = data.StructLayout({"enable": 1, "address": IMAGE["address"].width, "tag": TAG.size})


def answer_layout(word_bits):
    """Return the layout of what comes from main memory."""
    return data.StructLayout({"valid": 1, "tag": TAG.size, "word": word_bits})
