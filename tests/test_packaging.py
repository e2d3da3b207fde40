"""The wheel, installed into empty environments, from another folder."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README_PYTHON = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def install(folder: Path, *requirements: str) -> Path:
    """Make an environment that holds the requirements alone; its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *requirements],
        check=True,
        capture_output=True,
    )
    return python


def run_block(python: Path, block: str, folder: Path) -> None:
    """Run a block of the README's Python from a folder that is not the checkout."""
    done = subprocess.run(
        [python, "-c", block], cwd=folder, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_sim_needs_four_packages(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "environment", str(wheel))
    run_block(python, README_PYTHON[0], tmp_path)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.split("==")[0].lower().replace("_", "-") for line in listed.stdout.splitlines()}
    assert {"numpy", "pydantic", "pyyaml", "array-api-compat"} <= names
    assert not names & {"torch", "amaranth", "cocotb", "pymoo", "transformers", "typer"}


@pytest.mark.rtl
@pytest.mark.slow
def test_the_wheel_generates_and_verifies(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "environment", f"{wheel}[rtl]")
    run_block(python, README_PYTHON[0] + README_PYTHON[1], tmp_path)


def test_every_python_block_of_the_readme_is_run_by_some_test() -> None:
    assert len(README_PYTHON) == 3
    assert "evaluations=60" in README_PYTHON[2]  # tests/transcode/test_examples.py runs the search
