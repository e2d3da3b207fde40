"""Speed-up against window, as an SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hwgen.datasheet.figures import COLOURS, MARKERS, STYLE


def speed_up_picture(found: Mapping[str, Any]) -> str:
    """Draw speed-ups by window, a panel for each pair of densities.

    Solid: all layers together; dotted: the worst of the products that targets are for.

    Parameters
    ----------
    found : what benchmarks/pe.py reports
    """
    designs = [one for one in found["designs"] if not one["fifo_doubled"]]
    segments = sorted({one["k_segment"] for one in designs})
    names = list(found["limits"]["speed_up"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
        axes = figure.subplots(1, len(names), squeeze=False)[0]
        for axis, name in zip(axes, names, strict=True):
            for segment, colour, marker in zip(segments, COLOURS, MARKERS, strict=False):
                chosen = [one for one in designs if one["k_segment"] == segment]
                windows = [math.log2(one["window"]) for one in chosen]
                axis.plot(windows, [one["layers_speed_up"][name] for one in chosen],
                          color=colour, marker=marker, markersize=4, label=f"{segment}")
                axis.plot(windows, [one["least"]["speed_up"][name] for one in chosen],
                          color=colour, linestyle=":", linewidth=1.2)
            _finish(axis, name, found["limits"]["speed_up"][name], found["macs_per_lane"],
                    sorted({one["window"] for one in designs}))
        axes[0].set_ylabel("speed-up over dense")
        axes[-1].legend(title="k_segment", fontsize=8, title_fontsize=8, loc="lower right")
        length = found["limits"]["length"]
        kinds = [axes[0].plot([], [], color="#444444", linestyle=style, label=label)[0]
                 for style, label in (("-", "all layers"), (":", f"worst product, K ≥ {length}"))]
        axes[0].legend(handles=kinds, fontsize=8, loc="lower right")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _finish(axis: Any, name: str, limit: float, macs: int, windows: Sequence[int]) -> None:
    axis.axhline(limit, color="#444444", linestyle="--", linewidth=1.2)
    axis.annotate(f"target {limit:g}", (math.log2(windows[0]), limit),
                  textcoords="offset points", xytext=(2, 4))
    axis.set_title(f"densities {name}", fontsize=10)
    axis.set_xticks([math.log2(window) for window in windows],
                    [f"{window // macs}×M" for window in windows])
    axis.set_xlabel(f"window (M = {macs} multipliers)")
    axis.set_ylim(0, None)
