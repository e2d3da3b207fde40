"""Training in the hardware's arithmetic: the integer pass's own values, and gradients."""

import numpy as np
import pytest
import torch
from small import DESIGN, EDGE, batch, make_model
from tiny import SMALL, FakeTeacher, same, tiny_task

import model.train
from hwgen.fixed_point import FixedPoint
from model.calibration import Calibration, calibrate
from model.evaluation import evaluate
from model.integer_pass import as_the_model_holds, as_the_pass_holds
from model.quantization_aware import QuantizationAwareModel, fine_tune, fine_tuning_recipe
from model.quantized import QuantizedModel
from model.recipe import Recipe
from model.space import operations
from model.train import train


def with_bits(bits):
    return EDGE.model_copy(update={"integer_bits": 4, "fraction_bits": bits - 4})


def aware(bits, float_model, **options):
    calibration = calibrate(float_model, [batch(0)], bits=bits, **options)
    return QuantizationAwareModel(float_model, calibration, with_bits(bits))


@pytest.mark.parametrize(("bits", "options"), [(20, {}), (12, {}), (8, {"method": "mse"}),
                                               (8, {"channels": True}), (4, {})])  # fmt: skip
def test_gives_the_logits_of_the_integer_pass(bits, options):
    float_model = make_model(0.1)
    made = aware(bits, float_model, **options)
    with torch.no_grad():  # as an optimiser's step does
        for parameter in float_model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    fresh = calibrate(float_model, [batch(0)]).weights_hash
    calibration = made.quantized.calibration.model_copy(update={"weights_hash": fresh})
    expected = QuantizedModel(float_model, calibration, with_bits(bits)).logits(**batch(5))
    assert torch.equal(made(**batch(5)).logits.double(), expected)


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("channels", [False, True])
def test_every_rounding_is_within_an_ulp_of_the_float_operation(bits, channels):
    """What is replaced differs from what the float operation makes of the same integers by the
    units' contracts: ½ ulp of a product and of a sum, 1 of softmax, GELU and layer norm, 2 of tanh,
    the difference of two of softmax's.
    """
    float_model = make_model(0.1).double()
    made = aware(bits, float_model, channels=channels)
    worst = {}
    straight_through = made._straight_through

    def watch(values, rounded, unit, width=bits):
        number = FixedPoint(width, 0)
        exact = (values.detach() / unit).clamp(number.minimum, number.maximum)
        watch.errors.append((exact - rounded / unit).abs())
        return straight_through(values, rounded, unit, width)

    watch.errors = []
    made._straight_through = watch
    data = batch(3, 16)
    mask = data["attention_mask"].bool()
    names = []
    unit_of = made._unit

    def named(name):
        names.extend([name, f"{name}: bias"] if name.endswith(".weight") else [name])
        return unit_of(name)

    made._unit = named
    made(**data)
    assert len(names) == len(watch.errors)
    items = {item.writes: item for item in operations(DESIGN)}
    for name, errors in zip(names, watch.errors, strict=True):
        if errors.ndim == 4:  # attention: rows of real positions, and columns where they are such
            errors = errors[mask[:, None].expand(errors.shape[:3])]
        elif errors.ndim == 3 and errors.shape[1] == mask.shape[1]:
            errors = errors[mask]
        kind = items[name].kind if name in items else "rounding"
        if kind == "product" and items[name].activation:
            kind = "gelu"
        if name == "embedding.sum":  # of a word's row and a position's, each rounded before
            kind = "rows"
        worst[kind] = max(worst.get(kind, 0.0), float(errors.max()))
    assert worst["product"] <= 0.5 + 1e-9 and worst["rounding"] <= 0.5 + 1e-9
    assert worst["rows"] <= 1.5
    assert 0.4 < worst["softmax"] <= 1 and 0.4 < worst["gelu"] <= 1 and worst["add_norm"] <= 1
    assert worst["tanh"] <= 2
    assert set(worst) == {"product", "rounding", "rows", "softmax", "gelu", "add_norm", "tanh"}


def test_shapes_of_both_models_are_inverse():
    rng = torch.Generator().manual_seed(0)
    values = torch.rand((2, 3, 5, 4), generator=rng)
    for name, shape in (("0.key", (2, 5, 12)), ("0.score", (6, 5, 4))):
        held = as_the_pass_holds(name, values)
        assert held.shape == shape
        assert torch.equal(as_the_model_holds(name, held, values), values)
    assert torch.equal(as_the_pass_holds("0.score", values)[4], values[0, 2])
    assert torch.equal(as_the_pass_holds("0.key", values)[1, 2, 4:8], values[1, 1, 2])


