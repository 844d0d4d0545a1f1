"""What `backends.models.digits` writes: SavedModels, what each declares about itself, held-out data and pictures.

Contract: `digits(directory, pictures)` leaves the models in `directory` and the pictures in `pictures`, or raises
ValueError naming the model that missed its floor, or OSError, also for what TensorFlow could not write.
Each version directory carries `assets.extra/sluicegate.json`: how a picture becomes the input, what the outputs
mean, and how good
the model is on data it never saw. TensorFlow keeps `assets.extra` as it is; TF-Serving ignores files there that
it does not know.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from backends.models import training
from backends.models.networks import CLASSES, INK, SIDE, Convolutional, Dense, Network, Servable
from backends.progress import Progress

SEED = 20261
HELD_OUT = 0.2
PICTURE_SCALE = 24  # 8x8 becomes 192x192: large enough to see, small enough to send


@dataclass(frozen=True)
class Recipe:
    """One model: where it goes, how it is made, and the held-out accuracy below which it is not published."""

    place: str
    what: str
    network: Callable[[], Network]
    epochs: int
    rate: float
    floor: float


RECIPES = (
    Recipe("digits-small/1", "logistic regression", lambda: Dense((), SEED), 20, 0.01, 0.90),
    Recipe("digits/1", "dense 64-32-10", lambda: Dense((32,), SEED), 30, 0.005, 0.93),
    Recipe("digits/2", "CNN 16-32 channels", lambda: Convolutional((16, 32), 64, SEED), 20, 0.004, 0.97),
)


def digits(directory: Path, pictures: Path) -> None:
    """Train and export every recipe; write the held-out data, and pictures that the best model gets right."""
    tf.random.set_seed(SEED)
    images, labels = load_digits(return_X_y=True)
    train_x, held_x, train_y, held_y = train_test_split(
        images.astype(np.float32), labels.astype(np.int64), test_size=HELD_OUT, random_state=SEED, stratify=labels
    )
    print(f"{len(images)} handwritten digits: {len(train_x)} to train on, {len(held_x)} held out", flush=True)
    network: Network | None = None
    for recipe in RECIPES:
        network = _one(recipe, directory, (train_x, train_y), (held_x, held_y))
    guesses = np.argmax(network.logits(tf.constant(held_x)).numpy(), axis=-1) if network else held_y
    _heldout(directory / "digits/heldout.json", held_x, held_y)
    _pictures(pictures, held_x[guesses == held_y], held_y[guesses == held_y])


def _one(recipe: Recipe, directory: Path, train: tuple[Any, Any], held: tuple[Any, Any]) -> Network:
    network = recipe.network()
    with Progress(f"{recipe.place} ({recipe.what})", recipe.epochs) as progress:
        training.train(
            network,
            *train,
            epochs=recipe.epochs,
            rate=recipe.rate,
            seed=SEED,
            on_epoch=lambda done, loss: progress.advance(done, f"loss {loss:.4f}"),
        )
    accuracy = training.accuracy(network, *held)
    print(f"{recipe.place}: held-out accuracy {accuracy:.2%} on {len(held[1])} digits", flush=True)
    if accuracy < recipe.floor:
        raise ValueError(
            f"{recipe.place}: held-out accuracy {accuracy:.2%} is below its floor of {recipe.floor:.0%}; not published"
        )
    place = directory / recipe.place
    servable = Servable(network)
    _save(servable, place)
    extra = place / "assets.extra"
    extra.mkdir()
    (extra / "sluicegate.json").write_text(json.dumps(_declaration(recipe, accuracy, len(held[1])), indent=2) + "\n")
    return network


def _save(servable: Servable, place: Path) -> None:
    """TensorFlow has errors of its own for a disk that is full or cannot be written."""
    try:
        tf.saved_model.save(servable, str(place), signatures={"serving_default": servable.classify})
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, "No space left on device", str(place)) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message, str(place)) from error


def _declaration(recipe: Recipe, accuracy: float, held_out: int) -> dict[str, Any]:
    """What a server must know to feed pictures to the model and to name its answers."""
    return {
        "description": f"handwritten digits, {recipe.what}",
        "signature": "serving_default",
        "input": {
            "tensor": "image",
            "preprocess": {
                "width": SIDE,
                "height": SIDE,
                "color": "grayscale",
                "range": [0.0, INK],
                "resize": "area",
                "fit": "pad",
                "ink": "bright",
                "invert": "auto",
            },
        },
        "outputs": {"label": "label", "scores": "probabilities"},
        "labels": [str(digit) for digit in range(CLASSES)],
        "heldout": {"accuracy": round(accuracy, 6), "examples": held_out},
    }


def _heldout(path: Path, images: Any, labels: Any) -> None:
    path.write_text(json.dumps({"instances": images.astype(int).tolist(), "labels": labels.tolist()}) + "\n")


def _pictures(directory: Path, images: Any, labels: Any) -> None:
    """One picture per digit: even ones bright on black as the data has them, odd ones dark on paper."""
    directory.mkdir()
    for digit in range(CLASSES):
        number = int(np.flatnonzero(labels == digit)[0])
        grey = np.rint(images[number].reshape(SIDE, SIDE) * 255.0 / INK).astype(np.uint8)
        if digit % 2:
            grey = 255 - grey
        large = np.kron(grey, np.ones((PICTURE_SCALE, PICTURE_SCALE), np.uint8))
        Image.fromarray(large).save(directory / f"digit-{digit}-{number}.png", optimize=True)
