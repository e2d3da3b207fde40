"""Every script of examples/ runs as its first line says."""

import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.design import AcceleratorDesign

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments], cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_loop_orders(tmp_path: Path) -> None:
    lines = run("loop_orders.py", "bert-base", "edge", cwd=tmp_path).splitlines()
    assert len(lines) == 24
    energies = [float(line.split()[1]) for line in lines]
    assert energies == sorted(energies) and energies[0] < energies[-1] / 2


@pytest.mark.rtl
def test_generate_verilog_and_run_its_testbenches(tmp_path: Path, simulator: str) -> None:
    printed = run("generate_verilog.py", "built", "small", cwd=tmp_path)
    assert "built/verilog/mac_lane.v" in printed
    verdicts = run("run_testbenches.py", "built", simulator, cwd=tmp_path).splitlines()
    assert len(verdicts) == len(AcceleratorDesign.load("small").unit_specs)
    for verdict in verdicts:
        assert "bit-exact: yes" in verdict
        predicted, counted = verdict.split("predicted ")[1].split(", counted ")
        assert predicted == counted


@pytest.mark.rtl
@pytest.mark.slow
@pytest.mark.timeout(3600)  # it fine-tunes a teacher and trains real models
def test_run_search(tmp_path: Path, simulator: str) -> None:
    printed = run("run_search.py", "found", "4", cwd=tmp_path)
    assert "knee" in printed
    verdicts = run("run_testbenches.py", "found/knee", simulator, cwd=tmp_path)
    assert verdicts.count("bit-exact: yes") == len(AcceleratorDesign.load("edge").unit_specs)


def test_every_example_is_tested() -> None:
    own = Path(__file__).read_text()
    tests = EXAMPLES.parent / "tests"
    others = [*(tests / "sim").glob("*.py"), tests / "model" / "test_scale.py"]
    tested = own + "".join(other.read_text() for other in others)
    for script in EXAMPLES.glob("*.py"):
        assert script.stem in tested, script
