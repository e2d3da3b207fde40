"""transcode curves: groups, measured sparsities, a page without a network, refusals."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "model"))

from tiny import SMALL, FakeTeacher, tiny_task

from model import initial
from model import train as training
from model.operations import GemmRole
from model.policy import PruningPolicy
from model.recipe import Recipe
from model.space import TransformerDesign
from model.sweep import SPARSITIES, THRESHOLDS
from model.trained import TrainedModel
from transcode.curve_figures import INFERENCE, LAST, LAYERS, layer_colour, stages
from transcode.main import main
from transcode.trainings import design_name, find, panels, pruned_by

OFF = {"gradients_off": ["classifier", "pooler"], "refresh_steps": 10}
POLICIES: dict[str, dict[str, Any]] = {
    "dense": {},
    "half": {"activation_density": 0.5, **OFF},
    "tenth": {"activation_density": 0.1, **OFF},
    "top": {"activation_density": 0.5, "selection": "top_k_row", **OFF},
    "both": {"activation_density": 0.5, "gradient_density": 0.1, **OFF},
}
SEEDS = (3, 5)
TABLES = initial.projected_embeddings(16, np.ones(30522))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Five ways to prune, two seeds each."""
    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSCODE_CACHE", str(folder / "cache"))
        patch.setattr(training, "fine_tuned_teacher", lambda *a, **k: FakeTeacher())
        patch.setattr(initial, "projected_embeddings", lambda *_: TABLES)
        patch.setattr(training, "GRADIENT_STEPS", 4)
        patch.setattr("model.trained.load_task", lambda name: tiny_task())
        recipe = Recipe(epochs=2, learning_rate=5e-3, batch_size=16)
        for name, policy in POLICIES.items():
            for seed in SEEDS:
                training.train(
                    SMALL, tiny_task(), policy, recipe, seed, folder / "runs" / f"{name}-{seed}",
                    trace_at=(0.0, 0.5),
                )  # fmt: skip
        yield folder / "runs"


