"""Genomes: decode and encode are inverse, equal models have equal hashes, errors name the key."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.space import TransformerSpace
from search.operators import crossover, mutate, random_genome
from search.space import Candidate, Codec, CoDesignSpace, ModelPoint, accelerator_key, repair_counts

RICH = {
    "accelerator": "demo",
    "transformer": {
        "depth": [2, 3, 5],
        "hidden": [128, 256],
        "heads": [2, 4],
        "operations": ["sa_sdp", "l_dft", "c_5"],
        "feed_forward_stacks": [1, 2, 3],
        "feed_forward_widths": [256, 512],
    },
    "activation_threshold": [0.02, 0.1],
    "gradient_threshold": [1e-6, 1e-5],
}
CODECS = {"demo": Codec(CoDesignSpace.load("demo")), "rich": Codec(CoDesignSpace.load(RICH), 6)}
seeds = st.integers(0, 2**32 - 1)
codecs = st.sampled_from(sorted(CODECS))


def any_genome(codec: Codec, seed: int) -> np.ndarray:
    """Draw genes without regard to what is canonical."""
    return np.random.default_rng(seed).integers(codec.sizes)


@given(codecs, seeds)
@settings(max_examples=60, deadline=None)
def test_decode_and_encode_are_inverse(name, seed):
    codec = CODECS[name]
    genome = any_genome(codec, seed)
    canonical = codec.canonical(genome)
    candidate = codec.decode(genome)
    assert np.array_equal(codec.encode(candidate), canonical)
    assert codec.decode(canonical) == candidate
    assert np.array_equal(codec.canonical(canonical), canonical)
    assert candidate.model.design.activation == candidate.accelerator.nonlinearity
    codec.space.transformer.check(candidate.model.design)


@given(codecs, seeds, seeds)
@settings(max_examples=60, deadline=None)
def test_equal_models_have_equal_hashes_and_genomes(name, seed, other):
    codec = CODECS[name]
    genome, second = any_genome(codec, seed), any_genome(codec, other)
    # Whatever stands in genes that are not active makes no difference.
    noisy = genome.copy()
    for index in range(codec.depth(genome), codec.max_depth):
        noisy[codec.layer(index)] = second[codec.layer(index)]
    a, b = codec.decode(genome), codec.decode(noisy)
    assert a.model.key == b.model.key
    assert np.array_equal(codec.canonical(genome), codec.canonical(noisy))
    c = codec.decode(second)
    same = np.array_equal(
        codec.canonical(genome)[codec.model_genes], codec.canonical(second)[codec.model_genes]
    )
    assert (a.model.key == c.model.key) == same


@given(codecs, seeds)
@settings(max_examples=30, deadline=None)
def test_variation_stays_legal_and_canonical(name, seed):
    codec = CODECS[name]
    rng = np.random.default_rng(seed)
    a, b = random_genome(codec, rng), random_genome(codec, rng)
    for child in (*crossover(codec, a, b, rng, 0.5), mutate(codec, a, rng, 0.5)):
        assert np.array_equal(codec.canonical(child), child)
        codec.decode(child)


def test_crossover_exchanges_whole_layers():
    codec = CODECS["rich"]
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = random_genome(codec, rng), random_genome(codec, rng)
        for child in crossover(codec, a, b, rng, 1.0):
            for index in range(codec.depth(child)):
                genes = child[codec.layer(index)].tolist()
                assert genes in (a[codec.layer(index)].tolist(), b[codec.layer(index)].tolist())


def test_a_child_that_keeps_its_model_keeps_all_of_it():
    codec = CODECS["rich"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = random_genome(codec, rng), random_genome(codec, rng)
        first, second = crossover(codec, a, b, rng, 0.0)
        assert codec.decode_model(first).key == codec.decode_model(a).key
        assert codec.decode_model(second).key == codec.decode_model(b).key
        child = mutate(codec, a, rng, 0.0)
        assert codec.decode_model(child).key == codec.decode_model(a).key


def test_mutation_is_uniform_over_what_is_legal():
    codec = CODECS["rich"]
    rng = np.random.default_rng(1)
    genome = random_genome(codec, rng)
    genome[0] = 0
    genome = codec.canonical(genome)
    depths, widths = np.zeros(3), np.zeros(2)
    for _ in range(6000):
        child = mutate(codec, genome, rng, 1.0)
        if child[0] != genome[0]:
            depths[child[0]] += 1
            widths[child[codec.layer(2)][0]] += 1
    # Half of the changes of depth go to each other depth, and new layers have either width.
    assert abs(depths[1] / depths.sum() - 0.5) < 4 * 0.5 / np.sqrt(depths.sum())
    assert abs(widths[1] / widths.sum() - 0.5) < 4 * 0.5 / np.sqrt(widths.sum())


def test_operation_counts_are_uniform_over_multisets():
    codec = CODECS["rich"]
    rng = np.random.default_rng(2)
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(4000):
        genome = random_genome(codec, rng)
        genes = genome[codec.layer(0)]
        if genes[1] == 0:  # two heads: six multisets of three operations
            counts = tuple(genes[2:5].tolist())
            seen[counts] = seen.get(counts, 0) + 1
    assert len(seen) == 6
    share = np.array(list(seen.values())) / sum(seen.values())
    assert np.abs(share - 1 / 6).max() < 0.04


@given(st.lists(st.integers(0, 12), min_size=1, max_size=7), st.integers(1, 12))
def test_repaired_counts_add_up(counts, heads):
    repaired = repair_counts(np.array(counts), heads)
    assert repaired.sum() == heads and (repaired >= 0).all()
    if sum(counts) == heads:
        assert repaired.tolist() == counts


def test_size_counts_canonical_genomes():
    space = CoDesignSpace.load(
        {
            "accelerator": {**_one_accelerator(), "nonlinearity": ["relu", "gelu"]},
            "transformer": {**RICH["transformer"], "depth": [1, 2], "hidden": [128]},
            "activation_threshold": [0.1, 0.2],
            "gradient_threshold": [1e-5],
        }
    )
    codec = Codec(space)
    assert (
        codec.size
        == TransformerSpace.load(RICH["transformer"] | {"depth": [1, 2], "hidden": [128]}).size
        * 2
        * 2
    )


def _one_accelerator():
    options = CoDesignSpace.load("demo").accelerator.options
    return {name: list(values[:1]) for name, values in options.items()}


def test_encode_names_what_lies_outside():
    codec = CODECS["demo"]
    candidate = codec.decode(any_genome(codec, 0))
    model = candidate.model
    with pytest.raises(ValueError, match=r"activation_threshold must be one of .* not 0\.3"):
        codec.encode(Candidate(ModelPoint(model.design, 0.3, 1e-6), candidate.accelerator))
    other = candidate.accelerator.model_copy(update={"pes": 3})
    with pytest.raises(ValueError, match="pes must be one of .* not 3"):
        codec.encode(Candidate(model, other))
    other = candidate.accelerator.model_copy(update={"clock_mhz": 500.0})
    with pytest.raises(ValueError, match="does not vary"):
        codec.encode(Candidate(model, other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_threshold": [0.0, 0.1]}, "activation_threshold must be finite and above 0"),
        ({"gradient_threshold": [float("nan")]}, "gradient_threshold must be finite and above 0"),
        ({"gradient_threshold": []}, "gradient_threshold"),
        ({"activation_treshold": [0.1]}, "did you mean activation_threshold"),
        ({"accelerator": "demoo"}, "did you mean demo"),
        ({"transformer": {"depth": [2]}}, "transformer space: hidden"),
        ({"rung_epochs": [2, 1]}, "rung_epochs must rise"),
        ({"activation_threshold": [0.1, 0.1]}, "must not repeat an option"),
    ],
)
def test_bad_spaces_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        CoDesignSpace.load({**RICH, **change})


def test_spaces_by_name_and_as_written():
    for name in ("demo", "published"):
        space = CoDesignSpace.load(name)
        assert CoDesignSpace.load(space.model_dump(mode="json")) == space
    with pytest.raises(ValueError, match="unknown space 'demi'; did you mean demo"):
        CoDesignSpace.load("demi")


def test_accelerator_keys_tell_designs_apart():
    codec = CODECS["demo"]
    rng = np.random.default_rng(0)
    genomes = {tuple(random_genome(codec, rng)[codec.accelerator_start :]) for _ in range(50)}
    designs = [codec.space.accelerator.design(list(genes)) for genes in genomes]
    assert len({accelerator_key(design) for design in designs}) == len(genomes)
