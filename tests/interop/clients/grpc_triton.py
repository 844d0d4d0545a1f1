"""tritonclient[grpc] and ovmsclient's gRPC side.

usage: grpc_triton.py DIGITS TYPES IRIS DIGITS_DATA IRIS_DATA, as grpc_tfserving.py. It asserts nothing, either.
"""

import json
import queue
import sys
from pathlib import Path

import numpy as np
import ovmsclient
import tritonclient.grpc as triton
from common import tell
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

digits_at, types_at, iris_at, digits_data, iris_data = sys.argv[1:]
digits, types = triton.InferenceServerClient(digits_at), triton.InferenceServerClient(types_at)
HELD = json.loads(Path(digits_data).read_text())


def image(n):
    rows = np.array(HELD["instances"][:n], np.float32)
    given = triton.InferInput("image", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)
    return [given]


def many():
    """What no server answers in a millisecond."""
    rows = np.zeros((20_000, 64), np.float32)
    given = triton.InferInput("image", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)
    return [given]


def refusal(do):
    try:
        do()
    except InferenceServerException as error:
        return [error.status().rpartition(".")[2], error.message()]
    return ["OK", ""]


def infer():
    answer = digits.infer("digits", image(100), request_id="r7")
    labels = answer.as_numpy("label")
    told = answer.get_response()
    only = digits.infer("digits", image(2), "1", outputs=[triton.InferRequestedOutput("label")]).get_response()
    return {
        "right": int((labels == np.array(HELD["labels"][:100])).sum()),
        "told": [told.model_name, told.model_version, told.id],
        "only": [only.model_version, [out.name for out in only.outputs], list(only.outputs[0].shape)],
    }


def classification():
    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    best = digits.infer("digits", image(1), outputs=wanted).as_numpy("probabilities")
    score, index, label = best[0][0].decode().split(":")
    return {
        "shape": list(best.shape),
        "index": int(index),
        "label": label,
        "sure": float(score) > 0.5,
        "is": HELD["labels"][0],
    }


def round_trips():
    values = {
        **{name: np.array([[1.5, -2.0], [0.0, 6.0]], name) for name in ("float16", "float32", "float64")},
        **{n: np.array([[np.iinfo(n).min, np.iinfo(n).max], [0, 1]], n) for n in ("int8", "int16", "int32", "int64")},
        **{n: np.array([[0, np.iinfo(n).max], [1, 2]], n) for n in ("uint8", "uint16", "uint32", "uint64")},
        "bool": np.array([[True, False], [False, True]]),
        "string": np.array([[b"a", b""], [b"\xff\x00", "grüße".encode()]], object),
    }
    wrong = []
    for name, sent in values.items():
        given = triton.InferInput("x", [2, 2], np_to_triton_dtype(sent.dtype))
        given.set_data_from_numpy(sent)
        got = types.infer("types", [given], parameters={"signature_name": name}).as_numpy("y")
        if got.dtype != sent.dtype or got.tolist() != sent.tolist():
            wrong.append([name, repr(got)])
    return {"types": len(values), "wrong": wrong}


def told():
    metadata, config = digits.get_model_metadata("digits"), digits.get_model_config("digits").config
    before = digits.get_inference_statistics("digits", "2").model_stats[0].inference_count
    digits.infer("digits", image(3))
    after = digits.get_inference_statistics("digits", "2").model_stats[0].inference_count
    return {
        "server": [digits.is_server_live(), digits.is_server_ready(), digits.get_server_metadata().name],
        "ready": [digits.is_model_ready("digits"), digits.is_model_ready("digits", "1"), digits.is_model_ready("cats")],
        "metadata": [list(metadata.versions), metadata.inputs[0].datatype, list(metadata.inputs[0].shape)],
        "config": [config.max_batch_size, list(config.input[0].dims), config.platform],
        "counted": after - before,
    }


def control():
    index = digits.get_model_repository_index().models
    return {
        "index": [[model.name, model.version, model.state] for model in index],
        "load": refusal(lambda: digits.load_model("cats"))[0] != "OK",
    }


def errors():
    odd = triton.InferInput("image", [1, 63], "FP32")
    odd.set_data_from_numpy(np.zeros((1, 63), np.float32))
    return {
        "unknown model": refusal(lambda: digits.infer("cats", image(1))),
        "unknown version": refusal(lambda: digits.infer("digits", image(1), "9")),
        "wrong shape": refusal(lambda: digits.infer("digits", [odd])),
        "deadline": refusal(lambda: digits.infer("digits", many(), client_timeout=0.001))[:1],
    }


def streaming():
    answers: queue.Queue = queue.Queue()
    digits.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(50):
        digits.async_stream_infer("digits" if i != 7 else "cats", image(1), request_id=str(i))
    seen, refused = [], []
    for _ in range(50):
        result, error = answers.get(timeout=30)
        if error is None:
            seen.append(int(result.get_response().id))
        else:
            refused.append(error.message())
    digits.stop_stream()
    return {"in order": seen == sorted(seen), "answers": len(seen), "refused": refused}


def ovms():
    client = ovmsclient.make_grpc_client(digits_at)
    outputs = client.predict({"image": np.array(HELD["instances"][:20], np.float32)}, "digits")
    return {
        "right": int((outputs["label"] == np.array(HELD["labels"][:20])).sum()),
        "status": {str(k): v["state"] for k, v in client.get_model_status("digits").items()},
        "metadata": client.get_model_metadata("digits")["inputs"]["image"]["shape"],
    }


for case in (infer, classification, round_trips, told, control, errors, streaming, ovms):
    tell(case.__name__, case)
