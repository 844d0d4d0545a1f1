"""Variants of a model side by side on held-out data: how good, how large, how quick.

Contract: `Runner.run(inputs)` answers as the saved files do. A SavedModel is loaded and run as go_infer does it (a
session with one thread inside an operation), an ONNX file by ONNX Runtime with one thread. `compare` takes turns over
all variants, ROUNDS of them, so that what else the machine does falls on all; latency is of one row, throughput of
`batch` rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from backends.models import heldout
from backends.models.frozen import TAG
from backends.models.heldout import HeldOut
from backends.progress import Progress

ROUNDS = 5
WARM = 3  # runs of a size before one counts


class Runner(Protocol):
    """Something that answers."""

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]: ...


class SavedModel:
    """As go_infer runs it."""

    def __init__(self, directory: Path, signature: str) -> None:
        config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(self._session, [TAG], str(directory))
        definition = meta.signature_def[signature]
        self._inputs, self._outputs = sorted(definition.inputs), sorted(definition.outputs)
        self._call = self._session.make_callable(
            [definition.outputs[name].name for name in self._outputs],
            [definition.inputs[name].name for name in self._inputs],
        )

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._call(*[inputs[name] for name in self._inputs]), strict=True))


class Onnx:
    """As ONNX Runtime runs it."""

    def __init__(self, file: Path, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs, self._outputs = inputs, outputs

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        fed = {self._inputs[name]: values for name, values in inputs.items()}
        return dict(zip(self._outputs, self._session.run(list(self._outputs.values()), fed), strict=True))


@dataclass
class Figures:
    """One variant. `loss` is against the original: of accuracy if labels are known, else of agreement."""

    size: int  # bytes on disk
    agreement: float
    loss: float
    accuracy: float | None = None
    latencies: list[float] = field(default_factory=list)  # seconds, of one row
    rates: list[float] = field(default_factory=list)  # rows per second, one number a round

    @property
    def p50(self) -> float:
        """Milliseconds."""
        return statistics.median(self.latencies) * 1e3

    @property
    def p99(self) -> float:
        """Milliseconds."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)] * 1e3

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def as_json(self) -> dict[str, Any]:
        """What a report keeps."""
        return {
            "bytes": self.size,
            "accuracy": self.accuracy,
            "agreement": self.agreement,
            "loss": self.loss,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "rows_per_second": self.rate,
        }


def compare(
    variants: Mapping[str, tuple[Runner, int]], data: HeldOut, declared: Mapping[str, str], batch: int, seconds: float
) -> dict[str, Figures]:
    """`variants`: name -> (runner, bytes); the first is the original. `seconds` for each round of each variant."""
    original = answers(next(iter(variants.values()))[0], data, batch)
    found: dict[str, Figures] = {}
    for name, (runner, size) in variants.items():
        outputs = answers(runner, data, batch)
        agreement = heldout.agreement(outputs, original)
        figures = Figures(size, agreement, 1.0 - agreement)
        if data.labels is not None:
            figures.accuracy = heldout.accuracy(outputs, data.labels, declared)
            figures.loss = heldout.accuracy(original, data.labels, declared) - figures.accuracy
        found[name] = figures
    with Progress("measuring speed", ROUNDS * len(variants)) as progress:
        for turn in range(ROUNDS):
            for number, (name, (runner, _)) in enumerate(variants.items()):
                found[name].latencies += _times(runner, data, 1, seconds / 2)
                found[name].rates.append(batch / statistics.median(_times(runner, data, batch, seconds / 2)))
                progress.advance(turn * len(variants) + number + 1, name)
    return found


def answers(runner: Runner, data: HeldOut, batch: int) -> dict[str, Any]:
    """All rows, `batch` at a time."""
    parts = []
    for start in range(0, len(data), batch):
        count = min(batch, len(data) - start)
        parts.append(runner.run(data.rows(start, count)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _times(runner: Runner, data: HeldOut, rows: int, seconds: float) -> list[float]:
    """Seconds that each run of so many rows took."""
    clock: Callable[[], float] = time.perf_counter
    for turn in range(WARM):
        runner.run(data.rows(turn, rows))
    times: list[float] = []
    end = clock() + seconds
    while not times or clock() < end:
        inputs = data.rows(len(times) * rows, rows)
        began = clock()
        runner.run(inputs)
        times.append(clock() - began)
    return times
