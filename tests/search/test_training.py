"""What a training that fails leaves behind, and workers whose search is killed."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from search.training import _attempt


@pytest.mark.parametrize(
    "reason",
    [
        OSError(28, "No space left on device"),
        # What safetensors and PyTorch raise where they find no space.
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] . write failed, no space left on device"),
    ],
)
def test_a_full_disk_is_never_recorded_as_a_failed_training(reason):
    def work(trainer, job):
        raise reason

    with pytest.raises(OSError, match="No space left") as raised:
        _attempt(work, None, None)
    assert raised.value.errno == 28


def test_anything_else_is_recorded():
    outcome = _attempt(lambda trainer, job: 1 / 0, None, None)
    assert outcome.result is None and outcome.error == "ZeroDivisionError: division by zero"


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fakes import FakeEvaluator, FakeTrainer
from search import CoDesign
if __name__ == "__main__":
    CoDesign("fake", "demo", trainer=FakeTrainer(seconds=300), evaluator=FakeEvaluator()).run(
        {str(tmp_path / "run")!r}, workers=2)
"""
    (tmp_path / "main.py").write_text(script)
    process = subprocess.Popen([sys.executable, str(tmp_path / "main.py")])
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    workers: list[psutil.Process] = []
    while len(workers) < 2:
        assert time.monotonic() < deadline, "no workers"
        time.sleep(0.1)
        workers = [c for c in parent.children() if "spawn_main" in " ".join(c.cmdline())]
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert len(gone) == 2 and not alive
