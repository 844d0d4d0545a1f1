"""Frames described as in tests/vectors/link, made and read with the gateway's codec."""

from __future__ import annotations

from gateway.link import encoder, frames
from gateway.link.frames import LoadReport, Receiver, Settings

NAMES = ("max_frame", "max_streams", "stream_window", "connection_window", "max_head", "slots")


def pairs(fields):
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def text(fields):
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields]


def encode(frame):
    """The bytes of one described frame."""
    stream, end = frame.get("stream", 0), frame.get("end", False)
    body = bytes.fromhex(frame.get("body", ""))
    extra = encoder.response_head(pairs(frame.get("extra", [])))
    slot, repeated = frame.get("slot", 0), frame.get("repeated", False)
    match frame["type"]:
        case "hello":
            return encoder.hello(Settings(*(frame["settings"][name] for name in NAMES)))
        case "request":
            head = b"" if repeated else encoder.request_head(
                frame["method"].encode(), frame["target"].encode(), pairs(frame["fields"])
            )  # fmt: skip
            return encoder.request(
                stream,
                frame["deadline_us"],
                head,
                slot=slot,
                extra=extra,
                body=body,
                end=end,
                priority=frame["priority"],
            )
        case "response":
            head = b"" if repeated else encoder.response_head(pairs(frame["fields"]))
            return encoder.response(stream, frame["status"], head, slot=slot, extra=extra, body=body, end=end)
        case "data":
            return encoder.data_start(stream, len(body), end=end) + body
        case "window":
            return encoder.window(stream, frame["credit"])
        case "cancel":
            return encoder.control(frames.CANCEL, code=frame["code"], stream=stream)
        case "load":
            return encoder.load(
                LoadReport(frame["queued"], frame["running"], frame["capacity"], frame["service_us"] / 1e6)
            )
        case "drain":
            return encoder.control(frames.DRAIN)
        case "ping" | "pong" as kind:
            return encoder.control(frames.PING if kind == "ping" else frames.PONG, body)
        case "error":
            return encoder.error(frame["code"], frame["text"])
    raise AssertionError(frame)


class Recorder(Receiver):
    """Describes what it is told, in the words of the vectors (without slots, which nobody is told)."""

    def __init__(self):
        self.seen = []

    def on_hello(self, settings):
        self.seen.append({"type": "hello", "settings": dict(zip(NAMES, settings.values(), strict=True))})

    def on_request(self, stream, priority, deadline_us, head, extra, body, end):
        self.seen.append(
            {
                "type": "request", "stream": stream, "priority": priority, "deadline_us": deadline_us,
                "method": head.method.decode(), "target": head.target.decode("latin-1"), "fields": text(head.fields),
                "extra": text(extra), "body": body.hex(), "end": end,
            }
        )  # fmt: skip

    def on_response(self, stream, status, fields, extra, body, end):
        self.seen.append(
            {
                "type": "response", "stream": stream, "status": status, "fields": text(fields),
                "extra": text(extra or []), "body": body.hex(), "end": end,
            }
        )  # fmt: skip

    def on_data(self, stream, data, end):
        self.seen.append({"type": "data", "stream": stream, "body": data.hex(), "end": end})

    def on_window(self, stream, credit):
        self.seen.append({"type": "window", "stream": stream, "credit": credit})

    def on_cancel(self, stream, code):
        self.seen.append({"type": "cancel", "stream": stream, "code": code})

    def on_load(self, load):
        self.seen.append(
            {"type": "load", "queued": load.queued, "running": load.running, "capacity": load.capacity,
             "service_us": round(load.service * 1e6)}
        )  # fmt: skip

    def on_drain(self):
        self.seen.append({"type": "drain"})

    def on_ping(self, payload):
        self.seen.append({"type": "ping", "body": payload.hex()})

    def on_pong(self, payload):
        self.seen.append({"type": "pong", "body": payload.hex()})

    def on_error(self, code, text):
        self.seen.append({"type": "error", "code": code, "text": text.decode("utf-8", "replace")})
