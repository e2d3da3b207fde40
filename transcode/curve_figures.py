"""The figures of accuracy against sparsity, and of densities over a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from model.operations import GemmRole
from model.sweep import SweepPoint
from model.trained import TrainedModel
from transcode.trainings import Group, Panel, Spread, sparsity

COLOURS = {
    "DynaProp": "#0072b2",
    "top-k of rows": "#d55e00",
    "top-k of tensors": "#aa4499",
    "one τ": "#009e73",
}
SWEPT = {
    "threshold": ("DynaProp", "DynaProp, after training", "circle"),
    "one_threshold": ("one τ", "one τ for all places, after training", "diamond"),
    "top_k_row": ("top-k of rows", "top-k of rows, after training", "square"),
}
SYMBOLS = {"DynaProp": "circle", "top-k of rows": "square", "top-k of tensors": "triangle-up"}
GREY = "#555c66"
LAYERS = ("#440154", "#3b528b", "#21918c", "#35b779", "#a6d02a", "#e8a317")
"""Colours of layers, first to last; between them others are mixed."""

ROLES = {
    GemmRole.OUTPUT: "OUTPUT: what is stored",
    GemmRole.GRAD_OUTPUT: "GRAD_OUTPUT: gradients that enter products",
    GemmRole.INPUT: "INPUT: what products with weights read",
    GemmRole.WEIGHT: "WEIGHT: weights of products",
    GemmRole.LEFT: "LEFT: left operand in attention",
    GemmRole.RIGHT: "RIGHT: right operand in attention",
}
LAST, INFERENCE = 100.0, 112.0
"""Where the last steps and inference stand on the axis of a training, in %."""

Sweeps = Mapping[str, Sequence[Sequence[SweepPoint]]]
"""Sweeps of a panel's models, one a seed, by the panel's name."""


def accuracy_figure(panels: Sequence[Panel], role: GemmRole, sweeps: Sweeps) -> go.Figure:
    """Accuracy against measured sparsity of activations (OUTPUT) or gradients (GRAD_OUTPUT).

    A panel a design and recipe; lines join trainings that differ in their target, from the dense
    one on, and the points of a sweep.
    """
    kind = "gradients" if role is GemmRole.GRAD_OUTPUT else "activations"
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[_title(panel) for panel in panels],
        horizontal_spacing=0.09,
        vertical_spacing=0.13 if rows > 1 else 0,
    )
    shown: set[str] = set()
    for number, panel in enumerate(panels):
        at = {"row": number // columns + 1, "col": number % columns + 1}
        made = [*_training_traces(panel, role, kind)]
        if role is GemmRole.OUTPUT and (swept := sweeps.get(panel.name)):
            made = [*_sweep_traces(panel, swept), *made]
        for trace in made:
            group = trace.legendgroup
            trace.showlegend = trace.showlegend is not False and group not in shown
            shown |= {group} if trace.showlegend else set()
            figure.add_trace(trace, **at)
        if (dense := panel.dense) is not None:
            mean = 100 * dense.accuracy.mean
            figure.add_hline(mean, line={"color": GREY, "width": 1, "dash": "dot"}, **at)
        figure.update_xaxes(title_text=f"zeros in {kind}, % (measured)", range=[-3, 103], **at)
    figure.update_yaxes(title_text="validation accuracy, %", automargin=True)
    figure.update_layout(
        template="plotly_white",
        height=150 + 430 * rows,
        margin={"l": 70, "r": 20, "t": 50, "b": 150},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
        hovermode="closest",
    )
    return figure


def _title(panel: Panel) -> str:
    counts = sorted({len(group.models) for group in panel.groups})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    n = panel.groups[0].models[0].validation_n
    return f"<b>{panel.name}</b>, n = {n:,}, {seeds} seed{'s' * (seeds != '1')}"


def _training_traces(panel: Panel, role: GemmRole, kind: str) -> list[go.Scatter]:
    """Lines of means with deviations, and a faint mark a training."""
    lines: dict[tuple[str, bool], list[Group]] = {}
    for group in panel.groups:
        if kind in group.pruned:
            lines.setdefault((group.method, group.pruned == kind), []).append(group)
    made = []
    for (method, alone), groups in lines.items():
        other = "gradients" if kind == "activations" else "activations"
        name = f"{method}, trained{'' if alone else f', {other} too'}"
        joined = sorted(groups, key=lambda group: group.sparsity(role).mean)
        if panel.dense is not None:
            joined = [panel.dense, *joined]
        symbol = SYMBOLS[method] + ("" if alone else "-open")
        made.append(_means(name, joined, role, symbol, COLOURS[method], alone))
        made += [_seeds(group, role, symbol, COLOURS[method], name) for group in groups]
    if panel.dense is not None:
        made.append(_means("dense", [panel.dense], role, "star", GREY, True))
        made.append(_seeds(panel.dense, role, "star", GREY, "dense"))
    return made


def _means(
    name: str, groups: Sequence[Group], role: GemmRole, symbol: str, colour: str, alone: bool
) -> go.Scatter:
    across = [group.sparsity(role) for group in groups]
    up = [group.accuracy for group in groups]
    return go.Scatter(
        name=name,
        legendgroup=name,
        mode="lines+markers",
        x=[100 * spread.mean for spread in across],
        y=[100 * spread.mean for spread in up],
        error_x=_bars(across, colour),
        error_y=_bars(up, colour),
        line={"color": colour, "width": 2, "dash": "solid" if alone else "dash"},
        marker={
            "color": colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": colour}
        },
        text=[_text(group) for group in groups],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _bars(spreads: Sequence[Spread], colour: str) -> dict[str, Any]:
    deviations = [100 * spread.deviation for spread in spreads]
    return {"type": "data", "array": deviations, "color": colour, "thickness": 1.2, "width": 4}


def _text(group: Group) -> str:
    seeds = ", ".join(str(model.seed) for model in group.models)
    n = group.models[0].validation_n
    lines = [
        f"<b>{group.name}</b>",
        f"accuracy {percent(group.accuracy)} %, n = {n:,}, seeds {seeds}",
        f"zeros in activations {percent(group.sparsity(GemmRole.OUTPUT))} %",
        f"zeros in gradients {percent(group.sparsity(GemmRole.GRAD_OUTPUT))} %",
        *(str(model.path) for model in group.models),
    ]
    return "<br>".join(lines)


def percent(spread: Spread) -> str:
    """Mean and deviation in %, without the sign."""
    return f"{100 * spread.mean:.2f} ± {100 * spread.deviation:.2f}"


def _seeds(group: Group, role: GemmRole, symbol: str, colour: str, name: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=False,
        mode="markers",
        x=[100 * sparsity(model, role) for model in group.models],
        y=[100 * model.validation_accuracy for model in group.models],
        marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.35},
        text=[
            f"{model.path}<br>{group.name}, seed {model.seed}<br>"
            f"accuracy {model.validation_accuracy:.2%}, n = {model.validation_n:,}"
            for model in group.models
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def _sweep_traces(panel: Panel, sweeps: Sequence[Sequence[SweepPoint]]) -> list[go.Scatter]:
    """Lines of the means over seeds of what was asked of the same trained models."""
    folders = "<br>".join(str(model.path) for model in panel.least_pruned.models)
    made = []
    for method, (colour, name, symbol) in SWEPT.items():
        columns = [
            points
            for points in zip(*sweeps, strict=True)
            if points[0].method == method
        ]  # fmt: skip
        across = [Spread.of([point.sparsity for point in points]) for points in columns]
        up = [Spread.of([point.accuracy for point in points]) for points in columns]
        asked = [
            f"τ = {points[0].asked:g}"
            if method == "one_threshold"
            else f"{points[0].asked:.0%} zero at each place"
            for points in columns
        ]
        made.append(
            go.Scatter(
                name=name,
                legendgroup=name,
                mode="lines+markers",
                x=[100 * spread.mean for spread in across],
                y=[100 * spread.mean for spread in up],
                error_y=_bars(up, COLOURS[colour]),
                line={"color": COLOURS[colour], "width": 1.5, "dash": "dot"},
                marker={"color": COLOURS[colour], "symbol": f"{symbol}-open", "size": 6},
                text=[
                    f"<b>{name}, {what}</b><br>accuracy {percent(y)} %<br>"
                    f"zeros in activations {percent(x)} %<br>{folders}"
                    for what, x, y in zip(asked, across, up, strict=True)
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    return made


def density_figure(panels: Sequence[Panel]) -> go.Figure:
    """Densities over a training and at inference: a panel a role, a line a layer, means over seeds.

    One group of trainings is shown, at first the one whose pruning takes most roles; a list chooses
    which.
    """
    figure = make_subplots(
        3, 2, subplot_titles=list(ROLES.values()), horizontal_spacing=0.08, vertical_spacing=0.1
    )
    choices: list[tuple[str, int]] = []
    named = [(panel.name, group) for panel in panels for group in panel.groups]
    first = max(range(len(named)), key=lambda number: len(named[number][1].pruned))
    for number, (name, group) in enumerate(named):
        traces = _density_traces(group)
        seeds = f"{len(group.models)} seed{'s' * (len(group.models) > 1)}"
        choices.append((f"{name}, {group.name} ({seeds})", len(traces)))
        for place, trace in traces:
            trace.visible = number == first
            figure.add_trace(trace, row=place // 2 + 1, col=place % 2 + 1)
    ticks = {"tickvals": [0, 25, 50, 75, LAST, INFERENCE],
             "ticktext": ["0", "25", "50", "75", "100", "inference"]}  # fmt: skip
    figure.update_xaxes(range=[-3, INFERENCE + 5], tickangle=0, **ticks)
    figure.update_xaxes(title_text="share of the training, %", row=3)
    figure.update_yaxes(range=[-0.03, 1.05], title_text="density")
    figure.update_layout(
        template="plotly_white",
        height=1050,
        margin={"l": 60, "r": 20, "t": 110, "b": 60},
        hovermode="closest",
        updatemenus=[_menu(choices, first)],
    )
    return figure


def _menu(choices: Sequence[tuple[str, int]], first: int) -> dict[str, Any]:
    total = sum(count for _, count in choices)
    buttons, begin = [], 0
    for label, count in choices:
        visible = [begin <= number < begin + count for number in range(total)]
        buttons.append({"label": label, "method": "restyle", "args": [{"visible": visible}]})
        begin += count
    place = {"x": 0, "xanchor": "left", "y": 1.1, "yanchor": "top"}
    return {"buttons": buttons, "active": first, **place}


def _density_traces(group: Group) -> list[tuple[int, go.Scatter]]:
    """Lines by layer with the number of the role's panel."""
    made = []
    for place, role in enumerate(ROLES):
        by_layer: dict[int | None, dict[float, list[float]]] = {}
        for model in group.models:
            for share, trace in stages(model).items():
                for layer, density in trace.by_layer(role).items():
                    by_layer.setdefault(layer, {}).setdefault(share, []).append(density)
        for layer in sorted(by_layer, key=lambda number: -1 if number is None else number):
            points = {share: Spread.of(found) for share, found in by_layer[layer].items()}
            made.append((place, _density_line(group, layer, points, showlegend=place == 0)))
    return made


