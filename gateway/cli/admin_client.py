"""A verb's line to a running gateway: one request to the admin listener that the configuration names."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from gateway.config.model import Config


class Unreachable(Exception):
    """What is wrong and what to do: nobody answers there, or not a gateway, or the token is wrong."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(
    config: Config, method: str, path: str, timeout: float = 30.0, body: Any = None, known_by: str = ""
) -> tuple[int, Any]:
    """Status and JSON body: a list, an object that has the key `known_by`, or one with `error`. Raises Unreachable."""
    listen = config.admin.listen
    if listen.unix_path is not None:
        connection: http.client.HTTPConnection = _UnixConnection(listen.unix_path, timeout)
    else:
        connection = http.client.HTTPConnection(listen.host, listen.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {config.admin.token}"} if config.admin.token else {}
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        said = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(_nobody(config, error)) from None
    finally:
        connection.close()
    if response.status == 401:
        wrong = "does not take the token of admin.token_file" if config.admin.token else "wants a token"
        hint = "run this with the configuration, and so the admin.token_file, that it was started with"
        raise Unreachable(f"the gateway on {listen} {wrong}\n  hint: {hint}")
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    ours = isinstance(answer, list) or (isinstance(answer, dict) and (known_by in answer or "error" in answer))
    if not ours:
        what = f"{method} {path} is answered {response.status} {response.reason}".rstrip()
        raise Unreachable(f"what answers on {listen} is no gateway, or of another version: {what}")
    return response.status, answer


def _nobody(config: Config, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = f"no gateway answers on {config.admin.listen} (admin.listen): {why.lower()}"
    if isinstance(error, TimeoutError):
        return f"{text}\n  hint: it is there and hangs; its log may say why"
    if isinstance(error, PermissionError):
        return f"{text}\n  hint: run this as the user that the gateway runs as"
    return f"{text}\n  hint: start it with gateway run, or name the configuration that it was started with: -c FILE"
