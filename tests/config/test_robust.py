"""Whatever stands in the file: a configuration, or ``ConfigError`` in our own words with places inside the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.errors import ConfigError
from gateway.config.load import load_text
from gateway.config.source import Source, parse
from tests.config.test_bad_files import FOREIGN

DEMO = Path(__file__).parents[2] / "config/gateway.yaml"
TEXT = DEMO.read_text(encoding="utf-8")
ODD: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1e99,
    "",
    "x y",
    "off",
    [],
    [None],
    [[]],
    {},
    {"": 1},
    {"pool": []},
    ["stale", {"static": 3}],
)


def outcome(text: str) -> None:
    try:
        load_text(text, DEMO)
    except ConfigError as error:
        assert error.diagnostics
        lines = len(Source("t", text).lines)
        for each in error.diagnostics:
            assert 0 <= each.line <= lines
            assert each.message
            assert not [word for word in FOREIGN if word in each.message]


def replaced(value: Any, odd: object) -> Iterator[Any]:
    """The tree with one node replaced, for every node."""
    yield odd
    if isinstance(value, dict):
        for key, content in value.items():
            for changed in replaced(content, odd):
                yield {**value, key: changed}
    elif isinstance(value, list):
        for index, content in enumerate(value):
            for changed in replaced(content, odd):
                yield [*value[:index], changed, *value[index + 1 :]]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_every_value_replaced(odd: object) -> None:
    small = parse(TEXT, "t").data
    small["routes"] = small["routes"][1:3]
    for changed in replaced(small, odd):
        outcome(json.dumps(changed))  # JSON is YAML


@given(st.integers(0, len(TEXT)), st.integers(0, 30), st.text("\t\n :-[]{}&*!|>'\"%@`#,?<~a1é\x00\x85", max_size=6))
@settings(max_examples=300, deadline=None)
def test_every_stretch_replaced(start: int, length: int, middle: str) -> None:
    outcome(TEXT[:start] + middle + TEXT[start + length :])
