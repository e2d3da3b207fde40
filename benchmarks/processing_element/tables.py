"""Tables of what benchmarks/pe.py reports; everything printed is read from the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 260
"""Columns of a table that goes to a file: wide enough that no cell is broken."""


class Printer:
    """Prints tables that are Markdown, too.

    Parameters
    ----------
    console : where to; standard output by default
    """

    def __init__(self, console: Console | None = None) -> None:
        plain = Console(highlight=False)
        self.console = console or (
            plain if plain.is_terminal else Console(highlight=False, width=WIDTH))

    def say(self, text: str) -> None:
        """Print a paragraph."""
        self.console.print(text, soft_wrap=True, markup=False)
        self.console.print()

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(*head, box=box.MARKDOWN)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
        self.console.print()


def percent(value: float) -> str:
    """Share of one."""
    return f"{100 * value:.1f} %"


def square(value: float | None) -> str:
    """Area in µm²."""
    return "–" if value is None else f"{value:,.0f}"


def yes(met: bool) -> str:
    """Whether."""
    return "yes" if met else "no"


def window(found: Mapping[str, Any], design: Mapping[str, Any]) -> str:
    """Window in multipliers."""
    return f"{design['window'] // found['macs_per_lane']}×M"


def show(found: Mapping[str, Any], printer: Printer) -> None:
    """Print all tables."""
    printer.say(f"{found['machine']}; seed {found['seed']}, {found['recordings']} recordings.")
    _targets(found, printer)
    _products(found, printer)
    _designs(found, printer)
    _losses(found, printer)
    if found["remedies"]:
        _remedies(found, printer)
    _areas(found, printer)
    if found.get("simulators"):
        _simulators(found, printer)


def _targets(found: Mapping[str, Any], printer: Printer) -> None:
    picked = ", ".join(
        f"{name}: window {window(found, one)}, k_segment {one['k_segment']}, "
        f"FIFO {one['fifo_depth']}" for name, one in found["picked"].items())
    printer.say(f"Targets, for dot products of {found['limits']['length']} and more, all steps "
                f"counted, of the product that does worst ({picked}):")
    printer.table(
        ("design", "target", "least", "limit", "met", "product", "its steps wait most for"),
        [(one["design"], one["what"], f"{one['value']:.3f}", f"{one['limit']:g}",
          yes(one["met"]), one["product"], f"{one['waits_for']} ({percent(one['waits_share'])})")
         for one in found["targets"]])


def _products(found: Mapping[str, Any], printer: Printer) -> None:
    times = {one["product"]: one["times"] for one in found["products"]}
    models = list(found["products"][0]["times"])
    sparse = list(found["limits"]["speed_up"])
    head = ("product, B×I×J×K", *(f"in {model}" for model in models), "dense share", "of waves",
            *(f"{what}{name}" for name in sparse
              for what in ("speed-up ", "of waves ", "over never waiting ")))
    for name, design in found["picked"].items():
        printer.say(f"Products on the design “{name}” (window {window(found, design)}, "
                    f"k_segment {design['k_segment']}):")
        rows = []
        for one in design["products"]:
            by = one["densities"]
            rows.append((
                one["product"], *(f"{times[one['product']][model]}" for model in models),
                percent(by["1.0 × 1.0"]["share"]), percent(by["1.0 × 1.0"]["lane_share"]),
                *(f"{by[name][key]:.2f}" for name in sparse
                  for key in ("speed_up", "lane_speed_up", "speed_up_over_never_waiting"))))
        printer.table(head, rows)


def _designs(found: Mapping[str, Any], printer: Printer) -> None:
    sparse = list(found["limits"]["speed_up"])
    rows = [
        (window(found, one), f"{one['k_segment']}", f"{one['fifo_depth']}",
         percent(one["least"]["share"]),
         *(f"{one[what][name]:.2f}" for what, name in
           [("worst", name) for name in sparse] + [("layers_speed_up", name) for name in sparse]),
         yes(one["met"]))
        for one in ({**design, "worst": design["least"]["speed_up"]}
                    for design in found["designs"] if not design["fifo_doubled"])]
    printer.say(f"Least of the products with K ≥ {found['limits']['length']}, and all layers of "
                "all models together, by window and segment; a segment longer than K is K:")
    printer.table(
        ("window", "k_segment", "FIFO", "dense share", *(f"speed-up {name}" for name in sparse),
         *(f"all layers {name}" for name in sparse), "all targets met"), rows)
    low, high = found["density_gaps"]
    printer.say(f"Twice the FIFO saves a product at most {percent(found['fifo_gain'])} of its "
                f"cycles. Cycles differ from density mode's by {100 * low:+.1f} to "
                f"{100 * high:+.1f} %.")


def _losses(found: Mapping[str, Any], printer: Printer) -> None:
    kinds = list(found["losses"][0]["shares"])
    printer.say("Where the cycles go:")
    printer.table(
        ("design", "product", "densities", "cycles", *kinds),
        [(one["design"], one["product"], one["densities"], f"{one['cycles']:,.0f}",
          *(percent(one["shares"][kind]) for kind in kinds)) for one in found["losses"]])


def _remedies(found: Mapping[str, Any], printer: Printer) -> None:
    sparse = list(found["limits"]["speed_up"])
    printer.say("What would help the default design: least of the products with K ≥ "
                f"{found['limits']['length']}, a lane's area, and effectual products a cycle and "
                "mm² of lanes over all layers:")
    printer.table(
        ("change", "dense share", *(f"speed-up {name}" for name in sparse), "all targets met",
         "lane, µm²", *(f"products/cycle/mm² {name}" for name in sparse)),
        [(one["what"], percent(one["least"]["share"]),
          *(f"{one['least']['speed_up'][name]:.2f}" for name in sparse), yes(one["met"]),
          square(one["lane_um2"]),
          *("–" if one["pairs_per_cycle_mm2"] is None else
            f"{one['pairs_per_cycle_mm2'][name]:.1f}" for name in sparse))
         for one in found["remedies"]])


def _areas(found: Mapping[str, Any], printer: Printer) -> None:
    plain = found["plain_lane"]
    names = list(plain["pairs_per_cycle_mm2"])

    def row(start: Sequence[str], one: Mapping[str, Any]) -> tuple[str, ...]:
        rates = one["pairs_per_cycle_mm2"]
        if rates is None:
            return (*start, square(one["lane_um2"]), *("–" for _ in names))
        return (*start, square(one["lane_um2"]), *(
            f"{rates[name]:.1f} ({rates[name] / plain['pairs_per_cycle_mm2'][name]:.2f})"
            for name in names))

    rows = [row(("no zero-skipping", f"{plain['k_segment']}", "–", "–", "–", "–", "–"), plain)]
    for one in found["designs"]:
        if not one["fifo_doubled"]:
            cells = (window(found, one), f"{one['k_segment']}", f"{one['fifo_depth']}",
                     square(one["pre_sparsity_um2"]), square(one["other_logic_um2"]),
                     square(one["operand_memories_um2"]), square(one["other_memories_um2"]))
            rows.append(row(cells, one))
    printer.say("A lane's area, and effectual products a cycle and mm² of lanes over all layers of "
                "all models (in brackets: over the lane without zero-skipping):")
    printer.table(
        ("window", "k_segment", "FIFO", "pre_sparsity, µm²", "other logic, µm²",
         "operand memories, µm²", "other memories, µm²", "lane, µm²", *names), rows)


def _simulators(found: Mapping[str, Any], printer: Printer) -> None:
    printer.say("Simulated cycles a second of a small accelerator (4 lanes of 2 multipliers of 10 "
                "bits) with a random product, loading and reading its buffers and the start of the "
                "process included; medians of 3:")
    printer.table(
        ("simulator", "version", "build and first run, s", "cycles", "seconds", "cycles/s"),
        [(one["simulator"], one["missing"], "–", "–", "–", "–") if "missing" in one else
         (one["simulator"], one["version"], f"{one['first_run_seconds']:.1f}",
          f"{one['simulated_cycles']:,}", f"{one['seconds']:.2f}",
          f"{one['cycles_per_second']:,.0f}") for one in found["simulators"]])
