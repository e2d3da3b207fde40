"""DynaProp and movement pruning in Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import IntervalStrategy, TrainerCallback

from model.density import DensityRecorder
from model.dynaprop import DynaProp
from model.movement import MovementPruning, prune_gradients
from model.operations import GemmRole
from model.policy import MovementSchedule
from model.threshold_profiling import ThresholdRefresh
from model.thresholds import ThresholdTable, thresholds_in_force

STATE_KEY = "dynaprop"
"""Under which the Trainer's state, which checkpoints hold, keeps the table."""


class DynaPropCallback(TrainerCallback):
    """Gives a FlexiBERT model in a Trainer what its policy needs, and logs densities.

    Before each step it places the training on the policy's ramp, sets the scale of gradients (loss
    scale times processes; the Trainer divides the loss by the steps that it accumulates) and, every
    `refresh_steps`, profiles thresholds. A training that is taken up at a checkpoint has its table
    from there. Parameters' gradients are pruned after clipping where the policy asks for it.

    In each step before a log (of logging strategy "steps") the densities of all processes' real
    entries are recorded and go to the Trainer's log, from there to TensorBoard and the like:
    "density/OUTPUT", "density/0/OUTPUT" for layer 0, "density/outside/OUTPUT" for embedding, pooler
    and classifier, and beside each, as "zeros_before/…", the share that was zero before pruning.

    Parameters
    ----------
    trainer : the Trainer that it is added to, with a FlexiBERT model
    calibration : data set of examples like the training's, and from its split; every process
        profiles all of it, in the same order. Needed where the policy asks for densities
    loss : mean loss of a batch as the Trainer prepares it; by default the Trainer's
    log_densities : whether densities are recorded and logged
    trace_at : shares of the training at which a trace is written as traces/<share>.json in the
        output folder, of the first process's share of the data
    trace_steps : steps that a trace is recorded over
    task : name of the task, for the traces
    """

    def __init__(
        self,
        trainer: Any,
        calibration: Any = None,
        *,
        loss: Callable[[Any], Tensor] | None = None,
        log_densities: bool = True,
        trace_at: tuple[float, ...] = (),
        trace_steps: int = 4,
        task: str = "",
    ) -> None:
        for share in trace_at:
            if not 0 <= share < 1:
                raise ValueError(f"trace_at must be at least 0 and below 1, not {share}")
        if trainer.args.n_gpu > 1:
            raise ValueError(
                f"n_gpu must be at most 1, not {trainer.args.n_gpu}: copies of a model in threads "
                "of one process share what prunes them; launch a process a GPU (accelerate launch "
                f"--multi_gpu --num_processes {trainer.args.n_gpu}), or set CUDA_VISIBLE_DEVICES=0"
            )
        self.trainer = trainer
        self.model = trainer.accelerator.unwrap_model(trainer.model)
        self.dynaprop: DynaProp = self.model.dynaprop
        if self.dynaprop.policy.needs_table and calibration is None:
            raise ValueError(
                "the policy asks for densities, whose thresholds are profiled; give calibration="
                "a data set of some hundred examples of the training split"
            )
        if self.dynaprop.policy.parameter_gradient_threshold > 0:
            _check_clipping(trainer)
        self.log_densities = log_densities
        self.trace_at, self.trace_steps, self.task = trace_at, trace_steps, task
        self.stage: tuple[float, int] | None = None  # share, first step
        self.looking_on = ExitStack()
        args = trainer.args
        batches = []
        if calibration is not None:
            collate = trainer._get_collator_with_removed_columns(trainer.data_collator)
            batches = list(
                DataLoader(calibration, args.per_device_train_batch_size, collate_fn=collate)
            )
        self.refresh = ThresholdRefresh(
            self.model,
            batches,
            loss or self._loss,
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.seed,
        )

    def _loss(self, batch: Any) -> Tensor:
        prepared = self.trainer._prepare_inputs(dict(batch))
        with self.trainer.compute_loss_context_manager():
            made: Tensor = self.trainer.compute_loss(self.model, prepared)
        return made

    @property
    def gradient_scale(self) -> float:
        """What gradients in a backward pass are larger by than those of the global mean loss."""
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        loss_scale = 1.0 if scaler is None else float(scaler.get_scale())
        return loss_scale * float(self.trainer.args.world_size)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take a checkpoint's table over."""
        kept = state.stateful_callbacks.get(STATE_KEY)
        if kept is not None:
            self.dynaprop.table = ThresholdTable.load(kept["table"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Prepare thresholds and their scale; look on where the step is logged or traced."""
        step = state.global_step
        self.dynaprop.gradient_scale = self.gradient_scale
        self.model.train()  # as the Trainer does in the step itself: what is profiled has dropout
        if self.refresh.before_step(step):
            table = self.dynaprop.table.model_dump(mode="json")
            state.stateful_callbacks[STATE_KEY] = {"table": table}
        for share in self.trace_at:
            if step == round(share * state.max_steps):
                self.stage = (share, step)
                self._look_on()
        if self.stage is None and self._logs(step, state):
            self._look_on()

    def _look_on(self) -> None:
        self.dynaprop.recorder = DensityRecorder(self.model.design)
        self.looking_on.close()
        self.looking_on.enter_context(torch.compiler.set_stance("force_eager"))

    def _look_away(self) -> None:
        self.dynaprop.recorder = self.stage = None
        self.looking_on.close()

    def _logs(self, step: int, state: Any) -> bool:
        by_steps = self.trainer.args.logging_strategy == IntervalStrategy.STEPS
        return self.log_densities and by_steps and (step + 1) % state.logging_steps == 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Prune the parameters' gradients."""
        threshold = self.dynaprop.policy.parameter_gradient_threshold
        if threshold > 0:
            prune_gradients(self.model.parameters(), threshold)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Log what was recorded."""
        recorder: Any = self.dynaprop.recorder
        if recorder is None:
            return
        if self._logs(state.global_step - 1, state):
            asked = control.should_log
            self.trainer.log(self._densities(recorder))
            control.should_log = asked  # what logs takes it back; the Trainer is yet to log
        if self.stage is None:
            self._look_away()
            return
        share, begun = self.stage
        if state.global_step - begun >= self.trace_steps or state.global_step >= state.max_steps:
            if state.is_world_process_zero:
                self._write(recorder, share)
            self._look_away()

    def _densities(self, recorder: DensityRecorder) -> dict[str, float]:
        """Densities by role and by layer and role, over all processes."""
        sums: dict[str, Tensor] = {}
        for (layer, _, role), counts in recorder.counts().items():
            if role is GemmRole.INPUT:  # what a product reads of a tensor that was counted
                continue
            for name in (role, f"{'outside' if layer is None else layer}/{role}"):
                sums[name] = sums.get(name, torch.zeros_like(counts)) + counts
        totals = self.trainer.accelerator.reduce(torch.stack(list(sums.values())), "sum").tolist()
        made = {}
        for name, (nonzeros, zeros_before, elements) in zip(sums, totals, strict=True):
            made[f"density/{name}"] = nonzeros / elements
            made[f"zeros_before/{name}"] = zeros_before / elements
        return made

    def _write(self, recorder: DensityRecorder, share: float) -> None:
        folder = Path(self.trainer.args.output_dir) / "traces"
        folder.mkdir(parents=True, exist_ok=True)
        trace = recorder.trace(
            {name: module.weight for name, module in self.model.products().items()},
            self.dynaprop.policy,
            weights_hash=self.model.weights_hash(),
            task=self.task,
            split="train",
            stage="training",
            training_share=share,
            thresholds=thresholds_in_force(self.model),
        )
        trace.save(folder / f"{share:.3f}.json")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the ramp; the table that is saved from now on is of evaluation mode."""
        self.dynaprop.gradient_scale = 1.0
        self._look_away()
        self.refresh.after_training(state.global_step)


class MovementPruningCallback(TrainerCallback):
    """Movement pruning of the weights of all products of a FlexiBERT model in a Trainer.

    Scores and dense weights are in the optimiser's state and thus in its checkpoints; the model
    that is saved has the masked weights.

    Parameters
    ----------
    trainer : the Trainer that it is added to
    schedule : density by optimiser step; by default the policy's
    """

    def __init__(self, trainer: Any, schedule: MovementSchedule | None = None) -> None:
        self.trainer = trainer
        self.model = trainer.accelerator.unwrap_model(trainer.model)
        chosen = schedule or self.model.dynaprop.policy.movement
        if chosen is None:
            raise ValueError("neither schedule nor the policy's movement says what is to be pruned")
        _check_clipping(trainer)
        self.schedule: MovementSchedule = chosen
        self.pruning: MovementPruning | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Find the optimiser's state."""
        weights = [module.weight for module in self.model.products().values()]
        self.pruning = MovementPruning(weights, self.schedule, optimizer)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Gather scores; the optimiser sees dense weights."""
        assert self.pruning is not None
        self.pruning.before_optimizer()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mask the weights again."""
        assert self.pruning is not None
        skipped = self.trainer.accelerator.optimizer_step_was_skipped
        self.pruning.after_optimizer(state.global_step + 1, skipped)


def mean_densities(history: Iterable[Mapping[str, Any]], since: int = 0) -> dict[str, float]:
    """Densities by role, mean of what a `DynaPropCallback` logged.

    Parameters
    ----------
    history : `trainer.state.log_history`
    since : entries of the steps after it count

    Raises
    ------
    ValueError
        If nothing was logged after that step.
    """
    found: dict[str, list[float]] = {}
    for entry in history:
        for name, value in entry.items():
            kind, _, role = name.partition("/")
            if kind == "density" and "/" not in role and entry["step"] > since:
                found.setdefault(role, []).append(value)
    if not found:
        raise ValueError(f"no densities were logged after step {since}; lower logging_steps")
    return {role: sum(values) / len(values) for role, values in found.items()}


def _check_clipping(trainer: Any) -> None:
    """Refuse parameters' gradients that still have the loss scale, which clipping undoes."""
    if trainer.args.fp16 and not trainer.args.max_grad_norm > 0:
        raise ValueError(
            "with fp16, pruning by the parameters' gradients needs max_grad_norm above 0, not "
            f"{trainer.args.max_grad_norm}: clipping undoes the loss scale"
        )
