"""One training at three scales, in float32 and bf16: python benchmarks/scale.py [--design NAME …].

examples/train_with_accelerate.py as 1 × 32, as two processes of 16 and as 16 accumulated twice,
each with the same steps, launched by `accelerate launch`: a process a GPU (runs of one process side
by side), without two GPUs on the CPU, where the default model is BERT-Tiny. Options of that script
are handed on, such as --design, --steps, --bert or --compile.

"differences" are to 1 × 32 in float32. "another seed", the same training from another seed, says
what is noise, and so does "standard_error", that of a difference of two accuracies on so many
examples if models erred independently. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import torch

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_with_accelerate.py"
SCALES = {"1 x 32": (1, 1), "2 x 16": (2, 1), "16 accumulated twice": (1, 2)}
"""Processes, and batches that a step adds up."""
REFERENCE = "1 x 32", "float32"
PRUNING = ("--density-activation=0.5", "--density-gradient=0.2", "--ramp-steps=40")
SMALL = ("--design=bert-tiny", "--learning-rate=1e-3")


def launch(processes: int, gpu: int | None, options: list[str]) -> dict[str, Any]:
    """What a run prints."""
    where = [] if gpu is None else [f"--gpu_ids={gpu}"]
    if processes > 1:  # also on a CPU, where torch talks through gloo
        where = ["--multi_gpu", "--main_process_port=0"]
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_machines=1", f"--num_processes={processes}", "--mixed_precision=no"),
        *("--dynamo_backend=no", *where, str(SCRIPT), *options),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout))


def run_all(options: list[str], gpus: int, folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Every run by scale and precision."""
    free: Queue[int | None] = Queue()
    for gpu in range(gpus) if gpus else [None]:
        free.put(gpu)

    def run(key: tuple[str, str], processes: int, accumulation: int, seed: int) -> dict[str, Any]:
        gpu = free.get() if processes == 1 else None
        out = Path(folder) / "-".join(key).replace(" ", "-")
        own = [f"--out={out}", f"--accumulation={accumulation}", f"--seed={seed}"]
        own += ["--bf16"] * (key[1] == "bf16") + ["--cpu"] * (not gpus)
        try:
            return launch(processes, gpu, [*options, *own])
        finally:
            if processes == 1:
                free.put(gpu)

    wanted = {
        (scale, precision): (*how, 0)
        for precision in ("float32", "bf16")
        for scale, how in SCALES.items()
    }
    wanted["another seed", "float32"] = (1, 1, 1)
    made = {}
    with ThreadPoolExecutor(max(gpus, 1)) as pool:
        alone = {key: how for key, how in wanted.items() if how[0] == 1}
        results = pool.map(lambda key: run(key, *alone[key]), alone)
        made.update(zip(alone, results, strict=True))
    for key, how in wanted.items():
        if how[0] > 1:
            made[key] = run(key, *how)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    asked, options = parser.parse_known_args()
    gpus = 0 if asked.cpu or torch.cuda.device_count() < 2 else torch.cuda.device_count()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        own = [*PRUNING, *(() if gpus else SMALL), *options]
        made = run_all(own, gpus, folder)
    reference = made[REFERENCE]
    runs: dict[str, Any] = {}
    for (scale, precision), found in made.items():
        accuracy = found["validation_accuracy"] - reference["validation_accuracy"]
        densities = {
            role: density - reference["densities"][role]
            for role, density in found["densities"].items()
        }
        runs.setdefault(precision, {})[scale] = {
            **{key: value for key, value in found.items() if key not in ("model", "taken_up_at")},
            "differences": {"validation_accuracy": accuracy, "densities": densities},
        }
    share, n = reference["validation_accuracy"], reference["validation_n"]
    result = {
        "options": own,
        "runs": runs,
        "standard_error": (2 * share * (1 - share) / n) ** 0.5,
        "seconds": time.monotonic() - begun,
        "torch": torch.__version__,
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
