"""tensorflow-serving-api's stubs, and gRPC's own reflection and health clients.

usage: grpc_tfserving.py DIGITS TYPES IRIS PLACE: the addresses of three servers, and the directory of the held-out data.
It asserts nothing: it prints one JSON object a case, as clients/common.py says.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import grpc
import numpy as np
import tensorflow as tf
from common import tell
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

digits_at, types_at, iris_at, digits_data, iris_data = sys.argv[1:]
digits, types, iris = (grpc.insecure_channel(address) for address in (digits_at, types_at, iris_at))
HELD = json.loads(Path(digits_data).read_text())
FLOWERS = json.loads(Path(iris_data).read_text())
VALUES = {
    **{name: [[1.5, -2.0], [0.0, 6.0]] for name in ("float16", "bfloat16", "float32", "float64")},
    **{name: [[np.iinfo(name).min, np.iinfo(name).max], [0, 1]] for name in ("int8", "int16", "int32", "int64")},
    **{name: [[0, np.iinfo(name).max], [1, 2]] for name in ("uint8", "uint16", "uint32", "uint64")},
    "bool": [[True, False], [False, True]],
    "string": [[b"a", b""], [b"\xff\x00", "grüße".encode()]],
}


def predict(channel, name, inputs, timeout=30.0, **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for field, value in spec.items():
        if field == "version":
            request.model_spec.version.value = value
        elif field == "output_filter":
            request.output_filter.extend(value)
        else:
            setattr(request.model_spec, field, value)
    for alias, tensor in inputs.items():
        request.inputs[alias].CopyFrom(tensor)
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=timeout)


def refusal(do):
    try:
        do()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


def rows(n):
    return {"image": tf.make_tensor_proto(np.array(HELD["instances"][:n], np.float32))}


def named():
    answer = predict(digits, "digits", rows(100))
    labels = tf.make_ndarray(answer.outputs["label"])
    right = int((labels == np.array(HELD["labels"][:100])).sum())
    one = predict(digits, "digits", rows(1), version=1, output_filter=["label"])
    return {
        "right": right,
        "version": answer.model_spec.version.value,
        "signature": answer.model_spec.signature_name,
        "fields": [len(answer.outputs["probabilities"].float_val), len(answer.outputs["probabilities"].tensor_content)],
        "one": [one.model_spec.version.value, sorted(one.outputs)],
    }


def round_trips():
    wrong = []
    for name, values in VALUES.items():
        dtype = tf.dtypes.as_dtype(name)
        sent = np.array(values, object if name == "string" else dtype.as_numpy_dtype)
        proto = tf.make_tensor_proto(sent, dtype=dtype)  # tensor_content, except of strings
        for form in ("content", "fields"):
            proto = predict(types, "types", {"x": proto}, signature_name=name).outputs["y"]  # the typed fields
            got = tf.make_ndarray(proto)
            if got.dtype != sent.dtype or got.tolist() != sent.tolist():
                wrong.append([name, form, repr(got)])
    return {"types": len(VALUES), "wrong": wrong}


def example(features):
    feature = {k: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for k, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature))


def fill(request, signature):
    request.model_spec.name, request.model_spec.signature_name = "iris", signature
    request.input.example_list.examples.extend(example(flower) for flower in FLOWERS["examples"])
    return request


def right(result):
    best = [max(row.classes, key=lambda c: c.score).label for row in result.classifications]
    return sum(a == b for a, b in zip(best, FLOWERS["labels"], strict=True)) / len(best)


def off(result):
    return float(np.sqrt(np.mean((np.array([r.value for r in result.regressions]) - FLOWERS["widths"]) ** 2)))


def examples():
    stub = prediction_service_pb2_grpc.PredictionServiceStub(iris)
    classes = stub.Classify(fill(classification_pb2.ClassificationRequest(), "classify"))
    values = stub.Regress(fill(regression_pb2.RegressionRequest(), "regress"))
    both = inference_pb2.MultiInferenceRequest()
    for method in ("classify", "regress"):
        task = both.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "iris", method
    both.input.example_list.examples.extend(example(flower) for flower in FLOWERS["examples"])
    first, second = stub.MultiInference(both).results
    return {
        "accuracy": [right(classes.result), right(first.classification_result), FLOWERS["accuracy"]],
        "error": [off(values.result), off(second.regression_result), FLOWERS["error"]],
    }


def metadata():
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    answer = prediction_service_pb2_grpc.PredictionServiceStub(digits).GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    info = signatures.signature_def["serving_default"].inputs["image"]
    return {
        "dtype": info.dtype,
        "shape": [dim.size for dim in info.tensor_shape.dim],
        "version": answer.model_spec.version.value,
    }


def status():
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "digits"
    answer = model_service_pb2_grpc.ModelServiceStub(digits).GetModelStatus(request)
    State = get_model_status_pb2.ModelVersionStatus.State
    return {"versions": [[v.version, State.Name(v.state), v.status.error_code] for v in answer.model_version_status]}


def reload():
    request = model_management_pb2.ReloadConfigRequest()
    stub = model_service_pb2_grpc.ModelServiceStub(digits)
    empty = refusal(lambda: stub.HandleReloadConfigRequest(request))
    config = request.config.model_config_list.config.add()
    config.name, config.base_path, config.model_platform = "digits", str(Path(digits_data).parent), "tensorflow"
    config.model_version_policy.specific.versions.extend([1, 2])
    return {"empty": empty, "same": refusal(lambda: stub.HandleReloadConfigRequest(request))}


def errors():
    one = rows(1)
    cold = tf.make_tensor_proto(np.zeros((1, 64)))
    return {
        "unknown model": refusal(lambda: predict(digits, "cats", one)),
        "unknown version": refusal(lambda: predict(digits, "digits", one, version=9)),
        "unknown label": refusal(lambda: predict(digits, "digits", one, version_label="new")),
        "unknown signature": refusal(lambda: predict(digits, "digits", one, signature_name="x")),
        "wrong type": refusal(lambda: predict(digits, "digits", {"image": cold})),
        "no input": refusal(lambda: predict(digits, "digits", {})),
        "no name": refusal(lambda: predict(digits, "", one)),
        "deadline": refusal(
            lambda: predict(
                digits, "digits", {"image": tf.make_tensor_proto(np.zeros((20_000, 64), np.float32))}, timeout=0.001
            )
        )[:1],
    }


def reflection():
    """As grpcurl does: nothing is known of the server but its address."""
    found = ProtoReflectionDescriptorDatabase(digits)
    pool = descriptor_pool.DescriptorPool(found)
    method = pool.FindServiceByName("tensorflow.serving.ModelService").FindMethodByName("GetModelStatus")
    request = message_factory.GetMessageClass(method.input_type)()
    request.model_spec.name = "digits"
    call = digits.unary_unary(
        "/tensorflow.serving.ModelService/GetModelStatus",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    return {
        "services": sorted(found.get_services()),
        "versions": [v.version for v in call(request).model_version_status],
    }


def health():
    stub = health_pb2_grpc.HealthStub(digits)
    seen = {}
    for name in ("", "tensorflow.serving.PredictionService", "digits", "digits/versions/1", "cats"):
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            seen[name] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        except grpc.RpcError as error:
            seen[name] = error.code().name
    return seen


for case in (named, round_trips, examples, metadata, status, reload, errors, reflection, health):
    tell(case.__name__, case)
