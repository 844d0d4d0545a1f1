"""A SavedModel's signature as one flat graph: variables made constants, function calls inlined.

Contract: `freeze(directory, signature)` loads as TensorFlow's C API does (`TF_LoadSessionFromSavedModel`), so it takes
what go_infer can serve, also models whose Python objects cannot be restored; ValueError says what is in the way.
`Frozen.save` writes a SavedModel with the same signature again, which that API loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, rewriter_config_pb2
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.grappler import tf_optimizer

TAG = "serve"
IDLE = frozenset({"Const", "Identity", "NoOp"})
# What needs more than the graph: variables that could not be made constants, tables that an initialiser fills.
UNFROZEN = frozenset({"VarHandleOp", "VariableV2", "HashTableV2", "MutableHashTableV2", "StatefulPartitionedCall"})


@dataclass(frozen=True)
class Frozen:
    """`signature` is the SignatureDef; its tensor names are those of `graph`."""

    graph: Any  # tf.compat.v1.GraphDef
    signature: Any
    name: str

    @property
    def inputs(self) -> dict[str, Any]:
        """TensorInfo by alias."""
        return dict(self.signature.inputs)

    @property
    def outputs(self) -> dict[str, Any]:
        return dict(self.signature.outputs)

    def replaced(self, graph: Any) -> Frozen:
        """The same signature on another graph."""
        return Frozen(graph, self.signature, self.name)

    def rewritten(self, *passes: str) -> Frozen:
        """What Grappler makes of the graph with exactly these passes, by the names that RewriterConfig knows."""
        with tf.Graph().as_default() as graph:
            tf.graph_util.import_graph_def(self.graph, name="")
            meta = tf.compat.v1.train.export_meta_graph(graph=graph)
        meta.signature_def[self.name].CopyFrom(self.signature)
        config = config_pb2.ConfigProto()
        options = config.graph_options.rewrite_options
        options.min_graph_nodes = -1
        options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
        options.optimizers.extend(passes)
        return self.replaced(tf_optimizer.OptimizeGraph(config, meta)).pruned()

    def pruned(self) -> Frozen:
        """Without what no output needs; an input that none needs stays, since the signature has it."""
        names = {info.name.partition(":")[0] for side in (self.inputs, self.outputs) for info in side.values()}
        kept = tf.compat.v1.graph_util.extract_sub_graph(self.graph, sorted(names))
        kept.versions.CopyFrom(self.graph.versions)
        return self.replaced(kept)

    def save(self, directory: Path) -> None:
        """Write a SavedModel; `directory` must not exist. OSError if it cannot be written."""
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
            tf.graph_util.import_graph_def(self.graph, name="")
            # Nobody reads it: it is there so that `variables/` is, whose absence means a copy that ended early.
            tf.compat.v1.get_variable("sluicegate/frozen", initializer=0, trainable=False, use_resource=True)
            session.run(tf.compat.v1.global_variables_initializer())
            try:
                builder = tf.compat.v1.saved_model.Builder(str(directory))
                builder.add_meta_graph_and_variables(
                    session, [TAG], signature_def_map={self.name: self.signature}, strip_default_attrs=True
                )
                builder.save()
            except tf.errors.OpError as error:  # of a full disk, too
                raise OSError(f"{directory} cannot be written: {error.message}") from error


def freeze(directory: Path, signature: str = "serving_default") -> Frozen:
    """Raises ValueError naming the signatures that there are if `signature` is none of them."""
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            meta = tf.compat.v1.saved_model.loader.load(session, [TAG], str(directory))
        except (OSError, RuntimeError, tf.errors.OpError) as error:
            raise ValueError(f"{directory} cannot be loaded: {error}") from error
        if signature not in meta.signature_def:
            known = ", ".join(sorted(name for name in meta.signature_def if not name.startswith("__")))
            raise ValueError(f"{directory} has no signature {signature!r}; it has {known}")
        definition = meta.signature_def[signature]
        names = sorted({info.name.partition(":")[0] for info in definition.outputs.values()})
        constant = convert_to_constants.convert_variables_to_constants_from_session_graph(
            session, graph.as_graph_def(), names
        )
    try:
        inlined = Frozen(constant, definition, signature).rewritten("function")
    except (ValueError, tf.errors.OpError) as error:  # a variable that is written cannot be a constant
        raise ValueError(
            f"{directory}: signature {signature!r} cannot be one constant graph; does it change its variables? {error}"
        ) from error
    left = sorted({node.op for node in inlined.graph.node} & UNFROZEN)
    if left:
        raise ValueError(f"{directory} cannot be one constant graph: it has {', '.join(left)}")
    return inlined.replaced(_without_idle_controls(inlined.graph)).pruned()


def _without_idle_controls(graph: Any) -> Any:
    """Without control edges from what does nothing: inlined calls wait for their constants, and so keep them alive.

    An edge from anything else, an assertion for instance, stays.
    """
    nodes = {node.name: node for node in graph.node}
    idle: dict[str, bool] = {}
    for name in nodes:
        waiting = [name]
        while waiting:  # depth first, without recursion: graphs are deep
            node = nodes[waiting[-1]]
            inputs = [each.lstrip("^").partition(":")[0] for each in node.input]
            unknown = [each for each in inputs if each not in idle] if node.op in IDLE else []
            if unknown:
                waiting += unknown
                continue
            idle[waiting.pop()] = node.op in IDLE and all(idle[each] for each in inputs)
    for node in graph.node:
        kept = [each for each in node.input if not (each.startswith("^") and idle[each[1:]])]
        del node.input[:]
        node.input.extend(kept)
    return graph
