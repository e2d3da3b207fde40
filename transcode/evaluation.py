"""Evaluating a trained model in an accelerator's arithmetic, as the command line asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwgen.design import AcceleratorDesign
from model.calibration import FILE_NAME, Calibration
from model.card import record_arithmetic
from model.data import Split, Task, open_test
from model.evaluation import NO_SHIFT_BY_CHANNEL, Evaluation, evaluate
from model.exponents import Method, method_of
from model.job import calibrated
from model.loop import threads_of_torch
from model.quantization_aware import fine_tune, fine_tuning_recipe
from model.quantized import QuantizedModel
from model.trained import TrainedModel, task_of
from transcode.output import console, print_table

Progress = Callable[[float, str], None]
SPLITS = ("train", "validation")


def evaluate_one(
    path: Path,
    arithmetic: str,
    bits: int | None,
    calibration: str | None,
    channels: bool,
    split: str,
    final: bool,
    fine_tune_epochs: float | None,
    out: Path | None,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate a trained model, and train it on and evaluate that, too, if asked.

    Returns
    -------
    the object that --json prints. What it says of accuracy is kept in each model's folder.
    """
    if split not in SPLITS:
        raise ValueError(
            f"split must be {' or '.join(SPLITS)}, not {split!r}; --final opens the test split"
        )
    if out is not None and fine_tune_epochs is None:
        raise ValueError(f"--out {out} is for a fine-tuned model; add --fine-tune, in epochs")
    accelerator = AcceleratorDesign.load(arithmetic)
    if bits is not None:
        accelerator = accelerator.with_bits(bits)
    method = None if calibration is None else method_of(calibration)
    trained = TrainedModel.load(path)
    task = task_of(trained)

    def result(model: TrainedModel, chosen: Method | None) -> dict[str, Any]:
        examples = _examples(model, task, split, final, f"{arithmetic}, {accelerator.bits} bits")
        progress(0.0, "choosing exponents")
        exponents = _exponents(model, task, accelerator.bits, chosen, channels)
        made = evaluate(
            model.model,
            QuantizedModel(model.model, exponents, accelerator),
            examples,
            model.sequence_length,
            lambda share: progress(share, f"evaluating {len(examples)} texts"),
        )
        _record(model, Path(arithmetic).stem, accelerator, made)
        return {
            "model": str(model.path),
            "task": task.name,
            "arithmetic": arithmetic,
            "nonlinearity": accelerator.nonlinearity,
            "accumulator_bits": accelerator.accumulator_bits,
            **made.to_dict(),
        }

    with threads_of_torch(1):  # what is small gains nothing from more
        found = result(trained, method)
    if fine_tune_epochs is not None:
        folder = out or path.with_name(f"{path.name}-{accelerator.bits}-bits")
        tuned = fine_tune(
            trained,
            accelerator,
            folder,
            recipe=fine_tuning_recipe(trained.recipe, fine_tune_epochs),
            method=method or "mse",
            channels=channels,
            task=task,
            seed=seed,
            progress=lambda now: progress(now.fraction, now.phase),
        )
        with threads_of_torch(1):
            found["fine_tuned"] = result(tuned, None)
    progress(1.0, "done")
    return found


def _record(model: TrainedModel, name: str, design: AcceleratorDesign, made: Evaluation) -> None:
    """Keep an accuracy in the model's folder and on its card."""
    measured = {
        "split": made.split,
        "n": made.n,
        "design": name,
        "design_sha256": design.sha256,
        "bits": made.bits,
        "method": made.method,
        "channels": made.channels,
        "float_accuracy": made.float_accuracy,
        "accuracy": made.accuracy,
        "agreement": made.agreement,
    }
    record_arithmetic(model.path, model.inputs, model.about, measured)


def _examples(trained: TrainedModel, task: Task, split: str, final: bool, what: str) -> Split:
    if final:
        record = trained.path / "test_openings.json"
        return open_test(task, record, f"evaluation of {trained.path} in the arithmetic of {what}")
    return task.train if split == "train" else task.validation


def _exponents(
    trained: TrainedModel, task: Task, bits: int, method: Method | None, channels: bool
) -> Calibration:
    """Exponents by a method; without one those saved with the model, where they are of this kind.

    A fine-tuned model has been trained for those that it brings. Else those of least error.
    """
    if method is None and (trained.path / FILE_NAME).is_file():
        saved = Calibration.load(trained.path)
        if saved.bits == bits and bool(saved.channel_exponents) == channels:
            return saved
    return calibrated(trained.model, task, bits, method or "mse", channels)


def print_evaluation(found: dict[str, Any]) -> None:
    """Print what was found, for people."""
    for result in (found, found.get("fine_tuned")):
        if result is None:
            continue
        console.print(
            f"{result['model']} on {result['task']}, {result['split']}, n = {result['n']:,}",
            highlight=False,
        )
        rows = [
            ["accuracy in float", result["float_accuracy"]],
            [f"accuracy in {result['arithmetic']}, {result['bits']} bits", result["accuracy"]],
            ["agreement", result["agreement"]],
            ["right in float alone", result["lost"]],
            [f"right in {result['bits']} bits alone", result["gained"]],
            ["exponents by", f"{result['method']}{', channels' * result['channels']}"],
        ]
        print_table("accuracy", ["", "value"], rows)
        print_table(
            "what rounding did, by layer",
            ["layer", "saturated %", "most of all", "underflow %", "most of all"],
            [
                [
                    layer["layer"],
                    100 * layer["saturated"],
                    layer["most_saturated"] if layer["saturated"] else "–",
                    100 * layer["underflowed"],
                    layer["most_underflowed"] if layer["underflowed"] else "–",
                ]
                for layer in result["layers"]
            ],
        )
        if result["channels"]:
            console.print(NO_SHIFT_BY_CHANNEL, highlight=False)
