"""The face pipeline's SavedModels: a graph model each, between pixels as a camera has them and answers one can use.

`face-detect`: image uint8 [n, 256, 256, 3], RGB, square -> for each picture its FACES best faces, best first:
    boxes float [n, FACES, 4] (left, top, right, bottom, in pixels of the input), scores float [n, FACES] (0..1; 0: no
    more faces), landmarks float [n, FACES, 6, 2] (x, y of right eye, left eye, nose, mouth, right ear, left ear).
`face-embed`: image uint8 [n, 224, 224, 3], RGB, the face filling it -> embedding float [n, 1024] of length 1, so that
    the product of two embeddings is their cosine.
Source of the anchors: BlazeFace (Bazarevsky et al. 2019, section 3.2): 2 in each cell of 16 pixels, 6 in each of 32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from backends.models.tfjs import read

DETECTOR_SIDE, EMBEDDING_SIDE = 256, 224  # pixels
CELLS = ((16, 2), (32, 6))  # (pixels, anchors), in the order of the network's outputs
LANDMARKS = 6
FACES = 8  # a picture
OVERLAP = 0.3  # intersection over union above which two boxes are one face
CONFIDENCE = 0.2  # below, a face is none


class _Detector(tf.Module):  # type: ignore[misc]
    def __init__(self, graph_model: Path) -> None:
        super().__init__(name="face_detect")
        self.network = read(graph_model).function()
        self.anchors = tf.constant(_anchors())

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, DETECTOR_SIDE, DETECTOR_SIDE, 3], tf.uint8, name="image")]
    )
    def detect(self, image: Any) -> dict[str, Any]:
        raw = self.network(tf.cast(image, tf.float32) / 127.5 - 1.0)
        by_size = {(tensor.shape[1], tensor.shape[2]): tensor for tensor in raw}
        counts = [(DETECTOR_SIDE // pixels) ** 2 * anchors for pixels, anchors in CELLS]
        logits = tf.concat([by_size[count, 1] for count in counts], 1)[..., 0]
        places = tf.concat([by_size[count, 4 + 2 * LANDMARKS] for count in counts], 1)
        centres, halves = places[..., :2] + self.anchors, places[..., 2:4] / 2.0
        boxes = tf.concat([centres - halves, centres + halves], -1)
        landmarks = tf.reshape(places[..., 4:], [-1, sum(counts), LANDMARKS, 2]) + self.anchors[:, tf.newaxis]
        scores = tf.sigmoid(logits)
        best, found = tf.image.non_max_suppression_padded(
            boxes, scores, FACES, OVERLAP, CONFIDENCE, pad_to_max_output_size=True
        )
        best = tf.reshape(best, [-1, FACES])
        is_face = tf.sequence_mask(tf.reshape(found, [-1]), FACES, tf.float32)
        picked = {"boxes": boxes, "scores": scores, "landmarks": landmarks}
        answer = {name: tf.gather(tensor, best, batch_dims=1) for name, tensor in picked.items()}
        answer["scores"] *= is_face
        return answer


class _Embedding(tf.Module):  # type: ignore[misc]
    def __init__(self, graph_model: Path) -> None:
        super().__init__(name="face_embed")
        model = read(graph_model)
        self.network = model.function()
        self.position = model.outputs.index("global_pooling/Mean:0")

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[tf.TensorSpec([None, EMBEDDING_SIDE, EMBEDDING_SIDE, 3], tf.uint8, name="image")]
    )
    def embed(self, image: Any) -> dict[str, Any]:
        features = self.network(tf.cast(image, tf.float32))[self.position]
        return {"embedding": tf.math.l2_normalize(features, axis=-1)}


def detector(graph_model: Path, place: Path) -> None:
    """Export the detector; ValueError if the graph model is not BlazeFace's."""
    model = _Detector(graph_model)
    _save(model, model.detect, place, "faces in a picture: boxes, scores, landmarks (BlazeFace)")


def embedding(graph_model: Path, place: Path) -> None:
    """Export the embedding; ValueError if the graph model has no `global_pooling/Mean`."""
    model = _Embedding(graph_model)
    _save(model, model.embed, place, "what tells faces apart: 1,024 numbers of length 1 (faceres)")


def _save(model: Any, function: Any, place: Path, description: str) -> None:
    place.parent.mkdir(parents=True)
    tf.saved_model.save(model, str(place), signatures={"serving_default": function})
    extra = place / "assets.extra"
    extra.mkdir()
    declaration = {"description": description, "signature": "serving_default", "input": {"tensor": "image"}}
    (extra / "sluicegate.json").write_text(json.dumps(declaration, indent=2) + "\n")


def _anchors() -> Any:
    """Centres of the anchors, x and y in pixels, row by row, as many times as a cell has anchors."""
    centres: list[Sequence[float]] = []
    for pixels, anchors in CELLS:
        middles = np.arange(DETECTOR_SIDE // pixels) * pixels + pixels / 2
        centres += [(x, y) for y in middles for x in middles for _ in range(anchors)]
    return np.asarray(centres, np.float32)
