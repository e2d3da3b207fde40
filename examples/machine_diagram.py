"""Draw the accelerator of one processing element for docs/processing-element.md.

python examples/machine_diagram.py [folder]: draws blocks.svg in a folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1100, 760
FILLS = {"control": "#e6e9ed", "memory": "#dbe9f6", "logic": "#e3f1e4", "tree": "#f7ead6",
         "group": "#fafbfc"}


class Drawing:
    """Boxes and arrows on white."""

    def __init__(self) -> None:
        """Begin with what arrows end in."""
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="DejaVu Sans, Verdana, sans-serif" '
            'font-size="11">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#333"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]

    def text(self, x: float, y: float, said: str, anchor: str = "start", bold: bool = False
             ) -> None:
        """Write one line."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{weight}>{said}</text>')

    def box(self, kind: str, x: int, y: int, width: int, height: int, title: str,
            *lines: str) -> None:
        """Draw a box with a title and some lines."""
        self._parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" '
                           f'fill="{FILLS[kind]}" stroke="#555"/>')
        self.text(x + 8, y + 16, title, bold=True)
        for number, line in enumerate(lines):
            self.text(x + 8, y + 32 + 15 * number, line)

    def arrow(self, points: Sequence[tuple[int, int]], *said: str, at: tuple[int, int] = (0, 0),
              anchor: str = "middle") -> None:
        """Draw an arrow through some points, and what it carries at a place."""
        path = " ".join(f"{x},{y}" for x, y in points)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="#333" '
                           'stroke-width="1.4" marker-end="url(#tip)"/>')
        for number, line in enumerate(said):
            self.text(at[0], at[1] + 14 * number, line, anchor)

    def finished(self) -> str:
        """Return the drawing."""
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def blocks() -> str:
    """Draw the blocks and what passes between them."""
    made = Drawing()
    made.box("control", 20, 20, 400, 74, "sequencer",
             "takes 5 words of 128 bits while a step runs, checks them,",
             "issues the next step when nothing is busy",
             "registers: configuration, step")
    made.box("memory", 20, 250, 210, 176, "activation buffer",
             "P banks; a bank has", "· line entries: zero_mask, start",
             "· even words of w values", "· odd words of w values",
             "reads a line a cycle,", "stores a piece a cycle,", "or a word of every bank:",
             "partial sums")
    made.box("memory", 20, 520, 210, 122, "weight buffer",
             "P banks, as above;", "biases, one a column", "reads a line and a bias a cycle,",
             "takes a word of every bank,", "an entry, a word of biases")
    made.box("logic", 270, 128, 150, 60, "PlaceScan", "which tile each lane", "gets: one a cycle")
    made.box("logic", 270, 210, 150, 60, "PieceScan, SumScan", "results, sums that", "leave")
    made.box("logic", 270, 296, 150, 74, "LineScan left", "SumScan: sums that", "come back,",
             "behind the lines")
    made.box("logic", 270, 396, 150, 60, "LineScan right", "operand, γ and β,", "biases")
    made.box("logic", 270, 586, 150, 62, "loader", "images, as slots of", "main memory go by")
    made.box("group", 230, 700, 230, 46, "main memory", "images of weights")
    made.box("group", 560, 20, 520, 650, "processing element", )
    made.box("tree", 576, 52, 110, 480, "down trees", "start", "clear", "place", "left", "right",
             "request", "drain", "", "one register", "a level,", "each drives 4;",
             "⌈log4 leaves⌉", "levels;", "leaves =", "max(lanes,", "softmax", "engines)")
    made.box("tree", 576, 560, 110, 96, "up trees", "busy", "piece", "sums", "OR of 4 a level")
    made.box("group", 730, 52, 330, 324, "lane (lanes_per_pe of them)")
    made.box("memory", 744, 80, 302, 66, "operand memories, two banks",
             "left and right: zero_masks, values; biases", "a row of the tile × lines of a segment")
    made.box("logic", 744, 168, 90, 46, "pre_sparsity", "pairs")
    made.box("logic", 852, 168, 90, 46, "mac_lane", "sums")
    made.box("memory", 960, 168, 86, 46, "sums", "two, 1R1W")
    made.box("logic", 744, 240, 90, 46, "dynatran", "one value")
    made.box("logic", 852, 240, 100, 46, "post_sparsity", "pieces of w")
    made.box("memory", 744, 312, 302, 46, "result memory, two banks", "pieces: w values, zero_mask")
    made.box("group", 730, 392, 330, 116, "softmax engine (softmax_per_pe of them)",
             "row memory (two banks) → expander →", "softmax → dynatran → compactor →",
             "result memory (two banks)", "tile_y elements a cycle; one row a step")
    made.box("group", 730, 522, 330, 134, "norm engine (one)",
             "two row memories (two banks, γ or β) →", "expanders → residual_add → layer_norm →",
             "dynatran → compactor →", "result memory (two banks)",
             "tile_y elements a cycle; one row a step")
    # Inside a lane.
    made.arrow([(789, 146), (789, 168)])
    made.arrow([(834, 190), (852, 190)])
    made.arrow([(942, 184), (960, 184)])
    made.arrow([(960, 202), (942, 202)])
    made.arrow([(897, 214), (897, 227), (789, 227), (789, 240)])
    made.arrow([(834, 262), (852, 262)])
    made.arrow([(902, 286), (902, 312)])
    # Down the trees.
    made.arrow([(420, 78), (576, 78)], "start, clear", at=(498, 72))
    made.arrow([(420, 57), (560, 57)], "configuration, step", at=(490, 51))
    made.arrow([(420, 158), (576, 158)], "place", at=(498, 152))
    made.arrow([(420, 240), (576, 240)], "request, drain", at=(498, 234))
    made.arrow([(230, 350), (250, 350), (250, 383), (576, 383)], "left: a line, or",
               "a word of sums", at=(450, 362), anchor="start")
    made.arrow([(230, 570), (500, 570), (500, 470), (576, 470)], "right: a line", "and a bias",
               at=(450, 436), anchor="start")
    made.arrow([(230, 410), (250, 410), (250, 470), (500, 470)])
    # Addresses.
    made.arrow([(270, 320), (230, 320)])
    made.arrow([(345, 370), (345, 396)])
    made.arrow([(330, 456), (330, 540), (230, 540)])
    made.arrow([(270, 255), (244, 255), (244, 280), (230, 280)])
    # Weights.
    made.arrow([(270, 612), (230, 612)])
    made.arrow([(310, 648), (310, 700)], "memory", at=(304, 686), anchor="end")
    made.arrow([(380, 700), (380, 648)], "memory_data", at=(386, 686), anchor="start")
    # To the lanes and engines, and back.
    for y in (214, 450, 590):
        made.arrow([(686, y if y < 532 else 500), (708, y if y < 532 else 500), (708, y), (730, y)]
                   if y >= 532 else [(686, y), (730, y)])
    made.arrow([(1060, 335), (1072, 335), (1072, 664), (700, 664), (700, 640), (686, 640)])
    made.arrow([(1060, 480), (1072, 480)])
    made.arrow([(1060, 610), (1072, 610)])
    made.arrow([(576, 620), (540, 620), (540, 660), (8, 660), (8, 400), (20, 400)],
               "pieces, partial sums", at=(484, 654))
    made.arrow([(576, 590), (440, 590), (440, 90), (420, 90)], "busy", at=(446, 112),
               anchor="start")
    made.arrow([(540, 32), (420, 32)], "program", at=(490, 27))
    return made.finished()


def main(folder: str = str(ROOT / "docs" / "processing-element")) -> None:
    """Draw."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "blocks.svg").write_text(blocks())


if __name__ == "__main__":
    main(*sys.argv[1:])
