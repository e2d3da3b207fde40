"""The forms in which a transformer comes, turned into the fields of TransformerDesign."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from hwgen.unit_parameters import LAYER_NORM_EPSILON

HEAD_OPERATIONS = ("sa_sdp", "sa_wma", "l_dft", "l_dct", "c_5", "c_9", "c_13")
"""What a head of FlexiBERT 2.0 may do (design space of TransCODE)."""

TOKEN_TYPES = 2
"""Rows of the token-type embedding."""


def unknown_operation(name: str) -> str:
    """Say that a head's operation is unknown, and what is meant perhaps."""
    near = difflib.get_close_matches(name, HEAD_OPERATIONS, 1, 0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown operation {name!r}; {hint}known: {', '.join(HEAD_OPERATIONS)}"


def native_fields(data: Mapping[str, Any], fields: Iterable[str]) -> Mapping[str, Any]:
    """Turn a mapping in any of the accepted forms into one of a design's own `fields`.

    Raises
    ------
    ValueError
        If it is a published dictionary or a Hugging Face configuration that has no place in the
        design space; the message names the key, the value and what to write instead.
    """
    if data.get("model_type") == "flexibert":
        native = {name: data[name] for name in fields if name in data}
        return {**native, "labels": _labels(data)}
    if "num_hidden_layers" in data or "model_type" in data:
        return _of_bert_config(data)
    if "o" in data or "l" in data:
        return _of_published(data)
    return data


def _of_published(data: Mapping[str, Any]) -> Mapping[str, Any]:
    keys = ("l", "o", "h", "f")
    for key in data:
        if key not in keys:
            raise ValueError(
                f"unknown key {key!r} in a published dictionary; known: {', '.join(keys)}"
            )
    for key in keys:
        if key not in data:
            raise ValueError(
                f"key {key!r} is missing from a published dictionary, which has l, o, h and f"
            )
    for key in keys[1:]:
        if not isinstance(data[key], (list, tuple)) or len(data[key]) != data["l"]:
            raise ValueError(
                f"{key} must be a list with one entry for each of the l = {data['l']} layers, "
                f"not {data[key]!r}"
            )
    layers = []
    for index, (heads, hidden, widths) in enumerate(
        zip(data["o"], data["h"], data["f"], strict=True)
    ):
        if not isinstance(heads, (list, tuple)) or not heads:
            raise ValueError(f"o.{index} must be a list of heads such as sa_sdp_64, not {heads!r}")
        if type(hidden) is not int:
            raise ValueError(f"h.{index} must be an integer, not {hidden!r}")
        names = tuple(
            _of_published_head(f"o.{index}.{number}", head, hidden, len(heads))
            for number, head in enumerate(heads)
        )
        layers.append(
            {
                "hidden": hidden,
                "heads": names,
                "feed_forward": tuple(widths) if isinstance(widths, list) else widths,
            }
        )
    return {"layers": layers}


def _of_published_head(key: str, head: Any, hidden: int, heads: int) -> str:
    name, _, size = str(head).rpartition("_")
    if not size.isdigit() or str(head) in HEAD_OPERATIONS:
        raise ValueError(
            f"{key} must end with the head size, such as sa_sdp_{hidden // heads}, not {head!r}"
        )
    if name not in HEAD_OPERATIONS:
        raise ValueError(f"{key}: {unknown_operation(name)}")
    if int(size) != hidden // heads:
        raise ValueError(
            f"{key}: the head size of {head!r} must be floor({hidden} / {heads}) = "
            f"{hidden // heads}, not {size}; write {name}_{hidden // heads}"
        )
    return name


def _of_bert_config(data: Mapping[str, Any]) -> Mapping[str, Any]:
    fixed = {
        "model_type": "bert",
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "type_vocab_size": TOKEN_TYPES,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    }
    for key, value in fixed.items():
        if data.get(key, value) != value:
            raise ValueError(
                f"{key} must be {value!r} to map into the design space, not {data[key]!r}"
            )
    sizes = {}
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"):
        if type(data.get(key)) is not int or data[key] < 1:
            raise ValueError(f"{key} must be a positive integer, not {data.get(key)!r}")
        sizes[key] = data[key]
    layer = {
        "hidden": sizes["hidden_size"],
        "heads": ("sa_sdp",) * sizes["num_attention_heads"],
        "feed_forward": (sizes["intermediate_size"],),
    }
    native: dict[str, Any] = {"layers": (layer,) * sizes["num_hidden_layers"]}
    for name, key in (
        ("vocabulary", "vocab_size"),
        ("max_positions", "max_position_embeddings"),
        ("activation", "hidden_act"),
    ):
        if data.get(key) is not None:
            native[name] = data[key]
    return {**native, "labels": _labels(data)}


def _labels(data: Mapping[str, Any]) -> int:
    """Number of labels of a Hugging Face configuration, which leaves out the default of two."""
    return len(data["id2label"]) if data.get("id2label") else data.get("num_labels") or 2
