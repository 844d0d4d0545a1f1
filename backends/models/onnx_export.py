"""The same graph for ONNX Runtime and what else reads ONNX.

Contract: `export(model, file)` writes one file and returns how inputs and outputs are called there (by alias); Missing
if the extra `onnx` is not installed, ValueError with the converter's reason if an operation has no counterpart.
Source: tf2onnx, on the frozen graph (its command-line route through Keras does not survive Keras 3).
"""

from __future__ import annotations

import logging
from pathlib import Path

import tensorflow as tf

from backends.models.frozen import Frozen

OPSET = 18


class Missing(Exception):
    """The text says what to install."""


def export(model: Frozen, file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the inputs and of the outputs in the file, by alias."""
    try:
        import onnxruntime  # noqa: F401 - without it the export could not be compared
        import tf2onnx.convert
    except ImportError as error:
        raise Missing(f"{error.name} is not installed: run 'pip install -e .[models,onnx]'") from error
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    inputs = {alias: info.name for alias, info in model.inputs.items()}
    outputs = {alias: info.name for alias, info in model.outputs.items()}
    try:
        tf2onnx.convert.from_graph_def(
            model.graph,
            input_names=list(inputs.values()),
            output_names=list(outputs.values()),
            opset=OPSET,
            output_path=str(file),
        )
    except (ValueError, RuntimeError, KeyError, AttributeError, tf.errors.OpError) as error:
        raise ValueError(f"tf2onnx cannot convert it: {error}") from error
    return inputs, outputs
