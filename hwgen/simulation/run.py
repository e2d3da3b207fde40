"""Runs jobs on a Verilog module and compares what comes out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwgen.program import Job
from hwgen.simulation.beats import Beat, mismatches, pack, unpack
from hwgen.simulation.build import build
from hwgen.simulation.module import VerilogModule
from hwgen.simulation.simulators import Simulator, find_simulator
from hwgen.units.registry import jobs_of

PROCESS_SECONDS = 3600
"""Seconds after which a simulator is stopped."""


class SimulationError(RuntimeError):
    """The simulation itself failed (not a comparison); the message holds the end of its log."""


@dataclass(frozen=True)
class Case:
    """What goes into a module and what must come out.

    Parameters
    ----------
    name : what the case is, for people
    signals : constant inputs by port name
    stimulus : beats of every input stream
    expected : beats of every output stream; fields left out are not compared
    """

    name: str
    signals: Mapping[str, int]
    stimulus: Mapping[str, Sequence[Beat]]
    expected: Mapping[str, Sequence[Beat]]


@dataclass(frozen=True)
class JobResult:
    """What a simulated job gave.

    Parameters
    ----------
    name : the job's name
    stall_seed : seed of the stalls, None without stalls
    outputs : beats of every output stream; None stands for unknown bits
    cycles : last output transfer − first input transfer + 1; None if there was no output
    simulated_cycles : cycles that the simulator ran for this job
    mismatches : a sentence for each difference, broken rule of streams, or hang
    """

    name: str
    stall_seed: int | None
    outputs: dict[str, list[dict[str, Any]]]
    cycles: int | None
    simulated_cycles: int
    mismatches: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every beat was as expected."""
        return not self.mismatches


def case_of(spec: Any, job: Job) -> Case:
    """Turn a job into signals and beats by its unit's jobs module."""
    jobs = jobs_of(job.unit)
    stimulus, expected = jobs.stimulus(spec, job), jobs.expected(spec, job)
    return Case(job.name, jobs.signals(spec, job), stimulus, expected)


def run_jobs(
    module: VerilogModule,
    spec: Any,
    jobs: Sequence[Job],
    simulator: Simulator | str | None = None,
    stall_seeds: Sequence[int | None] = (None,),
) -> list[JobResult]:
    """Simulate jobs of a unit on its Verilog and compare with golden.

    Parameters
    ----------
    module : Verilog and ports, from `hwgen.emit.unit_module` or a generated folder
    spec : the unit's spec
    jobs : jobs, each run from reset
    simulator : "verilator", "icarus", a found Simulator, or None for the default
    stall_seeds : every job is run once for each; None means without stalls

    Returns
    -------
    For each stall seed, a result for each job.

    Raises
    ------
    MissingToolError, BuildError, SimulationError
        If there is no simulator, it refuses the Verilog, or the simulation breaks off.
    """
    return run_cases(module, [case_of(spec, job) for job in jobs], simulator, stall_seeds)


def run_cases(
    module: VerilogModule,
    cases: Sequence[Case],
    simulator: Simulator | str | None = None,
    stall_seeds: Sequence[int | None] = (None,),
    *,
    idle_limit: int | None = None,
    cycle_limit: int | None = None,
) -> list[JobResult]:
    """Simulate cases on a module; see `run_jobs`.

    Parameters
    ----------
    idle_limit : cycles without any transfer after which a case counts as hung; by default 4 a beat
        and 2,000 more, for a row is silent while it passes from one buffer to the next
    cycle_limit : cycles after which a case ends in any case; by default 100 a beat and 100,000 more
    """
    if not isinstance(simulator, Simulator):
        simulator = find_simulator(simulator)
    if not cases:
        return []
    runs: list[dict[str, Any]] = [
        {
            "job": index,
            "stall_seed": seed,
            "idle_limit": idle_limit or 2_000 + 4 * _beats(case),
            "cycle_limit": cycle_limit or 100_000 + 100 * _beats(case),
        }
        for seed in stall_seeds
        for index, case in enumerate(cases)
    ]
    request = {
        "ports": [{**port.to_json(), "index": index} for index, port in enumerate(module.ports)],
        "jobs": [_job_request(module, case) for case in cases],
        "runs": runs,
    }
    answers = simulate(module, request, simulator, "hwgen.simulation.bench")
    if len(answers) != len(runs):
        raise SimulationError(f"{module.name}: {len(answers)} results for {len(runs)} runs")
    return [
        _result(module, cases[entry["job"]], entry["stall_seed"], answer)
        for entry, answer in zip(runs, answers, strict=True)
    ]


