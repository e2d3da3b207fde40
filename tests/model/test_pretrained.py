"""Projected pretrained embeddings."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from model.pretrained import DEVIATION, pretrained_embeddings, projected_embeddings

COUNTS = np.zeros(30522)
COUNTS[2000:4000] = np.arange(1, 2001)


def test_a_projection_keeps_distances_as_well_as_its_width_allows() -> None:
    words = pretrained_embeddings()["word"][2000:2200]
    exact = np.linalg.norm(words[:, None] - words[None], axis=-1)
    upper = np.triu_indices(len(words), 1)
    errors = []
    for width in (32, 128, 384):
        mine = projected_embeddings(width, COUNTS)["word"][2000:2200].double().numpy()
        found = np.linalg.norm(mine[:, None] - mine[None], axis=-1)
        ratio = found[upper] / exact[upper]
        errors.append(ratio.std() / ratio.mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.12 and errors[2] < 1e-6


def test_tables_have_the_stated_deviation_and_fixed_signs() -> None:
    tables = projected_embeddings(64, COUNTS)
    weights = torch.from_numpy(np.sqrt(COUNTS) + 1e-3)[:, None]
    words = tables["word"].double()
    deviation = ((weights * words**2).sum() / weights.sum() / 64).sqrt()
    assert float(deviation) == pytest.approx(DEVIATION, rel=1e-5)
    assert tables["position"].shape == (512, 64) and tables["type"].shape == (2, 64)
    again = projected_embeddings(64, COUNTS)
    assert all(torch.equal(tables[kind], again[kind]) for kind in tables)
    variances = words.var(0)
    assert variances[0] > variances[-1]


def test_columns_beyond_the_pretrained_width_are_zero() -> None:
    words = projected_embeddings(400, COUNTS)["word"]
    assert words.shape == (30522, 400)
    assert not words[:, 384:].any() and words[:, :384].any(0).all()


def test_the_projection_does_not_depend_on_the_threads_of_blas() -> None:
    code = (
        "import hashlib, numpy as np; from model.pretrained import projected_embeddings; "
        "word = projected_embeddings(128, np.arange(30522) % 7)['word'].numpy(); "
        "print(hashlib.sha256(word.tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
