"""Train with DynaProp in Hugging Face's Trainer, on as many processes as it is launched with.

    python examples/train_with_accelerate.py --design bert-tiny
    accelerate launch --num_processes 2 examples/train_with_accelerate.py --bf16
    accelerate launch --multi_gpu --num_processes 2 examples/train_with_accelerate.py --cpu

The second takes two GPUs, the third two processes on a CPU: with --cpu of its own, or without
--multi_gpu where there is no GPU, `accelerate launch` starts one process, whatever it is asked for.

A step is over --batch examples, however many processes and accumulated batches share them: the same
ones, in the same order. Prints one JSON object; progress goes to the error output.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, DataCollatorWithPadding, Trainer, TrainingArguments

from model.callbacks import DynaPropCallback, mean_densities
from model.checkpoints import last_complete_checkpoint
from model.data import load_task
from model.from_bert import from_bert
from model.space import TransformerDesign
from model.teacher import fast_tokenizer, minilm_folder
from model.tokens import trainer_examples

CALIBRATION = 128
"""Examples of the training split that thresholds for densities are profiled on."""


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="runs/accelerate", help="folder of checkpoints and model")
    parser.add_argument("--task", default="movie-sentences")
    parser.add_argument("--bert", help="BERT whose weights are taken over (default: MiniLM)")
    parser.add_argument("--design", help="name or file of a design (default: the BERT's own)")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of --epochs")
    parser.add_argument("--batch", type=int, default=32, help="examples a step, in all")
    parser.add_argument("--accumulation", type=int, default=1, help="batches that a step adds up")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tau-activation", type=float, default=0.0)
    parser.add_argument("--tau-gradient", type=float, default=0.0)
    parser.add_argument("--density-activation", type=float)
    parser.add_argument("--density-gradient", type=float)
    parser.add_argument("--ramp-steps", type=int, help="over which pruning rises from nothing")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the encoder")
    parser.add_argument("--checkpoint-steps", type=int, default=100)
    parser.add_argument("--resume", action="store_true", help="go on at the last whole checkpoint")
    parser.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    asked = parser.parse_args()
    if not asked.resume and any(Path(asked.out).glob("checkpoint-*")):
        parser.error(f"{asked.out} holds checkpoints; go on with --resume, or name another --out")
    return asked


def policy_of(asked: argparse.Namespace) -> dict[str, Any]:
    """The pruning policy."""
    return {
        "activation_threshold": asked.tau_activation,
        "gradient_threshold": asked.tau_gradient,
        "activation_density": asked.density_activation,
        "gradient_density": asked.density_gradient,
        # Of these few entries a high sparsity would take whole sequences out of all layers below.
        "gradients_off": ["classifier", "pooler"],
        "ramp": asked.ramp_steps and {"steps": asked.ramp_steps},
    }


def main() -> None:
    """Train, evaluate and say what came out."""
    asked = options()
    task = load_task(asked.task)
    bert = asked.bert or minilm_folder()
    design = TransformerDesign.load(asked.design or AutoConfig.from_pretrained(bert))
    design = design.model_copy(update={"labels": task.labels})
    model = from_bert(bert, design, policy_of(asked), asked.seed)
    if asked.compile:
        model.encoder.compile(fullgraph=True, dynamic=True)
    # Every step has a whole batch: else the last of an epoch would be filled up with examples that
    # were seen, over several processes, or weigh some more than others, by accumulation.
    examples = trainer_examples(task.train, task.sequence_length)
    per_epoch = len(examples) // asked.batch
    steps = asked.steps or round(asked.epochs * per_epoch)
    settings = TrainingArguments(
        asked.out,
        use_cpu=asked.cpu,
        bf16=asked.bf16,
        gradient_accumulation_steps=asked.accumulation,
        max_steps=steps,
        learning_rate=asked.learning_rate,
        warmup_steps=steps // 10,
        seed=asked.seed,
        logging_steps=max(min(2, steps), steps // 20),  # steps that are logged run uncompiled
        save_steps=asked.checkpoint_steps,
        save_total_limit=2,
        per_device_eval_batch_size=128,
        report_to="none",
        ddp_find_unused_parameters=False,
    )
    share, rest = divmod(asked.batch, settings.world_size * asked.accumulation)
    if rest or not share:
        raise ValueError(
            f"batch must be a multiple of processes times accumulation, {settings.world_size} × "
            f"{asked.accumulation}, not {asked.batch}"
        )
    settings.per_device_train_batch_size = share
    trainer = Trainer(
        model,
        settings,
        data_collator=DataCollatorWithPadding(fast_tokenizer(task.sequence_length)),
        train_dataset=examples[: per_epoch * asked.batch],
        eval_dataset=trainer_examples(task.validation, task.sequence_length),
        compute_metrics=lambda made: {
            "accuracy": float((made.predictions.argmax(-1) == made.label_ids).mean()),
            "n": len(made.label_ids),
        },
    )
    trainer.add_callback(DynaPropCallback(trainer, examples[:CALIBRATION], task=task.name))
    checkpoint = None
    if asked.resume:
        checkpoint = last_complete_checkpoint(asked.out, settings.world_size)
    with contextlib.redirect_stdout(sys.stderr):
        trained = trainer.train(resume_from_checkpoint=checkpoint)
        found = trainer.evaluate()
        trainer.save_model()
    gpu = settings.device.type == "cuda"
    made = {
        "validation_accuracy": found["eval_accuracy"],
        "validation_n": found["eval_n"],
        "densities": mean_densities(trainer.state.log_history, since=steps // 2),
        "steps": trained.global_step,
        "seconds": trained.metrics["train_runtime"],
        "processes": settings.world_size,
        "examples_a_process": share,
        "accumulation": asked.accumulation,
        "examples_left_out": len(examples) % asked.batch,
        "precision": "bf16" if asked.bf16 else "float32",
        "compiled": asked.compile,
        "taken_up_at": checkpoint,
        "device": torch.cuda.get_device_name(settings.device) if gpu else "cpu",
        "model": str(Path(asked.out).resolve()),
    }
    if trainer.is_world_process_zero():
        sys.stdout.write(json.dumps(made) + "\n")
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