def run(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["transcode", "curves", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    """The page, its figures by name, and what --json prints."""
    out = tmp_path_factory.mktemp("page") / "new" / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("transcode.curves.print_json", lambda made: printed.append(json.dumps(made)))
        assert run(runs, "--out", out, "--json", "--quiet") == 0
    page = out.read_text()
    figures = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    return page, figures, json.loads(printed[0])


def values(found):
    """Numbers of a trace, which Plotly may write in binary."""
    if isinstance(found, dict):
        import base64

        return np.frombuffer(base64.b64decode(found["bdata"]), found["dtype"]).tolist()
    return list(found)


def traces(figure, name):
    return [trace for trace in figure["data"] if trace["name"] == name]


def test_groups_are_means_over_seeds_of_what_was_measured(runs, drawn):
    groups = {group["pruning"]: group for group in drawn[2]["groups"]}
    assert list(groups)[0] == "dense" and len(groups) == 5
    assert drawn[2]["n"] == len(tiny_task().validation)
    for name, pruning in (("dense", "dense"), ("half", "DynaProp: activations 50% zero"),
                          ("top", "top-k of rows: activations 50% zero"),
                          ("both", "DynaProp: activations 50% zero, gradients 90% zero")):
        models = [TrainedModel.load(runs / f"{name}-{seed}") for seed in SEEDS]
        group = groups[pruning]
        assert group["seeds"] == list(SEEDS)
        assert group["folders"] == [str(model.path) for model in models]
        for key, found in (
            ("accuracy", [model.validation_accuracy for model in models]),
            ("activation_sparsity", [1 - model.trace.by_role()["OUTPUT"] for model in models]),
            ("gradient_sparsity", [1 - m.gradients.by_role()["GRAD_OUTPUT"] for m in models]),
        ):
            assert group[key]["mean"] == pytest.approx(np.mean(found))
            assert group[key]["deviation"] == pytest.approx(np.std(found, ddof=1))


def test_lines_join_targets_from_dense_on(runs, drawn):
    figure = drawn[1]["activations"]
    (line,) = traces(figure, "DynaProp, trained")[:1]
    x = values(line["x"])
    assert len(x) == 3 and x == sorted(x) and x[0] < 5 and 40 < x[1] < 55 < 75 < x[2] < 92
    assert len(values(line["error_y"]["array"])) == len(values(line["error_x"]["array"])) == 3
    for what in ("seeds 3, 5", "n = 36", str(runs / "half-3"), "zeros in activations"):
        assert what in line["text"][1]
    assert len(values(traces(figure, "top-k of rows, trained")[0]["x"])) == 2
    assert traces(figure, "DynaProp, trained, gradients too")[0]["line"]["dash"] == "dash"
    singles = [t for t in traces(figure, "DynaProp, trained") if t["mode"] == "markers"]
    assert [len(trace["text"]) for trace in singles] == [2, 2] and not singles[0]["showlegend"]
    names = {trace["name"] for trace in drawn[1]["gradients"]["data"]}
    assert names == {"dense", "DynaProp, trained, activations too"}
    assert figure["layout"]["annotations"][0]["text"] == "<b>1 layer of 16</b>, n = 36, 2 seeds"
    assert figure["layout"]["xaxis"]["title"]["text"] == "zeros in activations, % (measured)"
    assert figure["layout"]["yaxis"]["title"]["text"] == "validation accuracy, %"


def test_the_dense_models_are_pruned_without_retraining(runs, drawn):
    (sweeps,) = drawn[2]["sweeps"].values()
    assert len(sweeps) == len(SEEDS)
    assert {path.parent.name for path in runs.rglob("sweep.json")} == {"dense-3", "dense-5"}
    for name, method, count in (
        ("DynaProp, after training", "threshold", len(SPARSITIES)),
        ("top-k of rows, after training", "top_k_row", len(SPARSITIES)),
        ("one τ for all places, after training", "one_threshold", len(THRESHOLDS)),
    ):
        (line,) = traces(drawn[1]["activations"], name)
        points = [[p for p in points if p["method"] == method] for points in sweeps]
        for axis, key in (("x", "sparsity"), ("y", "accuracy")):
            means = [100 * np.mean([p[key] for p in seeds]) for seeds in zip(*points, strict=True)]
            assert values(line[axis]) == pytest.approx(means) and len(means) == count
        assert not traces(drawn[1]["gradients"], name)


def test_densities_stand_by_role_layer_and_stage(runs, drawn):
    figure = drawn[1]["densities"]
    menu = figure["layout"]["updatemenus"][0]
    assert len(menu["buttons"]) == 5
    # Of the group that is shown: activations and gradients.
    assert "gradients 90% zero (2 seeds)" in menu["buttons"][menu["active"]]["label"]
    shown = menu["buttons"][menu["active"]]["args"][0]["visible"]
    assert [trace["visible"] for trace in figure["data"]] == shown
    lines = [t for t in figure["data"] if t["visible"] and t["name"] == "layer 0"]
    models = [TrainedModel.load(runs / f"both-{seed}") for seed in SEEDS]
    output, gradient = lines[0], lines[1]
    assert output["x"] == [0, 50, LAST, None, INFERENCE] and gradient["x"][:3] == [0, 50, LAST]
    for number, of in ((0, lambda m: m.stages[0.0]), (2, lambda m: m.gradients),
                       (4, lambda m: m.trace)):  # fmt: skip
        found = [of(model).by_layer("OUTPUT")[0] for model in models]
        assert output["y"][number] == pytest.approx(np.mean(found))
    found = [model.gradients.by_layer("GRAD_OUTPUT")[0] for model in models]
    assert gradient["y"][2] == pytest.approx(np.mean(found)) and len(gradient["x"]) <= 4
    assert list(stages(models[0])) == [0, 50, LAST, INFERENCE]
    panels_shown = {annotation["text"].partition(":")[0]
                    for annotation in figure["layout"]["annotations"]}  # fmt: skip
    assert panels_shown == {"OUTPUT", "GRAD_OUTPUT", "INPUT", "WEIGHT", "LEFT", "RIGHT"}


def test_a_density_by_layer_is_that_of_its_records(runs):
    trace = TrainedModel.load(runs / "half-3").trace
    by_layer = trace.by_layer(GemmRole.OUTPUT)
    assert list(by_layer) == [None, 0]
    records = [r for r in trace.records if r.role == "OUTPUT" and r.layer == 0]
    total = sum(r.elements for r in records)
    assert by_layer[0] == sum(r.nonzeros for r in records) / total
    pruned = trace.by_role(without=("score", "classifier"))["OUTPUT"]
    assert pruned == pytest.approx(0.5, abs=0.03) and pruned < trace.by_role()["OUTPUT"]


def test_nothing_comes_from_a_network_and_names_are_escaped(drawn):
    page, _, _ = drawn
    ours = page.replace(max(re.findall(r"<script>.*?</script>", page, re.DOTALL), key=len), "")
    assert "http" not in ours and "src=" not in ours and len(page) > 1e6
    assert "Validation split, n = 36" in ours and "0.00 ± 0.00" in ours
    assert "<td>classifier, pooler</td>" in ours


def test_without_a_sweep_nothing_is_run(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("transcode.curves_page.sweep", lambda *_, **__: pytest.fail("swept"))
    assert run(runs / "half-3", "--out", tmp_path / "p.html", "--no-sweep", "--quiet") == 0
    assert "after training" not in json.dumps(
        re.search(r'id="data">(.*?)</script>', (tmp_path / "p.html").read_text(), re.DOTALL)[1]
    )
    assert "n = 36" in capsys.readouterr().out


def test_what_does_not_belong_together_is_refused(runs, tmp_path, capsys):
    assert run(tmp_path, "--out", tmp_path / "p.html", "--quiet") == 2
    assert f"{tmp_path} holds no trained model" in capsys.readouterr().err
    models = find([runs / "half-3", runs])
    assert len(models) == 10  # each once
    twice = [models[0], replace(models[0], path=Path("copy"))]
    with pytest.raises(ValueError, match="half-3 and copy have the same .* seed, 3; give one"):
        panels(twice)
    other = replace(models[1], inputs={**models[1].inputs, "task": {
        **models[1].inputs["task"], "split_hash": "f" * 16}})  # fmt: skip
    with pytest.raises(ValueError, match=f"split_hash {'f' * 16}.*give trainings of one task"):
        panels([models[0], other])
    many = [replace(models[0], inputs={**models[0].inputs, "recipe": {"epochs": n}})
            for n in range(9)]  # fmt: skip
    with pytest.raises(ValueError, match="9 designs and recipes are more than 8"):
        panels(many)
    started = [replace(model, inputs={**model.inputs, "encoder": f"{number}" * 16})
               for number, model in enumerate(models[:2])]  # fmt: skip
    assert len(panels(started)) == 1 and len(panels([*started, *models[2:4]])) == 2
    assert [panel.name for panel in panels(many[:2])] == [
        "1 layer of 16, recipe 1", "1 layer of 16, recipe 2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "pruned"),
    [
        ({}, "nothing"),
        ({"activation_density": 1.0}, "nothing"),
        ({"activation_threshold": 0.01}, "activations"),
        ({"gradient_density": 0.1}, "gradients"),
        ({"activation_density": 0.5, "gradient_threshold": 1e-6}, "activations and gradients"),
        ({"overrides": [{"role": "GRAD_OUTPUT", "density": 0.5}]}, "gradients"),
        ({"overrides": [{"layer": 0, "threshold": 0.0}]}, "nothing"),
    ],
)
def test_what_a_policy_prunes(policy, pruned):
    assert pruned_by(PruningPolicy.load(policy)) == pruned


def test_designs_and_layers_have_names_and_colours():
    tiny = TransformerDesign.load("bert-tiny").model_copy(update={"labels": 6})
    assert design_name(tiny) == "bert-tiny"
    assert layer_colour(0, 4) != layer_colour(3, 4) and len({layer_colour(n, 6) for n in
                                                            range(6)}) == len(LAYERS)
