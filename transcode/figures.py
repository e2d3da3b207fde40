"""What a characterisation found, printed."""

from __future__ import annotations

from typing import Any

from transcode.output import console, print_table

SHOWN = {
    "nangate45": {
        "area_um2": "area (µm²)",
        "memory_um2": "memories (µm²)",
        "critical_path_ns": "path (ns)",
        "energy_density_1_pj": "energy (pJ)",
        "energy_density_0_5_pj": "at 0.5",
        "energy_density_0_25_pj": "at 0.25",
        "idle_mw": "idle (mW)",
        "leakage_mw": "leakage (mW)",
        "clock_gating": "gated",
    },
    "ecp5": {
        "luts": "LUTs",
        "flip_flops": "flip-flops",
        "dsps": "DSPs",
        "block_rams": "block RAMs",
        "fmax_mhz": "Fmax (MHz)",
    },
}
"""Columns that are printed, and their headings."""


def print_figures(report: Any) -> None:
    """Print new rows by unit, then what was kept, is stale, or failed."""
    shown = SHOWN[report.target]
    units = list(dict.fromkeys(row["unit"] for row in report.made))
    for unit in units:
        rows = [row for row in report.made if row["unit"] == unit]
        first = rows[0]
        parameters = list(first)[1 : list(first).index(next(iter(shown)))]
        energy = f", energy of one {first['operation']}" if "operation" in first else ""
        print_table(
            f"{unit} in {report.target}{energy}",
            [*parameters, *shown.values()],
            [[_value(row[name]) for name in (*parameters, *shown)] for row in rows],
        )
    for what, rows in (("kept, for nothing has changed", report.kept), ("stale", report.stale)):
        if rows:
            counts = {unit: 0 for unit in dict.fromkeys(row["unit"] for row in rows)}
            for row in rows:
                counts[row["unit"]] += 1
            text = ", ".join(f"{unit} {count}" for unit, count in counts.items())
            console.print(f"{what}: {text}", highlight=False)
    if report.stale:
        console.print("stale rows lie outside the chosen points: run again with more of them, or "
                      "delete them", highlight=False)
    for point, problem in report.failed.items():
        console.print(f"failed: {point}: {problem}", highlight=False)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
