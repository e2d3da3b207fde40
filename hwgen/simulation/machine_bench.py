"""The cocotb test that loads an accelerator's buffers, runs a program and reads them back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb

from hwgen.simulation.bench import HALF_CYCLE, REQUEST, reset
from hwgen.simulation.main_memory import MainMemoryModel

RUNNING = 1
"""Status of a machine whose program runs."""


async def cycle(dut: Any) -> None:
    """One clock cycle; inputs change and outputs are looked at while the clock is low."""
    await HALF_CYCLE
    dut.clk.set(1)
    await HALF_CYCLE
    dut.clk.set(0)


async def load(dut: Any, buffer: str, writes: list[str]) -> None:
    """Write words through a raw port."""
    port = getattr(dut, buffer)
    for word in writes:
        port.set(int(word, 16))
        await cycle(dut)
    port.set(0)


async def unload(dut: Any, buffer: str, reads: list[str]) -> list[str]:
    """Read words through a raw port."""
    port, data = getattr(dut, buffer), getattr(dut, f"{buffer}_data")
    found = []
    for word in reads:
        port.set(int(word, 16))
        await cycle(dut)
        await HALF_CYCLE
        found.append(str(data.value))
    port.set(0)
    return found


async def execute(
    dut: Any, words: list[int], memory: MainMemoryModel, limit: int
) -> dict[str, Any]:
    """Give a program and note the cycle of each step's start and of the end."""
    payload, valid, ready = (
        getattr(dut, f"program__{part}") for part in ("payload", "valid", "ready")
    )
    starts: list[int] = []
    given, offered, ended = 0, False, None
    status = 0
    number = 0
    while number < limit and ended is None:
        if not offered and given < len(words):
            payload.set(words[given])
            valid.set(1)
            offered = True
        memory.drive(number)
        await HALF_CYCLE
        memory.sample(number)
        taken = offered and ready.value == 1
        if dut.issue.value == 1:
            starts.append(number)
        if dut.ended.value == 1:
            ended = number
        status = int(dut.status.value)
        dut.clk.set(1)
        await HALF_CYCLE
        dut.clk.set(0)
        if taken:
            given += 1
            offered = False
            if given == len(words):
                valid.set(0)
        number += 1
        if status > RUNNING + 1:
            break
    return {"starts": starts, "ended": ended, "status": status, "cycles": number}


@cocotb.test()
async def programs(dut: Any) -> None:
    """Run every case of the request: load, execute, unload."""
    request = json.loads(Path(os.environ[REQUEST]).read_text())
    results = []
    for case in request["cases"]:
        memory = MainMemoryModel(dut.memory, dut.memory_data, request["layout"], case["memory"])
        await reset(dut, request["ports"], {"activations": 0, "weights": 0})
        for buffer, writes in case["loads"].items():
            await load(dut, buffer, writes)
        words = [int(word, 16) for word in case["words"]]
        result = await execute(dut, words, memory, case["limit"])
        result["unloads"] = {
            buffer: await unload(dut, buffer, reads) for buffer, reads in case["unloads"].items()
        }
        results.append(result)
    Path(request["results"]).write_text(json.dumps(results))
