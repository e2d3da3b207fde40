"""DynaProp in Hugging Face's Trainer: scale of gradients, targets, logs, traces, resuming."""

import json
import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from small import DESIGN, labelled_examples, make_model
from transformers import Trainer, TrainerCallback, TrainingArguments

from model.callbacks import DynaPropCallback, MovementPruningCallback, mean_densities
from model.density import DensityPass, DensityRecorder
from model.movement import SCORES
from model.operations import GemmRole
from model.policy import MovementSchedule
from model.trace import SparsityTrace

torch.set_num_threads(1)

EXAMPLES = labelled_examples(64)
POLICY = {"activation_threshold": 0.1, "gradient_threshold": 3e-5}
TARGETS = {
    "activation_density": 0.5, "gradient_density": 0.2, "gradients_off": ["classifier", "pooler"],
    "refresh_steps": 3, "ramp": {"steps": 4},
}  # fmt: skip


def trainer_of(out: Path, policy: dict, examples: list = EXAMPLES, **arguments: object) -> Trainer:
    chosen = {
        "per_device_train_batch_size": 8, "max_steps": 8, "logging_steps": 2, "save_steps": 5,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3,
        **arguments,
    }  # fmt: skip
    fields = dict(policy)
    model = make_model(fields.pop("activation_threshold", 0.0), **fields).train()
    return Trainer(model, TrainingArguments(str(out), **chosen), train_dataset=examples)


class Counting(DynaPropCallback):
    """Counts every tensor of the first optimiser step."""

    def on_step_begin(self, args, state, control, **rest):
        super().on_step_begin(args, state, control, **rest)
        self.counted = self.dynaprop.recorder = DensityRecorder(DESIGN)

    def on_step_end(self, args, state, control, **rest):
        self.scale = self.dynaprop.gradient_scale
        self.dynaprop.recorder = None


def first_step(out: Path, batch: int, accumulate: int = 1, precision: str = "float64") -> dict:
    """Counts of one optimiser step over the same 32 examples; this process's."""
    trainer = trainer_of(
        out, POLICY, EXAMPLES[:32], per_device_train_batch_size=batch, max_steps=1,
        gradient_accumulation_steps=accumulate, save_strategy="no",
        train_sampling_strategy="sequential", bf16=precision == "bf16",
    )  # fmt: skip
    if precision == "float64":
        trainer.model.double()
    trainer.model.eval()
    trainer.model.train = lambda mode=True: trainer.model  # no dropout: what is counted is the same
    callback = Counting(trainer, log_densities=False)
    trainer.add_callback(callback)
    trainer.train()
    return {
        f"{layer}.{name}.{role}": counts.tolist()
        for (layer, name, role), counts in callback.counted.counts().items()
    } | {"scale": callback.scale}


