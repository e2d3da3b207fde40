"""What an accelerator says of itself."""

from amaranth.lib import enum


class Status(enum.IntEnum, shape=3):
    """State of the machine; from OTHER_DESIGN on, errors, which stay until reset."""

    IDLE = 0
    RUNNING = 1
    DONE = 2
    OTHER_DESIGN = 3
    BAD_DESCRIPTOR = 4
    OVERFLOW = 5
    OUT_OF_RANGE = 6
