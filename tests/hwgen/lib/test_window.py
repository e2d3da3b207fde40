"""Leading digits and windows that saturate, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, signed
from amaranth.lib.wiring import In, Out
from cases import Case, check, numbers

from hwgen.lib import window


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_the_leading_digit(bits):
    size = (bits - 1).bit_length()
    dut = Case(lambda m, flow, ports: window.leading(m, ports.a, "lead"), a=In(bits), o=Out(size))
    cases = [({"a": value}, max(value.bit_length() - 1, 0)) for value in range(1 << bits)]
    check(dut, cases, 0)


def test_windows_saturate():
    def make(m, flow, ports):
        near, far = window.shift_bytes(m, ports.a, ports.shift, 6, "w")
        s = flow.stage(near=near, far=far)
        return window.shift_bits(m, s.near, s.far, ports.shift, 6, "w").as_signed()

    rng = np.random.default_rng(2)
    cases = []
    for shift in range(32):
        for value in numbers(20, rng, 12) + [sign << min(shift + 5, 18) for sign in (1, -1)]:
            wanted = min(max(value >> shift, -32), 31)
            cases.append(({"a": value, "shift": shift}, wanted))
    check(Case(make, a=In(signed(20)), shift=In(5), o=Out(signed(6))), cases, 1)


def test_what_falls_out_is_seen():
    dut = Case(lambda m, flow, ports: Cat(window.fallen(ports.a, ports.shift, 1),
                                          window.fallen(ports.a, ports.shift, 3)),
               a=In(12), shift=In(2), o=Out(2))
    cases = [
        ({"a": a, "shift": k}, (a % (1 << k) > 0) + 2 * (a % (1 << 3 * k) > 0))
        for a in (0, 1, 4, 8, 64, 512, 4095) for k in range(4)
    ]
    check(dut, cases, 0)


def test_halves_round_to_even_and_saturate():
    dut = Case(lambda m, flow, ports: window.round_half(ports.a, ports.rest, 2, 4),
               a=In(signed(9)), rest=In(1), o=Out(signed(4)))
    cases = []
    for quarters in range(-200, 200):
        for rest in (0, 1):
            # Python rounds halves to even, too.
            value = min(max(round(quarters / 4 + rest / 100), -8), 7)
            cases.append(({"a": quarters + 2, "rest": rest}, value))
    check(dut, cases, 0)