def process(rank: int, port: int, out: str, pipe: object, precision: str) -> None:
    import os

    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    pipe.send(first_step(Path(out), 16, precision=precision))
    torch.distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def two_processes(out: Path, precision: str) -> dict:
    """Counts of the same step, summed over two processes."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    pipes = [context.Pipe() for _ in range(2)]
    ranks = [
        context.Process(target=process, args=(rank, port, str(out), pipe[1], precision))
        for rank, pipe in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    shares = [pipe[0].recv() if pipe[0].poll(120) else None for pipe in pipes]
    for rank in ranks:
        rank.join(60)
    first, second = shares
    scale = first.pop("scale")
    assert second.pop("scale") == scale
    assert first.keys() == second.keys()
    return {
        name: [a + b for a, b in zip(first[name], second[name], strict=True)] for name in first
    } | {"scale": scale}


def test_one_batch_two_processes_and_accumulation_prune_the_same_gradients(tmp_path: Path) -> None:
    """1 × 32 = 2 × 16 = 32 by accumulation, entry by entry, in float64."""
    whole = first_step(tmp_path / "whole", 32)
    accumulated = first_step(tmp_path / "accumulated", 16, accumulate=2)
    assert whole.pop("scale") == accumulated.pop("scale") == 1
    assert accumulated == whole
    pruned = [
        name
        for name, (nonzeros, zeros, entries) in whole.items()
        if name.endswith("GRAD_OUTPUT") and nonzeros + zeros < entries
    ]
    assert len(pruned) > 12

    two = two_processes(tmp_path / "two", "float64")
    assert two.pop("scale") == 2
    assert two == whole


def test_the_loss_scale_of_half_precision_is_corrected_for(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, POLICY)
    callback = DynaPropCallback(trainer)
    assert callback.gradient_scale == 1.0
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert callback.gradient_scale == 1024.0


def densities(counts: dict) -> dict[str, tuple[float, int]]:
    """Density of each tensor that is pruned, and its entries."""
    return {
        name: (nonzeros / entries, entries)
        for name, (nonzeros, zeros, entries) in counts.items()
        if not name.endswith("INPUT") and nonzeros + zeros < entries
    }


def test_bf16_prunes_as_float_does_at_any_scale(tmp_path: Path) -> None:
    """The same step in autocast: alone, accumulated, in two processes.

    What lies near τ may be pruned in one and kept in the other. bfloat16 rounds by up to 2⁻⁹, and
    an entry comes from several such roundings: taken as 2⁻⁵ in all, some 6 % of entries are so near
    (twice that, times a density of log |x| of about 1). Which way each goes is chance, so that of n
    entries √(0.06 n) more or fewer are kept; three times that is allowed, and 0.003 of what is no
    chance, such as a τ that is itself rounded.
    """
    whole = first_step(tmp_path / "float", 32, precision="float32")
    assert whole.pop("scale") == 1
    wanted = densities(whole)
    made = {
        "alone": first_step(tmp_path / "alone", 32, precision="bf16"),
        "accumulated": first_step(tmp_path / "accumulated", 16, 2, precision="bf16"),
        "two": two_processes(tmp_path / "two", "bf16"),
    }
    assert [counts.pop("scale") for counts in made.values()] == [1, 1, 2]
    for counts in made.values():
        found = densities(counts)
        assert found.keys() == wanted.keys() and len(found) > 30
        for name, (density, entries) in found.items():
            other, same = wanted[name]
            assert entries == same
            assert density == pytest.approx(other, abs=0.003 + 3 * (0.06 / entries) ** 0.5), name


class Looking(DensityRecorder):
    """Keeps what is stored and what enters products, before and after pruning."""

    def __init__(self) -> None:
        super().__init__(DESIGN)
        self.seen: list[tuple] = []

    def start(self, valid_mask: torch.Tensor) -> DensityPass:
        made = super().start(valid_mask)
        made.note_activation = lambda before, after, layer, name, valid, members=(): (
            self.seen.append((layer, name, GemmRole.OUTPUT, before, after, valid))
        )
        made.note_product = made.note_operand = lambda *_: None
        made.gradient_note = lambda layer, name, valid, members=(): (
            lambda before, after: self.seen.append(
                (layer, name, GemmRole.GRAD_OUTPUT, before, after, valid)
            )
        )
        return made


def test_thresholds_of_bf16_are_compared_with_what_is_stored(tmp_path: Path) -> None:
    """In the type that the tensor has: |x| ≥ τ rounded to it, gradients with their scale."""
    trainer = trainer_of(tmp_path, POLICY, max_steps=1, bf16=True, save_strategy="no")
    callback = DynaPropCallback(trainer, log_densities=False)
    trainer.add_callback(callback)
    looking = Looking()

    class Sets(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            callback.dynaprop.recorder = looking
            callback.dynaprop.gradient_scale = 2.0  # as of two processes

    trainer.add_callback(Sets())
    trainer.train()
    dynaprop, kinds = trainer.model.dynaprop, {}
    for layer, name, role, before, after, valid in looking.seen:
        scale = 2.0 if role is GemmRole.GRAD_OUTPUT else 1.0
        tau = torch.tensor(dynaprop.threshold(layer, name, role) * scale, dtype=before.dtype)
        real = torch.ones_like(before, dtype=torch.bool) if valid is None else valid
        kept = (before.detach().abs() >= tau) | ~real
        assert torch.equal(after, torch.where(kept, before, 0)), name
        if tau > 0 and not kept.all():
            kinds.setdefault((role, before.dtype), set()).add(name)
    assert kinds[GemmRole.OUTPUT, torch.bfloat16] >= {"query", "context", "feed_forward_0"}
    assert kinds[GemmRole.GRAD_OUTPUT, torch.bfloat16] >= {"query", "context", "feed_forward_0"}


def test_targets_are_met_and_logged(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, TARGETS, per_device_train_batch_size=32)
    trainer.add_callback(DynaPropCallback(trainer, EXAMPLES))
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "density/OUTPUT" in entry]
    assert [entry["step"] for entry in logs] == [2, 4, 6, 8]
    # Steps 1, 3, 5, 7 are looked at; the ramp is over after the fourth.
    outputs = [entry["density/OUTPUT"] for entry in logs]
    assert outputs[0] > 0.8 > outputs[1] > outputs[2]
    for entry in logs[2:]:
        assert 0.45 < entry["density/0/OUTPUT"] < 0.65  # scores are not pruned
        assert entry["density/1/GRAD_OUTPUT"] < entry["density/0/GRAD_OUTPUT"]
        assert 0 < entry["zeros_before/0/GRAD_OUTPUT"] < 1 - entry["density/0/GRAD_OUTPUT"]
        assert entry["density/outside/OUTPUT"] <= 1
    # The table before was made on the ramp, where less was pruned before each gradient.
    assert logs[3]["density/0/GRAD_OUTPUT"] == pytest.approx(0.2, abs=0.07)
    model = trainer.model
    assert model.dynaprop.recorder is None and model.dynaprop.step is None
    trainer.save_model(str(tmp_path / "model"))
    loaded = type(model).from_pretrained(tmp_path / "model")
    assert loaded.dynaprop.table == model.dynaprop.table and loaded.dynaprop.table.step is None


def test_mean_densities_by_role() -> None:
    history = [
        {"step": 2, "density/OUTPUT": 0.9},
        {"step": 4, "density/OUTPUT": 0.5, "density/0/OUTPUT": 0.1, "zeros_before/OUTPUT": 0.3},
        {"step": 4, "loss": 1.0},
        {"step": 6, "density/OUTPUT": 0.25, "density/GRAD_OUTPUT": 0.125},
    ]
    assert mean_densities(history, since=2) == {"OUTPUT": 0.375, "GRAD_OUTPUT": 0.125}
    assert mean_densities(history)["OUTPUT"] == pytest.approx(0.55)
    with pytest.raises(ValueError, match="no densities were logged after step 6; lower"):
        mean_densities(history, since=6)


def test_what_densities_need_is_asked_for(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, TARGETS)
    with pytest.raises(ValueError, match="asks for densities.*give calibration="):
        DynaPropCallback(trainer)
    with pytest.raises(ValueError, match=r"trace_at must be .* not 1\.0"):
        DynaPropCallback(trainer, EXAMPLES, trace_at=(1.0,))
    with pytest.raises(ValueError, match="neither schedule nor the policy's movement"):
        MovementPruningCallback(trainer)
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match=r"n_gpu must be .* not 2.*--num_processes 2"):
        DynaPropCallback(trainer, EXAMPLES)
    trainer.args.fp16, trainer.args.max_grad_norm = True, 0.0
    with pytest.raises(ValueError, match=r"needs max_grad_norm above 0, not 0\.0"):
        MovementPruningCallback(trainer, MovementSchedule(density=0.5, steps=1))


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def whole_training(out: Path, resume: str | None = None) -> Trainer:
    policy = {**TARGETS, "movement": {"density": 0.4, "start": 1, "steps": 5}}
    trainer = trainer_of(out, policy)
    trainer.add_callback(DynaPropCallback(trainer, EXAMPLES[:16]))
    trainer.add_callback(MovementPruningCallback(trainer))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_training_that_is_taken_up_ends_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """The checkpoint lies between two refreshes, on the ramp of the weights."""
    one = whole_training(tmp_path / "one")
    two = whole_training(tmp_path / "two", resume=str(tmp_path / "one" / "checkpoint-5"))
    assert two.model.dynaprop.table == one.model.dynaprop.table
    first, second = parameters(one), parameters(two)
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = json.loads((tmp_path / "one" / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["dynaprop"]["table"]["step"] == 3


def test_weights_of_products_are_pruned_and_saved_so(tmp_path: Path) -> None:
    trainer = whole_training(tmp_path)
    weights = {name: module.weight for name, module in trainer.model.products().items()}
    for weight in weights.values():
        assert int((weight != 0).sum()) == round(0.4 * weight.numel())
        assert SCORES in trainer.optimizer.state[weight]
    words = trainer.model.get_input_embeddings().weight
    assert (words != 0).all()
    trainer.save_model(str(tmp_path / "model"))
    loaded = type(trainer.model).from_pretrained(tmp_path / "model")
    for name, module in loaded.products().items():
        assert torch.equal(module.weight, weights[name])


def test_parameters_gradients_are_pruned_after_clipping(tmp_path: Path) -> None:
    """With plain descent and a threshold, a parameter moves by at least rate · threshold."""
    moves = {}
    for threshold in (0.0, 0.01):
        trainer = trainer_of(
            tmp_path, {"parameter_gradient_threshold": threshold}, max_steps=1, optim="sgd",
            learning_rate=0.5, max_grad_norm=0.3, lr_scheduler_type="constant", save_strategy="no",
        )  # fmt: skip
        trainer.model.double()
        before = parameters(trainer)
        trainer.add_callback(DynaPropCallback(trainer))
        trainer.train()
        after = parameters(trainer)
        moves[threshold] = torch.cat([(before[k] - after[k]).abs().flatten() for k in before]) / 0.5
    free, pruned = moves.values()
    kept = free >= 0.01
    assert 0 < int(kept.sum()) < kept.numel() and float(free.norm()) == pytest.approx(0.3, rel=1e-3)
    torch.testing.assert_close(pruned[kept], free[kept])
    assert (pruned[~kept] == 0).all()


def test_traces_by_stage_of_training(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, TARGETS, save_strategy="no", logging_strategy="no")
    callback = DynaPropCallback(
        trainer, EXAMPLES[:16], trace_at=(0.0, 0.25, 0.75), trace_steps=2, task="tiny"
    )
    trainer.add_callback(callback)
    trainer.train()
    found = {}
    for path in sorted((tmp_path / "traces").iterdir()):
        trace = SparsityTrace.load(path)
        trace.check(DESIGN)
        assert trace.stage == "training" and trace.task == "tiny" and trace.batch == 16
        found[trace.training_share] = trace
    assert list(found) == [0.0, 0.25, 0.75]
    assert found[0.75].thresholds["0.query.OUTPUT"] > found[0.25].thresholds["0.query.OUTPUT"] > 0
    densities = [trace.density(0, "query", "OUTPUT") for trace in found.values()]
    assert densities[0] > densities[1] > densities[2]
    assert len({trace.weights_hash for trace in found.values()}) == 3
    assert not any("density/OUTPUT" in entry for entry in trainer.state.log_history)
