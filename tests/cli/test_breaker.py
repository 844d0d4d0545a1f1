"""`gateway breaker` as it is typed: every order of words and options, and what is said of what means nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import admin_client, main
from gateway.cli.breaker import line

CONFIG = """version: 1
pools: {p: {backends: [{url: "http://127.0.0.1:8501", name: b}]}}
routes: [{name: r, match: {path: "/*"}, pool: p}]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """What the admin listener is asked."""
    calls: list[tuple[str, str, Any]] = []

    def call(_config: object, method: str, path: str, timeout: float, body: Any) -> tuple[int, list[Any]]:
        calls.append((method, path, body))
        return 200, []

    monkeypatch.setattr(admin_client, "call", call)
    return calls


ORDERS = [
    sum(order, ())
    for order in itertools.permutations([("open",), ("-c", "FILE"), ("p/b",), ("--for", "90s")])
    if order.index(("open",)) < order.index(("p/b",))
]


@pytest.mark.parametrize("order", [*ORDERS, ("-cFILE", "open", "p/b", "--for=90s")], ids=" ".join)
def test_options_and_words_in_any_order(order: tuple[str, ...], file: str, asked: list[tuple[str, str, Any]]) -> None:
    assert main(["breaker", *(each.replace("FILE", file) for each in order)]) == 0
    assert asked == [("POST", "/breakers", {"pool": "p", "backend": "b", "state": "open", "for": 90.0})]


@pytest.mark.parametrize("words", [[], ["list"]])
def test_without_a_word_all_are_shown(words: list[str], file: str, asked: list[tuple[str, str, Any]]) -> None:
    assert main(["breaker", *words, "-c", file]) == 0
    assert asked == [("GET", "/breakers", None)]


ALLOWED = "--for must be a time above 0s and at most 8760h, as in 90s, 10m or 1h, not"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["open", "p/b", "--for", "-5s"], f"{ALLOWED} '-5s'"),
        (["open", "p/b", "--for", "0s"], f"{ALLOWED} '0s'"),
        (["open", "p/b", "--for", "5"], f"{ALLOWED} '5'"),
        (["open", "p/b", "--for", ""], f"{ALLOWED} ''"),
        (["open", "p/b", "--for", "8761h"], f"{ALLOWED} '8761h'"),
        (["auto", "p/b", "--for", "5s"], "auto holds until told otherwise and takes no --for"),
        (["list", "p/b"], "list takes no backend and no time"),
        (["--for", "5s"], "list takes no backend and no time"),
        (["opne", "p/b"], "there is no 'opne'; did you mean 'open'?"),
        (["closed", "p/b"], "there is no 'closed'; did you mean 'close'?"),
        (["p/b"], "say what to do with it: gateway breaker open|close|auto p/b"),
        (["x"], "there are list, open, close, auto"),
        (["open"], "open wants POOL/BACKEND, as gateway breaker list has them; none is named"),
        (["open", "p/"], "'p/' names none"),
        (["open", "b"], "'b' names none"),
        (["open", "p/b", "p/c"], "unrecognized arguments: p/c"),
    ],
)
def test_what_means_nothing_asks_nobody(
    arguments: list[str],
    says: str,
    file: str,
    asked: list[tuple[str, str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["breaker", *arguments, "-c", file]) == 2
    out, err = capsys.readouterr()
    assert (asked, out) == ([], "")
    assert says in err


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (None, "FORCED open until told otherwise"),
        (59.4, "FORCED open for 59 s"),
        (600.0, "FORCED open for 10 min"),
        (7500.0, "FORCED open for 2 h 5 min"),
        (3600.0, "FORCED open for 1 h"),
    ],
)
def test_a_line_says_for_how_long(seconds: float | None, says: str) -> None:
    about = {
        "pool": "p", "backend": "b", "states": {"open": 2}, "forced": "open", "forced_for_s": seconds,
        "ejected": False, "window": {}, "trips": 0, "tripped": {}, "models": {},
    }  # fmt: skip
    assert line(about).endswith(says)
