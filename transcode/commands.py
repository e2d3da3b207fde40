"""The commands: what each takes, what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from transcode.options import Json, Quiet, Seed, TaskName, Technology, app
from transcode.output import console, print_json, print_table, progress_bar


@app.command()
def simulate(
    model: Annotated[str, typer.Argument(help="A name such as bert-tiny, or a JSON file.")],
    accelerators: Annotated[
        list[str], typer.Argument(help="Names such as edge, or YAML files; one or more.")
    ],
    density: Annotated[
        float | None, typer.Option(help="Share of non-zeros of every operand, from 0 to 1.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Measured densities: a trained model's trace.json.")
    ] = None,
    sequence_length: Annotated[int, typer.Option(help="Positions of a sequence.", min=1)] = 128,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences at once; default: the design's.", min=1)
    ] = None,
    technology: Technology = "acceltran-14nm",
    as_json: Json = False,
) -> None:
    """Say what a model costs on one or more accelerators: latency, energy, area.

    Example: transcode simulate bert-tiny edge server --density 0.5 --sequence-length 128
    """
    from hwgen.design import AcceleratorDesign
    from model.space import TransformerDesign
    from model.trace import SparsityTrace
    from sim import Workload, evaluate

    if (density is None) == (trace is None):
        raise ValueError("give either --density or --trace: costs depend on how dense tensors are")
    densities: Any = density if trace is None else SparsityTrace.load(trace)
    workload = Workload(
        TransformerDesign.load(model), sequence_length, densities, batch_size=batch_size
    )
    designs = [AcceleratorDesign.load(accelerator) for accelerator in accelerators]
    report = evaluate(designs, workload, technology=technology)
    if as_json:
        print_json(report.to_dict())
        return
    names = [Path(accelerator).stem for accelerator in accelerators]
    totals = {
        "latency of a batch (cycles)": report.latency_cycles,
        "latency of a batch (ms)": report.latency_seconds * 1e3,
        "energy of a batch (µJ)": report.energy_pj * 1e-6,
        "latency per sequence (cycles)": report.latency_cycles_per_sequence,
        "energy per sequence (µJ)": report.energy_pj_per_sequence * 1e-6,
        "area (mm²)": report.area_um2 * 1e-6,
        "power (mW)": report.power_mw,
    }
    print_table(
        f"{model}, {sequence_length} positions, {technology}",
        ["", *names],
        [[name, *(float(value) for value in values)] for name, values in totals.items()],
    )
    for quantity, unit, scale in (("latency", "cycles", 1.0), ("energy", "µJ", 1e-6)):
        parts = report.breakdown(quantity, by="component")
        print_table(
            f"{quantity} of a batch by component ({unit})",
            ["", *names],
            [[part, *(float(value) * scale for value in values)] for part, values in parts.items()],
        )
    unproven = [name for name, proven in report.proven.items() if not proven.all()]
    console.print(f"cycles not yet proven in RTL: {', '.join(unproven) or 'none'}", highlight=False)
    console.print(f"not priced: {', '.join(report.not_priced) or 'nothing'}", highlight=False)


@app.command()
def search(
    out: Annotated[Path, typer.Option(help="Folder of the run; an earlier run goes on there.")],
    task: TaskName = "movie-sentences",
    space: Annotated[str, typer.Option(help="A name such as demo, or a YAML file.")] = "demo",
    evaluations: Annotated[int, typer.Option(help="Pairs to evaluate.", min=1)] = 60,
    seed: Seed = 1,
    technology: Technology = "acceltran-14nm",
    sequence_length: Annotated[
        int | None, typer.Option(help="Positions that are costed; default: the task's.", min=1)
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="A constraint, such as area_um2<=6e7 or accuracy>=0.75; may come several times."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train; default: one a core.", min=1)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time budget; lowers fidelity, never a check.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Search pairs of a transformer and an accelerator with NSGA-II.

    Example: transcode search --space demo --evaluations 60 --seed 1 --out runs/first
    """
    from search import CoDesign
    from transcode.front import print_front

    problem = CoDesign(
        task=task,
        space=space,
        seed=seed,
        technology=technology,
        sequence_length=sequence_length,
        constraints=_limits(limit or []),
    )
    with progress_bar(not quiet) as progress:
        run = problem.run(
            out,
            evaluations=evaluations,
            workers=workers,
            time_budget=None if minutes is None else minutes * 60,
            progress=progress,
        )
    print_front(run)
    console.print(f"next: transcode generate {out} --pick knee --out build/knee", highlight=False)


