"""tritonclient over HTTP, as its users write it: `with_tritonclient.py HOST:PORT CLAIM`. Runs in an environment of its own.

The server has the digits (versions 1 and 2), and `types` and `strings` (backends.models.probes); it lets requests load
and unload models.
"""

import json
import sys

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException

DIGIT = np.zeros((2, 64), np.float32)


def image(digits=DIGIT, binary=True):
    given = http.InferInput("image", digits.shape, "FP32")
    given.set_data_from_numpy(digits, binary_data=binary)
    return [given]


def refused(status, text, call):
    try:
        call()
    except InferenceServerException as error:
        assert str(error.status()) == status, error.status()
        assert text in error.message(), error.message()
    else:
        raise AssertionError(f"not refused: {text}")


def health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "9")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("digits")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}]


def configuration(client):
    config = client.get_model_config("digits")
    assert config["platform"] == "tensorflow_savedmodel"
    assert config["max_batch_size"] == 32
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [64]}]


def infer_binary_and_json(client):
    answers = []
    for given in (True, False):
        for asked in (True, False):
            outputs = [http.InferRequestedOutput(name, binary_data=asked) for name in ("probabilities", "label")]
            result = client.infer("digits", image(binary=given), outputs=outputs, request_id='a "b"')
            assert result.get_response()["id"] == 'a "b"'
            assert [o["name"] for o in result.get_response()["outputs"]] == ["probabilities", "label"]
            assert ("parameters" in result.get_output("label")) == asked
            answers.append(result.as_numpy("probabilities"))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert answers[0].shape == (2, 10)
    assert np.allclose(answers[0].sum(axis=1), 1)


def infer_without_outputs(client):
    result = client.infer("digits", image(), model_version="1", timeout=1_000_000, priority=1)
    assert result.get_response()["model_version"] == "1"
    assert result.as_numpy("label").dtype == np.int64


def infer_async(client):
    pending = [client.async_infer("digits", image()) for _ in range(20)]
    assert all(each.get_result().as_numpy("label").shape == (2,) for each in pending)


def compressed_bodies(client):
    plain = client.infer("digits", image()).as_numpy("probabilities")
    for algorithm in ("gzip", "deflate"):
        result = client.infer(
            "digits", image(), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
        )
        assert np.array_equal(result.as_numpy("probabilities"), plain)


def classification(client):
    for binary in (True, False):
        outputs = [http.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
        best = client.infer("digits", image(), outputs=outputs).as_numpy("probabilities")
        assert best.shape == (2, 3)
        for row in best:
            pieces = [(each if isinstance(each, str) else each.decode()).split(":") for each in row]
            scores = [float(score) for score, _, _ in pieces]
            assert scores == sorted(scores, reverse=True)
            assert all(index == label for _, index, label in pieces)


def text(client):
    words = np.array([b"any", "caf\u00e9".encode(), b""], object)
    for binary in (True, False):
        given = http.InferInput("text", words.shape, "BYTES")
        given.set_data_from_numpy(words, binary_data=binary)
        result = client.infer("strings", [given])
        assert list(result.as_numpy("upper")) == [b"ANY", "CAF\u00e9".encode(), b""], result.as_numpy("upper")


def every_type(client):
    from ml_dtypes import bfloat16

    for signature, name, dtype in (
        *(
            (f"{kind}int{bits}", f"{kind}int{bits}".upper(), f"{kind}int{bits}")
            for kind in ("", "u")
            for bits in (8, 16, 32, 64)
        ),
        ("bool", "BOOL", "bool"),
        ("float16", "FP16", "float16"),
        ("bfloat16", "BF16", bfloat16),
        ("float32", "FP32", "float32"),
        ("float64", "FP64", "float64"),
    ):
        values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
        given = http.InferInput("x", values.shape, name)
        given.set_data_from_numpy(values)
        result = client.infer("types", [given], parameters={"signature_name": signature})
        assert np.array_equal(result.as_numpy("y").astype(np.float64), values.astype(np.float64)), name
        assert result.get_output("y")["datatype"] == name


def statistics(client):
    def counted():
        [version] = client.get_inference_statistics("digits", "2")["model_stats"]
        return version

    before = counted()
    for _ in range(3):
        client.infer("digits", image())
    after = counted()
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert any(batch["batch_size"] == 2 for batch in after["batch_stats"])
    assert len(client.get_inference_statistics()["model_stats"]) >= 4


def errors(client):
    refused("404", "Request for unknown model: 'nobody' is not found", lambda: client.infer("nobody", image()))
    refused("404", "Request for unknown model: 'nobody' is not found", lambda: client.get_model_metadata("nobody"))
    refused(
        "404",
        "Request for unknown model: 'digits' version 9 is not found",
        lambda: client.infer("digits", image(), "9"),
    )
    refused("400", "expected 1 inputs but got 0 inputs for model 'digits'", lambda: client.infer("digits", []))
    refused(
        "400",
        "unexpected shape for input 'image' for model 'digits'",
        lambda: client.infer("digits", image(DIGIT[:, :63])),
    )
    refused(
        "400",
        "unexpected inference output 'nothing' for model 'digits'",
        lambda: client.infer("digits", image(), outputs=[http.InferRequestedOutput("nothing")]),
    )
    refused("400", "is not stateful", lambda: client.infer("digits", image(), sequence_id=7, sequence_start=True))


def repository_control(client):
    def states():
        return {(each["name"], each["version"]): each["state"] for each in client.get_model_repository_index()}

    assert states()["strings", "1"] == "READY"
    client.unload_model("strings")
    assert states()["strings", "1"] == "UNAVAILABLE"
    assert not client.is_model_ready("strings")
    refused(
        "404",
        "Request for unknown model: 'strings' has no available versions",
        lambda: client.infer("strings", image()),
    )
    client.load_model("strings")
    assert states()["strings", "1"] == "READY"
    assert client.is_model_ready("strings")
    refused("404", "failed to load 'nobody'", lambda: client.load_model("nobody"))
    refused(
        "400",
        "the load parameter 'config' is not supported",
        lambda: client.load_model("strings", config=json.dumps({})),
    )


if __name__ == "__main__":
    with http.InferenceServerClient(sys.argv[1], concurrency=4) as connected:
        globals()[sys.argv[2]](connected)
