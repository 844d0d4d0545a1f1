"""TensorFlow.js graph models: a fused, quantised one computes what its parts say; a broken one is named."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.layout import ROOT


def text(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


def node(name: str, op: str, inputs: list[str] | None = None, **attr: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": inputs or [], "attr": attr}


FLOAT = {"type": "DT_FLOAT"}


def document(fused: list[str], weights: list[dict[str, Any]]) -> dict[str, Any]:
    """x [1, 2] times w, then what `fused` lists, then reshaped to the one row that the model was exported for."""
    constants = [
        node(w["name"], "Const", dtype={"type": f"DT_{'INT32' if w['dtype'] == 'int32' else 'FLOAT'}"}) for w in weights
    ]
    return {
        "modelTopology": {
            "node": [
                node("x", "Placeholder", dtype=FLOAT, shape={"shape": {"dim": [{"size": "1"}, {"size": "2"}]}}),
                *constants,
                node("y", "_FusedMatMul", ["x", "w", "b", "slope"][: 3 + ("Prelu" in fused)], T=FLOAT,
                     fused_ops={"list": {"s": [text(name) for name in fused]}}, num_args={"i": "1"},
                     transpose_a={"b": False}, transpose_b={"b": False}, epsilon={"f": 0}),
                node("z", "Reshape", ["y", "one_row"], T=FLOAT, Tshape={"type": "DT_INT32"}),
            ]
        },
        "signature": {"inputs": {"x:0": {}}, "outputs": {"z": {}}},
        "weightsManifest": [{"paths": ["shard.bin"], "weights": weights}],
    }  # fmt: skip


WEIGHTS = [
    {"name": "w", "shape": [2, 2], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}},
    {"name": "b", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
    {"name": "slope", "shape": [1], "dtype": "float32"},
    {"name": "one_row", "shape": [2], "dtype": "int32"},
]
# w is [[-1, 0], [0, 1]], b is [1, -2], slope is 0.25.
SHARD = bytes([0, 2, 2, 4]) + b"\x00\x3c\x00\xc0" + b"\x00\x00\x80\x3e" + b"\x01\0\0\0\x02\0\0\0"

PROGRAM = """
import json, sys
from pathlib import Path
from backends.models.tfjs import read
try:
    model = read(Path(sys.argv[1]))
    import tensorflow as tf
    print(json.dumps(model.function()(tf.constant([[4.0, 1.0], [0.0, 5.0]]))[0].numpy().tolist()))
except ValueError as error:
    print(error)
"""


def said(tmp_path: Path, model: dict[str, Any], shard: bytes = SHARD) -> str:
    """What the reader says of a model: its answer to two rows, or why it cannot be read."""
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "shard.bin").write_bytes(shard)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("fused", "rows"),
    [
        (["BiasAdd"], [[-3.0, -1.0], [1.0, 3.0]]),
        (["BiasAdd", "Relu"], [[0.0, 0.0], [1.0, 3.0]]),
        (["BiasAdd", "Prelu"], [[-0.75, -0.25], [1.0, 3.0]]),
    ],
)
def test_fused_and_quantised_is_what_its_parts_say_for_any_number_of_rows(
    tmp_path: Path, fused: list[str], rows: list[list[float]]
) -> None:
    assert json.loads(said(tmp_path, document(fused, WEIGHTS))) == rows


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "fused with 'Swish', which is not understood" in said(tmp_path, document(["BiasAdd", "Swish"], WEIGHTS))
    assert "'one_row' ends after the 15 bytes of ['shard.bin']" in said(
        tmp_path, document(["BiasAdd"], WEIGHTS), SHARD[:15]
    )
    assert "has 21 bytes, the weights 20" in said(tmp_path, document(["BiasAdd"], WEIGHTS), SHARD + b"\0")
    assert "constant 'slope' has no weight" in said(
        tmp_path, {**document(["BiasAdd"], WEIGHTS), "weightsManifest": [{"paths": ["shard.bin"], "weights": WEIGHTS[:2]}]},
        SHARD[:8],
    )  # fmt: skip
    assert "is not a TensorFlow.js graph model: KeyError('modelTopology')" in said(tmp_path, {})
