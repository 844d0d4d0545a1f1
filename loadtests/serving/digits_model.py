"""The digits CNN as a Python server holds it: loaded once per process, called as one traced function.

Contract: `predict(images)` takes float32 [n, 64] and returns int64 [n] and float32 [n, 10]. MODEL_DIR is the version.
Of four ways to call the model this one measured fastest. TensorFlow gets one thread in this process, since there are
as many processes as cores; other divisions into processes and threads were not measured. The first calls, which trace
and plan, are made here; no client pays for them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

PIXELS = 64
WARM = (1, 2, 4, 8, 16, 32)

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

_model = tf.saved_model.load(os.environ["MODEL_DIR"])
# The function itself: the signature around it sorts and checks its arguments again on every call.
_function = _model.classify.get_concrete_function(tf.TensorSpec([None, PIXELS], tf.float32))


def predict(images: Any) -> tuple[Any, Any]:
    """One Run for the rows of a request."""
    outputs = _function(tf.constant(images))
    return outputs["label"].numpy(), outputs["probabilities"].numpy()


for _rows in WARM:
    predict(np.zeros((_rows, PIXELS), np.float32))
