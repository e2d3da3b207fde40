"""Designs a second of ELECTOR on one core and on two: python benchmarks/elector.py.

Random designs of the published space (gelu) run BERT-Tiny and BERT-Base at sequence length 128.
Each measurement is a fresh process that evaluates its designs once; imports are not counted, the
first use of every lane time is. "by layer" gives each operand of each layer a density of its own,
as a trace does; else all densities are 0.5. Load is that of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np

from hwgen.design_space import DesignSpace
from model.space import TransformerDesign, operations
from model.trace import SparsityTrace
from sim import Workload, evaluate

SEED = 1
SEQUENCE_LENGTH = 128
POPULATIONS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
LARGEST_BY_LAYER = 100_000
CASES = (("bert-tiny", False), ("bert-tiny", True), ("bert-base", False), ("bert-base", True))


def trace(model: TransformerDesign, rng: np.random.Generator) -> SparsityTrace:
    """Draw a density for each operand of each operation."""
    records = []
    for operation in operations(model):
        for role in (*operation.roles, "OUTPUT"):
            nonzeros = int(rng.integers(200, 900))
            records.append(
                {
                    "layer": operation.layer,
                    "operation": operation.name,
                    "role": str(role),
                    "elements": 1000,
                    "nonzeros": nonzeros,
                    "zeros_before": 0,
                    "mean": nonzeros / 1000,
                    "quantiles": [nonzeros / 1000] * 7,
                }
            )
    return SparsityTrace.load(
        {
            "design_hash": model.design_hash,
            "weights_hash": "none",
            "activation_threshold": 0.0,
            "gradient_threshold": 0.0,
            "task": "none",
            "split": "none",
            "stage": "inference",
            "sequence_length": SEQUENCE_LENGTH,
            "batch": 1,
            "records": records,
        }
    )


def measure(name: str, by_layer: bool, count: int, part: int) -> dict[str, float]:
    """Evaluate a population in this process."""
    rng = np.random.default_rng([SEED, part])
    model = TransformerDesign.load(name)
    densities = trace(model, np.random.default_rng(SEED)) if by_layer else 0.5
    workload = Workload(model, SEQUENCE_LENGTH, densities)
    designs = DesignSpace.load("published").sample(count, rng)
    designs.fields["nonlinearity"][:] = "gelu"
    start, worked = time.perf_counter(), time.process_time()
    evaluate(designs, workload)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "cpu_seconds": worked, "mebibytes": memory / 2**20}


def run(name: str, by_layer: bool, count: int, cores: int) -> tuple[float, float, float]:
    """Split a population over fresh processes.

    Gives designs a second, designs a second of a core's own time, and peak memory together.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    started = []
    for part in range(cores):
        share = count // cores + (part < count % cores)
        case = [name, str(int(by_layer)), str(share), str(part)]
        command = [sys.executable, __file__, "--measure", *case]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    found = []
    for process in started:
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(process.returncode)
        found.append(json.loads(output))
    slowest = max(one["seconds"] for one in found)
    worked = sum(one["cpu_seconds"] for one in found)
    return count / slowest, count / worked, sum(one["mebibytes"] for one in found)


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=POPULATIONS[-1], help="largest population")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, by_layer, count, part = arguments.measure
        found = measure(name, by_layer == "1", int(count), int(part))
        sys.stdout.write(json.dumps(found))
        return
    say = sys.stdout.write
    say(
        f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, seed {SEED}\n"
    )
    say("designs a second of wall time (and of CPU time), MiB at most, in one process and in two\n")
    say("model      densities     designs    1 process      (CPU)    MiB  2 processes      (CPU)\n")
    for name, by_layer in CASES:
        for count in POPULATIONS:
            if count > min(arguments.largest, LARGEST_BY_LAYER if by_layer else count):
                continue
            one, two = run(name, by_layer, count, 1), run(name, by_layer, count, 2)
            densities = "by layer" if by_layer else "0.5"
            rates = " ".join(
                f"{made[0]:12,.0f} {made[1]:10,.0f} {made[2]:6,.0f}" for made in (one, two)
            )
            say(f"{name:10} {densities:10} {count:10,} {rates}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
