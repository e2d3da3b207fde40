"""The measure of sparsity against accuracy: what is trained, compared and printed."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from model.data import load_task
from model.recipe import Recipe
from model.statistics import paired_difference
from model.trained import TrainedModel

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import sparsity_accuracy as benchmark  # noqa: E402
from training import trainings  # noqa: E402

DESIGN = {"layers": [{"hidden": 16, "heads": ["sa_sdp", "sa_sdp"], "feed_forward": [32]}] * 2}
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=5e-3, distillation=0.0)
ADJECTIVES = (("awful", "dull"), ("great", "lovely"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set in a folder, which processes can load by its name."""
    folder = tmp_path_factory.mktemp("data") / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = [number % 2 for number in range(240)]
    texts = [
        f"film number {number} is {ADJECTIVES[label][int(rng.integers(2))]}"
        for number, label in enumerate(labels)
    ]
    table = pyarrow.table({"text": texts, "label": labels})
    parquet.write_table(table, folder / "train-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets"))
    monkeypatch.setattr(benchmark, "MODELS", {"tiny": (DESIGN, None, RECIPE)})


def arguments(task: str, *more: str) -> Any:
    return benchmark.parser().parse_args(
        ["--models", "tiny", "--task", task, "--sequence-length", "16", *more]
    )


def run(monkeypatch: pytest.MonkeyPatch, task: str, out: Path, *more: str) -> None:
    given = ["--models", "tiny", "--task", task, "--sequence-length", "16", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["sparsity_accuracy.py", *given, *more])
    benchmark.main()


def test_trains_in_processes_compares_and_goes_on(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--seeds", "2", "--variants", "dense", "both", "--workers", "2",
               "--refresh-steps", "5")  # fmt: skip
    run(monkeypatch, task, tmp_path, *options)
    *lines, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert (result["n"], result["splits"], result["margin"]) == (36, ["validation"], -0.015)
    rows = result["models"]["tiny"]
    made = {
        name: [TrainedModel.load(tmp_path / "tiny" / f"{name}-{seed}") for seed in range(2)]
        for name in ("dense", "both")
    }
    validation = load_task(task, 16).validation
    answers = {name: [m.correct(validation) for m in models] for name, models in made.items()}
    for name, row in rows.items():
        assert row["seeds"] == [0, 1] == [model.seed for model in made[name]]
        assert row["accuracy"] == [a.mean() for a in answers[name]]
        assert row["accuracy"] == [model.validation_accuracy for model in made[name]]
    found = paired_difference(answers["both"], answers["dense"])
    assert rows["both"]["difference"] == {**vars(found), "met": found.low > -0.015}
    assert "difference" not in rows["dense"]
    for dense, both in zip(rows["dense"]["densities"], rows["both"]["densities"], strict=True):
        assert both["pruned_places"]["OUTPUT"] == pytest.approx(0.5, abs=0.03)
        assert both["by_role"]["OUTPUT"] > both["pruned_places"]["OUTPUT"] + 0.001  # and scores
        assert both["pruned_places"]["GRAD_OUTPUT"] == pytest.approx(0.1, abs=0.05)
        assert dense["by_role"]["OUTPUT"] > 0.9 and dense["by_role"]["GRAD_OUTPUT"] > 0.3
        assert list(both["by_layer"]["GRAD_OUTPUT"]) == ["outside", "0", "1"]
    table = "\n".join(lines)
    assert "n = 36" in table and "gradients of classifier and pooler are left alone" in table
    assert f"{100 * found.low:+.2f} to {100 * found.high:+.2f}" in table

    before = [model.path.joinpath("training.json").stat().st_mtime_ns for model in made["both"]]
    page = tmp_path / "page.html"
    run(monkeypatch, task, tmp_path, *options, "--plot", str(page))
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    assert "2 layers of 16" in page.read_text() and not list(tmp_path.rglob("sweep.json"))
    assert not list(tmp_path.rglob("test_openings.json"))

    run(monkeypatch, task, tmp_path, *options, "--splits", "test", "validation", "test")
    *lines, last = capsys.readouterr().out.splitlines()
    opened = json.loads(last)
    assert opened["n"] == 36 + 36 and "validation and test split, n = 72" in "\n".join(lines)
    tested = {
        name: [
            np.append(one, json.loads((model.path / "test.json").read_text())["test_correct"])
            for one, model in zip(answers[name], models, strict=True)
        ]
        for name, models in made.items()
    }
    assert opened["models"]["tiny"]["both"]["accuracy"] == [a.mean() for a in tested["both"]]
    found = paired_difference(tested["both"], tested["dense"])
    difference = opened["models"]["tiny"]["both"]["difference"]
    assert difference == {**vars(found), "met": found.low > -0.015}
    for model in made["dense"]:
        assert len(json.loads((model.path / "test_openings.json").read_text())) == 1
    run(monkeypatch, task, tmp_path, *options, "--splits", "test")
    alone = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]["tiny"]
    assert alone["both"]["accuracy"] == [a[36:].mean() for a in tested["both"]]
    after = [model.path.joinpath("training.json").stat().st_mtime_ns for model in made["both"]]
    assert after == before


