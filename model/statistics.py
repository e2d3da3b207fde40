"""Differences of accuracies, paired: intervals over seeds and examples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two accuracies over the same seeds and examples.

    Attributes
    ----------
    mean
        Share of correct answers of the one less that of the other, over all seeds.
    deviation
        Standard deviation of the difference over seeds (n − 1); None with one seed.
    low, high
        Bootstrap interval of the mean.
    seeds, examples
        Of how many.
    """

    mean: float
    deviation: float | None
    low: float
    high: float
    seeds: int
    examples: int


def paired_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Difference of two sets of trainings, with a bootstrap interval over seeds and examples.

    Each draw takes seeds and examples anew, each with replacement, and the same ones of both sets
    (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1(2), whose variance is that
    of the mean or larger). The interval is between percentiles of the draws.

    Parameters
    ----------
    ours, theirs
        Whether each example was answered correctly, (seeds, examples); row by row of the same seed,
        column by column the same example.
    level
        Share of the draws within the interval.
    draws, seed
        How many draws, and of what random numbers.

    Raises
    ------
    ValueError
        The two are not of one shape, or hold nothing.
    """
    one, other = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise ValueError(
            "answers must be two tables (seeds, examples) of one shape, with at least one of each,"
            f" not {one.shape} and {other.shape}"
        )
    gain = one - other
    seeds, examples = gain.shape
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        rows = rng.integers(seeds, size=seeds)
        columns = rng.integers(examples, size=examples)
        means[draw] = gain[rows].mean(0)[columns].mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    by_seed = gain.mean(1)
    deviation = float(by_seed.std(ddof=1)) if seeds > 1 else None
    return PairedDifference(
        float(by_seed.mean()), deviation, float(low), float(high), seeds, examples
    )
