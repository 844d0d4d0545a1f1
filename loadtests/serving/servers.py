"""The servers that are compared, and one of them running.

Contract: inside `running(server, ...)` it is ready and reachable at the ports it yields; afterwards it and all its
children are gone. CPU and memory are of the process and its descendants, from /proc.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.processes import NotUp, Process, free_ports, tree
from loadtests.peers.processes import cpu_seconds as cpu_seconds_of
from loadtests.serving.wire import Encoding, Json, OpenInference, Predict, Raw

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 15.0
GRPC_FLAG = re.compile(r"^\s+-port\b", re.MULTILINE)  # TensorFlow Serving's name for it
PROCESSES = os.cpu_count() or 1


@dataclass(frozen=True)
class Server:
    """`{port}` and `{grpc}` in its command are replaced. `speaks` maps each encoding to the port it is served on."""

    name: str
    command: tuple[str, ...]
    speaks: tuple[Encoding, ...]
    environment: tuple[tuple[str, str], ...] = ()
    keeps_alive: bool = True  # False: a connection carries one request, which openload's cannot
    needs: tuple[str, ...] = ()  # modules of Python

    @property
    def http(self) -> bool:
        """It can be asked whether it is ready."""
        return any(not encoding.grpc for encoding in self.speaks)


@dataclass(frozen=True)
class Running:
    """Process id of the root, and where it listens."""

    pid: int
    http_port: int
    grpc_port: int

    def port(self, encoding: Encoding) -> int:
        return self.grpc_port if encoding.grpc else self.http_port

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        return cpu_seconds(tree(self.pid))

    def memory_mb(self) -> float:
        return memory_mb(tree(self.pid))


def go_infer(binary: Path, models: Path, *flags: str, name: str = "go_infer") -> Server:
    """Ours. gRPC only if this build serves it."""
    grpc = GRPC_FLAG.search(known_flags(binary)) is not None
    where = ("--rest_api_port={port}", *(("--port={grpc}",) if grpc else ()))
    command = (str(binary), "--model_name=digits", f"--model_base_path={models / 'digits'}", *where, *flags)
    return Server(name, command, (Json(), OpenInference(), *((Predict(),) if grpc else ())))


def known_flags(binary: Path) -> str:
    """What it prints about its flags."""
    done = subprocess.run([binary, "--help"], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


def servers(binary: Path, models: Path) -> list[Server]:
    """Who is measured, fastest first, so that a long run shows its point early."""
    python = (sys.executable, "-m")
    environment = (("MODEL_DIR", str(models / "digits/2")), ("TF_CPP_MIN_LOG_LEVEL", "3"), ("PYTHONPATH", str(ROOT)))
    both = (Json(), Raw())
    gunicorn = (*python, "gunicorn", f"--workers={PROCESSES}", "--bind=127.0.0.1:{port}", "--keep-alive=60")
    uvicorn = (*python, "uvicorn", f"--workers={PROCESSES}", "--port={port}", "--no-access-log", "--log-level=warning")
    grpc = (*python, "loadtests.serving.grpc_app", "--port={grpc}", f"--processes={PROCESSES}")
    return [
        go_infer(binary, models),
        go_infer(binary, models, "--enable_batching=false", name="go_infer, unbatched"),
        Server("Python gRPC", grpc, (Predict(),), environment, needs=("grpc",)),
        Server(
            "FastAPI + uvicorn",
            (*uvicorn, "loadtests.serving.fastapi_app:app"),
            both,
            environment,
            needs=("fastapi", "uvicorn"),
        ),
        # Gunicorn's default worker closes the connection behind every answer.
        Server(
            "Flask + gunicorn",
            (*gunicorn, "loadtests.serving.flask_app:app"),
            both,
            environment,
            keeps_alive=False,
            needs=("flask", "gunicorn"),
        ),
        Server(
            "Flask + gunicorn, threads",
            (*gunicorn, "--worker-class=gthread", "--threads=8", "loadtests.serving.flask_app:app"),
            both,
            environment,
            needs=("flask", "gunicorn"),
        ),
    ]


@contextlib.contextmanager
def running(server: Server, work: Path) -> Iterator[Running]:
    """Start a server, wait until it is ready, stop it and all its children. `NotUp` quotes its log."""
    http_port, grpc_port = free_ports(2)
    command = [part.format(port=http_port, grpc=grpc_port) for part in server.command]
    process = Process("server", command, work, dict(server.environment))
    try:
        if server.http:
            _await_ready(process, http_port, server.name)
        if any(encoding.grpc for encoding in server.speaks):
            process.wait_for_port(grpc_port, START_SECONDS)
        yield Running(process.pid, http_port, grpc_port)
    finally:
        process.stop(STOP_SECONDS)


def _await_ready(process: Process, port: int, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not process.running:
            raise NotUp(f"{name} ended at once:\n{process.tail()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise NotUp(f"{name} is not ready after {START_SECONDS:g} s:\n{process.tail()}")


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of several processes."""
    return sum(map(cpu_seconds_of, pids))


def memory_mb(pids: Sequence[int]) -> float:
    """Proportional set size in megabytes: what is resident, pages shared between them counted once."""
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1024
