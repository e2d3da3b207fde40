"""Drives a component without streams: a beat in every cycle."""

import numpy as np
from amaranth.sim import Simulator


def run(component, beats, drive, read, latency=None):
    """What the component gives for each beat, one of which comes in every cycle."""
    given = []

    async def testbench(ctx):
        # By now the component is elaborated, and its latency there.
        late = (latency or component.latency) - 1
        for beat in [*beats, *beats[-1:] * late]:
            drive(ctx, beat)
            await ctx.tick()
            given.append(read(ctx))

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return given[(latency or component.latency) - 1:]


def put(ctx, port, values):
    for place, value in zip(port, np.asarray(values).tolist(), strict=True):
        ctx.set(place, value)


def got(ctx, port):
    return [ctx.get(place) for place in port]
