"""What a model learns from its teacher: answers, hidden states, and texts that nobody labelled."""

import hashlib
import re
from functools import lru_cache

import torch
from torch import Tensor, nn

from model.data import Task, load_task

UNLABELLED = -1
"""Label of a text that has none."""

TRANSFER_TASK = "imdb"
"""Whose training texts give sentences for the teacher to answer."""

TRANSFER_WORDS = (5, 40)
"""Words of the shortest and of the longest such sentence."""


def distillation_loss(
    logits: Tensor, labels: Tensor, targets: Tensor | None, weight: float, temperature: float
) -> Tensor:
    """Mean loss of a batch: cross-entropy with the labels, and with a teacher's soft answers.

    Parameters
    ----------
    logits, targets : [batch, classes], the model's and the teacher's; without the teacher's the
        cross-entropy is all
    labels : int64 [batch]; UNLABELLED ones have no cross-entropy
    weight, temperature : as of `model.recipe.Recipe`
    """
    hard = nn.functional.cross_entropy(logits, labels, ignore_index=UNLABELLED)
    if targets is None:
        return hard
    soft = nn.functional.kl_div(
        nn.functional.log_softmax(logits / temperature, -1),
        nn.functional.log_softmax(targets / temperature, -1),
        log_target=True,
        reduction="batchmean",
    )
    labelled = (labels != UNLABELLED).float().mean()
    # A batch without labels has a mean of nothing, which is not a number.
    hard = torch.where(labelled > 0, hard, 0.0)
    return weight * temperature**2 * soft + (1 - weight) * hard


def hidden_loss(
    own: tuple[Tensor, ...], teacher: tuple[Tensor, ...], valid_mask: Tensor
) -> Tensor:
    """How little the hidden states of two models say of each other: mean of 1 − CKA.

    State ℓ of L is compared with the teacher's ⌊ℓ·D / L⌋ of D, from the embedding's (0) to the last
    layer's. Linear centred kernel alignment (Kornblith et al., arXiv:1905.00414) asks for no map
    between widths and is 1 where one is the other turned and scaled.

    Parameters
    ----------
    own, teacher : states [batch, sequence, width] of L + 1 and D + 1 places
    valid_mask : bool [batch, sequence], real positions
    """
    losses = []
    for number, state in enumerate(own):
        other = teacher[number * (len(teacher) - 1) // (len(own) - 1)]
        losses.append(1 - alignment(state[valid_mask], other[valid_mask]))
    return torch.stack(losses).mean()


def alignment(one: Tensor, two: Tensor) -> Tensor:
    """Linear centred kernel alignment of [rows, width] and [rows, another width], 0 to 1."""
    one, two = one - one.mean(0), two - two.mean(0)
    shared = torch.linalg.matrix_norm(one.T @ two).square()
    alone = torch.linalg.matrix_norm(one.T @ one) * torch.linalg.matrix_norm(two.T @ two)
    return shared / alone.clamp_min(torch.finfo(one.dtype).tiny)


def transfer_texts(task: Task, count: int) -> tuple[str, ...]:
    """Sentences for the teacher to answer, none of which stands in the task's held-out splits.

    They are whole sentences of the training split of TRANSFER_TASK, in an order that depends on
    nothing but themselves, so a smaller count is the beginning of a larger one.

    Raises
    ------
    ValueError
        The task is one of pairs, or there are not that many sentences.
    """
    if count == 0:
        return ()
    if not isinstance(task.train.texts[0], str):
        raise ValueError(
            f"transfer_texts must be 0 for {task.name}, a task of pairs: there are no pairs to ask"
            f" the teacher for, not {count}"
        )
    found = task.apart_from_held_out(_sentences())
    if count > len(found):
        raise ValueError(f"transfer_texts must be at most {len(found)}, not {count}")
    return found[:count]


def further_data(transfer_texts: int, intermediate_task: str) -> list[dict[str, str]]:
    """What was learned from beside a task's own texts: its use, source, licence, split hash."""
    uses = {}
    if transfer_texts:
        uses[TRANSFER_TASK] = f"{transfer_texts:,} sentences, without labels"
    if intermediate_task:
        before = [uses[intermediate_task]] if intermediate_task in uses else []
        uses[intermediate_task] = "; ".join([*before, "with labels, by the teacher"])
    found = []
    for name, use in uses.items():
        task = load_task(name)
        found.append(
            {
                "name": name,
                "use": use,
                "source": task.source,
                "licence": task.licence,
                "split_hash": task.split_hash,
            }
        )
    return found


@lru_cache(maxsize=1)
def _sentences() -> tuple[str, ...]:
    shortest, longest = TRANSFER_WORDS
    found = {
        sentence.strip()
        for text in load_task(TRANSFER_TASK).train.texts
        for sentence in re.split(r"(?<=[.!?])\s+", str(text))
        if shortest <= len(sentence.split()) <= longest
    }
    return tuple(sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest()))
