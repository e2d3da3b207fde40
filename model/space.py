"""Transformer designs, spaces of them, and the operations that a design runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from hwgen.configuration import Frozen, Named
from model.formats import HEAD_OPERATIONS, TOKEN_TYPES, native_fields, unknown_operation
from model.operations import (
    MODELLED_HEADS,
    GemmRole,
    Operation,
    Operations,
    encoder_operations,
    unmodelled_heads,
)

__all__ = [
    "HEAD_OPERATIONS",
    "GemmRole",
    "LayerDesign",
    "Operation",
    "Operations",
    "TransformerDesign",
    "TransformerSpace",
    "encoder_operations",
    "operations",
    "parameters",
]


class LayerDesign(Frozen):
    """One encoder layer.

    Parameters
    ----------
    hidden : width of the hidden state
    heads : the operation of each head
    feed_forward : widths of the feed-forward stacks, one to three

    Raises
    ------
    pydantic.ValidationError
        (a ValueError) for an unknown operation, or more heads than the width has room for.
    """

    hidden: int = Field(ge=1, le=16384)
    heads: tuple[str, ...]
    feed_forward: tuple[int, ...]

    @field_validator("heads")
    @classmethod
    def _check_heads(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        for head in heads:
            if head not in HEAD_OPERATIONS:
                raise ValueError(unknown_operation(head))
        return heads

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden < len(self.heads):
            raise ValueError(
                f"hidden must be at least the number of heads, {len(self.heads)}, not {self.hidden}"
            )
        if not self.heads:
            raise ValueError("heads must name at least one operation, such as sa_sdp")
        if not 1 <= len(self.feed_forward) <= 3:
            raise ValueError(f"feed_forward must have 1 to 3 widths, not {len(self.feed_forward)}")
        for width in self.feed_forward:
            if not 1 <= width <= 65536:
                raise ValueError(f"feed_forward widths must be 1 to 65536, not {width}")
        return self

    @property
    def head_size(self) -> int:
        """Width of each head, ⌊hidden / heads⌋."""
        return self.hidden // len(self.heads)


class TransformerDesign(Named):
    """One encoder of FlexiBERT 2.0: embeddings, layers, pooler and classifier.

    Parameters
    ----------
    layers : the encoder layers, first to last
    vocabulary : rows of the word embedding
    max_positions : rows of the position embedding
    labels : outputs of the classifier
    activation : non-linearity of the feed-forward stacks, "gelu" (erf form) or "relu"

    Raises
    ------
    pydantic.ValidationError
        (a ValueError) for an unknown key or a value that no encoder can have.
    """

    kind: ClassVar[str] = "transformer"
    examples: ClassVar[tuple[str, str]] = ("model", "designs")

    layers: tuple[LayerDesign, ...]
    vocabulary: int = Field(default=30522, ge=1)
    max_positions: int = Field(default=512, ge=1)
    labels: int = Field(default=2, ge=1)
    activation: Literal["gelu", "relu"] = "gelu"

    @model_validator(mode="before")
    @classmethod
    def _native(cls, data: Any) -> Any:
        return native_fields(data, cls.model_fields) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.layers:
            raise ValueError("layers must hold at least one layer")
        return self

    @classmethod
    def load(
        cls, source: TransformerDesign | Mapping[str, Any] | str | Path | Any
    ) -> TransformerDesign:
        """Load a design.

        Parameters
        ----------
        source : a name ("bert-tiny"), a JSON or YAML file, a mapping of this class's fields, a
            published dictionary with the keys l, o, h, f, a Hugging Face configuration (object or
            mapping), or a design

        Raises
        ------
        ValueError
            If the name is unknown or the contents are no design; the message names the key, the
            value and what to write instead.
        FileNotFoundError
            If a path does not exist.
        """
        return super().load(source.to_dict() if hasattr(source, "to_dict") else source)

    def save(self, path: str | Path) -> None:
        """Write the design, complete, as JSON."""
        Path(path).write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n")

    def to_published(self) -> dict[str, Any]:
        """Return the published text form, with the keys l, o, h and f."""
        return {
            "l": len(self.layers),
            "o": [[f"{head}_{layer.head_size}" for head in layer.heads] for layer in self.layers],
            "h": [layer.hidden for layer in self.layers],
            "f": [list(layer.feed_forward) for layer in self.layers],
        }

    @property
    def design_hash(self) -> str:
        """Sixteen hexadecimal digits of the architecture, whatever the order of a layer's heads."""
        canonical = self.model_dump(mode="json")
        for layer in canonical["layers"]:
            layer["heads"] = sorted(layer["heads"])
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class TransformerSpace(Named):
    """The options of each parameter of a transformer: a space, from a YAML file.

    Parameters
    ----------
    depth : numbers of layers
    hidden : widths of a layer
    heads : numbers of heads of a layer
    operations : what a head may do
    feed_forward_stacks : numbers of hidden layers of the feed-forward part
    feed_forward_widths : widths of each of them
    """

    kind: ClassVar[str] = "transformer space"
    examples: ClassVar[tuple[str, str]] = ("model", "designs/spaces")

    depth: tuple[int, ...] = Field(min_length=1)
    hidden: tuple[int, ...] = Field(min_length=1)
    heads: tuple[int, ...] = Field(min_length=1)
    operations: tuple[str, ...] = Field(min_length=1)
    feed_forward_stacks: tuple[int, ...] = Field(min_length=1)
    feed_forward_widths: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, options in self.options.items():
            if len(set(options)) != len(options):
                raise ValueError(f"{name} must not repeat an option: {list(options)}")
            if name != "operations" and min(options) < 1:
                raise ValueError(f"{name} must be at least 1, not {min(options)}")
        for name in self.operations:
            if name not in HEAD_OPERATIONS:
                raise ValueError(unknown_operation(name))
        if max(self.feed_forward_stacks) > 3:
            raise ValueError(
                f"feed_forward_stacks must be 1 to 3, not {max(self.feed_forward_stacks)}"
            )
        if min(self.hidden) < max(self.heads):
            raise ValueError(
                f"hidden must be at least the number of heads, {max(self.heads)}, "
                f"not {min(self.hidden)}"
            )
        return self

    @property
    def options(self) -> dict[str, tuple[Any, ...]]:
        """The options of each parameter, in the order of the fields."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @cached_property
    def layer_choices(self) -> int:
        """Number of different layers; heads are a multiset."""
        kinds = len(self.operations)
        stacks = sum(len(self.feed_forward_widths) ** stack for stack in self.feed_forward_stacks)
        multisets = sum(math.comb(count + kinds - 1, count) for count in self.heads)
        return stacks * multisets * len(self.hidden)

    @property
    def size(self) -> int:
        """Number of different models."""
        return sum(self.layer_choices**depth for depth in self.depth)

    def sample(self, rng: np.random.Generator, **fields: Any) -> TransformerDesign:
        """Draw a design, uniform over each parameter's options.

        Parameters
        ----------
        rng : where randomness comes from
        fields : further fields of the design, such as labels
        """

        def draw(options: tuple[Any, ...]) -> Any:
            return options[rng.integers(len(options))]

        layers = tuple(
            LayerDesign(
                hidden=draw(self.hidden),
                heads=tuple(sorted(draw(self.operations) for _ in range(draw(self.heads)))),
                feed_forward=tuple(
                    draw(self.feed_forward_widths) for _ in range(draw(self.feed_forward_stacks))
                ),
            )
            for _ in range(draw(self.depth))
        )
        return TransformerDesign(layers=layers, **fields)

    def check(self, design: TransformerDesign) -> None:
        """Check that a design lies in the space.

        Raises
        ------
        ValueError
            If it does not; the message names layer, key, value and options.
        """

        def inside(key: str, value: Any, name: str) -> None:
            if value not in self.options[name]:
                raise ValueError(
                    f"{key} must be one of {list(self.options[name])} in this space, not {value!r}"
                )

        inside("number of layers", len(design.layers), "depth")
        for index, layer in enumerate(design.layers):
            inside(f"layers.{index}.hidden", layer.hidden, "hidden")
            inside(f"number of heads in layer {index}", len(layer.heads), "heads")
            for head in layer.heads:
                inside(f"layers.{index}.heads", head, "operations")
            inside(
                f"number of feed-forward stacks in layer {index}",
                len(layer.feed_forward),
                "feed_forward_stacks",
            )
            for width in layer.feed_forward:
                inside(f"layers.{index}.feed_forward", width, "feed_forward_widths")


def operations(design: TransformerDesign) -> Operations:
    """List what an accelerator runs, in the order in which it runs (docs/machine.md, section 4).

    What a model is made of, whether an accelerator runs it or not, is `encoder_operations`.

    Raises
    ------
    ValueError
        If the accelerator does not run a head's operation; the message names it and its layer.
    """
    if other := unmodelled_heads(design):
        raise ValueError(
            f"{other[0]} is not modelled yet; use {MODELLED_HEADS[0]}. Such a model can be trained,"
            " but ELECTOR has no cost for it and the accelerator's arithmetic no function"
        )
    return encoder_operations(design)


def parameters(design: TransformerDesign) -> int:
    """Number of parameters: embeddings, layers, pooler and classifier."""
    rows = design.vocabulary + design.max_positions + TOKEN_TYPES
    embeddings = rows * design.layers[0].hidden
    return embeddings + sum(item.parameters for item in encoder_operations(design))
