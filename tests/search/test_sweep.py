"""The exact half: enumeration finds the true front, sampling comes close, limits are kept."""

import json

import numpy as np
from fakes import FakeEvaluator

from hwgen.design_space import DesignSpace
from search.objectives import COST_RESOLUTION, COSTS, non_dominated
from search.operators import random_genome
from search.space import Codec, CoDesignSpace
from search.sweep import best_accelerators


def small_codec(**options):
    demo = DesignSpace.load("demo").options
    accelerator = {name: list(values[:1]) for name, values in demo.items()}
    accelerator |= {"pes": [64, 128, 256, 512], "lanes_per_pe": [8, 16, 32, 64],
                    "macs_per_lane": [1, 16], "nonlinearity": ["relu", "gelu"],
                    "loop_order": ["bijk", "kijb"], **options}  # fmt: skip
    return Codec(CoDesignSpace.load({**CoDesignSpace.load("demo").model_dump(mode="json"),
                                     "accelerator": accelerator}))  # fmt: skip


def costing(codec, folder):
    (folder / "trace.json").write_text(json.dumps({"density": 0.5}))
    model = codec.decode_model(random_genome(codec, np.random.default_rng(0))).design
    return lambda designs: FakeEvaluator().costs(designs, model, folder)


def table(codec, costs, genes):
    found = costs(codec.space.accelerator.batch(genes))
    return np.log(np.stack([getattr(found, name) for name in COSTS], axis=1))


def test_enumeration_finds_the_true_front(tmp_path):
    codec = small_codec()
    costs = costing(codec, tmp_path)
    rng = np.random.default_rng(0)
    genes, costed, exact = best_accelerators(codec, "gelu", costs, {}, count=64, keep=100, rng=rng)
    assert exact and costed == 64
    sizes = [len(options) for options in codec.accelerator_options.values()]
    every = np.stack(np.unravel_index(np.arange(len(codec.space.accelerator)), sizes), axis=1)
    every = every[every[:, codec.nonlinearity - codec.accelerator_start] == 1]
    assert len(every) == 64
    boxed = np.floor(table(codec, costs, every) / COST_RESOLUTION)
    expected = {tuple(row) for row in boxed[non_dominated(boxed)]}
    found = {tuple(row) for row in np.floor(table(codec, costs, genes) / COST_RESOLUTION)}
    assert found == expected
    batch = codec.space.accelerator.batch(genes)
    assert set(batch.nonlinearity) == {"gelu"}


def test_sampling_comes_close_and_repeats(tmp_path):
    codec = Codec(CoDesignSpace.load("demo"))
    costs = costing(codec, tmp_path)

    def sweep(count, seed):
        return best_accelerators(codec, "relu", costs, {}, count=count, keep=12,
                                 rng=np.random.default_rng(seed))  # fmt: skip

    genes, costed, exact = sweep(6000, 0)
    assert (costed, exact) == (6000, False) and 4 <= len(genes) <= 12
    assert np.array_equal(genes, sweep(6000, 0)[0])
    random = np.random.default_rng(5).integers(codec.sizes[codec.accelerator_start :],
                                               size=(6000, genes.shape[1]))  # fmt: skip
    random[:, codec.nonlinearity - codec.accelerator_start] = 0
    best, drawn = table(codec, costs, genes), table(codec, costs, random)
    # The cheapest in each cost are at least as cheap as those of as many random designs.
    assert (best.min(axis=0) <= drawn.min(axis=0) + COST_RESOLUTION).all()


def test_limits_are_kept(tmp_path):
    codec = small_codec()
    costs = costing(codec, tmp_path)
    all_genes, *_ = best_accelerators(codec, "gelu", costs, {}, count=64, keep=100,
                                      rng=np.random.default_rng(0))  # fmt: skip
    areas = np.exp(table(codec, costs, all_genes)[:, 2])
    limit = float(np.median(areas))
    genes, *_ = best_accelerators(codec, "gelu", costs, {"area_um2": limit, "accuracy": 0.9},
                                  count=64, keep=100, rng=np.random.default_rng(0))  # fmt: skip
    assert 0 < len(genes) < len(all_genes)
    assert (np.exp(table(codec, costs, genes)[:, 2]) <= limit).all()
    none, *_ = best_accelerators(codec, "gelu", costs, {"area_um2": 1.0}, count=64, keep=5,
                                 rng=np.random.default_rng(0))  # fmt: skip
    assert len(none) == 0
