"""A SavedModel whose Runs are long and whose requests are small: overload is the model's, not that of HTTP or the load.

    python -m loadtests.heavy_model DIRECTORY

DIRECTORY/1 takes `x` [-1, 8] and answers `y` [-1]: a chain of products with one matrix, some milliseconds a row.
Needs the extra `models`.
"""

from __future__ import annotations

import sys
from pathlib import Path

WIDTH, PRODUCTS = 1024, 24


def export(directory: Path) -> None:
    """Write the model."""
    import tensorflow as tf

    class Chain(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = tf.Variable(tf.random.stateless_normal([WIDTH, WIDTH], [1, 2], stddev=WIDTH**-0.5))

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
        def run(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            value = tf.tile(x, [1, WIDTH // 8])
            for _ in range(PRODUCTS):
                value = tf.tanh(tf.matmul(value, self.matrix))
            return {"y": tf.reduce_sum(value, axis=1)}

    module = Chain()
    tf.saved_model.save(module, str(directory / "1"), signatures={"serving_default": module.run})


if __name__ == "__main__":
    export(Path(sys.argv[1]))
