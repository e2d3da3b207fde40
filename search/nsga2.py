"""NSGA-II over pairs at the lowest rung."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population

from search.operators import (
    BudgetRepair,
    GenomeCrossover,
    GenomeDuplicates,
    GenomeMutation,
    GenomeSampling,
    ModelBudget,
)
from search.problem import PairProblem
from search.space import Genome

MODEL_RATE = 0.5
"""Share of children whose model may differ from their parents'."""

MIN_MODELS = 14
"""Different models to train at the lowest rung, where there are so many evaluations."""

PAIRS_PER_MODEL = 5
"""Evaluated pairs for each model that is trained at the lowest rung."""


@dataclass(frozen=True)
class EvolutionPlan:
    """Sizes of an evolution.

    Parameters
    ----------
    evaluations : pairs to evaluate, at least
    models : different models to train
    population : pairs that survive a generation
    """

    evaluations: int
    models: int
    population: int

    @classmethod
    def of(cls, evaluations: int) -> EvolutionPlan:
        """Derive population and number of models from the number of evaluations."""
        models = min(evaluations, max(MIN_MODELS, evaluations // PAIRS_PER_MODEL))
        population = min(evaluations, max(8, min(100, evaluations // 3)))
        return cls(evaluations, models, population)

    @property
    def first_models(self) -> int:
        """Different models of the first population."""
        return min(self.population, -(-self.models // 2))


def evolve(
    problem: PairProblem,
    plan: EvolutionPlan,
    seed: int,
    models_left: Callable[[int], int] = lambda planned: planned,
) -> str | None:
    """Evaluate pairs by NSGA-II until the plan is met or the space is exhausted.

    Parameters
    ----------
    problem : the pairs
    plan : sizes
    seed : of everything random here
    models_left : asked before each generation how many more models may be trained, given how many
        the plan leaves

    Returns
    -------
    str or None
        Why it ended early, in a sentence, if it did.
    """
    codec = problem.codec
    duplicates = GenomeDuplicates()
    budget = ModelBudget()
    algorithm = NSGA2(
        pop_size=plan.population,
        sampling=GenomeSampling(codec, plan.first_models),
        crossover=GenomeCrossover(codec, MODEL_RATE),
        mutation=GenomeMutation(codec, MODEL_RATE),
        repair=BudgetRepair(codec, budget),
        eliminate_duplicates=duplicates,
    )
    algorithm.setup(problem, termination=("n_gen", 10**9), seed=seed)
    known: dict[str, Genome] = {}
    done = generation = 0
    generations = -(-plan.evaluations // plan.population)
    while done < plan.evaluations:
        left = models_left(plan.models - len(known)) if known else plan.first_models
        rest = max(1, generations - generation)
        budget.begin(known, -(-max(0, left) // rest) if known else left)
        infills = algorithm.ask()
        if infills is None or len(infills) == 0:
            return (
                f"no new pair is left after {done}: the space holds {codec.size:,} pairs, and "
                f"{len(known)} models were trained"
            )
        infills = infills[: plan.evaluations - done]
        _evaluate(algorithm, problem, infills)
        for individual in infills:
            genome = individual.X.astype("int64")
            duplicates.evaluated.add(genome.tobytes())
            known.setdefault(codec.decode_model(genome).key, genome)
        if not problem.pairs.evaluations(0):
            return "no pair of the first population could be evaluated"
        done, generation = done + len(infills), generation + 1
    return None


def _evaluate(algorithm: NSGA2, problem: PairProblem, infills: Population) -> None:
    algorithm.evaluator.eval(problem, infills, algorithm=algorithm)
    algorithm.tell(infills=infills)
