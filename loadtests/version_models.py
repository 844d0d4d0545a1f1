"""Writes SavedModels whose answers name their version: what `bench_lifecycle` swaps under load.

    python -m loadtests.version_models DIR --versions 3 [--megabytes 200]

Every version takes `x`, a float per row, and answers `version`, its own number, and `y`, which depends on its
variables: so many megabytes of them, of four tensors. TensorFlow is imported here and nowhere else in the benchmark.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TENSORS = 4
WIDTH = 256


def export(directory: Path, version: int, megabytes: float) -> None:
    """Writes one version."""
    import tensorflow as tf

    rows = max(1, int(megabytes * 1e6 / 4 / TENSORS / WIDTH))

    class Versioned(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            numbers = [tf.random.stateless_uniform([rows, WIDTH], [version, i]) for i in range(TENSORS)]
            self.tables = [tf.Variable(each) for each in numbers]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])  # type: ignore[untyped-decorator]
        def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            index = tf.cast(tf.abs(x), tf.int32) % rows
            y = tf.add_n([tf.reduce_sum(tf.gather(table, index), axis=1) for table in self.tables])
            return {"version": tf.fill(tf.shape(x), tf.constant(version, tf.int64)), "y": y}

    module = Versioned()
    tf.saved_model.save(module, str(directory / str(version)), signatures={"serving_default": module.serve})


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.version_models", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--megabytes", type=float, default=0.1)
    options = parser.parse_args(arguments)
    for version in range(1, options.versions + 1):
        export(options.directory, version, options.megabytes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
