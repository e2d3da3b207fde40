"""Sampling, crossover and mutation of genomes, and their pymoo operators."""

from __future__ import annotations

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling

from search.space import Codec, Genome


def random_layer(codec: Codec, rng: np.random.Generator) -> np.ndarray:
    """Draw a layer's genes, uniform over width, head count, multisets of heads and stacks."""
    transformer = codec.space.transformer
    genes = np.zeros(codec.layer_genes, dtype=np.int64)
    genes[0] = rng.integers(len(transformer.hidden))
    genes[1] = rng.integers(len(transformer.heads))
    genes[2 : 2 + codec.kinds] = random_counts(codec.kinds, transformer.heads[genes[1]], rng)
    genes[2 + codec.kinds] = rng.integers(len(transformer.feed_forward_stacks))
    genes[3 + codec.kinds :] = rng.integers(
        len(transformer.feed_forward_widths), size=codec.max_stacks
    )
    return genes


def random_counts(kinds: int, heads: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a multiset of `heads` operations of `kinds`, uniform over multisets."""
    bars = np.sort(rng.choice(heads + kinds - 1, size=kinds - 1, replace=False))
    edges = np.concatenate([[-1], bars, [heads + kinds - 1]])
    return np.diff(edges) - 1


def random_genome(codec: Codec, rng: np.random.Generator) -> Genome:
    """Draw a canonical genome, uniform over each gene's options."""
    genome = rng.integers(codec.sizes)
    for index in range(codec.max_depth):
        genome[codec.layer(index)] = random_layer(codec, rng)
    return codec.canonical(genome)


def crossover(
    codec: Codec, a: Genome, b: Genome, rng: np.random.Generator, model_rate: float
) -> tuple[Genome, Genome]:
    """Make two children: models mixed layer by layer, accelerators gene by gene.

    With probability 1 − `model_rate` the children keep their parents' models whole, so that a
    model that is trained meets several accelerators.
    """
    first, second = a.copy(), b.copy()
    genes = codec.hardware_genes
    swap = genes[rng.random(len(genes)) < 0.5]
    first[swap], second[swap] = b[swap], a[swap]
    if rng.random() < model_rate:
        for gene in (0, 1, 2, codec.nonlinearity):
            if rng.random() < 0.5:
                first[gene], second[gene] = b[gene], a[gene]
        layers = rng.random(codec.max_depth) < 0.5
        for child, own, other in ((first, a, b), (second, b, a)):
            for index in range(codec.depth(child)):
                in_own, in_other = index < codec.depth(own), index < codec.depth(other)
                source = other if in_other and (layers[index] or not in_own) else own
                child[codec.layer(index)] = source[codec.layer(index)]
    return codec.canonical(first), codec.canonical(second)


def mutate(codec: Codec, genome: Genome, rng: np.random.Generator, model_rate: float) -> Genome:
    """Change a few genes, each to another legal value, uniform.

    Each accelerator gene changes with probability 1 / their number; with probability
    `model_rate` the model changes as well, in one or more of its parts.
    """
    made = genome.copy()
    genes = codec.hardware_genes
    for gene in genes[rng.random(len(genes)) < 1 / len(genes)]:
        made[gene] = another(made[gene], codec.sizes[gene], rng)
    if rng.random() < model_rate:
        _mutate_model(codec, made, rng)
    return codec.canonical(made)


def _mutate_model(codec: Codec, genome: Genome, rng: np.random.Generator) -> None:
    """Change, in place, at least one part of a model that has more than one option."""
    depth = codec.depth(genome)
    parts = [(g, -1) for g in (0, 1, 2, codec.nonlinearity) if codec.sizes[g] > 1]
    parts += [(part, layer) for layer in range(depth) for part in _layer_parts(codec)]
    if not parts:
        return
    chosen = np.flatnonzero(rng.random(len(parts)) < 1 / len(parts))
    if len(chosen) == 0:
        chosen = rng.integers(len(parts), size=1)
    for part, layer in [parts[index] for index in chosen]:
        if layer < 0:
            genome[part] = another(genome[part], codec.sizes[part], rng)
        else:
            _mutate_layer(codec, genome[codec.layer(layer)], part, rng)
    for index in range(depth, codec.depth(genome)):
        genome[codec.layer(index)] = random_layer(codec, rng)


def _layer_parts(codec: Codec) -> list[int]:
    """Genes of a layer that have something to change: one for all operation counts."""
    transformer = codec.space.transformer
    widths = range(codec.max_stacks if len(transformer.feed_forward_widths) > 1 else 0)
    parts = [
        (0, len(transformer.hidden) > 1),
        (1, len(transformer.heads) > 1),
        (2, codec.kinds > 1),
        (2 + codec.kinds, len(transformer.feed_forward_stacks) > 1),
    ]
    return [part for part, more in parts if more] + [3 + codec.kinds + i for i in widths]


def _mutate_layer(codec: Codec, genes: np.ndarray, part: int, rng: np.random.Generator) -> None:
    transformer = codec.space.transformer
    counts = slice(2, 2 + codec.kinds)
    if part == 0:
        genes[0] = another(genes[0], len(transformer.hidden), rng)
    elif part == 1:
        genes[1] = another(genes[1], len(transformer.heads), rng)
    elif part == 2 + codec.kinds:
        genes[part] = another(genes[part], len(transformer.feed_forward_stacks), rng)
        widths = slice(3 + codec.kinds, None)
        genes[widths] = rng.integers(len(transformer.feed_forward_widths), size=codec.max_stacks)
    elif part > 2 + codec.kinds:
        genes[part] = another(genes[part], len(transformer.feed_forward_widths), rng)
    if part in (1, 2):
        genes[counts] = random_counts(codec.kinds, transformer.heads[genes[1]], rng)


def another(value: int, options: int, rng: np.random.Generator) -> int:
    """Draw one of `options` indices other than `value`, uniform, or the only one there is."""
    if options < 2:
        return int(value)
    drawn = int(rng.integers(options - 1))
    return drawn + (drawn >= value)


class ModelBudget:
    """How many models that are not trained yet a generation may add.

    Attributes
    ----------
    known : keys of the models that cost nothing more
    most : new models that a generation may hold at most
    """

    def __init__(self) -> None:
        self.known: dict[str, Genome] = {}
        self.most = 0
        self.added: dict[str, Genome] = {}

    def begin(self, known: dict[str, Genome], most: int) -> None:
        """Start a generation."""
        self.known, self.most, self.added = dict(known), most, {}

    def admit(self, key: str, genome: Genome) -> bool:
        """Whether a model may take part; a new one uses the budget."""
        if key in self.known or key in self.added:
            return True
        if len(self.added) < self.most:
            self.added[key] = genome
            return True
        return False


class GenomeSampling(Sampling):
    """Initial population: `models` random models, each with several random accelerators."""

    def __init__(self, codec: Codec, models: int) -> None:
        super().__init__()
        self.codec, self.models = codec, models

    def _do(self, problem, n_samples, *args, random_state=None, **kwargs):  # type: ignore[no-untyped-def]
        codec, rng = self.codec, random_state
        models: dict[str, Genome] = {}
        for _ in range(100 * self.models):  # a small space has fewer
            genome = random_genome(codec, rng)
            models.setdefault(codec.decode_model(genome).key, genome)
            if len(models) == self.models:
                break
        made: dict[bytes, Genome] = {}
        bases = list(models.values())
        for trial in range(100 * n_samples):
            genome = random_genome(codec, rng)
            genome[codec.model_genes] = bases[trial % len(bases)][codec.model_genes]
            made.setdefault(genome.tobytes(), genome)
            if len(made) == n_samples:
                break
        return np.array(list(made.values()))


class GenomeCrossover(Crossover):
    """Exchange of whole layers and of accelerator genes."""

    def __init__(self, codec: Codec, model_rate: float) -> None:
        super().__init__(n_parents=2, n_offsprings=2, prob=1.0)
        self.codec, self.model_rate = codec, model_rate

    def _do(self, problem, X, *args, random_state=None, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
        children = [
            crossover(self.codec, a, b, random_state, self.model_rate)
            for a, b in zip(X[0].astype(np.int64), X[1].astype(np.int64), strict=True)
        ]
        return np.swapaxes(np.array(children), 0, 1)


class GenomeMutation(Mutation):
    """Uniform mutation over what is legal."""

    def __init__(self, codec: Codec, model_rate: float) -> None:
        super().__init__(prob=1.0)
        self.codec, self.model_rate = codec, model_rate

    def _do(self, problem, X, *args, random_state=None, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
        return np.array(
            [mutate(self.codec, x, random_state, self.model_rate) for x in X.astype(np.int64)]
        )


class BudgetRepair(Repair):
    """Give children whose model is over the generation's budget a model that is in it."""

    def __init__(self, codec: Codec, budget: ModelBudget) -> None:
        super().__init__()
        self.codec, self.budget = codec, budget

    def _do(self, problem, X, random_state=None, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
        made = []
        for row in X.astype(np.int64):
            genome = self.codec.canonical(row)
            key = self.codec.decode_model(genome).key
            if not self.budget.admit(key, genome):
                pool = list({**self.budget.known, **self.budget.added}.values())
                model = pool[int(random_state.integers(len(pool)))]
                genome[self.codec.model_genes] = model[self.codec.model_genes]
            made.append(genome)
        return np.array(made)


class GenomeDuplicates(DuplicateElimination):
    """Refuse genomes that are in the population or were evaluated at any time before."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluated: set[bytes] = set()

    def _do(self, pop, other, is_duplicate):  # type: ignore[no-untyped-def]
        seen = set(self.evaluated)
        if other is not None:
            seen |= {_bytes(individual) for individual in other}
        for index, individual in enumerate(pop):
            genome = _bytes(individual)
            is_duplicate[index] = genome in seen
            if other is None:
                seen.add(genome)
        return is_duplicate


def _bytes(individual) -> bytes:  # type: ignore[no-untyped-def]
    return np.asarray(individual.X, dtype=np.int64).tobytes()
