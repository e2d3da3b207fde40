"""The command line: output, exit codes, errors that say what to do."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.design import AcceleratorDesign
from hwgen.emit import generate
from model.space import TransformerDesign
from sim import Workload, evaluate

TRANSCODE = Path(sys.executable).with_name("transcode")


def run(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the installed command line as a user would."""
    return subprocess.run(
        [TRANSCODE, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb", **environment},
    )


def test_simulate_prints_what_evaluate_returns() -> None:
    done = run("simulate", "bert-tiny", "edge", "server", "--density", "0.5", "--batch-size", "4",
               "--sequence-length", "128", "--technology", "acceltran-14nm", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    report = evaluate(
        [AcceleratorDesign.load("edge"), AcceleratorDesign.load("server")],
        Workload(TransformerDesign.load("bert-tiny"), 128, 0.5, batch_size=4),
        technology="acceltran-14nm",
    )
    assert printed["latency_cycles"] == report.latency_cycles.tolist()
    assert printed["energy_pj"] == report.energy_pj.tolist()
    assert printed["area_um2"] == report.area_um2.tolist()
    assert printed["designs"][1]["pes"] == 512


def test_simulate_prints_a_table_that_names_what_is_not_proven(tmp_path: Path) -> None:
    done = run("simulate", "bert-tiny", "edge", "--density", "0.5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"area \(mm²\)\s*│\s*54\.06", done.stdout)
    # Several PEs are modelled alone.
    assert "cycles not yet proven in RTL: embedding, 0.query, 0.key" in done.stdout
    assert "not priced: dynatran" in done.stdout
    one = tmp_path / "one.yaml"
    AcceleratorDesign.load("edge").model_copy(update={"pes": 1}).save(one)
    done = run("simulate", "bert-tiny", str(one), "--density", "0.5")
    assert "cycles not yet proven in RTL: embedding, pooler_tanh, classifier\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "bert-tiny", "egde", "--density", "0.5"], "did you mean edge"),
        (["simulate", "bert-tny", "edge", "--density", "0.5"], "did you mean bert-tiny"),
        (["simulate", "bert-tiny", "edge"], "give either --density or --trace"),
        (["simulate", "bert-tiny", "edge", "--density", "1.5"], "1.5"),
        (["simulate", "bert-tiny", "edge", "--density", "nan"], "nan"),
        (["simulate", "bert-tiny", "edge", "--density", "0.5", "--technology", "7nm"], "7nm"),
        (
            ["simulate", "bert-tiny", "nowhere.yaml", "--density", "1"],
            "nowhere.yaml does not exist",
        ),
        (["search", "--out", "x", "--limit", "area_um2=3"], "is written area_um2<=6e7, not"),
        (["search", "--out", "x", "--limit", "area_um2>=3"], "is written area_um2<=6e7, not"),
        (["search", "--out", "x", "--limit", "accuracy<=0.7"], "is written accuracy>=0.75, not"),
        (["search", "--out", "x", "--limit", "accuracy>=2"], "accuracy must be at most 1, not 2"),
        (["search", "--out", "x", "--limit", "aera_um2<=3"], "area_um2"),
        (["search", "--out", "x", "--space", "dmeo"], "did you mean demo"),
        (["generate", "edge", "--out", "x", "--pick", "knee"], "edge is none"),
        (["verify", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere does not exist"),
        (["characterize", "dynatron", "--out", "x"], "unit must be one of mac_lane, dynatran"),
        (["characterize", "dynatran", "--target", "x7nm"], "one of nangate45, ecp5, not 'x7nm'"),
        (["train", "bert-tiny", "--task", "moovies", "--out", "x"], "moovies"),
        (["train", "bert-tiny", "--tau-activation", "-1", "--out", "x"], "activation_threshold"),
        (["evaluate", "x"], "x holds no trained model"),
        (["evaluate", "x", "--arithmetic", "egde"], "did you mean edge"),
        (["evaluate", "x", "--bits", "30"], "bits must be a whole number from 4 to 24, not 30"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_missing_simulator_is_bad_input_and_not_a_failed_check(tmp_path: Path) -> None:
    generate("small", tmp_path / "x", units=["dynatran"])
    done = run("verify", "x", "--simulator", "icarus", cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("transcode: Icarus is missing: install it with")


def test_a_missing_tool_of_the_flow_is_a_sentence(tmp_path: Path) -> None:
    done = run("characterize", "dynatran", "--out", "x", cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.endswith(
        "transcode: characterize needs iverilog and opensta: "
        "install with apt-get install iverilog opensta\n"
    )
    assert not (tmp_path / "x").exists()


def test_ctrl_c_says_how_to_go_on() -> None:
    script = (
        "import sys, sim; from transcode.main import main\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "sim.evaluate = interrupted\n"
        "sys.argv = ['transcode', 'simulate', 'bert-tiny', 'edge', '--density', '0.5']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert "the same command goes on from here" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "search", "simulate", "train", "pretrain", "evaluate", "generate", "verify", "characterize",
        "report", "demo",
    ],  # fmt: skip
)
def test_help_teaches(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert command == "demo" or f"transcode {command}" in done.stdout


def test_a_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from transcode.main import main; main()"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert f"{tmp_path / 'model.py'} hides transcode's own package model" in done.stderr
