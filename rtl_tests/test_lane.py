"""A lane as ELECTOR charges it: pre_sparsity feeds mac_lane without a gap (docs/machine.md, 3)."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from hwgen.emit import unit_module
from hwgen.program import Job
from hwgen.simulation.run import Case, run_cases
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.mac_lane.golden import product
from hwgen.units.mac_lane.rtl import MacLane
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.pre_sparsity import jobs as gather
from hwgen.units.pre_sparsity.rtl import PreSparsity
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

pytestmark = pytest.mark.rtl

SHIFT = 4
WINDOWS = ("i_left_mask", "i_left", "i_right_mask", "i_right")
CONSTANTS = {"shift": SHIFT, "activate": 0, "i_exponent": 0, "o_exponent": 0}


class Lane(wiring.Component):
    """The pairs that pre_sparsity finds go straight into the multipliers."""

    def __init__(self, gather_spec: PreSparsitySpec, mac_spec: MacLaneSpec) -> None:
        self.gather, self.macs = PreSparsity(gather_spec), MacLane(mac_spec)
        ends, members = self.gather.signature.members, self.macs.signature.members
        ports = {name: members[name] for name in ("o", *CONSTANTS)}
        super().__init__({name: ends[name] for name in WINDOWS} | ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gather, m.submodules.macs = self.gather, self.macs
        for name in WINDOWS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.gather, name))
        wiring.connect(m, self.macs.o, wiring.flipped(self.o))
        pairs, beat = self.gather.o, self.macs.i
        m.d.comb += [beat.valid.eq(pairs.valid), pairs.ready.eq(beat.ready)]
        m.d.comb += [getattr(self.macs, name).eq(getattr(self, name)) for name in CONSTANTS]
        m.d.comb += beat.payload.last.eq(pairs.payload.last)
        for side in ("left", "right"):
            for taken, given in zip(
                getattr(beat.payload, side), getattr(pairs.payload, side), strict=True
            ):
                m.d.comb += taken.eq(given)
        return m


def case(spec: MacLaneSpec, gather_spec: PreSparsitySpec, job: Job) -> Case:
    """What goes into a lane for a job of pre_sparsity, and what must come out."""
    left, right = job.operands["left"], job.operands["right"]
    values = product(left[:, None], right[:, :, None], 0, SHIFT, spec)
    expected = [{"value": value} for value in np.ravel(values).tolist()]
    return Case(job.name, CONSTANTS, gather.stimulus(gather_spec, job), {"o": expected})


@pytest.mark.parametrize(
    ("macs", "window", "fifo_depth", "nonlinearity"),
    [(1, 4, 8, "gelu"), (4, 16, 24, "relu")],
)
def test_a_lane_takes_what_the_walk_charges(
    simulator: str, macs: int, window: int, fifo_depth: int, nonlinearity: str
) -> None:
    spec = MacLaneSpec(macs, 8, 28, nonlinearity)
    gather_spec = PreSparsitySpec(macs, 8, window, fifo_depth)
    rng = np.random.default_rng(macs)
    jobs = [gather.random_job(gather_spec, rng) for _ in range(8)]
    module = unit_module(Lane(gather_spec, spec), "lane")
    cases = [case(spec, gather_spec, job) for job in jobs]
    results = run_cases(module, cases, simulator, (None, 1))
    assert [result.mismatches for result in results] == [[]] * 16
    counted = [result.cycles for result in results[:8]]
    latency = int(mac_lane.latency(spec))
    assert counted == [gather.predicted_cycles(gather_spec, job) + latency for job in jobs]
