"""Who sends what in the story: two clients with real held-out digits, as numbers and as pictures."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import NamedTuple

from demo.layout import MODELS, PICTURES
from loadtests.load import Client, Request, Response

STEADY = 40.0  # requests per second of each client
KEYS = {"alice": "demo-key-alice", "bob": "demo-key-bob"}


class Answers:
    """Counts right and wrong answers by how they came about; never calls one a failure (models do err)."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def check(self, request: Request, response: Response) -> bool:
        if response.status == 200:
            body = json.loads(response.body)["predictions"]
            label = body[0]["label"]
            how = response.headers.get("degraded", "fresh").partition(";")[0]
            (self.right if int(label) == request.tag else self.wrong)[how] += 1
        return True

    @property
    def total(self) -> int:
        """Answers checked."""
        return sum(self.right.values()) + sum(self.wrong.values())

    def accuracy(self, how: str = "fresh") -> float:
        """Share of right answers."""
        total = self.right[how] + self.wrong[how]
        return self.right[how] / total if total else 0.0


def held_out() -> tuple[list[Request], float]:
    """Every held-out digit as a JSON request, and version 2's stated accuracy on them."""
    data = json.loads((MODELS / "digits" / "heldout.json").read_text())
    about = json.loads((MODELS / "digits" / "2" / "assets.extra" / "sluicegate.json").read_text())
    requests = [
        Request(
            "POST",
            "/v1/models/digits:predict",
            json.dumps({"instances": [pixels]}, separators=(",", ":")).encode(),
            {"content-type": "application/json"},
            tag=label,
        )
        for pixels, label in zip(data["instances"], data["labels"], strict=True)
    ]
    return requests, float(about["heldout"]["accuracy"])


def pictures() -> list[Request]:
    """The held-out pictures as PNG requests; the label is in the file's name."""
    return [
        Request("POST", "/classify", file.read_bytes(), {"content-type": "image/png"}, tag=int(file.stem.split("-")[1]))
        for file in sorted(PICTURES.glob("digit-*.png"))
    ]


def clients(answers: Answers) -> tuple[list[Client], float]:
    """Alice sends numbers, bob sends pictures, both steadily; and the accuracy that was held out."""
    numbers, accuracy = held_out()
    alice = Client("alice", STEADY, requests=numbers, headers={"x-api-key": KEYS["alice"]}, check=answers.check)
    bob = Client("bob", STEADY, requests=pictures(), headers={"x-api-key": KEYS["bob"]}, check=answers.check)
    return [alice, bob], accuracy


class Asked(NamedTuple):
    """One answer to one question of the narrator's own. `ms` is the whole exchange."""

    status: int
    headers: dict[str, str]
    body: bytes
    ms: float


def unseen(number: int) -> bytes:
    """A picture nobody has sent before: bytes after the PNG's end change its key and not what it shows."""
    file = sorted(PICTURES.glob("digit-*.png"))[number % 10]
    return file.read_bytes() + b"%d" % number


def ask(base: str, path: str, body: bytes, client: str = "bob") -> Asked:
    """Sends one request on a connection of its own."""
    request = urllib.request.Request(base + path, body, {"x-api-key": KEYS[client], "content-type": "image/png"})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, headers, content = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        status, headers, content = error.code, error.headers, error.read()
    return Asked(status, {k.lower(): v for k, v in headers.items()}, content, (time.perf_counter() - began) * 1e3)
