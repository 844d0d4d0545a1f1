"""grpcio with TensorFlow Serving's Predict: as many processes as asked for on one port, each with a model of its own.

    python -m loadtests.serving.grpc_app --port 8600 --processes 2 --threads 2

Requests and answers are `tensorflow.serving.PredictRequest` and `PredictResponse`, so the same bytes drive go_infer.
Their fields are declared here, around TensorFlow's TensorProto: the package with their stubs has other pins.
Processes share the port by SO_REUSEPORT, as grpcio's own multiprocessing example does.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "tensorflow.serving.PredictionService"


def messages() -> tuple[Any, Any]:
    """PredictRequest and PredictResponse, with the fields and numbers of TensorFlow Serving's predict.proto."""
    from tensorflow.core.framework import tensor_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="predict.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)
    spec = file.message_type.add(name="ModelSpec")
    spec.field.add(name="name", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    spec.field.add(name="signature_name", number=3, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    of_spec = {"type": kinds.TYPE_MESSAGE, "type_name": ".tensorflow.serving.ModelSpec", "label": kinds.LABEL_OPTIONAL}
    for name, field, model_spec in (("PredictRequest", "inputs", 1), ("PredictResponse", "outputs", 2)):
        message = file.message_type.add(name=name)
        message.field.add(name="model_spec", number=model_spec, **of_spec)
        entry = message.nested_type.add(name=f"{field.capitalize()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
        tensor = {"type": kinds.TYPE_MESSAGE, "type_name": ".tensorflow.TensorProto", "label": kinds.LABEL_OPTIONAL}
        entry.field.add(name="value", number=2, **tensor)
        of_entry = f".tensorflow.serving.{name}.{entry.name}"
        number = 3 - model_spec  # the map has the number that the ModelSpec has not
        message.field.add(
            name=field, number=number, type=kinds.TYPE_MESSAGE, type_name=of_entry, label=kinds.LABEL_REPEATED
        )
    pool = descriptor_pool.Default()
    pool.Add(file)
    request, response = (
        pool.FindMessageTypeByName(f"tensorflow.serving.{name}") for name in ("PredictRequest", "PredictResponse")
    )
    return message_factory.GetMessageClass(request), message_factory.GetMessageClass(response)


def serve(port: int, threads: int) -> None:
    """One process's server, until SIGTERM."""
    from loadtests.serving.digits_model import PIXELS, predict

    request_type, response_type = messages()

    def answer(request: Any, _: grpc.ServicerContext) -> Any:
        rows = np.frombuffer(request.inputs["image"].tensor_content, "<f4").reshape(-1, PIXELS)
        labels, probabilities = predict(rows)
        response = response_type()
        response.model_spec.name = request.model_spec.name
        for name, dtype, values in (("label", 9, labels), ("probabilities", 1, probabilities)):
            tensor = response.outputs[name]
            tensor.dtype = dtype
            for size in values.shape:
                tensor.tensor_shape.dim.add(size=size)
            tensor.tensor_content = values.tobytes()
        return response

    server = grpc.server(futures.ThreadPoolExecutor(threads), options=[("grpc.so_reuseport", 1)])
    handler = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request_type.FromString, response_serializer=response_type.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Predict": handler}),))
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        raise SystemExit(f"cannot listen on 127.0.0.1:{port}")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    server.start()
    stopped.wait()
    server.stop(1).wait()


def main() -> None:
    """Start the other processes, then be one."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.serving.grpc_app", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--threads", type=int, default=2, help="requests at a time in a process (default: %(default)s)")
    options = parser.parse_args()
    command = [sys.executable, "-m", "loadtests.serving.grpc_app", "--port", str(options.port), "--processes=1"]
    command.append(f"--threads={options.threads}")
    others = [subprocess.Popen(command) for _ in range(options.processes - 1)]
    try:
        serve(options.port, options.threads)
    finally:
        for other in others:
            other.terminate()
            other.wait()


if __name__ == "__main__":
    main()
