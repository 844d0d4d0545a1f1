"""The library websockets."""

import sys

from common import BINARY, digest, tell
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

base = "ws" + sys.argv[1].removeprefix("http")


def websocket():
    with connect(f"{base}/ws", subprotocols=["a", "echo"], proxy=None) as socket:
        socket.send("grüße")
        text = socket.recv(5)
        socket.send(BINARY)
        seen = {"protocol": socket.subprotocol, "text": text, "sha256": digest(socket.recv(5))}
        socket.close(4002, "enough")
    return seen


def websocket_ping():
    with connect(f"{base}/ws", proxy=None) as socket:
        waiting = socket.ping("are you there")
        return {"pong": "are you there" if waiting.wait(5) else None, "kind": "PONG"}


def websocket_closed():
    with connect(f"{base}/ws", proxy=None) as socket:
        socket.send("close 4001 bye")
        try:
            socket.recv(5)
        except ConnectionClosed as closed:
            return {"code": closed.rcvd.code, "reason": closed.rcvd.reason}
    return {}


def websocket_pinged():
    with connect(f"{base}/ws", proxy=None) as socket:
        socket.send("ping me")
        return {"text": socket.recv(5)}


tell("websocket", websocket)
tell("websocket-pinged", websocket_pinged)
tell("websocket-ping", websocket_ping)
tell("websocket-closed", websocket_closed)
