"""A chosen pair's trained model in the accelerator's arithmetic: jobs for its RTL, accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hwgen.program import Job
from model.calibration import Calibration
from model.data import load_task
from model.quantized import QuantizedModel
from model.teacher import model_inputs
from model.tokens import evaluation_batches, tokenize
from model.trained import TrainedModel
from sim import Workload
from sim.jobs import unit_jobs

if TYPE_CHECKING:
    from search.run import Pair


def quantized(pair: Pair) -> QuantizedModel:
    """Load the pair's trained model as its accelerator computes it."""
    trained = TrainedModel.load(pair.path)
    return QuantizedModel(trained.model, Calibration.load(pair.path), pair.accelerator)


def recorded_jobs(pair: Pair) -> list[Job]:
    """First, interior and edge job of each unit on one batch of real sentences.

    The batch is the first of the validation split, padded to the length that the search costed;
    the cycles are those that ELECTOR's reference predicts in mask mode.
    """
    trained = TrainedModel.load(pair.path)
    task = load_task(trained.inputs["task"]["name"])
    batch, sequence_length = pair.accelerator.batch_size, pair.sequence_length
    if len(task.validation) < batch:
        raise ValueError(
            f"the validation split of {task.name} must hold at least one batch of {batch} "
            f"texts, not {len(task.validation)}"
        )
    tokens = tokenize(task.validation.texts[:batch], sequence_length)
    ids, types = np.zeros((2, batch, sequence_length), dtype=np.int64)
    ids[:, : tokens.ids.shape[1]] = tokens.ids
    if tokens.types is not None:
        types[:, : tokens.types.shape[1]] = tokens.types
    real = np.arange(sequence_length) < tokens.lengths[:, None]
    recording = quantized(pair).record(*(torch.from_numpy(one) for one in (ids, real, types)))
    workload = Workload(pair.model, sequence_length, trained.trace, batch_size=batch)
    return unit_jobs(pair.accelerator, workload, recording)


def hardware_accuracy(pair: Pair) -> float:
    """Accuracy on the validation split in the accelerator's integer arithmetic."""
    trained = TrainedModel.load(pair.path)
    split = load_task(trained.inputs["task"]["name"]).validation
    tokens = tokenize(split.texts, trained.sequence_length)
    counted = quantized(pair).accuracy(
        {**model_inputs(tokens, rows), "labels": torch.from_numpy(split.labels[rows])}
        for rows in evaluation_batches(tokens.lengths)
    )
    return counted.accuracy
