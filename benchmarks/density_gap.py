"""What density mode leaves out, on random masks: python benchmarks/density_gap.py.

Every tensor of BERT-Tiny is drawn with independent Bernoulli masks, which is what density mode
assumes, and walked in mask mode. The gap is mean(mask mode) / density mode − 1, signed, with its
standard error over the recordings. It is not 0: lanes that share an operand are not independent, a
step's maximum of expectations is below the expectation of its maximum, and waves with partial
tiles count their largest tiles alone. "lanes" are the cycles in which lanes set a step's length.
With --trained FOLDER the masks are those of a trained model on real sentences, and the densities
those of its trace.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hwgen.design import AcceleratorDesign
from sim import Workload
from sim.masks import RecordedMasks
from sim.random_masks import random_recording
from sim.reference import Walk, walk

SEED = 1
RECORDINGS = 4
SEQUENCE_LENGTH = 48
TRAINED_LENGTH = 24
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


def row(name: str, density: str, expected: Walk, seen: Sequence[Walk]) -> str:
    """Gap of all cycles, and of those in which lanes set a step's length."""
    cells = []
    for cycles in (lambda one: float(one.latency_cycles), lambda one: float(one.stalls["lanes"])):
        ratios = np.array([cycles(one) for one in seen]) / max(cycles(expected), 1.0) - 1
        error = ratios.std(ddof=1) / len(seen) ** 0.5
        cells.append(f"{100 * ratios.mean():+8.2f} ± {100 * error:4.2f} %")
    return f"{name:24} {density:>8} {cells[0]:>18} {cells[1]:>18}\n"


def on_random_masks() -> Iterator[str]:
    """Gaps of BERT-Tiny with one density everywhere."""
    for name, design in designs().items():
        for density in DENSITIES:
            workload = Workload("bert-tiny", SEQUENCE_LENGTH, density, batch_size=BATCH_SIZE)
            rng = np.random.default_rng(SEED)
            seen = []
            for _ in range(RECORDINGS):
                recording = random_recording(workload, design.bits, design.accumulator_bits, rng)
                seen.append(walk(design, workload, RecordedMasks(recording, workload)))
            yield row(name, str(density), walk(design, workload), seen)


def on_a_trained_model(path: Path) -> Iterator[str]:
    """Gaps of a trained model with its trace, on validation sentences cut to a length all have."""
    import torch

    from model.calibration import Calibration
    from model.data import load_task
    from model.quantized import QuantizedModel
    from model.tokens import tokenize
    from model.trained import TrainedModel

    trained = TrainedModel.load(path)
    task = load_task(trained.inputs["task"]["name"])
    tokens = tokenize(task.validation.texts, TRAINED_LENGTH)
    # Without padding, which density mode takes for real positions.
    full = np.flatnonzero(tokens.lengths == TRAINED_LENGTH)[: RECORDINGS * BATCH_SIZE]
    trace = trained.trace.model_copy(update={"sequence_length": TRAINED_LENGTH})
    workload = Workload(trained.design, TRAINED_LENGTH, trace, batch_size=BATCH_SIZE)
    for name, design in designs().items():
        quantized = QuantizedModel(trained.model, Calibration.load(path), design)
        seen = []
        for chosen in np.split(full, RECORDINGS):
            ids = torch.from_numpy(tokens.ids[chosen])
            masks = RecordedMasks(quantized.record(ids), workload)
            seen.append(walk(design, workload, masks))
        yield row(name, "trace", walk(design, workload), seen)


def main() -> None:
    """Print the gap of each design and density."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--trained", type=Path, help="folder of a trained model, instead of BERT-Tiny"
    )
    trained = parser.parse_args().trained
    say = sys.stdout.write
    what = "BERT-Tiny, random masks" if trained is None else f"{trained}, recorded masks"
    length = SEQUENCE_LENGTH if trained is None else TRAINED_LENGTH
    say(
        f"{what}; {BATCH_SIZE} sequences of {length}, {RECORDINGS} recordings; "
        f"{platform.platform()}, NumPy {np.__version__}, seed {SEED}\n"
    )
    say(f"{'design':24} {'density':>8} {'all cycles':>18} {'lanes':>18}\n")
    for line in on_random_masks() if trained is None else on_a_trained_model(trained):
        say(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
