"""Spaces of pairs of a transformer and an accelerator, and their integer genomes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from hwgen.configuration import Named
from hwgen.design import AcceleratorDesign
from hwgen.design_space import DesignSpace
from model.space import LayerDesign, TransformerDesign, TransformerSpace

Genome = np.ndarray
"""One integer a gene, int64, shape (genes,)."""


@dataclass(frozen=True)
class ModelPoint:
    """What is trained: a transformer and its two pruning thresholds.

    Parameters
    ----------
    design : the transformer; its activation is what the accelerator's lanes apply
    activation_threshold : τ_I, above 0
    gradient_threshold : τ_T, above 0
    """

    design: TransformerDesign
    activation_threshold: float
    gradient_threshold: float

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that equal models and thresholds share."""
        return _digest(
            {
                "design": self.design.design_hash,
                "activation_threshold": self.activation_threshold,
                "gradient_threshold": self.gradient_threshold,
            }
        )


@dataclass(frozen=True)
class Candidate:
    """A point of the space: a model with its thresholds, and an accelerator."""

    model: ModelPoint
    accelerator: AcceleratorDesign


def accelerator_key(design: AcceleratorDesign) -> str:
    """Sixteen hexadecimal digits that equal accelerators share."""
    return _digest(design.model_dump(mode="json"))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class CoDesignSpace(Named):
    """A space of pairs, from a YAML file.

    Parameters
    ----------
    accelerator : an accelerator space, by name, file or mapping
    transformer : a transformer space, by name, file or mapping
    activation_threshold : options for τ_I, each above 0
    gradient_threshold : options for τ_T, each above 0
    rung_epochs : epochs of training at each rung of successive halving, rising
    """

    kind: ClassVar[str] = "space"
    examples: ClassVar[tuple[str, str]] = ("search", "spaces")

    accelerator: DesignSpace
    transformer: TransformerSpace
    activation_threshold: tuple[float, ...] = Field(min_length=1)
    gradient_threshold: tuple[float, ...] = Field(min_length=1)
    rung_epochs: tuple[float, ...] = Field(default=(0.5, 2.0), min_length=2)

    @model_validator(mode="before")
    @classmethod
    def _load_parts(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        if "accelerator" in data:
            data["accelerator"] = DesignSpace.load(data["accelerator"])
        if "transformer" in data:
            data["transformer"] = TransformerSpace.load(data["transformer"])
        for key in ("activation_threshold", "gradient_threshold", "rung_epochs"):
            if isinstance(data.get(key), (list, tuple)):
                data[key] = tuple(float(v) if type(v) is int else v for v in data[key])
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("activation_threshold", "gradient_threshold"):
            for value in getattr(self, name):
                if not (math.isfinite(value) and value > 0):
                    raise ValueError(f"{name} must be finite and above 0, not {value}")
            _refuse_repeats(name, getattr(self, name))
        for name, options in self.accelerator.options.items():
            _refuse_repeats(f"accelerator.{name}", options)
        rungs = self.rung_epochs
        if rungs[0] <= 0 or any(b <= a for a, b in zip(rungs, rungs[1:], strict=False)):
            raise ValueError(f"rung_epochs must rise from above 0, not {list(rungs)}")
        return self

def _refuse_repeats(name: str, options: tuple[Any, ...]) -> None:
    texts = [json.dumps(option, sort_keys=True) for option in options]
    if len(set(texts)) < len(texts):
        raise ValueError(f"{name} must not repeat an option: {list(options)}")


class Codec:
    """Translates between candidates of a space and integer genomes.

    A genome holds one gene for depth and one for each threshold; for each of the deepest model's
    layers one for width, head count, the count of every operation, the number of feed-forward
    stacks and the width of each; and one gene for each field of the accelerator space. Genes are
    indices into options, but for operations, which are counts. The model's activation is the
    accelerator's nonlinearity gene.

    A genome is *canonical* when the genes of inactive layers and stacks are 0 and operation counts
    add up to the head count. Equal candidates have equal canonical genomes, and the reverse.

    Parameters
    ----------
    space : the space
    labels : outputs of the classifier, from the task
    """

    def __init__(self, space: CoDesignSpace, labels: int = 2) -> None:
        self.space = space
        self.labels = labels
        transformer = space.transformer
        self.kinds = len(transformer.operations)
        self.max_stacks = max(transformer.feed_forward_stacks)
        self.max_depth = max(transformer.depth)
        self.layer_genes = 3 + self.kinds + self.max_stacks
        self.layers_start = 3
        self.accelerator_start = self.layers_start + self.max_depth * self.layer_genes
        self.accelerator_options = space.accelerator.options
        self.genes = self.accelerator_start + len(self.accelerator_options)
        names = list(self.accelerator_options)
        self.nonlinearity = self.accelerator_start + names.index("nonlinearity")
        layer = (
            [len(transformer.hidden), len(transformer.heads)]
            + [max(transformer.heads) + 1] * self.kinds
            + [len(transformer.feed_forward_stacks)]
            + [len(transformer.feed_forward_widths)] * self.max_stacks
        )
        self.sizes = np.array(
            [
                len(transformer.depth),
                len(space.activation_threshold),
                len(space.gradient_threshold),
                *layer * self.max_depth,
                *(len(options) for options in self.accelerator_options.values()),
            ],
            dtype=np.int64,
        )
        self.model_genes = np.r_[0 : self.accelerator_start, self.nonlinearity]
        """Genes that make up what is trained."""
        self.hardware_genes = np.array(
            [g for g in range(self.accelerator_start, self.genes) if g != self.nonlinearity]
        )
        """The accelerator's genes, without the non-linearity that it shares with the model."""

    @property
    def size(self) -> int:
        """Number of different candidates."""
        models = self.space.transformer.size
        thresholds = len(self.space.activation_threshold) * len(self.space.gradient_threshold)
        return models * thresholds * len(self.space.accelerator)

    def depth(self, genome: Genome) -> int:
        """Number of layers of a genome's model."""
        return self.space.transformer.depth[genome[0]]

    def layer(self, index: int) -> slice:
        """Where a layer's genes are."""
        start = self.layers_start + index * self.layer_genes
        return slice(start, start + self.layer_genes)

    def canonical(self, genome: Genome) -> Genome:
        """Repair operation counts to the head count and clear what is inactive."""
        made = np.clip(np.asarray(genome, dtype=np.int64), 0, self.sizes - 1)
        depth = self.depth(made)
        for index in range(self.max_depth):
            genes = made[self.layer(index)]  # a view
            if index >= depth:
                genes[:] = 0
                continue
            heads = self.space.transformer.heads[genes[1]]
            genes[2 : 2 + self.kinds] = repair_counts(genes[2 : 2 + self.kinds], heads)
            stacks = self.space.transformer.feed_forward_stacks[genes[2 + self.kinds]]
            genes[3 + self.kinds + stacks :] = 0
        return made

    def decode(self, genome: Genome) -> Candidate:
        """Make the candidate of a genome, canonical or not."""
        genome = self.canonical(genome)
        accelerator = self.space.accelerator.design(genome[self.accelerator_start :].tolist())
        return Candidate(self.decode_model(genome), accelerator)

    def decode_model(self, genome: Genome) -> ModelPoint:
        """Make the model of a genome, canonical or not."""
        genome = self.canonical(genome)
        layers = tuple(
            self._decode_layer(genome[self.layer(index)]) for index in range(self.depth(genome))
        )
        activation = self.space.accelerator.nonlinearity[genome[self.nonlinearity]]
        return ModelPoint(
            TransformerDesign(layers=layers, labels=self.labels, activation=activation),
            self.space.activation_threshold[genome[1]],
            self.space.gradient_threshold[genome[2]],
        )

    def _decode_layer(self, genes: np.ndarray) -> LayerDesign:
        transformer = self.space.transformer
        counts = genes[2 : 2 + self.kinds]
        heads = tuple(
            name
            for name, count in zip(transformer.operations, counts, strict=True)
            for _ in range(count)
        )
        stacks = transformer.feed_forward_stacks[genes[2 + self.kinds]]
        widths = genes[3 + self.kinds : 3 + self.kinds + stacks]
        return LayerDesign(
            hidden=transformer.hidden[genes[0]],
            heads=heads,
            feed_forward=tuple(transformer.feed_forward_widths[width] for width in widths),
        )

    def encode(self, candidate: Candidate) -> Genome:
        """Make the canonical genome of a candidate.

        Raises
        ------
        ValueError
            If the candidate does not lie in the space; the message names the field and its options.
        """
        space, design = self.space, candidate.model.design
        space.transformer.check(design)
        if design.activation != candidate.accelerator.nonlinearity:
            raise ValueError(
                f"the model's activation, {design.activation}, must be the accelerator's "
                f"nonlinearity, {candidate.accelerator.nonlinearity}"
            )
        genome = np.zeros(self.genes, dtype=np.int64)
        genome[0] = space.transformer.depth.index(len(design.layers))
        thresholds = ("activation_threshold", "gradient_threshold")
        for gene, name in enumerate(thresholds, start=1):
            genome[gene] = _index(name, getattr(space, name), getattr(candidate.model, name))
        for index, layer in enumerate(design.layers):
            genome[self.layer(index)] = self._encode_layer(layer)
        genome[self.accelerator_start :] = self.encode_accelerator(candidate.accelerator)
        if self.decode(genome).accelerator != candidate.accelerator:
            raise ValueError("the accelerator has fields that this space does not vary")
        return genome

    def _encode_layer(self, layer: LayerDesign) -> np.ndarray:
        transformer = self.space.transformer
        genes = np.zeros(self.layer_genes, dtype=np.int64)
        genes[0] = transformer.hidden.index(layer.hidden)
        genes[1] = transformer.heads.index(len(layer.heads))
        genes[2 : 2 + self.kinds] = [layer.heads.count(name) for name in transformer.operations]
        stacks = len(layer.feed_forward)
        genes[2 + self.kinds] = transformer.feed_forward_stacks.index(stacks)
        for number, width in enumerate(layer.feed_forward):
            genes[3 + self.kinds + number] = transformer.feed_forward_widths.index(width)
        return genes

    def encode_accelerator(self, design: AcceleratorDesign) -> np.ndarray:
        """Make the accelerator genes of a design.

        Raises
        ------
        ValueError
            If a field's value is no option of the space.
        """
        memory = design.memory.model_dump()
        genes = []
        for name, options in self.accelerator_options.items():
            if name == "memory":
                matches = [all(memory[k] == v for k, v in option.items()) for option in options]
                if not any(matches):
                    raise ValueError(f"memory must be an option of this space, not {memory}")
                genes.append(matches.index(True))
            else:
                value = design.tile_x if name == "tile" else getattr(design, name)
                genes.append(_index(name, options, value))
        return np.array(genes, dtype=np.int64)


def repair_counts(counts: np.ndarray, heads: int) -> np.ndarray:
    """Make counts add up to `heads`, one by one from or to the largest, the first of equals."""
    counts = counts.copy()
    while (excess := int(counts.sum()) - heads) != 0:
        counts[np.argmax(counts)] += -1 if excess > 0 else 1
    return counts


def _index(name: str, options: tuple[Any, ...], value: Any) -> int:
    if value not in options:
        raise ValueError(f"{name} must be one of {list(options)} in this space, not {value!r}")
    return options.index(value)
