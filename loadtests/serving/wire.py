"""What is sent to a server and what comes back, in each of the ways that the servers speak.

Contract: an `Encoding` turns rows of 64 pixels into the body of one request and an answer's body into labels; it
knows the path and the fields. Nothing of this runs while a load does: bodies are made beforehand.
Sources: TensorFlow Serving's REST API and predict.proto, Open Inference Protocol v2 with its extension for binary
tensors, gRPC over HTTP/2 (a message is a zero, its length in four bytes, big-endian, and the bytes).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

Rows = Sequence[Sequence[int]]
LENGTH_FIELD = "Inference-Header-Content-Length"


class Encoding:
    """One way; `grpc` says whether the body is a gRPC message on HTTP/2 or a body of HTTP/1.1."""

    name: ClassVar[str]
    path: ClassVar[str]
    grpc: ClassVar[bool] = False

    def fields(self, rows: int) -> dict[str, str]:
        """Header fields of a request with that many rows."""
        raise NotImplementedError

    def encode(self, rows: Rows) -> bytes:
        raise NotImplementedError

    def labels(self, answer: bytes, fields: Mapping[str, str]) -> list[int]:
        """ValueError (or a subclass) if the answer is not one."""
        raise NotImplementedError


class Json(Encoding):
    """TensorFlow Serving's row format."""

    name = "JSON"
    path = "/v1/models/digits:predict"

    def fields(self, rows: int) -> dict[str, str]:
        return {"Content-Type": "application/json"}

    def encode(self, rows: Rows) -> bytes:
        return json.dumps({"instances": rows}).encode()

    def labels(self, answer: bytes, fields: Mapping[str, str]) -> list[int]:
        return [prediction["label"] for prediction in json.loads(answer)["predictions"]]


class Raw(Encoding):
    """What a Python server takes without ceremony: the rows' bytes, and the outputs' bytes back."""

    name = "binary"
    path = "/v1/models/digits:binary"

    def fields(self, rows: int) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream"}

    def encode(self, rows: Rows) -> bytes:
        return pixels(rows)

    def labels(self, answer: bytes, fields: Mapping[str, str]) -> list[int]:
        return integers(answer[: len(answer) // (8 + 40) * 8])


class OpenInference(Encoding):
    """Open Inference Protocol v2 with binary tensors in both directions."""

    name = "binary"
    path = "/v2/models/digits/infer"

    def fields(self, rows: int) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", LENGTH_FIELD: str(len(self._head(rows)))}

    def encode(self, rows: Rows) -> bytes:
        return self._head(len(rows)) + pixels(rows)

    def labels(self, answer: bytes, fields: Mapping[str, str]) -> list[int]:
        length = next(
            (int(value) for name, value in fields.items() if name.lower() == LENGTH_FIELD.lower()), len(answer)
        )
        head, at = json.loads(answer[:length]), length
        for output in head["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size", 0)
            if output["name"] == "label":
                return integers(answer[at : at + size]) if size else [int(label) for label in output["data"]]
            at += size
        raise ValueError("no label in the answer")

    @staticmethod
    def _head(rows: int) -> bytes:
        image = {
            "name": "image",
            "shape": [rows, 64],
            "datatype": "FP32",
            "parameters": {"binary_data_size": rows * 256},
        }
        return json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode()


class Predict(Encoding):
    """TensorFlow Serving's PredictionService.Predict, the tensor's bytes in `tensor_content`."""

    name = "gRPC"
    path = "/tensorflow.serving.PredictionService/Predict"
    grpc = True

    def fields(self, rows: int) -> dict[str, str]:
        return {"content-type": "application/grpc", "te": "trailers"}

    def encode(self, rows: Rows) -> bytes:
        shape = b"".join(part(2, varint(1 << 3) + varint(size)) for size in (len(rows), 64))
        tensor = varint(1 << 3) + varint(1) + part(2, shape) + part(4, pixels(rows))  # dtype DT_FLOAT, shape, content
        message = part(1, part(1, b"digits")) + part(2, part(1, b"image") + part(2, tensor))
        return struct.pack(">BI", 0, len(message)) + message

    def labels(self, answer: bytes, fields: Mapping[str, str]) -> list[int]:
        for number, value in parts(answer):
            if number != 1:
                continue
            entry = dict(parts(value))
            if entry[1] == b"label":
                tensor = dict(parts(entry[2]))
                if 4 in tensor:
                    return integers(tensor[4])
                return [label for label, _ in varints(tensor[10])]  # int64_val, packed
        raise ValueError("no label in the answer")


def pixels(rows: Rows) -> bytes:
    """Little-endian float32, row by row."""
    return b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)


def integers(content: bytes) -> list[int]:
    """Little-endian int64."""
    return list(struct.unpack(f"<{len(content) // 8}q", content))


def varint(value: int) -> bytes:
    """Protobuf's."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def part(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varints(content: bytes) -> Iterator[tuple[int, int]]:
    """Values and where each ends."""
    value = shift = 0
    for at, byte in enumerate(content, 1):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value, at
            value = shift = 0


def parts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; others are passed over."""
    at = 0
    while at < len(message):
        tag, used = next(varints(message[at:]))
        at += used
        value, used = next(varints(message[at:]))
        at += used
        if tag & 7 == 2:
            yield tag >> 3, message[at : at + value]
            at += value
        elif tag & 7:
            raise ValueError(f"wire type {tag & 7} is not expected")
