"""What density mode leaves out, on random masks: python benchmarks/density_gap.py.

Every tensor of BERT-Tiny is drawn with independent Bernoulli masks, which is what density mode
assumes, and walked in mask mode. The gap is mean(mask mode) / density mode − 1, signed, with its
standard error over the recordings. It is not 0: lanes that share an operand are not independent, a
step's maximum of expectations is below the expectation of its maximum, and waves with partial
tiles count their largest tiles alone. "lanes" are the cycles in which lanes set a step's length.
"""

from __future__ import annotations

import platform
import sys

import numpy as np

from hwgen.design import AcceleratorDesign
from sim import Workload
from sim.masks import RecordedMasks
from sim.random_masks import random_recording
from sim.reference import Walk, walk

SEED = 1
RECORDINGS = 4
SEQUENCE_LENGTH = 48
BATCH_SIZE = 2
DENSITIES = (0.1, 0.3, 0.5, 0.7, 0.9)


def designs() -> dict[str, AcceleratorDesign]:
    """Named designs, and changes of the small one."""
    small = AcceleratorDesign.load("small").model_dump()
    plain = {
        key: value
        for key, value in small.items()
        if key not in ("window", "fifo_depth", "k_segment")
    }
    changes = {
        "small": {},
        "small, 1 lane": {"pes": 1, "lanes_per_pe": 1},
        "small, 1 multiplier": {"macs_per_lane": 1},
        "small, tile 8": {"tile_x": 8, "tile_y": 8},
        "small, kijb": {"loop_order": "kijb"},
        "small, segments of 16": {"k_segment": 16},
    }
    made = {name: AcceleratorDesign.load({**plain, **change}) for name, change in changes.items()}
    return {**made, "edge": AcceleratorDesign.load("edge")}


def lanes(walked: Walk) -> float:
    """Cycles in which lanes set a step's length."""
    return float(walked.stalls["lanes"])


def main() -> None:
    """Print the gap of each design and density, of all cycles and of those that wait for lanes."""
    say = sys.stdout.write
    say(
        f"BERT-Tiny, {BATCH_SIZE} sequences of {SEQUENCE_LENGTH}, {RECORDINGS} recordings; "
        f"{platform.platform()}, NumPy {np.__version__}, seed {SEED}\n"
    )
    say(f"{'design':24} {'density':>8} {'all cycles':>18} {'lanes':>18}\n")
    for name, design in designs().items():
        for density in DENSITIES:
            workload = Workload("bert-tiny", SEQUENCE_LENGTH, density, batch_size=BATCH_SIZE)
            expected = walk(design, workload)
            rng = np.random.default_rng(SEED)
            seen = []
            for _ in range(RECORDINGS):
                recording = random_recording(workload, design.bits, design.accumulator_bits, rng)
                seen.append(walk(design, workload, RecordedMasks(recording, workload)))
            cells = []
            for cycles in (lambda one: float(one.latency_cycles), lanes):
                ratios = np.array([cycles(one) for one in seen]) / max(cycles(expected), 1.0) - 1
                error = ratios.std(ddof=1) / RECORDINGS**0.5
                cells.append(f"{100 * ratios.mean():+8.2f} ± {100 * error:4.2f} %")
            say(f"{name:24} {density:8} {cells[0]:>18} {cells[1]:>18}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
