"""Data that a model was not trained on, and how good an answer to it is.

Contract: `read(file, inputs)` gives rows for every input; ValueError says which file, row or name is wrong.
Formats: JSON with `instances` as TensorFlow Serving takes them (a row of numbers, or an object by input name) and, if
they are known, `labels`, one integer a row; or an .npz with an array for each input and, if they are known, `labels`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

LEAST = 32  # rows; fewer prove nothing


@dataclass(frozen=True)
class HeldOut:
    """`inputs`: alias -> array with a row for each example; `labels` is None if nobody knows them."""

    inputs: Mapping[str, Any]
    labels: Any | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, count: int) -> dict[str, Any]:
        """Rows from `start`, going round at the end."""
        where = np.arange(start, start + count) % len(self)
        return {alias: values[where] for alias, values in self.inputs.items()}


def read(file: Path, inputs: Mapping[str, Any]) -> HeldOut:
    """`inputs` are the signature's TensorInfo by alias."""
    try:
        arrays = dict(np.load(file)) if file.suffix == ".npz" else _json(json.loads(file.read_text()), file, inputs)
    except (ValueError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: {error}") from error
    labels = arrays.pop("labels", None)
    missing, unknown = sorted(set(inputs) - set(arrays)), sorted(set(arrays) - set(inputs))
    if missing or unknown:
        raise ValueError(f"{file}: inputs missing: {missing}, unknown: {unknown}; the signature has {sorted(inputs)}")
    typed = {alias: np.asarray(arrays[alias], tf.as_dtype(info.dtype).as_numpy_dtype) for alias, info in inputs.items()}
    for alias, values in typed.items():
        declared = [dim.size for dim in inputs[alias].tensor_shape.dim]
        same = len(declared) == values.ndim
        if not same or any(d not in (-1, v) for d, v in zip(declared, values.shape, strict=True)):
            raise ValueError(f"{file}: {alias} is {list(values.shape)}; the signature says {declared}")
    counts = {len(values) for values in [*typed.values(), *([] if labels is None else [labels])]}
    if len(counts) != 1 or min(counts) < LEAST:
        raise ValueError(f"{file}: {sorted(counts)} rows; every input and the labels need the same, at least {LEAST}")
    return HeldOut(typed, None if labels is None else np.asarray(labels, np.int64))


def _json(document: Any, file: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(document, dict) or not document.get("instances"):
        raise ValueError("no 'instances'")
    rows = document["instances"]
    if isinstance(rows[0], dict):
        arrays = {alias: np.asarray([row[alias] for row in rows]) for alias in rows[0]}
    elif len(inputs) == 1:
        arrays = {next(iter(inputs)): np.asarray(rows)}
    else:
        raise ValueError(f"instances must be objects: the signature has the inputs {sorted(inputs)}")
    if "labels" in document:
        arrays["labels"] = np.asarray(document["labels"])
    return arrays


def accuracy(outputs: Mapping[str, Any], labels: Any, declared: Mapping[str, str]) -> float:
    """Share of right labels: of the declared label output, else of the largest score; ValueError without either."""
    label, scores = declared.get("label"), declared.get("scores")
    if label is not None and label in outputs:
        guesses = np.asarray(outputs[label]).reshape(len(labels))
    else:
        rows = [name for name, values in outputs.items() if values.ndim == 2 and values.shape[1] > 1]
        name = scores if scores in outputs else rows[0] if len(rows) == 1 else None
        if name is None:
            raise ValueError(f"which of {sorted(outputs)} is the label? Declare it in assets.extra/sluicegate.json")
        guesses = np.argmax(outputs[name], axis=-1)
    return float(np.mean(guesses == labels))


def agreement(outputs: Mapping[str, Any], original: Mapping[str, Any]) -> float:
    """1 if the outputs are the original's: the mean over rows of the least cosine, for integers of the share equal."""
    each = []
    for name, theirs in original.items():
        ours, theirs = (np.asarray(side[name]).reshape(len(theirs), -1) for side in (outputs, original))
        if np.issubdtype(theirs.dtype, np.floating):
            ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
            lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            same = np.all(ours == theirs, axis=1)
            each.append(np.where(same, 1.0, np.sum(ours * theirs, axis=1) / np.where(lengths == 0, np.inf, lengths)))
        else:
            each.append(np.mean(ours == theirs, axis=1))
    return float(np.mean(np.min(each, axis=0)))