def test_what_a_variant_is(task: str) -> None:
    given = arguments(task, "--recipe", "epochs=4", "batch_size=16", "--gradient-density", "0.2")
    of = {name: benchmark.training_of(given, "tiny", name, 3) for name in benchmark.VARIANTS}
    off = ("classifier", "pooler")
    ramp = {"steps": 11}  # a quarter of 4 epochs of 11 batches of 168 examples
    assert of["dense"].policy == {"gradients_off": off}
    shared = {"gradients_off": off, "selection": "threshold", "refresh_steps": 50, "ramp": ramp}
    assert of["activations"].policy == {"activation_density": 0.5, **shared}
    assert of["gradients"].policy == {"gradient_density": 0.2, **shared}
    both = {"activation_density": 0.5, "gradient_density": 0.2, **shared}
    assert of["both"].policy == both
    assert (of["both"].recipe.epochs, of["both"].recipe.learning_rate) == (4, 5e-3)
    assert {t.seed for t in of.values()} == {3} and len({t.folder for t in of.values()}) == 4
    given = arguments(task, "--gradients-off", "--ramp", "0", "--selection", "top_k_row")
    made = benchmark.training_of(given, "tiny", "gradients", 0)
    shared = {"selection": "top_k_row", "refresh_steps": 50}
    assert made.policy == {"gradients_off": (), "gradient_density": 0.1, **shared}
    net = benchmark.training_of(arguments(task, "--net"), "tiny", "both", 0)
    by_operation = {row["operation"]: row["density"] for row in net.policy["overrides"]}
    assert by_operation == benchmark.NET_DENSITIES and net.policy["activation_density"] == 0.5
    assert net.policy["gradient_density"] == 0.1
    gradients = benchmark.training_of(
        arguments(task, "--net", "--dense-residual"), "tiny", "gradients", 0
    )
    assert "overrides" not in gradients.policy and "prune_residual" not in gradients.policy
    residual = benchmark.training_of(arguments(task, "--dense-residual"), "tiny", "both", 0)
    assert residual.policy["prune_residual"] is False
    taught = ("distillation=0.9", "transfer_texts=40", "epochs=4")
    longer = benchmark.training_of(arguments(task, "--recipe", *taught), "tiny", "both", 0)
    assert longer.policy["ramp"] == {"steps": 26}  # of 4 epochs of 26 batches of 168 + 40 texts
    with pytest.raises(ValueError, match="unknown key 'epoch'"):
        benchmark.training_of(arguments(task, "--recipe", "epoch=4"), "tiny", "dense", 0)


def test_the_published_shape_of_minilm_is_what_is_trained() -> None:
    from transformers import AutoConfig

    from model.space import TransformerDesign
    from model.teacher import minilm_folder

    design = TransformerDesign.load(trainings.MINILM)
    assert design == TransformerDesign.load(AutoConfig.from_pretrained(minilm_folder()))


def test_net_densities_keep_half_of_what_minilm_stores() -> None:
    """Of a sequence of 27 tokens, the mean of the movie sentences, scores apart."""
    length, width, wide, heads = 27, 384, 1536, 12
    sizes = {name: width for name in ("query", "key", "value", "context", "attention_output",
             "attention_norm", "feed_forward_1", "feed_forward_norm")}  # fmt: skip
    sizes |= {"feed_forward_0": wide, "attention_softmax": heads * length}
    assert set(benchmark.NET_DENSITIES) == {*sizes, "embedding"}
    total = sum(sizes[name] * benchmark.NET_DENSITIES[name] for name in sizes)
    assert total / sum(sizes.values()) == pytest.approx(0.5, abs=0.01)


def test_after_its_minutes_it_starts_no_training(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, task, tmp_path / "out", "--minutes", "0")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["models"] == {"tiny": {}}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("device", "seen", "kind", "alone"),
    [("cpu", "", "cpu", ""), ("cuda:1", "", "cuda", "1"), ("cuda:1", "4,6", "cuda", "6"),
     ("cuda", "4,6", "cuda", "4,6")],
)  # fmt: skip
def test_each_process_sees_its_device_alone(
    device: str, seen: str, kind: str, alone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import queue

    devices: queue.Queue[str] = queue.Queue()
    devices.put(device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    monkeypatch.setattr(trainings, "DEVICE", "")
    trainings.prepare(devices)
    assert trainings.DEVICE == kind and os.environ["CUDA_VISIBLE_DEVICES"] == alone
