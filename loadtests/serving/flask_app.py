"""The usual way to serve a SavedModel from Python: Flask under gunicorn, one model per worker.

    gunicorn --workers 2 --bind 127.0.0.1:8600 loadtests.serving.flask_app:app

JSON in TensorFlow Serving's row format, parsed and written by orjson; or, at `:binary`, little-endian float32 rows in,
int64 labels and float32 probabilities out.
"""

from __future__ import annotations

import numpy as np
import orjson
from flask import Flask, Response, request

from loadtests.serving.digits_model import PIXELS, predict

app = Flask(__name__)


@app.post("/v1/models/digits:predict")
def answer() -> Response:
    """Rows of numbers in JSON."""
    labels, rows = predict(np.asarray(orjson.loads(request.get_data())["instances"], np.float32))
    predictions = [
        {"label": label, "probabilities": row} for label, row in zip(labels.tolist(), rows.tolist(), strict=True)
    ]
    return Response(orjson.dumps({"predictions": predictions}), mimetype="application/json")


@app.post("/v1/models/digits:binary")
def answer_binary() -> Response:
    """Rows of numbers as they lie in memory."""
    labels, rows = predict(np.frombuffer(request.get_data(), "<f4").reshape(-1, PIXELS))
    return Response(labels.tobytes() + rows.tobytes(), mimetype="application/octet-stream")


@app.get("/readyz")
def ready() -> str:
    """Gunicorn answers only after the module, and with it the model, is loaded."""
    return "ready"
