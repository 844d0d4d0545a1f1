"""The whole chain as processes: model servers and the gateway in front of them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from demo.layout import GATEWAY, GO_INFER, MODELS, ModelServer
from demo.process import Child


class StackError(Exception):
    """One line: what could not be started, and why."""


def require_free(ports: Sequence[int]) -> None:
    """Raises StackError when something listens on one of `ports` of 127.0.0.1."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise StackError(
                    f"port {port} is in use; stop what listens on 127.0.0.1:{port} and try again"
                ) from None


class Stack:
    """`servers` by name and one `gateway`; logs go to `logs`."""

    def __init__(
        self, servers: Sequence[ModelServer], config: Path, logs: Path, gateway_port: int, admin_port: int
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.base = f"http://127.0.0.1:{gateway_port}"
        self.admin = f"http://127.0.0.1:{admin_port}"
        self.ports = [gateway_port, admin_port, *(server.port for server in servers)]
        self.servers = {
            server.name: Child(server.name, _go_infer(server), logs / f"{server.name}.log") for server in servers
        }
        self.urls = {server.name: f"http://127.0.0.1:{server.port}" for server in servers}
        command: list[str | Path] = [GATEWAY, "run", "-c", config]
        self.gateway = Child("gateway", command, logs / "gateway.log")

    def start(self, timeout: float = 30.0) -> None:
        """Starts everything at once and waits until all of it is ready."""
        require_free(self.ports)
        for child in (*self.servers.values(), self.gateway):
            if child.log is not None:
                child.log.unlink(missing_ok=True)
            child.start()
        for name in self.servers:
            self.wait_server(name, timeout)
        self.wait_gateway(timeout)

    def wait_server(self, name: str, timeout: float = 30.0) -> None:
        self._wait(self.servers[name], f"{self.urls[name]}/readyz", timeout)

    def wait_gateway(self, timeout: float = 30.0) -> None:
        self._wait(self.gateway, f"{self.admin}/readyz", timeout)

    @staticmethod
    def _wait(child: Child, url: str, timeout: float) -> None:
        if not child.wait_until(url, timeout):
            why = child.last_words() or "it printed nothing"
            raise StackError(f"{child.name} did not start: {why} (log: {child.log})")

    def stop(self) -> None:
        """Stops the gateway first, so that it drains into living backends."""
        with contextlib.suppress(KeyboardInterrupt):
            self.gateway.stop(35.0)
        for child in self.servers.values():
            child.stop(5.0)


def _go_infer(server: ModelServer) -> list[str | Path]:
    return [
        GO_INFER,
        f"--rest_api_port={server.port}",
        f"--model_name={server.model}",
        f"--model_base_path={MODELS / server.model}",
        "--exit_with_parent",
    ]
