"""FastAPI under uvicorn (uvloop, httptools), one model per worker.

    uvicorn --workers 2 --port 8600 --no-access-log loadtests.serving.fastapi_app:app

The same two endpoints as flask_app. The model is called on the event loop: a Run keeps a core busy either way, and the
hop to a thread and back costs more than it overlaps.
"""

from __future__ import annotations

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

from loadtests.serving.digits_model import PIXELS, predict

app = FastAPI(openapi_url=None)


@app.post("/v1/models/digits:predict")
async def answer(request: Request) -> Response:
    """Rows of numbers in JSON."""
    labels, rows = predict(np.asarray(orjson.loads(await request.body())["instances"], np.float32))
    predictions = [
        {"label": label, "probabilities": row} for label, row in zip(labels.tolist(), rows.tolist(), strict=True)
    ]
    return Response(orjson.dumps({"predictions": predictions}), media_type="application/json")


@app.post("/v1/models/digits:binary")
async def answer_binary(request: Request) -> Response:
    """Rows of numbers as they lie in memory."""
    labels, rows = predict(np.frombuffer(await request.body(), "<f4").reshape(-1, PIXELS))
    return Response(labels.tobytes() + rows.tobytes(), media_type="application/octet-stream")


@app.get("/readyz")
async def ready() -> str:
    """Uvicorn's worker listens only after the module is loaded."""
    return "ready"
