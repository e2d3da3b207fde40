"""A page of finished trainings: accuracy against sparsity, densities over training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from model.operations import GemmRole
from model.sweep import SweepPoint, sweep
from search.problem import software_version
from transcode.curve_figures import accuracy_figure, density_figure, percent
from transcode.trainings import Group, Panel, find, panels

TEXTS = {
    "activations": (
        "Accuracy against sparsity of activations",
        "Solid and dashed lines join models that were trained with the pruning in place; dotted "
        "lines prune the least sparse of them after training, at the same places: by a profiled "
        "threshold a place (DynaProp), by one τ for all, and by top-k of rows. The grey line is "
        "dense training.",
    ),
    "gradients": (
        "Accuracy against sparsity of gradients",
        "Dense training has zeros of its own: the classifier reads the first position, so that in "
        "the last layer the others have gradients of keys and values alone.",
    ),
    "densities": (
        "Densities over training, by role and layer",
        "Densities of a few training steps from each stage on, of the last steps, and of inference "
        "on the validation split; means over seeds, bars one standard deviation. Outside are "
        "embedding, pooler and classifier.",
    ),
}


def write_curves(
    folders: Sequence[Path],
    out: Path,
    swept: bool = True,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Write the page of some finished trainings of one task; one HTML file, without a network.

    Parameters
    ----------
    folders : of trained models, or above them
    out : the file to write
    swept : whether the least sparse models of each design are also pruned without retraining
    progress : called with the share that is done, 0 to 1, and what is being done

    Returns
    -------
    What is drawn, as plain data: groups with their means, and the points of each sweep.

    Raises
    ------
    ValueError
        A folder holds no trained model, or they do not belong on one page.
    """
    tell = progress or (lambda share, message: None)
    tell(0.0, "reading the trainings")
    found = panels(find(folders))
    sweeps = _sweeps(found, tell) if swept else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_render(found, sweeps), encoding="utf-8")
    tell(1.0, "done")
    return {
        "page": str(out),
        "task": found[0].groups[0].models[0].inputs["task"]["name"],
        "n": found[0].groups[0].models[0].validation_n,
        "groups": [_plain(panel, group) for panel in found for group in panel.groups],
        "sweeps": {
            name: [[vars(point) for point in points] for points in of_panel]
            for name, of_panel in sweeps.items()
        },
    }


def _sweeps(
    found: Sequence[Panel], tell: Callable[[float, str], None]
) -> dict[str, list[tuple[SweepPoint, ...]]]:
    models = [(panel.name, model) for panel in found for model in panel.least_pruned.models]
    made: dict[str, list[tuple[SweepPoint, ...]]] = {}
    for number, (name, model) in enumerate(models):

        def part(share: float, number: int = number, path: Path = model.path) -> None:
            tell((number + share) / len(models), f"pruning {path} without retraining")

        made.setdefault(name, []).append(sweep(model, progress=part))
    return made


def _render(found: Sequence[Panel], sweeps: dict[str, list[tuple[SweepPoint, ...]]]) -> str:
    from plotly.io import to_json
    from plotly.offline import get_plotlyjs

    figures = {
        "activations": accuracy_figure(found, GemmRole.OUTPUT, sweeps),
        "gradients": accuracy_figure(found, GemmRole.GRAD_OUTPUT, {}),
        "densities": density_figure(found),
    }
    data = ", ".join(f'"{name}": {to_json(figure)}' for name, figure in figures.items())
    for character, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        data = data.replace(character, escaped)
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = files("transcode").joinpath("templates", "curves.html").read_text(encoding="utf-8")
    first = found[0].groups[0].models[0]
    return template.from_string(page).render(
        task=first.inputs["task"]["name"],
        n=f"{first.validation_n:,}",
        figures=[
            {"name": name, "title": title, "text": text} for name, (title, text) in TEXTS.items()
        ],
        rows=[_row(panel, group) for panel in found for group in panel.groups],
        version=software_version(),
        data=Markup(f"{{{data}}}"),  # noqa: S704 - "<" is escaped
        plotly=Markup(get_plotlyjs()),  # noqa: S704
    )


def _row(panel: Panel, group: Group) -> dict[str, Any]:
    off = group.policy.gradients_off if "gradients" in group.pruned else ()
    return {
        "panel": panel.name,
        "name": group.name,
        "seeds": ", ".join(str(model.seed) for model in group.models),
        "accuracy": percent(group.accuracy),
        "activations": percent(group.sparsity(GemmRole.OUTPUT)),
        "gradients": percent(group.sparsity(GemmRole.GRAD_OUTPUT)),
        "off": ", ".join(off),
        "folders": [str(model.path) for model in group.models],
    }


def _plain(panel: Panel, group: Group) -> dict[str, Any]:
    """A group for programs: shares, not percents."""
    return {
        "model": panel.name,
        "pruning": group.name,
        "pruned": group.pruned,
        "seeds": [model.seed for model in group.models],
        "folders": [str(model.path) for model in group.models],
        "accuracy": vars(group.accuracy),
        "activation_sparsity": vars(group.sparsity(GemmRole.OUTPUT)),
        "gradient_sparsity": vars(group.sparsity(GemmRole.GRAD_OUTPUT)),
    }
