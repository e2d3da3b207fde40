"""Masked-language pre-training, for encoders that no pretrained model has the shape of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from model.cache import disk_errors, write_json
from model.data import load_task
from model.initial import initial_model
from model.loop import Loop, ProgressCallback, threads_of_torch
from model.masked_language import UNLABELLED, FlexiBertForMaskedLM
from model.policy import PruningPolicy
from model.quiet import quiet
from model.recipe import Schedule, check_ranges
from model.space import TransformerDesign
from model.splits import Text, joined
from model.teacher import PRETRAINED
from model.tokens import VOCABULARY, Tokens, padded, tokenizer, training_batches

PRETRAINING_VERSION = 1
"""Part of what a pre-training is known by; rises when this file changes what it gives."""

SHORTEST = 8
"""Tokens that the rest of a cut text has at least; shorter rests are left out."""

EVALUATED = 512
"""Pieces of the validation split that the loss is measured on."""


@dataclass(frozen=True)
class PretrainingRecipe:
    """How an encoder is pre-trained.

    Attributes
    ----------
    task
        Whose training texts are read, without their labels.
    epochs
        Passes over these texts.
    batch_size, sequence_length
        Pieces of texts a step, and their tokens, the two special ones included.
    learning_rate, weight_decay, clip
        Of AdamW; ``clip`` bounds the gradient's norm.
    warmup, decay
        Shares of the steps in which the rate rises and falls.
    masked
        Share of the tokens that are to be told.
    """

    task: str = "imdb"
    epochs: float = 1.0
    batch_size: int = 32
    sequence_length: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    decay: float = 0.9
    masked: float = 0.15

    def __post_init__(self) -> None:
        """Refuse what no training can follow."""
        check_ranges(
            self,
            above_zero=("epochs", "learning_rate", "clip"),
            at_least_zero=("weight_decay",),
            shares=("warmup", "decay"),
        )
        if self.sequence_length < SHORTEST + 2:
            raise ValueError(
                f"sequence_length must be at least {SHORTEST + 2}, not {self.sequence_length}"
            )
        if not 0 < self.masked < 1:
            raise ValueError(f"masked must be between 0 and 1, not {self.masked}")


@dataclass(frozen=True)
class PretrainedEncoder:
    """What a pre-training gave.

    Attributes
    ----------
    path
        Folder with the model as Hugging Face saves it, for `model.train.train`'s ``encoder``.
    initial_loss, loss
        Mean cross entropy (nats) of masked words of the validation split, before and after.
    evaluated
        How many words that is.
    steps, seconds
        Of the training.
    """

    path: Path
    initial_loss: float
    loss: float
    evaluated: int
    steps: int
    seconds: float


def pretrain(
    design: TransformerDesign | dict[str, Any] | str | Path,
    out: str | Path,
    recipe: PretrainingRecipe | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    threads: int | None = None,
) -> PretrainedEncoder:
    """Pre-train an encoder on texts without labels and save it.

    Words are masked as BERT's are, anew in each epoch, by Hugging Face's
    `DataCollatorForLanguageModeling`; nothing is pruned. A killed pre-training is taken up at its
    last checkpoint, bit for bit; a finished one is loaded.

    Parameters
    ----------
    design
        A name, a file or an object; its classifier plays no part.
    out
        Folder for the model.
    recipe, seed
        How to train; the seed is that of initial weights, of the order of batches and of masks.
    progress, threads
        As of `model.train.train`.

    Raises
    ------
    ValueError
        The folder holds something else, or the design does not fit the tokenizer and the recipe.
    """
    chosen, folder = recipe or PretrainingRecipe(), Path(out)
    loaded = TransformerDesign.load(design)
    if loaded.vocabulary != VOCABULARY:
        raise ValueError(
            f"vocabulary must be {VOCABULARY}, the tokenizer's, not {loaded.vocabulary}"
        )
    if loaded.max_positions < chosen.sequence_length:
        raise ValueError(
            f"max_positions must be at least the recipe's sequence_length,"
            f" {chosen.sequence_length}, not {loaded.max_positions}"
        )
    task = load_task(chosen.task, chosen.sequence_length)
    inputs = {
        "design": loaded.model_dump(mode="json", exclude={"labels"}),
        "task": task.describe(),
        "recipe": asdict(chosen),
        "seed": seed,
        "threads": threads or 1,
        "pretrained": PRETRAINED,
        "pretraining_version": PRETRAINING_VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if (finished := _finished(folder, inputs)) is not None:
        return finished
    tokens = pieces(task.train.texts, chosen.sequence_length)
    held_out = pieces(task.validation.texts, chosen.sequence_length)
    with threads_of_torch(threads or 1):
        start = initial_model(loaded, PruningPolicy(), task, 0.0, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = FlexiBertForMaskedLM(start.config)
        model.encoder.load_state_dict(start.encoder.state_dict())
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "inputs.json", inputs)
        collator = masking(chosen.masked)
        before, evaluated = masked_loss(model, held_out, collator, seed)
        loop = _loop(model, tokens, collator, chosen, seed, folder, inputs, progress)
        loop.restore(loop.checkpoint, inputs, at_most=loop.schedule.steps)
        loop.run(loop.schedule.steps)
        after, _ = masked_loss(model, held_out, collator, seed)
    with quiet(), disk_errors():
        model.eval().save_pretrained(folder)
    steps, seconds = loop.schedule.steps, loop.seconds
    about = {
        "initial_loss": before, "loss": after, "evaluated": evaluated,
        "steps": steps, "seconds": seconds,
    }  # fmt: skip
    write_json(folder / "pretraining.json", about)
    loop.checkpoint.unlink(missing_ok=True)
    return PretrainedEncoder(folder, before, after, evaluated, steps, seconds)


def _finished(folder: Path, inputs: Mapping[str, Any]) -> PretrainedEncoder | None:
    """What an earlier pre-training of these inputs gave; None where there is work to do."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    known = folder / "inputs.json"
    found = json.loads(known.read_text()) if known.is_file() else {}
    if "pretraining_version" not in found:
        raise ValueError(f"{folder} exists and holds no pre-training; name another folder")
    wanted = json.loads(json.dumps(inputs))
    if different := [key for key in wanted if found.get(key) != wanted[key]]:
        key = different[0]
        raise ValueError(
            f"{folder} holds a pre-training of another {key}: {found.get(key)}, not"
            f" {wanted[key]}; name another folder"
        )
    about = folder / "pretraining.json"
    return PretrainedEncoder(folder, **json.loads(about.read_text())) if about.is_file() else None


