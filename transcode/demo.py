"""The main job from end to end, as `transcode demo` and `make demo` run it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hwgen.emit import generate
from hwgen.simulation import verify
from search import CoDesign
from search.report import write_report
from transcode.front import print_front, print_verdict
from transcode.output import console, progress_bar

EVALUATIONS = 60
"""Pairs that the search evaluates, at least."""


def run_demo(out: Path, minutes: float, seed: int, simulator: str | None) -> bool:
    """Search, generate, verify and report the knee; whether the verification agreed."""
    started = time.monotonic()
    say = console.print
    say(f"1/4  searching pairs for movie-sentences in {out} ({os.cpu_count()} cores)")
    with progress_bar() as progress:
        run = CoDesign(task="movie-sentences", space="demo", seed=seed).run(
            out, evaluations=EVALUATIONS, time_budget=minutes * 60, progress=progress
        )
    knee = run.pick("knee")
    verilog = out / "knee"
    say(f"2/4  writing the Verilog of the knee, {knee.id}, with jobs from its trained model")
    generate(knee.accelerator, verilog, jobs=knee.jobs())
    say("3/4  simulating that Verilog")
    verdict = verify(verilog, simulator=simulator)
    say("4/4  writing the report")
    report = write_report(run)
    in_hardware = knee.hardware_accuracy()
    print_front(run)
    say(f"knee      {knee.id}: {knee.model_summary} on {knee.accelerator_summary}", highlight=False)
    say(
        f"accuracy  {knee.accuracy:.2%} in float, {in_hardware:.2%} in the accelerator's "
        f"arithmetic (validation, n = {knee.examples})",
        highlight=False,
    )
    say(f"Verilog   {verilog / 'verilog'}", highlight=False)
    say(f"report    {report}", highlight=False)
    print_verdict(verdict)
    say(f"took {(time.monotonic() - started) / 60:.1f} minutes", highlight=False)
    return bool(verdict.ok)
