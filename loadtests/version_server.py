"""A go_infer with one model `m` whose answers name their version, and a client: what is measured of a model's life.

The models are `loadtests.version_models`'s. What does not come up, or answers with anything but 200, raises NotUp.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.peers.processes import NotUp, Process, free_ports

BINARY = Path("build/bin/go_infer")
PATIENCE = 60.0  # seconds that anything may take
BODY = b'{"instances":[1.0]}'
REQUEST = (
    b"POST /v1/models/m/versions/1:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


@dataclass
class Server:
    """A go_infer with one model."""

    process: Process
    port: int
    control: int

    def wait(self, state: str, version: int) -> None:
        """Until the version is in that state, or not there at all for the state ''."""
        end = time.monotonic() + PATIENCE
        while self.state(version) != state:
            if time.monotonic() > end:
                raise NotUp(f"version {version} is {self.state(version)!r} and not {state!r}:\n{self.process.tail()}")
            time.sleep(0.01)

    def state(self, version: int) -> str:
        """What the control listener says of a version."""
        entries = json.loads(ask(self.control, "GET", "/models"))
        return next((entry["state"] for entry in entries if entry["version"] == version), "")

    def say(self, path: str) -> dict[str, Any]:
        """One call of the operators' API."""
        said: dict[str, Any] = json.loads(ask(self.control, "POST", path))
        return said

    def resident(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def ask(port: int, method: str, path: str, body: str | None = None) -> str:
    """One request on a connection of its own; anything but 200 is an error."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise NotUp(f"{method} {path}: {answer.status} {text}")
    return text


class Client:
    """One kept connection that asks for a prediction."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def predict(self, target: str = "") -> tuple[int, int]:
        """HTTP status and the version that answered (0 if it was not 200)."""
        self._connection.request("POST", f"/v1/models/m{target}:predict", '{"instances":[1.0]}')
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text)["predictions"][0]["version"] if answer.status == 200 else 0

    def ready(self) -> bool:
        """Whether the server is."""
        self._connection.request("GET", "/readyz")
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == 200

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def serving(work: Path, models: Path, policy: str, *flags: str) -> Iterator[Server]:
    """A go_infer with the model `m` of that version policy, ready."""
    config = work / "models.config"
    config.write_text(
        f'model_config_list {{ config {{ name: "m" base_path: "{models}" model_version_policy {{ {policy} }} }} }}\n'
    )
    port, control = free_ports(2)
    command = (
        str(BINARY.absolute()), f"--model_config_file={config}", f"--rest_api_port={port}", f"--control_port={control}",
        "--file_system_poll_wait_seconds=0.1", "--version_settle_time=100ms", *flags,
    )  # fmt: skip
    process = Process("go_infer", command, work)
    try:
        process.wait_for_port(port)
        client = Client(port)
        end = time.monotonic() + PATIENCE
        while not client.ready():
            if time.monotonic() > end or not process.running:
                raise NotUp(f"go_infer is not ready:\n{process.tail()}")
            time.sleep(0.01)
        client.close()
        yield Server(process, port, control)
    finally:
        process.stop(15)
