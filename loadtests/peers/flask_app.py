"""The usual way to serve a SavedModel from Python: Flask under gunicorn, one model per worker.

    gunicorn --workers 2 --bind 127.0.0.1:8600 loadtests.peers.flask_app:app

Serves MODEL_DIR (a SavedModel with the digits signature) at POST /v1/models/digits:predict, in TF-Serving's row format,
so that the same load drives it and go_infer. Each request is one call of the signature, as in every tutorial;
TensorFlow's threads are set to one per worker, which is the best setting for as many workers as cores.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf
from flask import Flask, Response, jsonify, request

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

app = Flask(__name__)
model = tf.saved_model.load(os.environ["MODEL_DIR"])
predict = model.signatures["serving_default"]
predict(image=tf.zeros([1, 64]))  # the first call traces; no client should pay for it


@app.post("/v1/models/digits:predict")
def answer() -> Response:
    """One signature call for the request's rows."""
    body: dict[str, Any] = request.get_json()
    images = tf.constant(np.asarray(body["instances"], dtype=np.float32))
    outputs = predict(image=images)
    labels, rows = outputs["label"].numpy().tolist(), outputs["probabilities"].numpy().tolist()
    predictions = [{"label": label, "probabilities": row} for label, row in zip(labels, rows, strict=True)]
    return jsonify(predictions=predictions)


@app.get("/readyz")
def ready() -> str:
    """Gunicorn answers only after the module, and with it the model, is loaded."""
    return "ready"
