"""Accuracy in a design's arithmetic, by width and by how exponents are chosen, beside float.

Trains BERT-Tiny with the default recipe (or takes a trained model), runs the whole validation split
through the golden functions at each width, and trains on in the arithmetic at the narrow ones. One
row a setting: accuracy, answers that are the same as in float, examples right in float alone and in
integers alone, and shares of all values that saturate and underflow.

    python benchmarks/arithmetic.py [MODEL] [--bits 20 12 8 6 4] [--fine-tune 8 4] [--epochs 1]
        [--methods max 99.99 mse] [--threads 1] [--out FOLDER]
"""

import argparse
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hwgen.design import AcceleratorDesign
from model.calibration import Calibration
from model.data import Task
from model.evaluation import Evaluation, evaluate
from model.exponents import Method
from model.job import calibrated
from model.quantization_aware import fine_tune, fine_tuning_recipe
from model.quantized import QuantizedModel
from model.train import train
from model.trained import TrainedModel, task_of

NARROW: tuple[tuple[Method, bool], ...] = (
    ("max", False), ("max", True), (99.9, False), (99.99, False), ("mse", False)
)  # fmt: skip
SETTINGS = {20: NARROW[:1], 12: NARROW[:1], 8: NARROW, 6: NARROW, 4: NARROW}
"""For each width the methods, and whether each output channel has an exponent."""
METHODS = tuple(dict.fromkeys(method for method, _ in NARROW))
TUNED: tuple[Method, ...] = ("max", 99.99, "mse")
"""Methods that fine-tuning starts from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", type=Path, help="a trained model's folder")
    parser.add_argument("--design", default="bert-tiny", help="what is trained without MODEL")
    parser.add_argument("--arithmetic", default="edge")
    parser.add_argument("--bits", type=int, nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument(
        "--methods", type=method_of, nargs="+", choices=METHODS, default=list(METHODS),
        help="how exponents are chosen: by range, by a percentile, or for the least error",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--fine-tune", type=int, nargs="*", default=[8, 4], help="widths")
    parser.add_argument("--epochs", type=float, default=1.0, help="of fine-tuning")
    parser.add_argument("--out", type=Path, default=None, help="keep the models here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as temporary:
        benchmark(given, given.out or Path(temporary))


def benchmark(given: argparse.Namespace, out: Path) -> None:
    if given.model is None:
        trained = train(given.design, "movie-sentences", out=out / given.design)
    else:
        trained = TrainedModel.load(given.model)
    task = task_of(trained)
    accelerator = AcceleratorDesign.load(given.arithmetic)
    say(
        f"{trained.design.design_hash} on {task.name}, seed {trained.seed}, validation n = "
        f"{len(task.validation)}, arithmetic of {given.arithmetic}; {platform.machine()}, torch "
        f"{torch.__version__}, {given.threads} thread(s)\n"
    )
    say("| bits | exponents | float | integers | same answer | lost, gained | saturated | underflowed | s |")  # fmt: skip  # noqa: E501
    say("|---|---|---|---|---|---|---|---|---|")
    for bits in given.bits:
        for method, channels in SETTINGS[bits]:
            if method not in given.methods:
                continue
            exponents = calibrated(trained.model, task, bits, method, channels)
            found = run(trained, exponents, accelerator.with_bits(bits), task)
            say(row(found, described(method) + ", by channel" * channels))
    recipe = fine_tuning_recipe(trained.recipe, given.epochs)
    for bits in given.fine_tune:
        design = accelerator.with_bits(bits)
        for method in [method for method in TUNED if method in given.methods]:
            folder = out / f"{bits}-bits-{method}"
            tuned = fine_tune(trained, design, folder, recipe=recipe, method=method, task=task)
            found = run(tuned, Calibration.load(folder), design, task)
            what = f"fine-tuned {given.epochs:g} epoch in {tuned.seconds:.0f} s"
            say(row(found, f"{described(method)}, {what}"))


def method_of(text: str) -> Method:
    return text if text in METHODS else float(text)


def run(
    trained: TrainedModel, exponents: Calibration, design: AcceleratorDesign, task: Task
) -> Evaluation:
    quantized = QuantizedModel(trained.model, exponents, design)
    return evaluate(trained.model, quantized, task.validation, trained.sequence_length)


def described(method: Method) -> str:
    names = {"max": "range", "mse": "least error"}
    return names[method] if isinstance(method, str) else f"{method:g} %"


def row(found: Evaluation, what: str) -> str:
    values = sum(layer.values for layer in found.layers)
    saturated, underflowed = (
        sum(getattr(layer, name) * layer.values for layer in found.layers) / values
        for name in ("saturated", "underflowed")
    )
    return (
        f"| {found.bits} | {what} | {found.float_accuracy:.2%} | {found.accuracy:.2%} | "
        f"{found.agreement:.2%} | {found.lost}, {found.gained} | {saturated:.4%} | "
        f"{underflowed:.2%} | {found.seconds:.0f} |"
    )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
