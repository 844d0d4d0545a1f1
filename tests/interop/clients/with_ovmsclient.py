"""ovmsclient over HTTP (TensorFlow Serving's REST API), as its users write it: `with_ovmsclient.py HOST:PORT CLAIM`."""

import sys

import numpy as np
import ovmsclient
from ovmsclient.tfs_compat.base.errors import InvalidInputError, ModelNotFoundError

DIGIT = np.zeros((2, 64), np.float32)


def refused(kind, text, call):
    try:
        call()
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"not refused: {text}")


def predict(client):
    latest, first = client.predict({"image": DIGIT}, "digits", 2), client.predict({"image": DIGIT}, "digits", 1)
    assert latest["probabilities"].shape == first["probabilities"].shape == (2, 10)
    assert not np.array_equal(latest["probabilities"], first["probabilities"])


def predict_the_default_version(client):
    latest, default = client.predict({"image": DIGIT}, "digits", 2), client.predict({"image": DIGIT}, "digits")
    assert np.array_equal(latest["probabilities"], default["probabilities"])


def status(client):
    assert client.get_model_status("digits", 1)[1]["state"] == "AVAILABLE"
    assert sorted(client.get_model_status("digits")) == [1, 2]


def metadata(client):
    said = client.get_model_metadata("digits", 2)
    text = str(said)
    assert "image" in text
    assert "64" in text
    assert "DT_FLOAT" in text


def errors(client):
    refused(ModelNotFoundError, "Servable not found for request", lambda: client.predict({"image": DIGIT}, "nobody", 1))
    refused(InvalidInputError, "unexpected size: 3", lambda: client.predict({"image": DIGIT[:, :3]}, "digits", 2))


if __name__ == "__main__":
    globals()[sys.argv[2]](ovmsclient.make_http_client(sys.argv[1]))
