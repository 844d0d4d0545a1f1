"""Closed-loop load by Debian's `wrk`: the load generator must cost little beside the proxies it measures.

Contract: one call, one run, bounded by its duration; an answer that is not 2xx or a broken connection makes it
``Failed``, so no figure is ever of refusals.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.programs import find_program

SCRIPT = """\
wrk.method = %(method)s
wrk.body = %(body)s
%(headers)s
done = function(summary, latency, requests)
  io.write(string.format(
    'RESULT {"requests": %%d, "microseconds": %%d, "connect": %%d, "read": %%d, "write": %%d, "status": %%d, ' ..
    '"timeout": %%d, "p50": %%d, "p99": %%d}\\n',
    summary.requests, summary.duration, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.status, summary.errors.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


class Failed(Exception):
    """The run is worth nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request."""

    name: str
    method: str
    path: str
    body: bytes = b""

    def script(self, headers: Mapping[str, str], file: Path) -> Path:
        """The wrk script of this scenario, written to ``file``."""
        fields = {**headers, **({"Content-Type": "application/json"} if self.body else {})}
        text = SCRIPT % {
            "method": json.dumps(self.method),
            "body": json.dumps(self.body.decode()) if self.body else "nil",
            "headers": "\n".join(f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in fields.items()),
        }
        file.write_text(text)
        return file


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did: requests, seconds, latency in microseconds."""

    requests: int
    seconds: float
    p50: int
    p99: int


def run(port: int, path: str, script: Path, *, connections: int, seconds: float) -> Run:
    """Keep ``connections`` keep-alive clients busy for ``seconds``."""
    program = find_program("wrk") or "wrk"
    command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "5s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise Failed(f"wrk ended with status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    errors = {name: result[name] for name in ("connect", "read", "write", "status", "timeout") if result[name]}
    if errors or not result["requests"]:
        raise Failed(f"{result['requests']} requests, errors {errors}")
    return Run(result["requests"], result["microseconds"] / 1e6, result["p50"], result["p99"])
