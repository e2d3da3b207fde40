"""Traces of small models on three sequences of unequal length."""

import torch

from model.density import DensityRecorder

LENGTHS = (7, 3, 5)


def record(model, data, mask, train=False):
    recorder = DensityRecorder(model.design)
    model.dynaprop.recorder = recorder
    for ids in data:
        made = model(ids, mask, labels=torch.tensor([0, 1, 0]))
        if train:
            made.loss.backward()
    model.dynaprop.recorder = None
    weights = {name: module.weight for name, module in model.products().items()}
    return recorder.trace(
        weights,
        model.dynaprop.policy,
        weights_hash=model.weights_hash(),
        task="test",
        split="validation",
        stage="training" if train else "inference",
    )
