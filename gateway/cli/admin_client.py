"""A verb's line to a running gateway: one request to the admin listener that the configuration names."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from gateway.config.model import Config


class Unreachable(Exception):
    """One line: nobody answers there, or the token is wrong."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(config: Config, method: str, path: str, timeout: float = 30.0, body: Any = None) -> tuple[int, Any]:
    """Status and JSON body. Raises Unreachable."""
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
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"no gateway answers on {listen}: {error}") from None
    finally:
        connection.close()
    if response.status == 401:
        raise Unreachable(f"the gateway on {listen} does not take the token of admin.token_file")
    return response.status, answer