def test_gradients_are_those_of_float_where_nothing_is_clipped():
    """At many bits; a weight beyond its range has none."""
    data = {**batch(2), "labels": torch.arange(64) % 2}
    float_model = make_model(0.0)
    float_model(**data).loss.backward()
    expected = {n: p.grad.clone() for n, p in float_model.named_parameters()}
    float_model.zero_grad()
    made = aware(20, float_model)
    labels = data.pop("labels")
    torch.nn.functional.cross_entropy(made(**data).logits, labels).backward()
    for name, parameter in float_model.named_parameters():
        if name.endswith("key.bias"):  # no softmax depends on it
            continue
        error = (parameter.grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-6)
        assert error < 1e-2, name
    assert float_model.dynaprop.rounding is None
    weight = float_model.encoder.layers[1].feed_forward[0].weight
    with torch.no_grad():
        weight[3, 2] = 100.0
    float_model.zero_grad()
    torch.nn.functional.cross_entropy(made(**data).logits, labels).backward()
    assert weight.grad[3, 2] == 0 and weight.grad[3, 1] != 0


def test_the_word_table_is_read_anew_where_it_is_used():
    float_model = make_model(0.0)
    made = aware(8, float_model)
    ids = torch.tensor([[5, 6, 7]])
    before = made(ids).logits
    with torch.no_grad():
        float_model.encoder.embeddings.word.weight[6, :9] += 1.0
    assert not torch.equal(made(ids).logits, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model trained on a tiny task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSCODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(model.train, "fine_tuned_teacher", lambda *a, **k: FakeTeacher())
        recipe = Recipe(epochs=6, learning_rate=3e-3, batch_size=16)
        yield train(SMALL, tiny_task(), recipe=recipe, out=tmp_path_factory.mktemp("model") / "m")


def loss_of(float_model, calibration, accelerator, task):
    """Mean cross entropy of the training split in integers."""
    from model.teacher import model_inputs
    from model.tokens import tokenize

    tokens = tokenize(task.train.texts, task.sequence_length)
    rows = np.arange(len(tokens))
    quantized = QuantizedModel(float_model, calibration, accelerator)
    logits = quantized.logits(**model_inputs(tokens, rows))
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(task.train.labels)))


def test_fine_tuning_improves_what_few_bits_lose(trained, tmp_path):
    from model.job import calibrated

    task, accelerator = tiny_task(), with_bits(4)
    before = calibrated(trained.model, task, 4)
    recipe = fine_tuning_recipe(trained.recipe, 3.0)
    assert (recipe.learning_rate, recipe.decay, recipe.dropout) == (pytest.approx(3e-4), 1.0, 0.0)
    tuned = fine_tune(trained, accelerator, tmp_path / "tuned", recipe=recipe, task=task)
    after = Calibration.load(tuned.path)
    assert after.exponents == before.exponents and after.bits == 4
    losses = [
        loss_of(trained.model, before, accelerator, task),
        loss_of(tuned.model, after, accelerator, task),
    ]
    assert losses[1] < 0.9 * losses[0]
    quantized = QuantizedModel(tuned.model, after, accelerator)
    assert evaluate(tuned.model, quantized, task.validation, 32).n == len(task.validation)
    assert tuned.inputs["fine_tuning"]["accelerator"]["fraction_bits"] == 0
    again = fine_tune(trained, accelerator, tmp_path / "tuned", recipe=recipe, task=task)
    assert same(again.model, tuned.model)
    with pytest.raises(ValueError, match="holds a training of another fine_tuning"):
        fine_tune(trained, with_bits(5), tmp_path / "tuned", recipe=recipe, task=task)


def test_a_killed_fine_tuning_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    task, accelerator = tiny_task(), with_bits(6)
    whole = fine_tune(trained, accelerator, tmp_path / "whole", task=task, method="mse")
    monkeypatch.setattr("model.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(now):
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(
            trained, accelerator, tmp_path / "cut", task=task, method="mse", progress=kill,
            recipe=Recipe.load({**vars(fine_tuning_recipe(trained.recipe))}),
        )  # fmt: skip
    steps = []
    cut = fine_tune(
        trained, accelerator, tmp_path / "cut", task=task, method="mse",
        progress=lambda now: steps.append(now.step),
    )  # fmt: skip
    assert same(whole.model, cut.model)
    assert steps


def test_dropout_is_refused(trained, tmp_path):
    recipe = Recipe.load({**vars(trained.recipe), "dropout": 0.1})
    with pytest.raises(ValueError, match="dropout must be 0 .* not 0.1"):
        fine_tune(trained, with_bits(8), tmp_path / "x", recipe=recipe, task=tiny_task())
