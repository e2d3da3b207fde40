"""The command that writes data sheets."""

import os
import subprocess
import sys
from pathlib import Path

TRANSCODE = Path(sys.executable).with_name("transcode")


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command line as a user would."""
    return subprocess.run(
        [TRANSCODE, "datasheet", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb"},
    )


def test_a_sheet_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    done = run("dynatran", "--out", "sheets", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "data sheet: sheets/dynatran.md"
    page = (tmp_path / "sheets" / "dynatran.md").read_text(encoding="utf-8")
    assert page.startswith("# dynatran\n")
    assert (tmp_path / "sheets" / "dynatran" / "timing.svg").is_file()


def test_another_design_gives_its_own_unit(tmp_path: Path) -> None:
    done = run("dynatran", "--design", "small", "--out", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "dynatran.md").read_text(encoding="utf-8")
    assert "Default unit, that of the design `small`: parallel 16, " in page


def test_an_unknown_unit_or_design_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    for arguments, message in (
        (["softmx"], "unit must be one of"),
        (["dynatran", "--design", "egde"], "did you mean edge"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_says_what_a_sheet_is_made_from(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    for words in ("a simulation of its RTL", "transcode characterize", "Example:", "--out"):
        assert words in " ".join(done.stdout.split())
