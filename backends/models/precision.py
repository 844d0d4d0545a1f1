"""A graph in less precision: float16 or int8 weights, or computation in bfloat16 or int8.

Contract: each variant takes a `Frozen` and gives one with the same inputs and outputs, their types unchanged; what it
cannot make smaller it leaves alone. Pure: files are others' business.

What pays on a CPU, and what does not (docs/adr/0036 has the figures):
* float16 and int8 *weights* make the files half and a quarter as large. TensorFlow turns them back into float32 when it
  plans the first Run of a session, so neither speed nor memory changes.
* *computing* in bfloat16 is for processors with instructions for it (avx512_bf16, amx_bf16); others are slower with it.
* *computing* large matrix products in int8 pays from some 1,000 x 1,000 weights on (avx512_vnni, amx_int8): five times
  at 2,000 x 2,000 and 32 rows, with oneDNN's quantised product. Smaller ones lose that to the conversions around them.
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

LARGE = 1 << 19  # weights of a product, from where int8 was measured to pay
# Which dimensions of a weight its output channels are. Other constants (anchors, tables) stay exact in int8.
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

    return _stored(model, quantise, weights_only=True)


def bfloat16(model: Frozen) -> Frozen:
    """Convolutions and products in bfloat16, their weights too; sums into float32, what is sensitive stays float32."""
    return model.rewritten("auto_mixed_precision_onednn_bfloat16").rewritten("constfold")


def int8_matmul(model: Frozen) -> Frozen:
    """As `int8`, and products with LARGE weights and more computed in int8, their other factor quantised by its range.

    ValueError if there is none. The range is taken from the rows of each Run: nothing has to be calibrated, but a row's
    answer depends a little on the rows that share its Run.
    """
    constants = {node.name: node for node in model.graph.node if node.op == "Const"}
    through = _identities(model.graph)
    graph = tf.compat.v1.GraphDef()
    graph.versions.CopyFrom(model.graph.versions)
    graph.library.CopyFrom(model.graph.library)
    found = 0
    for node in model.graph.node:
        weight = constants.get(_source(node.input[1], through)) if node.op == "MatMul" else None
        values = None if weight is None else tf.make_ndarray(weight.attr["value"].tensor)
        if values is None or values.size < LARGE or values.dtype != np.float32 or node.attr["transpose_a"].b:
            graph.node.append(node)
            continue
        graph.node.extend(_quantised_product(node, values.T if node.attr["transpose_b"].b else values))
        found += 1
    if not found:
        raise ValueError(f"no product with at least {LARGE} weights, from where int8 pays")
    return int8(model.replaced(graph).pruned())


VARIANTS: dict[str, Callable[[Frozen], Frozen]] = {
    "float16": float16,
    "bfloat16": bfloat16,
    "int8": int8,
    "int8-matmul": int8_matmul,
}


def _quantised_product(node: Any, weights: Any) -> list[Any]:
    """What `node` becomes: the left factor to quint8 between its least and its greatest, times qint8, to float32."""
    name, value = node.name, node.input[0]
    scale = float(np.abs(weights).max()) / 127.0 or 1.0
    stored = _constant(f"{name}/weights", np.rint(weights / scale).astype(np.int8))
    stored.attr["dtype"].type = stored.attr["value"].tensor.dtype = tf.qint8.as_datatype_enum  # the same bytes
    nodes = [stored, _constant(f"{name}/axes", np.array([0, 1], np.int32))]
    for end in ("Min", "Max"):
        nodes.append(_operation(end, f"{name}/{end}", [value, f"{name}/axes"], T=tf.float32, Tidx=tf.int32))
    ends = [f"{name}/Min", f"{name}/Max"]
    quantised = _operation("QuantizeV2", f"{name}/quantised", [value, *ends], T=tf.quint8)
    quantised.attr["mode"].s = b"MIN_FIRST"
    scalars = {"least": -127 * scale, "most": 127 * scale, "low": -1.0, "high": 1.0}
    nodes += [_constant(f"{name}/{what}", np.float32(number)) for what, number in scalars.items()]
    nodes.append(_constant(f"{name}/bias", np.zeros(weights.shape[1], np.float32)))
    inputs = [f"{name}/quantised", stored.name, f"{name}/bias", f"{name}/quantised:1", f"{name}/quantised:2"]
    inputs += [f"{name}/{what}" for what in scalars]
    types = {"T1": tf.quint8, "T2": tf.qint8, "Tbias": tf.float32, "Toutput": tf.float32}
    product = _operation("QuantizedMatMulWithBiasAndDequantize", name, inputs, **types)
    product.attr["input_quant_mode"].s = b"MIN_FIRST"
    return [*nodes, quantised, product]


def _operation(operation: str, name: str, inputs: list[str], **types: Any) -> Any:
    node = tf.compat.v1.NodeDef(op=operation, name=name, input=inputs)
    for attribute, dtype in types.items():
        node.attr[attribute].type = dtype.as_datatype_enum
    return node


def _stored(
    model: Frozen, store: Callable[[Any, Channels], tuple[Any, Any | None]], *, weights_only: bool = False
) -> Frozen:
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
        if values.ndim < 2 or values.size < SMALLEST or (weights_only and node.name not in channels):
            graph.node.append(node)
            continue
        small, scale = store(values, channels.get(node.name, ()))
        back = f"{node.name}/float32" if scale is not None else node.name
        graph.node.append(_constant(f"{node.name}/stored", small))
        types = {"SrcT": tf.as_dtype(small.dtype), "DstT": tf.float32}
        graph.node.append(_operation("Cast", back, [f"{node.name}/stored"], **types))
        if scale is not None:
            graph.node.append(_constant(f"{node.name}/scale", scale))
            graph.node.append(_operation("Mul", node.name, [back, f"{node.name}/scale"], T=tf.float32))
    return model.replaced(graph)


def _constant(name: str, values: Any) -> Any:
    node = tf.compat.v1.NodeDef(op="Const", name=name)
    node.attr["dtype"].type = tf.as_dtype(values.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    return node


def _channels(graph: Any) -> dict[str, Channels]:
    """Constant -> the dimensions of its output channels, found through the Identity nodes between it and its reader."""
    through = _identities(graph)
    found = {}
    for node in graph.node:
        if node.op in CHANNELS and len(node.input) > 1:
            name = _source(node.input[1], through)
            transposed = node.op == "MatMul" and node.attr["transpose_b"].b
            found[name] = (0,) if transposed else CHANNELS[node.op]
    return found


def _identities(graph: Any) -> dict[str, str]:
    """Identity -> what it passes on."""
    return {node.name: node.input[0] for node in graph.node if node.op == "Identity"}


def _source(name: str, through: dict[str, str]) -> str:
    while name in through:
        name = through[name]
    return name
