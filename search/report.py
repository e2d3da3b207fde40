"""The report of a search: one HTML file that needs no network."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hwgen.design import DesignBatch
from search.evaluator import ElectorEvaluator
from search.final import FinalResult, open_test_split, read_final
from search.objectives import LIMITS, OBJECTIVES, Scale, minimised
from search.problem import Evaluator, software_version
from search.run import Pair, Run
from search.space import Codec
from search.training import Trainer

REPORT = "report.html"

PARTS = 10
"""Parts of a breakdown that are shown by name; the rest is added up."""

UNITS = {"kib": "KiB", "mhz": "MHz", "mw": "mW", "cycles": "cycles"}
"""Units at the end of fields' names."""

BREAKDOWNS = (
    ("latency", "operation", "Latency of a batch by operation, cycles"),
    ("latency", "component", "Latency of a batch by what it waited for, cycles"),
    ("energy", "operation", "Energy of a batch by operation, µJ"),
    ("energy", "component", "Energy of a batch by component, µJ"),
    ("area", "component", "Area by component, mm²"),
)


def write_report(
    run: Run,
    path: str | Path | None = None,
    final: bool = False,
    seeds: int = 3,
    workers: int | None = None,
    trainer: Trainer | None = None,
    evaluator: Evaluator | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run : finished or not
    path : file to write; report.html in the run's folder where None
    final : open the test split, once, for the members that contribute most hypervolume; a later
        report shows what was found then, with or without `final`
    seeds : new seeds to train each of these members' models with before; 0 tests them as they are
    workers, trainer : what trains for the final report
    evaluator : what breakdowns are taken from; ELECTOR with the run's settings where None
    progress : called with the share that is done, 0 to 1, and what is being done

    Returns
    -------
    Path of the file.

    Raises
    ------
    ValueError
        If the front is empty, or the test split was opened before with other seeds.
    """
    if not len(run.front):
        raise ValueError(
            f"{run.path}: the front is empty, since the search has trained no model to the end "
            "yet; go on with the search first"
        )
    config = run.config
    if evaluator is None:
        evaluator = ElectorEvaluator(
            config["technology"], config["sequence_length"], config["mode"]
        )
    tell = progress or (lambda share, message: None)
    opened: FinalResult | None
    if final:
        opened = open_test_split(run, seeds, workers, trainer, lambda s, m: tell(0.9 * s, m))
    else:
        opened = read_final(run)
    tell(0.9, "breaking the front's costs down")
    target = Path(path) if path is not None else run.path / REPORT
    text = _render(run, evaluator, opened)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    tell(1.0, "done")
    return target


def _render(run: Run, evaluator: Evaluator, opened: FinalResult | None) -> str:
    from plotly.offline import get_plotlyjs

    picks = run.front.picks()
    reports = [
        evaluator.report(DesignBatch.of([pair.accelerator]), pair.model, pair.path)
        for pair in run.front
    ]
    curves, rungs = _hypervolumes(run)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("search").joinpath("templates", "report.html").read_text(encoding="utf-8")
    )
    data = {
        "members": [_point(pair, picks) for pair in run.front],
        "models": _models(run),
        "hypervolume": curves,
    }
    config = run.config
    return template.render(
        task=config["task"],
        config=config,
        space_size=_large(Codec(run.space, config["labels"]).size),
        constraints=[f"{name} {LIMITS[name]} {v:g}" for name, v in config["constraints"].items()],
        finished=run.finished,
        notes=run.notes,
        counts=[(name.replace("_", " "), f"{value:,}") for name, value in run.counts.items()],
        examples=f"{run.front[0].examples:,}",
        members=[
            _member(pair, picks, report) for pair, report in zip(run.front, reports, strict=True)
        ],
        final=None if opened is None else _final(opened, run),
        rungs=rungs,
        not_priced=sorted({name for report in reports for name in report.not_priced}),
        version=software_version(),
        data=Markup(_script_json(data)),  # noqa: S704 - "<" is escaped
        plotly=Markup(get_plotlyjs()),  # noqa: S704
    )


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _large(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.2e}"


def _models(run: Run) -> list[dict[str, str]]:
    """Models of the front, the most accurate first."""
    names = {pair.training.model: pair for pair in run.front}
    return [
        {"key": key, "name": f"{key[:6]}, {len(pair.model.layers)} layers, {pair.accuracy:.1%}"}
        for key, pair in names.items()
    ]


def _point(pair: Pair, picks: Mapping[str, list[str]]) -> dict[str, Any]:
    m = pair.measured
    lines = [
        f"<b>{pair.id}</b>",
        f"accuracy {m.accuracy:.2%} ({pair.interval[0]:.1%} to {pair.interval[1]:.1%}, "
        f"n = {pair.examples:,})",
        f"{m.latency_cycles_per_sequence:,.0f} cycles, "
        f"{m.energy_pj_per_sequence * 1e-6:,.4g} µJ a sequence",
        f"{m.area_um2 * 1e-6:,.4g} mm², {m.power_mw:,.0f} mW",
        pair.model_summary,
        pair.accelerator_summary,
    ]
    return {
        "id": pair.id,
        "model": pair.training.model,
        "accuracy": 100 * m.accuracy,
        "low": 100 * pair.interval[0],
        "high": 100 * pair.interval[1],
        "latency": m.latency_cycles_per_sequence,
        "energy": m.energy_pj_per_sequence * 1e-6,
        "area": m.area_um2 * 1e-6,
        "knee": "knee" in picks.get(pair.id, []),
        "text": "<br>".join(lines),
    }


def _member(pair: Pair, picks: Mapping[str, list[str]], report: Any) -> dict[str, Any]:
    m = pair.measured
    model, accelerator = pair.short()
    training = {
        "validation accuracy": f"{pair.accuracy:.2%}, n = {pair.examples:,}",
        "95 % interval": _interval(pair),
        "τ_I, τ_T": f"{pair.activation_threshold:g}, {pair.gradient_threshold:g}",
        "epochs": f"{pair.training.epochs:g} (rung {pair.training.rung})",
        "seed": pair.training.seed,
        "non-linearity": pair.model.activation,
        "trace": pair.training.trace_hash,
        "folder": pair.training.folder,
    }
    if pair.tied_with:
        training["does not separate from"] = f"{pair.tied_with}, which is cheaper"
    fields = pair.accelerator.model_dump(mode="json")
    memory = fields.pop("memory")
    fields |= {f"memory_{name}": value for name, value in memory.items()}
    return {
        "id": pair.id,
        "picks": picks.get(pair.id, []),
        "tied": pair.tied_with is not None,
        "accuracy": f"{pair.accuracy:.2%}",
        "interval": _interval(pair),
        "cycles": f"{m.latency_cycles_per_sequence:,.0f}",
        "energy": f"{m.energy_pj_per_sequence * 1e-6:,.4g}",
        "area": f"{m.area_um2 * 1e-6:,.4g}",
        "power": f"{m.power_mw:,.0f}",
        "model": model,
        "accelerator": accelerator,
        "layers": [
            {
                "hidden": layer.hidden,
                "heads": ", ".join(
                    f"{layer.heads.count(name)} × {name} of {layer.head_size}"
                    for name in dict.fromkeys(layer.heads)
                ),
                "feed_forward": ", ".join(map(str, layer.feed_forward)),
            }
            for layer in pair.model.layers
        ],
        "training": list(training.items()),
        "densities": [(name, f"{value:.4f}") for name, value in sorted(pair.densities.items())],
        "fields": [(_label(name), _value(value)) for name, value in fields.items()],
        "breakdowns": [_breakdown(report, *which) for which in BREAKDOWNS],
    }


def _label(name: str) -> str:
    """A field's name in words, its unit behind a comma."""
    words, _, unit = name.rpartition("_")
    if unit in UNITS and words:
        return f"{words.replace('_', ' ')}, {UNITS[unit]}"
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "unknown"
    return f"{value:,g}" if isinstance(value, float) else str(value)


def _interval(pair: Pair) -> str:
    return f"{pair.interval[0]:.1%} to {pair.interval[1]:.1%}"


def _breakdown(report: Any, quantity: str, by: str, title: str) -> dict[str, Any]:
    scale = 1.0 if quantity == "latency" else 1e-6
    table = {name: float(v[0]) * scale for name, v in report.breakdown(quantity, by).items()}
    total = sum(table.values())
    ordered = sorted(((n, v) for n, v in table.items() if v > 0), key=lambda item: -item[1])
    shown = ordered[:PARTS]
    if rest := sum(value for _, value in ordered[PARTS:]):
        shown = [*shown, (f"{len(ordered) - PARTS} more", rest)]
    unproven = {name for name, proven in report.proven.items() if not np.all(proven)}
    largest = max((value for _, value in shown), default=1.0)
    parts = [
        {
            "name": name.replace("_", " "),
            "value": f"{value:,.0f}" if quantity == "latency" else f"{value:,.4g}",
            "percent": f"{value / total:.1%}",
            "width": f"{100 * value / largest:.1f}",
            "unproven": quantity == "latency" and by == "operation" and name in unproven,
        }
        for name, value in shown
    ]
    total_text = f"{total:,.0f}" if quantity == "latency" else f"{total:,.4g}"
    return {"title": f"{title}: {total_text}", "parts": parts}


def _hypervolumes(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A curve and a line of a table for each rung."""
    stored = run.archive.fact("hypervolume_scales") or {}
    curves, lines = [], []
    for rung, epochs in enumerate(run.space.rung_epochs):
        trainings = [t for t in run.archive.trainings(rung) if t.ok]
        found = [e for e in run.archive.evaluations(rung) if e.measured is not None]
        if not found:
            continue
        points = minimised([e.measured for e in found if e.measured is not None])
        kept = stored.get(str(rung))
        scale = Scale(**kept) if kept else Scale.of(points)
        x, y = hypervolume_curve([e.position + 1 for e in found], points, scale)
        actual = trainings[0].epochs if trainings else epochs
        top = rung == run.top_rung
        name = f"rung {rung}{' (top)' if top else ''}, {actual:g} epochs"
        curves.append({"name": name, "x": x, "y": y})
        lines.append(
            {
                "rung": f"{rung}{' (top)' if top else ''}",
                "epochs": f"{actual:g}",
                "models": len(trainings),
                "pairs": f"{len(found):,}",
                "hypervolume": f"{y[-1]:.4f}",
                "scale": f"{_vector(scale.ideal)} and {_vector(scale.nadir)}; {scale.reference}",
            }
        )
    return curves, lines


def _vector(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def hypervolume_curve(
    positions: list[int], points: np.ndarray, scale: Scale
) -> tuple[list[int], list[float]]:
    """Hypervolume after each evaluation that raised it, and after the last.

    Parameters
    ----------
    positions : number of each evaluation in the run, rising
    points : objectives of each, shape (evaluations, objectives)
    scale : ideal, nadir and reference point
    """
    best = np.empty((0, len(OBJECTIVES)))
    x: list[int] = []
    y: list[float] = []
    for position, point in zip(positions, points, strict=True):
        if not (best <= point).all(axis=1).any():
            best = np.concatenate([best[(point > best).any(axis=1)], point[None]])
            volume = scale.hypervolume(best)
            if not y or volume > y[-1] + 1e-12:
                x.append(position)
                y.append(volume)
    if x and x[-1] != positions[-1]:
        x.append(positions[-1])
        y.append(y[-1])
    return x, y


def _final(opened: FinalResult, run: Run) -> dict[str, Any]:
    validation = {pair.training.model: pair.accuracy for pair in run.front}
    lines = []
    for model, found in opened.accuracies.items():
        mean = math.fsum(found) / len(found)
        low, high = opened.interval(mean)
        lines.append(
            {
                "model": model[:6],
                "mean": f"{mean:.2%}",
                "interval": f"{low:.1%} to {high:.1%}",
                "each": ", ".join(f"{accuracy:.2%}" for accuracy in found),
                "validation": f"{validation[model]:.2%}" if model in validation else "",
            }
        )
    return {
        "when": opened.when,
        "members": len(opened.members),
        "seeds": opened.seeds,
        "examples": f"{opened.examples:,}",
        "models": lines,
    }
