"""A graph in less precision: float16 or int8 weights, or computation in bfloat16.

Contract: each variant takes a `Frozen` and gives one with the same inputs and outputs, their types unchanged; what it
cannot make smaller it leaves alone. Pure: files are others' business.

What pays on a CPU, and what does not (docs/adr/0036 has the figures):
* float16 and int8 *weights* make the files half and a quarter as large. TensorFlow turns them back into float32 when it
  plans the first Run of a session, so neither speed nor memory changes.
* *computing* in bfloat16 is for processors with instructions for it (avx512_bf16, amx_bf16); others are slower with it.
* computing in float16 needs avx512_fp16, which hardly any server has, and is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from backends.models.frozen import Frozen

SMALLEST = 256  # elements; a smaller weight is not worth a conversion, nor is a bias, which has one dimension

Channels = tuple[int, ...]  # dimensions

# Which dimensions of a weight its output channels are; by default the last.
CHANNELS = {"Conv2D": (3,), "Conv3D": (4,), "MatMul": (1,), "DepthwiseConv2dNative": (2, 3)}


def float16(model: Frozen) -> Frozen:
    """Weights as float16. ValueError if one is too large for it."""

    def halve(values: Any, _: Channels) -> tuple[Any, Any | None]:
        largest = float(np.abs(values).max())
        if largest > np.finfo(np.float16).max:
            raise ValueError(f"a weight of {largest:g} does not fit into float16, whose largest number is 65504")
        return values.astype(np.float16), None

    return _stored(model, halve)


def int8(model: Frozen) -> Frozen:
    """Weights as int8, symmetric, a scale for each output channel (Krishnamoorthi 2018, section 3.1)."""

    def quantise(values: Any, channels: Channels) -> tuple[Any, Any | None]:
        others = tuple(axis for axis in range(values.ndim) if axis not in channels)
        scale = np.abs(values).max(axis=others, keepdims=True) / 127.0
        scale = np.where(scale == 0, 1.0, scale).astype(np.float32)
        return np.rint(values / scale).astype(np.int8), scale

    return _stored(model, quantise)


def bfloat16(model: Frozen) -> Frozen:
    """Convolutions and products in bfloat16, their weights too; sums into float32, what is sensitive stays float32."""
    return model.rewritten("auto_mixed_precision_onednn_bfloat16").rewritten("constfold")


VARIANTS: dict[str, Callable[[Frozen], Frozen]] = {"float16": float16, "bfloat16": bfloat16, "int8": int8}


def _stored(model: Frozen, store: Callable[[Any, Channels], tuple[Any, Any | None]]) -> Frozen:
    """Each large float32 constant as `store(values, channels)` has it, converted and scaled back where it is read."""
    graph = tf.compat.v1.GraphDef()
    graph.versions.CopyFrom(model.graph.versions)
    graph.library.CopyFrom(model.graph.library)
    channels = _channels(model.graph)
    for node in model.graph.node:
        if node.op != "Const" or node.attr["dtype"].type != tf.float32.as_datatype_enum:
            graph.node.append(node)
            continue
        values = tf.make_ndarray(node.attr["value"].tensor)
        if values.ndim < 2 or values.size < SMALLEST:
            graph.node.append(node)
            continue
        small, scale = store(values, channels.get(node.name, (values.ndim - 1,)))
        back = f"{node.name}/float32" if scale is not None else node.name
        graph.node.append(_constant(f"{node.name}/stored", small))
        cast = tf.compat.v1.NodeDef(op="Cast", name=back, input=[f"{node.name}/stored"])
        cast.attr["SrcT"].type = tf.as_dtype(small.dtype).as_datatype_enum
        cast.attr["DstT"].type = tf.float32.as_datatype_enum
        graph.node.append(cast)
        if scale is not None:
            graph.node.append(_constant(f"{node.name}/scale", scale))
            scaled = tf.compat.v1.NodeDef(op="Mul", name=node.name, input=[back, f"{node.name}/scale"])
            scaled.attr["T"].type = tf.float32.as_datatype_enum
            graph.node.append(scaled)
    return model.replaced(graph)


def _constant(name: str, values: Any) -> Any:
    node = tf.compat.v1.NodeDef(op="Const", name=name)
    node.attr["dtype"].type = tf.as_dtype(values.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return node


def _channels(graph: Any) -> dict[str, Channels]:
    """Constant -> the dimensions of its output channels, found through the Identity nodes between it and its reader."""
    through = {node.name: node.input[0].lstrip("^") for node in graph.node if node.op == "Identity" and node.input}
    found = {}
    for node in graph.node:
        if node.op in CHANNELS and len(node.input) > 1:
            name = node.input[1]
            while name in through:
                name = through[name]
            transposed = node.op == "MatMul" and node.attr["transpose_b"].b
            found[name] = (0,) if transposed else CHANNELS[node.op]
    return found
