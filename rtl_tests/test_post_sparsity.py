"""post_sparsity's RTL against its golden model and its cost."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.simulation.unit_check import check_unit
from hwgen.units.post_sparsity import jobs
from hwgen.units.post_sparsity.rtl import PostSparsity
from hwgen.units.post_sparsity.spec import PostSparsitySpec

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("spec", [
    PostSparsitySpec(8, 1, 1), PostSparsitySpec(5, 3, 7), PostSparsitySpec(8, 4, 1),
    PostSparsitySpec(8, 1, 8), PostSparsitySpec(20, 16, 16),
], ids=str)
def test_unit(spec: PostSparsitySpec, simulator: str) -> None:
    rng = np.random.default_rng(5)
    made = [jobs.random_job(spec, rng) for _ in range(16)]
    check_unit(PostSparsity, spec, made, simulator, stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_specs(seed: int, simulator: str) -> None:
    """Twenty jobs a spec, 200 in all; each is of tiles back to back."""
    rng = np.random.default_rng(100 + seed)
    spec = PostSparsitySpec(int(rng.integers(4, 25)), int(rng.integers(1, 65)),
                            int(rng.integers(1, 65)))
    check_unit(PostSparsity, spec, [jobs.random_job(spec, rng) for _ in range(20)], simulator)


@pytest.mark.parametrize(("standing", "taken", "moved"), [
    # Two mask beats of two bits, or two words, and one value fit before a standing output.
    ("o_mask", 5, 1), ("o_value", 5, 2)])
def test_an_output_that_stands_still_does_not_hold_the_other(standing: str, taken: int, moved: int
                                                             ) -> None:
    dut = PostSparsity(PostSparsitySpec(8, 2, 2))
    counts = {"i": 0, "o_mask": 0, "o_value": 0}

    async def testbench(ctx):
        ctx.set(dut.i.payload, {"value": 1, "last": 0})
        ctx.set(dut.i.valid, 1)
        for name in ("o_mask", "o_value"):
            ctx.set(getattr(dut, name).ready, name != standing)
        for _ in range(40):
            for name in counts:
                port = getattr(dut, name)
                counts[name] += ctx.get(port.valid) & ctx.get(port.ready)
            await ctx.tick()

    run = Simulator(dut)
    run.add_clock(1e-6)
    run.add_testbench(testbench)
    run.run()
    other = "o_value" if standing == "o_mask" else "o_mask"
    assert counts == {"i": taken, standing: 0, other: moved}
