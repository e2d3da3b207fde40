"""Progress where there is no terminal."""

import pytest

from transcode import output


def test_a_log_gets_lines_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 30.0, 31.0, 40.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(output.errors, "file", None, raising=False)
    with output.progress_bar() as progress:
        for fraction in (0.1, 0.25, 0.3, 1.0):
            progress(fraction, f"step {fraction}")
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        " 25%  step 0.25, about 1.5 min left",
        "100%  step 1.0, about 0.0 min left",
    ]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress_bar(False) as progress:
        progress(0.5, "half")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
