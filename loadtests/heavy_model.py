"""A SavedModel whose Runs are long and whose requests are small: overload is the model's, not that of HTTP or the load.

    python -m loadtests.heavy_model DIRECTORY

DIRECTORY/1 takes `x` [-1, 8] and answers `y` [-1]: a chain of products with one matrix, some milliseconds a row.
Needs the extra `models`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

WIDTH, PRODUCTS = 1024, 24


def export(directory: Path) -> None:
    """Write the model."""
    import tensorflow as tf

    module = tf.Module()
    module.matrix = tf.Variable(tf.random.stateless_normal([WIDTH, WIDTH], [1, 2], stddev=WIDTH**-0.5))

    def run(x: Any) -> dict[str, Any]:
        value = tf.tile(x, [1, WIDTH // 8])
        for _ in range(PRODUCTS):
            value = tf.tanh(tf.matmul(value, module.matrix))
        return {"y": tf.reduce_sum(value, axis=1)}

    signature = tf.function(run).get_concrete_function(x=tf.TensorSpec([None, 8], tf.float32, name="x"))
    tf.saved_model.save(module, str(directory / "1"), signatures={"serving_default": signature})


if __name__ == "__main__":
    export(Path(sys.argv[1]))