def _beats(case: Case) -> int:
    return sum(len(port) for port in (*case.stimulus.values(), *case.expected.values()))


def _job_request(module: VerilogModule, case: Case) -> dict[str, Any]:
    for direction, given in (("in", case.stimulus), ("out", case.expected)):
        wanted = {port.name for port in module.streams(direction)}
        if set(given) != wanted:
            raise ValueError(
                f"{module.name} has the {direction} streams {sorted(wanted)}, not {sorted(given)}"
            )
    wanted = {port.name for port in module.signals}
    if set(case.signals) != wanted:
        raise ValueError(
            f"{module.name} has the inputs {sorted(wanted)}, not {sorted(case.signals)}"
        )
    return {
        "signals": {
            port.name: pack(port, {port.name: case.signals[port.name]}) for port in module.signals
        },
        "inputs": {
            port.name: [f"{pack(port, beat):x}" for beat in case.stimulus[port.name]]
            for port in module.streams("in")
        },
        "outputs": {name: len(beats) for name, beats in case.expected.items()},
    }


def _result(module: VerilogModule, case: Case, stall_seed: int | None, answer: Any) -> JobResult:
    outputs = {
        port.name: [unpack(port, bits) for bits in answer["outputs"][port.name]]
        for port in module.streams("out")
    }
    found = list(answer["errors"])
    for port in module.streams("out"):
        found.extend(mismatches(port, case.expected[port.name], outputs[port.name]))
    return JobResult(
        case.name, stall_seed, outputs, answer["cycles"], answer["simulated_cycles"], found
    )


def simulate(
    module: VerilogModule, request: dict[str, Any], simulator: Simulator, bench: str
) -> list[Any]:
    """Run a cocotb test in a process of its own and return what it wrote.

    Parameters
    ----------
    module : what is simulated
    request : what the test reads, as JSON types; it gets `results`, the file that it must write
    bench : module with the test, which finds the request's file in TRANSCODE_BENCH_REQUEST

    Raises
    ------
    BuildError, SimulationError
        If the simulator refuses the Verilog, or the simulation breaks off.
    """
    built = build(module, simulator)
    with tempfile.TemporaryDirectory(prefix="transcode-") as name:
        folder = Path(name)
        results = folder / "results.json"
        (folder / "request.json").write_text(json.dumps({**request, "results": str(results)}))
        (folder / "settings.json").write_text(
            json.dumps(
                {
                    "simulator": simulator.name,
                    "top": module.name,
                    "bench": bench,
                    "build": str(built),
                    "folder": str(folder),
                    "environment": {
                        "TRANSCODE_BENCH_REQUEST": str(folder / "request.json"),
                        "COCOTB_LOG_LEVEL": "WARNING",
                        # Importing pytest to rewrite assertions takes half the start.
                        "COCOTB_REWRITE_ASSERTION_FILES": "",
                    },
                }
            )
        )
        log = folder / "simulation.log"
        code = _run_worker(folder, log, simulator)
        if code != 0 or not results.is_file():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise SimulationError(
                f"the simulation of {module.name} failed (exit code {code}):\n{tail}"
            )
        answers: list[Any] = json.loads(results.read_text())
        return answers


def _run_worker(folder: Path, log: Path, simulator: Simulator) -> int:
    environment = simulator.process_environment()
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        [root, *filter(None, [environment.get("PYTHONPATH")])]
    )
    # The worker ends when the last of this process has closed the pipe, however that dies.
    alive, held = os.pipe()
    with log.open("w") as file, os.fdopen(held, "w"), os.fdopen(alive) as pipe:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hwgen.simulation.worker"),
                *(str(folder / "settings.json"), str(pipe.fileno())),
            ],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[pipe.fileno()],
        )
        try:
            return process.wait(PROCESS_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SimulationError(
                    f"the simulator was stopped after {PROCESS_SECONDS} s"
                ) from None
            raise