def stages(model: TrainedModel) -> dict[float, Any]:
    """Traces by their place on the axis: stages in %, the last steps, inference."""
    early = {100 * share: trace for share, trace in model.stages.items()}
    return {**early, LAST: model.gradients, INFERENCE: model.trace}


def _density_line(
    group: Group, layer: int | None, points: Mapping[float, Spread], showlegend: bool
) -> go.Scatter:
    name = "outside" if layer is None else f"layer {layer}"
    count = len(group.models[0].design.layers)
    colour = GREY if layer is None else layer_colour(layer, count)
    shares = sorted(points)
    broken = [share for share in shares if share <= LAST]
    x: list[float | None] = [*broken, *([None] if broken else []), *shares[len(broken) :]]
    spreads = [None if share is None else points[share] for share in x]
    return go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=showlegend,
        mode="lines+markers",
        x=x,
        y=[None if spread is None else spread.mean for spread in spreads],
        error_y={
            "type": "data",
            "array": [0 if spread is None else spread.deviation for spread in spreads],
            "color": colour, "thickness": 1, "width": 3,
        },
        line={"color": colour, "width": 2, "dash": "dot" if layer is None else "solid"},
        marker={"size": 6},
        hovertemplate=f"{name}: density %{{y:.3f}}<extra>{group.name}</extra>",
    )  # fmt: skip


def layer_colour(layer: int, count: int) -> str:
    """Colour of a layer, mixed from `LAYERS` by its depth."""
    from plotly.colors import sample_colorscale

    depth = layer / max(count - 1, 1)
    scale = [[number / (len(LAYERS) - 1), colour] for number, colour in enumerate(LAYERS)]
    return str(sample_colorscale(scale, [depth])[0])
