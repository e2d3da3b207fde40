"""Densities in TensorBoard, through the Trainer's own reporting: report_to="tensorboard"."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_callbacks import EXAMPLES, TARGETS, trainer_of
from transformers.integrations import integration_utils

from model.callbacks import DynaPropCallback


class Writer:
    """Takes what Hugging Face's TensorBoardCallback writes, in place of event files."""

    def __init__(self, log_dir: str) -> None:
        self.scalars: dict[str, dict[int, float]] = {}
        written.append(self)

    def add_text(self, tag: str, text: str, step: int | None = None) -> None:
        pass

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, {})[step] = value

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


written: list[Writer] = []


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """What TensorBoard would have been given: it is no dependency."""
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    written.clear()
    return written


def test_densities_reach_tensorboard_by_role_and_layer(
    tmp_path: Path, writers: list[Writer]
) -> None:
    trainer = trainer_of(tmp_path, TARGETS, report_to="tensorboard", save_strategy="no")
    trainer.add_callback(DynaPropCallback(trainer, EXAMPLES[:16]))
    trainer.train()
    (writer,) = writers
    places = ("", "0/", "1/", "outside/")
    for kind in ("density", "zeros_before"):
        for place in places:
            for role in ("OUTPUT", "GRAD_OUTPUT"):
                found = writer.scalars[f"train/{kind}/{place}{role}"]
                assert list(found) == [2, 4, 6, 8] and all(0 <= v <= 1 for v in found.values())
    for entry in trainer.state.log_history:
        for name, value in entry.items():
            if name.startswith("density"):
                assert writer.scalars[f"train/{name}"][entry["step"]] == value
    assert writer.scalars["train/density/0/OUTPUT"][8] == pytest.approx(0.5, abs=0.1)
    assert set(writer.scalars["train/loss"]) == {2, 4, 6, 8}


def test_without_densities_only_the_trainers_own_figures_are_there(
    tmp_path: Path, writers: list[Writer]
) -> None:
    trainer = trainer_of(tmp_path, {}, report_to="tensorboard", save_strategy="no", max_steps=2)
    trainer.add_callback(DynaPropCallback(trainer, log_densities=False))
    trainer.train()
    assert "train/loss" in writers[0].scalars
    assert not [tag for tag in writers[0].scalars if "density" in tag]
