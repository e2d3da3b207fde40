"""A compiled encoder prunes without a graph break, bit for bit, and what it saves is packed."""

import pytest
import torch
from functorch.compile import make_boxed_func
from small import batch, labelled_examples, make_model
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.partitioners import min_cut_rematerialization_partition
from transformers import Trainer, TrainingArguments

from model.callbacks import DynaPropCallback
from model.compression import SavedTensorCompression
from model.space import TransformerDesign

torch.set_num_threads(1)

DESIGN = TransformerDesign.load(
    {
        "layers": [{"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [24]}],
        "vocabulary": 200,
        "max_positions": 24,
    }
)


@pytest.fixture(autouse=True)
def _forget_compiled():
    yield
    torch.compiler.reset()


def trained(threshold, compiled, compressed=False, **policy):
    """Loss and gradients of a step; what was saved, if it was packed."""
    model = make_model(threshold, DESIGN, **policy)
    if compiled:
        # The graph as it is, without the kernels of a compiler that rounds in its own order.
        model.encoder.compile(fullgraph=True, backend="aot_eager")
    inputs = batch(0, 8) | {"labels": torch.arange(8) % 2}
    report = None
    if compressed:
        with SavedTensorCompression(model.parameters(), minimum_elements=64) as saved:
            loss = model(**inputs).loss
        report = saved.report
    else:
        loss = model(**inputs).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, report


@pytest.mark.parametrize(
    "policy",
    [
        {"gradient_threshold": 1e-3},
        {"gradient_threshold": 1e-3, "activations_off": [], "prune_residual": False},
        {"overrides": [{"operation": "query", "threshold": 0.7}]},
    ],
)
def test_fullgraph_is_bit_for_bit(policy):
    loss, gradients, _ = trained(0.3, False, **policy)
    compiled_loss, compiled_gradients, _ = trained(0.3, True, **policy)
    assert torch.equal(loss, compiled_loss)
    assert gradients.keys() == compiled_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, compiled_gradients[name]), name
    dense, _, _ = trained(0.0, False)
    assert not torch.equal(loss, dense)


def test_a_threshold_that_changes_is_an_input_of_the_graph():
    # In bfloat16, where a threshold is rounded much before it is compared.
    model = make_model(0.2, DESIGN, gradient_threshold=1e-3).to(torch.bfloat16)
    compiled = torch.compile(model.encoder, fullgraph=True, backend="aot_eager")
    inputs = batch(0, 8)

    def gradients(encoder):
        model.zero_grad()
        encoder(**inputs).pooler_output.square().sum().backward()
        return [p.grad.clone() for p in model.encoder.parameters()]

    for number, threshold in enumerate((0.2, 0.3, 0.25, 0.1, 0.7)):
        policy = {"activation_threshold": threshold, "gradient_threshold": threshold / 100}
        model.set_policy(policy)
        # The second threshold tells the compiler that it changes.
        stance = "default" if number < 2 else "fail_on_recompile"
        with torch.compiler.set_stance(stance):
            made = gradients(compiled)
        assert all(map(torch.equal, gradients(model.encoder), made))


def test_scales_of_gradients_and_sizes_of_batches_may_change():
    def steps(compiled):
        model = make_model(0.3, DESIGN, gradient_threshold=1e-2)
        if compiled:
            model.encoder.compile(fullgraph=True, dynamic=True, backend="aot_eager")
        for scale, size in ((1.0, 8), (0.25, 8), (0.5, 6)):
            model.dynaprop.gradient_scale = scale
            model.zero_grad()
            (scale * model(**batch(0, size)).logits.square().sum()).backward()
            yield [p.grad.clone() for p in model.parameters() if p.grad is not None]

    for plain, compiled in zip(steps(False), steps(True), strict=True):
        assert all(map(torch.equal, plain, compiled))


def test_masks_for_the_backward_pass_are_those_that_prune():
    # Found again later, those of all layers would be one large kernel after the last layer.
    masks, comparisons = [], {torch.ops.aten.lt.Tensor, torch.ops.aten.bitwise_and.Tensor}

    def forward(module, _):
        (output,) = module.graph.find_nodes(op="output")
        masks.extend(node for node in output.args[0] if getattr(node, "target", "") in comparisons)
        return make_boxed_func(module)

    backend = aot_autograd(
        fw_compiler=forward,
        bw_compiler=lambda module, _: make_boxed_func(module),
        partition_fn=min_cut_rematerialization_partition,
    )
    model = make_model(0.3, DESIGN)
    model.encoder.compile(fullgraph=True, backend=backend)
    model(**batch(0, 8)).logits.sum().backward()
    assert len(masks) > 5
    for mask in masks:
        assert any(user.target is torch.ops.aten.where.self for user in mask.users), mask


def test_thresholds_outlast_a_device_without_data():
    model = make_model(0.3, DESIGN)
    inputs, weights = batch(0, 8), {name: p.clone() for name, p in model.state_dict().items()}
    expected = model(**inputs).logits
    model.to("meta").to_empty(device="cpu").load_state_dict(weights)
    model.encoder.compile(fullgraph=True, backend="aot_eager")
    assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_threshold_that_changes_is_an_input_of_the_cuda_graph():
    made = {}
    for mode in (None, "reduce-overhead"):
        model = make_model(0.2, DESIGN).cuda()
        model.encoder.compile(fullgraph=True, mode=mode)
        inputs = {name: values.cuda() for name, values in batch(0, 8).items()}
        inputs["labels"] = torch.arange(8, device="cuda") % 2
        counters.clear()
        made[mode] = []
        for threshold in (0.2, 0.3, 0.3, 0.3, 0.1, 0.7):
            model.set_policy(
                {"activation_threshold": threshold, "gradient_threshold": threshold / 100}
            )
            torch.compiler.cudagraph_mark_step_begin()
            model.zero_grad()
            model(**inputs).loss.backward()
            made[mode].append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert counters["inductor"]["cudagraph_skips"] == 0
    for plain, replayed in zip(*made.values(), strict=True):
        for one, other in zip(plain, replayed, strict=True):
            torch.testing.assert_close(other, one)
    assert not torch.equal(made[None][-1][0], made[None][-2][0])


def test_hooks_enclose_the_compiled_encoder():
    loss, gradients, _ = trained(0.5, True, gradient_threshold=1e-3)
    packed_loss, packed_gradients, report = trained(0.5, True, True, gradient_threshold=1e-3)
    assert torch.equal(loss, packed_loss)
    assert all(torch.equal(gradients[name], packed_gradients[name]) for name in gradients)
    assert report.packed > 5
    assert report.packed_bytes < 0.85 * report.packed_dense_bytes


@pytest.mark.parametrize(
    "policy",
    [
        {"activation_threshold": 0.2, "gradient_threshold": 3e-5, "ramp": {"steps": 6}},
        {"activation_density": 0.5, "gradient_density": 0.2, "refresh_steps": 3,
         "gradients_off": ["classifier", "pooler"], "ramp": {"start": 2, "steps": 4}},
    ],
)  # fmt: skip
def test_a_ramp_new_tables_and_recorded_steps_leave_one_graph(policy, tmp_path):
    """Over a training; what profiles and records runs uncompiled."""
    examples = labelled_examples(64)
    made = {}
    for compiled in (False, True):
        fields = dict(policy)
        model = make_model(fields.pop("activation_threshold", 0.0), DESIGN, **fields)
        if compiled:
            model.encoder.compile(fullgraph=True, backend="aot_eager")
        counters.clear()
        arguments = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=16, max_steps=10, logging_steps=4,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=examples)
        trainer.add_callback(DynaPropCallback(trainer, examples[:32]))
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "density/OUTPUT" in entry]
        made[compiled] = model.state_dict(), logged
    assert counters["stats"]["unique_graphs"] == 1
    (plain, logged), (graph, logged_beside) = made.values()
    assert len(logged) == 2 and logged == logged_beside
    assert logged[1]["density/OUTPUT"] < 0.8
    assert all(torch.equal(plain[name], graph[name]) for name in plain)
