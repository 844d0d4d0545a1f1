"""One model served by go_infer for as long as a block lasts, and asked over HTTP as any client would.

Contract: inside `with Served(model, directory) as served`, `served.predict(inputs)` is TensorFlow Serving's columnar
predict. ServingError is one line: what could not be started or what was answered instead, with go_infer's own words.
go_infer takes a free port and says in its log which; at the end it is told to stop and waited for.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from demo.layout import GO_INFER
from demo.process import Child

READY_SECONDS = 60.0
ANSWER_SECONDS = 30.0


class ServingError(Exception):
    """The text is for the one who called the command."""


class Served:
    """go_infer with one model; `directory` holds its versions."""

    def __init__(self, model: str, directory: Path, *flags: str, binary: Path = GO_INFER) -> None:
        for needed, how in ((binary, "python -m backends.build"), (directory, "the command that builds the model")):
            if not needed.exists():
                raise ServingError(f"{needed} does not exist: run {how} first")
        self.model = model
        self._scratch = tempfile.TemporaryDirectory(prefix="served-")
        command: list[str | Path] = [
            binary,
            f"--model_name={model}",
            f"--model_base_path={directory}",
            "--rest_api_port=0",
            *flags,
        ]
        self._child = Child(model, command, Path(self._scratch.name) / "log")
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        self._child.start()
        try:
            host, _, port = self._ready().rpartition(":")
        except BaseException:
            self.__exit__()
            raise
        self._connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._child.stop()
        self._scratch.cleanup()

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs and outputs by name; the protocol does not name an only output, which is `output` here."""
        assert self._connection is not None
        body = json.dumps({"inputs": inputs}).encode()
        path = f"/v1/models/{self.model}:predict"
        try:
            self._connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise ServingError(f"{self.model}: no answer: {error!r}; go_infer: {self._child.last_words()}") from error
        if response.status != 200:
            raise ServingError(f"{self.model}: {response.status} {answer.get('error', answer)}")
        outputs = answer["outputs"]
        return outputs if isinstance(outputs, dict) else {"output": outputs}

    def _ready(self) -> str:
        """The address it listens on, from its log."""
        assert self._child.log is not None
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self._child.alive:
            for line in self._child.log.read_text(errors="replace").splitlines():
                if '"msg":"ready"' in line:
                    address: str = json.loads(line)["listen"]
                    return address
            time.sleep(0.02)
        what = f"not ready after {READY_SECONDS:g} s" if self._child.alive else f"ended with {self._child.status}"
        raise ServingError(f"go_infer with {self.model}: {what}: {self._child.last_words()}")
