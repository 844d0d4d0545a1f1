"""A TensorFlow.js graph model becomes a TensorFlow graph: the weights go back into it, fused operations come apart.

Contract: `read(model_json)` gives a GraphDef of ordinary operations with its constants inside, whose first dimension is
free, and the names of its inputs and outputs; ValueError says which file, node or operation is in the way.
Format: a JSON document of `modelTopology` (a GraphDef in protobuf's JSON, constants without values) and
`weightsManifest` (groups of binary shards, weights one after the other, little-endian, row-major; a weight with
`quantization` is float16, or uint8/uint16 as value = stored * scale + min).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

# A fused operation is this one, its bias, then what `fused_ops` lists.
FUSED = {"_FusedConv2D": "Conv2D", "_FusedMatMul": "MatMul", "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative"}
OF_FUSING = ("fused_ops", "num_args", "epsilon", "leakyrelu_alpha", "TArgs", "num_host_args", "host_args")
ACTIVATIONS = ("Relu", "Relu6", "Elu")
WEIGHT_TYPES = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}
STORED_TYPES = {"float16": np.float16, "uint8": np.uint8, "uint16": np.uint16}


@dataclass(frozen=True)
class GraphModel:
    """`inputs` and `outputs` are tensor names ("input:0"), outputs in the order of the signature."""

    graph: Any  # tf.compat.v1.GraphDef
    inputs: Sequence[str]
    outputs: Sequence[str]

    def function(self) -> Callable[[Any], list[Any]]:
        """The graph as a function of its one input."""
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(self.graph, name=""), signature=[])
        found: Callable[[Any], list[Any]] = wrapped.prune(list(self.inputs), list(self.outputs))
        return found


def read(model_json: Path) -> GraphModel:
    """Read `model_json` and the weight shards beside it."""
    try:
        document = json.loads(model_json.read_text())
        topology, manifest = document["modelTopology"], document["weightsManifest"]
        signature = document.get("signature") or document.get("userDefinedMetadata", {})["signature"]
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{model_json} is not a TensorFlow.js graph model: {error!r}") from error
    fused = json_format.ParseDict({"node": topology["node"]}, tf.compat.v1.GraphDef())
    weights = dict(_weights(model_json.parent, manifest))
    graph = tf.compat.v1.GraphDef()
    for node in fused.node:
        if node.op == "Const":
            if node.name not in weights:
                raise ValueError(f"{model_json}: constant {node.name!r} has no weight")
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
        for plain in _apart(node):
            graph.node.append(plain)
    _free_first_dimension(graph)
    tensor = lambda name: name if ":" in name else f"{name}:0"  # noqa: E731
    return GraphModel(graph, [*map(tensor, signature["inputs"])], [*map(tensor, signature["outputs"])])


def _weights(directory: Path, manifest: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for group in manifest:
        content = b"".join((directory / path).read_bytes() for path in group["paths"])
        at = 0
        for weight in group["weights"]:
            quantized = weight.get("quantization")
            stored = STORED_TYPES.get(quantized["dtype"]) if quantized else WEIGHT_TYPES.get(weight["dtype"])
            if stored is None:
                raise ValueError(
                    f"weight {weight['name']!r} is {quantized or weight['dtype']}, which is not understood"
                )
            count = int(np.prod(weight["shape"], dtype=np.int64))
            if at + count * np.dtype(stored).itemsize > len(content):
                raise ValueError(f"weight {weight['name']!r} ends after the {len(content)} bytes of {group['paths']}")
            values = np.frombuffer(content, stored, count, at).reshape(weight["shape"])
            at += values.nbytes
            if quantized:
                values = values.astype(np.float32) * quantized.get("scale", 1.0) + quantized.get("min", 0.0)
            yield weight["name"], values.astype(WEIGHT_TYPES[weight["dtype"]])
        if at != len(content):
            raise ValueError(f"{group['paths']} has {len(content)} bytes, the weights {at}")


def _apart(node: Any) -> Iterator[Any]:
    """The node itself, or what it is made of; the last part has its name, so that its readers need not know."""
    if node.op == "Prelu":
        yield from _prelu(node.name, *node.input)
        return
    if node.op not in FUSED:
        yield node
        return
    after = [name.decode() for name in node.attr["fused_ops"].list.s]
    kernel_inputs, extra = list(node.input[:2]), list(node.input[2:])
    current = _node(FUSED[node.op], f"{node.name}/{FUSED[node.op]}", kernel_inputs)
    for name, value in node.attr.items():
        if name not in OF_FUSING:
            current.attr[name].CopyFrom(value)
    for step, name in enumerate(after):
        yield current
        last = node.name if step == len(after) - 1 else f"{node.name}/{step}"
        if name == "Prelu":
            yield from _prelu(last, current.name, extra.pop(0))
            return
        if name == "BiasAdd":
            current = _node("BiasAdd", last, [current.name, extra.pop(0)])
        elif name in ACTIVATIONS:
            current = _node(name, last, [current.name])
        else:
            raise ValueError(f"node {node.name!r}: fused with {name!r}, which is not understood")
    yield current


def _prelu(name: str, value: str, slope: str) -> Iterator[Any]:
    """max(x, 0) - slope * max(-x, 0), the operation that TensorFlow itself does not have."""
    yield _node("Relu", f"{name}/positive", [value])
    yield _node("Neg", f"{name}/negated", [value])
    yield _node("Relu", f"{name}/negative", [f"{name}/negated"])
    yield _node("Mul", f"{name}/sloped", [slope, f"{name}/negative"])
    yield _node("Sub", name, [f"{name}/positive", f"{name}/sloped"])


def _node(operation: str, name: str, inputs: Sequence[str]) -> Any:
    node = tf.compat.v1.NodeDef(op=operation, name=name, input=inputs)
    node.attr["T"].type = tf.float32.as_datatype_enum
    return node


def _free_first_dimension(graph: Any) -> None:
    """Any number of rows instead of one: the inputs' shapes, and the reshapes that state a one."""
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    for node in graph.node:
        if node.op == "Placeholder" and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = -1
        if node.op == "Reshape" and node.input[1] in constants:
            held = constants[node.input[1]].attr["value"].tensor
            shape = tf.make_ndarray(held).copy()
            if len(shape) > 1 and shape[0] == 1 and (shape >= 0).all():
                shape[0] = -1
                held.CopyFrom(tf.make_tensor_proto(shape))