@app.command()
def generate(
    source: Annotated[
        str, typer.Argument(help="A run's folder (with --pick), or an accelerator: name or file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; a new or an earlier one.")],
    pick: Annotated[
        str | None,
        typer.Option(help='A member of the front: "knee", "accuracy", "latency", … or its id.'),
    ] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Write the Verilog of a design's units, a manifest, and jobs that prove it.

    Of a design of one PE, also the whole accelerator, with programs that prove it.

    With --pick the jobs are recorded from the chosen pair's trained model, with the cycles that
    ELECTOR predicts; otherwise they are drawn at random from the seed.

    Example: transcode generate runs/first --pick knee --out build/knee
    """
    from hwgen.design import AcceleratorDesign
    from hwgen.emit import generate as emit
    from sim.machine_jobs import random_jobs
    from transcode.front import is_run, pair_of

    with progress_bar(not quiet) as progress:
        if is_run(source):
            if pick is None:
                raise ValueError(f"{source} is a search run: choose a member with --pick knee")
            pair = pair_of(source, pick)
            progress(0.1, "recording jobs from the trained model")
            jobs = pair.jobs()
            progress(0.6, "writing Verilog")
            emit(pair.accelerator, out, jobs=jobs)
        elif pick is not None:
            raise ValueError(f"--pick chooses from a search run, and {source} is none")
        else:
            progress(0.1, "writing Verilog")
            design = AcceleratorDesign.load(source)
            programs = random_jobs(design, seed) if design.pes == 1 else ()
            emit(design, out, seed=seed, programs=programs)
        progress(1.0, "done")
    console.print(f"{out}: Verilog, manifest.json, jobs", highlight=False)
    console.print(f"next: transcode verify {out}", highlight=False)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A folder that generate wrote.")],
    simulator: Annotated[
        str | None, typer.Option(help='"verilator" or "icarus"; default: what is there.')
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate the Verilog in a folder: results bit for bit, cycles one by one.

    The exit code is 0 only if every result and every cycle count agrees.

    Example: transcode verify build/knee
    """
    from hwgen.simulation import verify as run_verification
    from transcode.front import print_verdict

    report = run_verification(path, simulator=simulator)
    if as_json:
        print_json(report.to_json())
    else:
        print_verdict(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A search run's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default: report.html in the run's folder.")
    ] = None,
    final: Annotated[
        bool,
        typer.Option("--final", help="Open the test split, once; at most 12 members."),
    ] = False,
    seeds: Annotated[
        int, typer.Option(help="New seeds that --final trains each member with.", min=3)
    ] = 3,
    quiet: Quiet = False,
) -> None:
    """Write a run's report: the front, its designs, their costs and accuracies.

    Example: transcode report runs/first
    """
    from search import Run
    from search.report import write_report

    with progress_bar(not quiet) as progress:
        written = write_report(Run.load(run), out, final=final, seeds=seeds, progress=progress)
    console.print(f"report: {written}", highlight=False)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run; an earlier one goes on.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[
        float, typer.Option(help="Time budget of the search; lowers fidelity, never a check.")
    ] = 12.0,
    seed: Seed = 1,
    simulator: Annotated[
        str | None, typer.Option(help='"verilator" or "icarus"; default: what is there.')
    ] = None,
) -> None:
    """The main job: search, then generate, verify and report the knee of the front."""
    from transcode.demo import run_demo

    if not run_demo(out, minutes, seed, simulator):
        raise typer.Exit(1)


def _limits(texts: list[str]) -> dict[str, float]:
    """Read constraints such as area_um2<=6e7 and accuracy>=0.75."""
    limits = {}
    for text in texts:
        name, separator, value = text.partition(">=" if ">=" in text else "<=")
        name = name.strip()
        wanted = ">=" if name == "accuracy" else "<="
        try:
            limits[name] = float(value)
        except ValueError:
            separator = ""
        if separator != wanted:
            example = "accuracy>=0.75" if name == "accuracy" else "area_um2<=6e7"
            raise ValueError(f"a limit on {name or 'a cost'} is written {example}, not {text!r}")
    return limits