def pieces(texts: Sequence[Text], sequence_length: int) -> Tokens:
    """Token ids of whole texts, in pieces of at most ``sequence_length`` with special tokens."""
    room = sequence_length - 2
    cut = []
    for encoded in tokenizer().encode_batch([joined(text) for text in texts]):
        first, *words, last = encoded.ids
        for start in range(0, len(words), room):
            piece = words[start : start + room]
            if start == 0 or len(piece) >= SHORTEST:
                cut.append([first, *piece, last])
    lengths = np.asarray([len(piece) for piece in cut], dtype=np.int64)
    return Tokens(padded(cut, lengths), lengths)


def masking(share: float) -> transformers.DataCollatorForLanguageModeling:
    """What masks words: of the chosen share 80 % are masked, 10 % random words, 10 % kept."""
    named = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    return transformers.DataCollatorForLanguageModeling(named, mlm_probability=share)


def masked_batch(
    tokens: Tokens, rows: np.ndarray, collator: transformers.DataCollatorForLanguageModeling
) -> dict[str, Tensor]:
    """Arguments of the model's call; masks are drawn from PyTorch's random numbers."""
    given = []
    for row in rows:
        ids = tokens.ids[row, : tokens.lengths[row]].tolist()
        special = [1, *([0] * (len(ids) - 2)), 1]
        given.append(
            {"input_ids": ids, "attention_mask": [1] * len(ids), "special_tokens_mask": special}
        )
    return dict(collator(given))


@torch.no_grad()
def masked_loss(
    model: FlexiBertForMaskedLM,
    tokens: Tokens,
    collator: transformers.DataCollatorForLanguageModeling,
    seed: int,
) -> tuple[float, int]:
    """Mean cross entropy of masked words of the first EVALUATED pieces, and of how many words."""
    model.eval()
    total, count = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, min(len(tokens), EVALUATED), 32):
            rows = np.arange(start, min(start + 32, len(tokens), EVALUATED))
            batch = masked_batch(tokens, rows, collator)
            asked = int((batch["labels"] != UNLABELLED).sum())
            total += float(model(**batch).loss) * asked
            count += asked
    return total / max(count, 1), count


def _loop(
    model: FlexiBertForMaskedLM,
    tokens: Tokens,
    collator: transformers.DataCollatorForLanguageModeling,
    recipe: PretrainingRecipe,
    seed: int,
    folder: Path,
    inputs: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> Loop:
    def epoch(number: int) -> list[np.ndarray]:
        rng = np.random.default_rng([seed, number])
        return training_batches(tokens.lengths, recipe.batch_size, rng)

    def loss(rows: np.ndarray) -> Tensor:
        return model(**masked_batch(tokens, rows, collator)).loss

    steps = max(1, round(recipe.epochs * len(epoch(0))))
    schedule = Schedule(steps, round(recipe.warmup * steps), round((1 - recipe.decay) * steps))
    optimizer = DenseOptimizer(model, recipe.learning_rate, recipe.weight_decay, recipe.clip)
    return Loop(
        optimizer, schedule, epoch, loss, seed, folder / "checkpoint.safetensors", inputs,
        "pre-training the encoder", progress,
    )  # fmt: skip


class DenseOptimizer:
    """AdamW for all parameters, the token embedding's among them.

    `model.loop.Optimizer` moves the embedding's rows of a batch alone; here each word's logit
    gives each row a gradient. Embeddings, norms and biases have no weight decay.

    Parameters
    ----------
    model, learning_rate, weight_decay, clip
        As of `model.loop.Optimizer`.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, weight_decay: float, clip: float
    ) -> None:
        self.model, self.learning_rate, self.clip = model, learning_rate, clip
        named = dict(model.named_parameters())
        decayed = [p for name, p in named.items() if p.ndim >= 2 and "embedding" not in name]
        plain = [p for name, p in named.items() if p.ndim < 2 or "embedding" in name]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=learning_rate, fused=True)

    def step(self, factor: float, number: int = 0) -> None:
        """Update all parameters with ``factor`` times the learning rate and drop the gradients."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if not torch.isfinite(norm):
            raise FloatingPointError("the gradient is not finite; lower the learning rate")
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate * factor
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """All that changes in training: parameters and moments, by name."""
        kept = {f"parameter.{name}": p.detach() for name, p in self.model.named_parameters()}
        for index, state in self.adamw.state_dict()["state"].items():
            kept |= {f"adamw.{index}.{key}": value for key, value in state.items()}
        return kept

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave, into a model of the same design."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in kept.items():
            if name.startswith("adamw."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(kept[f"parameter.{name}"])
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state, "param_groups": groups})
