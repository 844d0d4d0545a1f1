"""Training of the digit classifiers: Adam on softmax cross-entropy, a whole epoch per graph call.

Contract: the same data, network and seed give the same weights on one machine. `accuracy` is measured on data
never trained on.
Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015; its default constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from backends.models.networks import Network

BATCH = 32
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7


class Adam(tf.Module):  # type: ignore[misc]
    """Adam with a cosine-decayed rate, so that the last epochs settle instead of bouncing."""

    def __init__(self, variables: Any, rate: float, steps: int) -> None:
        super().__init__(name="adam")
        self.variables_ = list(variables)
        self.means = [tf.Variable(tf.zeros_like(v)) for v in self.variables_]
        self.squares = [tf.Variable(tf.zeros_like(v)) for v in self.variables_]
        self.step = tf.Variable(0.0)
        self.rate, self.steps = rate, float(steps)

    def apply(self, gradients: Any) -> None:
        self.step.assign_add(1.0)
        decay = 0.5 * (1.0 + tf.cos(3.14159265 * self.step / self.steps))
        correction = tf.sqrt(1.0 - BETA2**self.step) / (1.0 - BETA1**self.step)
        rate = self.rate * decay * correction
        for variable, mean, square, gradient in zip(self.variables_, self.means, self.squares, gradients, strict=True):
            mean.assign(BETA1 * mean + (1.0 - BETA1) * gradient)
            square.assign(BETA2 * square + (1.0 - BETA2) * tf.square(gradient))
            variable.assign_sub(rate * mean / (tf.sqrt(square) + EPSILON))


def train(
    network: Network,
    images: Any,
    labels: Any,
    *,
    epochs: int,
    rate: float,
    seed: int,
    on_epoch: Callable[[int, float], None],
) -> None:
    """Train in place on `images`, float32 [n, 64], and `labels`, int64 [n]; `on_epoch` is told (done, mean loss)."""
    count = len(images) // BATCH * BATCH
    variables = network.trainable_variables
    adam = Adam(variables, rate, epochs * (count // BATCH))
    all_images, all_labels = tf.constant(images), tf.constant(labels)

    @tf.function  # type: ignore[untyped-decorator]
    def epoch(number: Any) -> Any:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), seed=tf.stack([seed, number]))
        total = tf.constant(0.0)
        for start in tf.range(0, count, BATCH):
            rows = order[start : start + BATCH]
            with tf.GradientTape() as tape:
                logits = network.logits(tf.gather(all_images, rows))
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(all_labels, rows), logits)
                loss = tf.reduce_mean(losses)
            adam.apply(tape.gradient(loss, variables))
            total += loss
        return total / float(count // BATCH)

    for number in range(epochs):
        on_epoch(number + 1, float(epoch(tf.constant(number))))


def accuracy(network: Network, images: Any, labels: Any) -> float:
    """Share of `images` whose most probable class is the true one, 0..1."""
    guesses = tf.argmax(network.logits(tf.constant(images)), axis=-1, output_type=tf.int64)
    return float(tf.reduce_mean(tf.cast(guesses == labels, tf.float32)))
