"""The script for `accelerate launch`: one process, accumulation, two processes, taken up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "train_with_accelerate.py"
LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port=0")
OPTIONS = (
    "--cpu", "--design=bert-tiny", "--steps=6", "--checkpoint-steps=2", "--learning-rate=1e-3",
    "--density-activation=0.5", "--density-gradient=0.2",
)  # fmt: skip

pytestmark = pytest.mark.slow


def run(out: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launch = (*LAUNCH, f"--num_processes={processes}") if processes > 1 else ()
    return subprocess.run(
        [sys.executable, *launch, str(SCRIPT), f"--out={out}", *OPTIONS, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def made_by(out: Path, *options: str, processes: int = 1) -> dict:
    done = run(out, *options, processes=processes)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_step_is_over_the_same_batch_at_any_scale(tmp_path: Path) -> None:
    one = made_by(tmp_path / "one")
    assert (one["processes"], one["examples_a_process"], one["steps"]) == (1, 32, 6)
    assert one["validation_n"] == 1278 and one["device"] == "cpu" and one["precision"] == "float32"
    # Thresholds are of the first table while weights move fast: what they leave is near the target.
    assert one["densities"]["OUTPUT"] == pytest.approx(0.5, abs=0.1)
    twice = made_by(tmp_path / "twice", "--accumulation=2", "--bf16")
    assert (twice["processes"], twice["examples_a_process"], twice["steps"]) == (1, 16, 6)
    assert twice["accumulation"] == 2 and twice["precision"] == "bf16"
    two = made_by(tmp_path / "two", processes=2)
    assert (two["processes"], two["examples_a_process"], two["steps"]) == (2, 16, 6)
    for found in (twice, two):
        for name in ("validation_n", "examples_left_out"):
            assert found[name] == one[name]
        assert found["densities"]["OUTPUT"] == pytest.approx(one["densities"]["OUTPUT"], abs=0.05)

    weights = (tmp_path / "two" / "model.safetensors").read_bytes()
    os.truncate(tmp_path / "two" / "checkpoint-6" / "optimizer.pt", 1000)
    again = made_by(tmp_path / "two", "--resume", processes=2)
    assert again["taken_up_at"].endswith("checkpoint-4")
    assert (tmp_path / "two" / "model.safetensors").read_bytes() == weights

    refused = run(tmp_path / "one")
    assert refused.returncode == 2 and "holds checkpoints; go on with --resume" in refused.stderr
    uneven = run(tmp_path / "uneven", "--accumulation=3")
    assert "a multiple of processes times accumulation, 1 × 3, not 32" in uneven.stderr
