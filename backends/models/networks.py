"""The three digit classifiers, as plain `tf.Module`s (no Keras: its import alone costs more than the training).

Contract: `network.logits(images)` maps float32 [n, 64] with values 0..16 (an 8x8 image row by row) to float32
[n, 10].
The scaling to 0..1 is part of the network, so that every consumer, SavedModel included, feeds the data set's own
range.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

SIDE = 8
PIXELS = SIDE * SIDE
INK = 16.0  # the data set's brightest value
CLASSES = 10


class Network(Protocol):
    """What training and export need from a classifier."""

    @property
    def trainable_variables(self) -> Sequence[Any]: ...

    def logits(self, images: Any) -> Any: ...


def _weights(shape: tuple[int, ...], fan_in: int, seed: int, name: str) -> Any:
    """He initialisation, which keeps the variance of a ReLU network's activations."""
    values = tf.random.stateless_normal(shape, seed=(seed, fan_in), stddev=math.sqrt(2.0 / fan_in))
    return tf.Variable(values, name=name)


class Dense(tf.Module):  # type: ignore[misc]
    """Fully connected layers with ReLU between them; no hidden layer makes it logistic regression."""

    def __init__(self, hidden: tuple[int, ...], seed: int) -> None:
        super().__init__(name="dense")
        widths = (PIXELS, *hidden, CLASSES)
        pairs = list(itertools.pairwise(widths))
        self.kernels = [_weights(pair, pair[0], seed + i, f"kernel_{i}") for i, pair in enumerate(pairs)]
        self.biases = [tf.Variable(tf.zeros([width]), name=f"bias_{i}") for i, width in enumerate(widths[1:])]

    def logits(self, images: Any) -> Any:
        hidden = images / INK
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            hidden = tf.nn.relu(tf.matmul(hidden, kernel) + bias)
        return tf.matmul(hidden, self.kernels[-1]) + self.biases[-1]


class Convolutional(tf.Module):  # type: ignore[misc]
    """Two 3x3 convolutions, one 2x2 max-pool, two dense layers: the larger, better model."""

    def __init__(self, channels: tuple[int, int], hidden: int, seed: int) -> None:
        super().__init__(name="convolutional")
        first, second = channels
        flat = (SIDE // 2) ** 2 * second
        self.first = _weights((3, 3, 1, first), 9, seed, "first")
        self.first_bias = tf.Variable(tf.zeros([first]), name="first_bias")
        self.second = _weights((3, 3, first, second), 9 * first, seed + 1, "second")
        self.second_bias = tf.Variable(tf.zeros([second]), name="second_bias")
        self.hidden = _weights((flat, hidden), flat, seed + 2, "hidden")
        self.hidden_bias = tf.Variable(tf.zeros([hidden]), name="hidden_bias")
        self.top = _weights((hidden, CLASSES), hidden, seed + 3, "top")
        self.top_bias = tf.Variable(tf.zeros([CLASSES]), name="top_bias")

    def logits(self, images: Any) -> Any:
        picture = tf.reshape(images / INK, [-1, SIDE, SIDE, 1])
        picture = tf.nn.relu(tf.nn.conv2d(picture, self.first, 1, "SAME") + self.first_bias)
        picture = tf.nn.relu(tf.nn.conv2d(picture, self.second, 1, "SAME") + self.second_bias)
        picture = tf.nn.max_pool2d(picture, 2, 2, "VALID")
        flat = tf.reshape(picture, [-1, self.hidden.shape[0]])
        hidden = tf.nn.relu(tf.matmul(flat, self.hidden) + self.hidden_bias)
        return tf.matmul(hidden, self.top) + self.top_bias


class Servable(tf.Module):  # type: ignore[misc]
    """What is exported: a trained network behind the signature that clients call."""

    def __init__(self, network: Network) -> None:
        super().__init__(name="servable")
        self.network = network

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32, name="image")])  # type: ignore[untyped-decorator]
    def classify(self, image: Any) -> dict[str, Any]:
        logits = self.network.logits(image)
        return {"label": tf.argmax(logits, axis=-1, output_type=tf.int64), "probabilities": tf.nn.softmax(logits)}
