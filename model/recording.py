"""The integers of one quantized forward pass, for replay in hardware: NumPy only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Version of the file's fields."""


@dataclass(frozen=True)
class RecordedProduct:
    """Operands of one product, O[b, i, j] = Σ_k left[b, i, k] · right[(b,) k, j] + initial[j].

    Parameters
    ----------
    layer, operation : the operation, as in model.space.operations
    left : int64 [B, I, K]; of score and context, B is heads · batch, head slowest
    right : int64 [K, J] of a weight, [B, K, J] otherwise
    initial : int64 [J], the bias in units of the accumulator's last bit, or None
    shift : bits that rounding takes from the accumulator
    activate : whether the non-linearity follows
    exponents : of "left", "right", "rounded" (after the shift) and "output" (as stored)
    threshold : integer magnitude below which dynatran prunes the result
    valid_mask : bool [B, I, J], the entries of real positions, or None where all are
    """

    layer: int | None
    operation: str
    left: np.ndarray
    right: np.ndarray
    initial: np.ndarray | None
    shift: int
    activate: bool
    exponents: Mapping[str, int]
    threshold: int
    valid_mask: np.ndarray | None = None


@dataclass(frozen=True)
class RecordedRows:
    """Operands of one operation on rows.

    Parameters
    ----------
    layer, operation : the operation
    kind : "softmax", "tanh" (rows of two, x and −x) or "add_norm"
    rows : int64 [rows, n]; the first addend of add_norm
    valid_mask : bool [rows, n], the entries of real positions
    exponents : of "rows", "output"; of add_norm also "residual", "sum", "gamma" and "beta"
    threshold : integer magnitude below which dynatran prunes the result
    residual, gamma, beta : int64, of add_norm: [rows, n], [n] and [n]
    """

    layer: int | None
    operation: str
    kind: str
    rows: np.ndarray
    valid_mask: np.ndarray
    exponents: Mapping[str, int]
    threshold: int
    residual: np.ndarray | None = None
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None


@dataclass(frozen=True)
class Recording:
    """One quantized forward pass.

    Parameters
    ----------
    design_hash : architecture of the model
    weights_hash : which weights
    bits, accumulator_bits : widths of values and of partial sums
    valid_mask : bool [batch, sequence], the real positions
    products, rows : operations in the order in which they ran
    tensors : every stored tensor by the name that its operation writes, pruned, int64, in the
        shapes [batch, positions, width], or [heads · batch, sequence, width] in attention
    """

    design_hash: str
    weights_hash: str
    bits: int
    accumulator_bits: int
    valid_mask: np.ndarray
    products: tuple[RecordedProduct, ...]
    rows: tuple[RecordedRows, ...]
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the recording as a compressed .npz file, without pickles."""
        arrays: dict[str, np.ndarray] = {"valid_mask": self.valid_mask}
        header: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        for name in ("design_hash", "weights_hash", "bits", "accumulator_bits"):
            header[name] = getattr(self, name)
        for group in ("products", "rows"):
            header[group] = []
            for index, item in enumerate(getattr(self, group)):
                plain: dict[str, Any] = {}
                for name in (entry.name for entry in fields(item)):
                    value = getattr(item, name)
                    if isinstance(value, np.ndarray):
                        arrays[f"{group}/{index}/{name}"] = value
                    else:
                        plain[name] = dict(value) if isinstance(value, Mapping) else value
                header[group].append(plain)
        for name, value in self.tensors.items():
            arrays[f"tensors/{name}"] = value
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # names are ours

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a recording.

        Raises
        ------
        ValueError
            If the file is no recording, or one of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            header = json.loads(arrays.pop("header").tobytes())
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"{path}: not a recording: {error}") from None
        version = header.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path}: schema_version must be {SCHEMA_VERSION}, not {version!r}")
        grouped: dict[str, list[dict[str, Any]]] = {
            group: header.pop(group) for group in ("products", "rows")
        }
        tensors = {}
        for key, value in arrays.items():
            group, _, rest = key.partition("/")
            if group == "tensors":
                tensors[rest] = value
            elif group in grouped:
                index, _, name = rest.partition("/")
                grouped[group][int(index)][name] = value
        return cls(
            **header,
            valid_mask=arrays["valid_mask"],
            products=tuple(RecordedProduct(**item) for item in grouped["products"]),
            rows=tuple(RecordedRows(**item) for item in grouped["rows"]),
            tensors=tensors,
        )
