"""The JSON schema: kept in step with the model, closed like the model, and readable by a person."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config.schema import schema, text

KEPT = Path(__file__).parents[2] / "config/gateway.schema.json"


def test_the_kept_file_is_in_step() -> None:
    assert KEPT.read_text(encoding="utf-8") == text(), "run: gateway schema > config/gateway.schema.json"


def parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from parts(each)


def test_sections_are_closed_and_described() -> None:
    sections = [each for each in parts(schema()) if "properties" in each and each.get("type") == "object"]
    assert len(sections) >= 20
    for section in sections:
        assert section["additionalProperties"] is False
        assert section["description"]
        assert all(each.get("description") or "$ref" in each for each in section["properties"].values())


def test_null_is_never_a_value() -> None:
    assert not [each for each in parts(schema()) if each.get("type") == "null" or each.get("default", 0) is None]


def test_defaults_are_spelt_as_a_person_would() -> None:
    sections = schema()["$defs"]
    assert sections["Store"]["properties"]["timeout"]["default"] == "25ms"
    assert sections["Store"]["properties"]["url"]["default"] == "embedded"
    assert sections["Http"]["properties"]["max_body"]["default"] == "16MiB"
    assert sections["RetryBudget"]["properties"]["min"]["default"] == "10/s"
    assert sections["Hedge"]["properties"]["after"]["default"] == "p95"
    assert sections["RouteCache"]["properties"]["stale_if_error"]["default"] == "10m"


def test_what_a_file_may_say_beside_the_model() -> None:
    document = schema()
    assert {"const": "stale", "description": document["$defs"]["StaleRung"]["description"]} == document["$defs"][
        "StaleRung"
    ]
    assert 503 in document["$defs"]["Retry"]["properties"]["on"]["items"]["enum"]
    one, several = document["properties"]["listen"]["anyOf"]
    assert several["items"] == one
    assert [each.get("type", each.get("$ref")) for each in one["oneOf"]] == ["string", "#/$defs/Listener"]
    assert json.loads(text()) == document
