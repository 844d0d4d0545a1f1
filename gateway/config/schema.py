"""The model as JSON Schema (draft 2020-12), for editors and for ``gateway schema``.

Generated from the model, so it says the same; defaults are spelled in the units a person would write. What a schema
cannot say (references, bounds of quantities with units) stays to ``gateway check``; such bounds are given as
``x-minimum``, ``x-maximum``.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.model import Config
from gateway.config.scalars import Quantity
from gateway.config.sections.base import Section

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema as plain data."""
    produced = Config.model_json_schema()
    sections: dict[str, type[BaseModel]] = {"Config": Config, **{each.__name__: each for each in _below(Section)}}
    for name, definition in [("Config", produced), *produced.get("$defs", {}).items()]:
        if name in sections:
            for option in (definition, *definition.get("anyOf", ())):  # what may be a word or a section
                _spell_defaults(option, sections[name])
    produced["title"] = "Sluicegate configuration"
    return {"$schema": DIALECT} | produced


def text() -> str:
    """The schema as the text kept in ``config/gateway.schema.json``."""
    return json.dumps(schema(), indent=2) + "\n"


def _below(section: type[Section]) -> Iterator[type[Section]]:
    for each in section.__subclasses__():
        yield each
        yield from _below(each)


def _spell_defaults(definition: dict[str, Any], section: type[BaseModel]) -> None:
    for name, described in definition.get("properties", {}).items():
        field = section.model_fields[name]
        described.pop("title", None)
        _require_value(described)
        if "default" not in described:
            continue
        if (kind := _quantity(field)) is not None and described["default"] is not None:
            described["default"] = kind.format(described["default"])
        elif isinstance(described["default"], dict) and described.get("type") == "string":  # an address
            described["default"] = str(field.default)
        elif described["default"] is None or isinstance(described["default"], dict):
            del described["default"]
    definition.pop("title", None)


def _require_value(described: dict[str, Any]) -> None:
    """A file cannot say null: a key is there with a value, or it is not there."""
    options = [each for each in described.get("anyOf", ()) if each != {"type": "null"}]
    if "anyOf" in described and len(options) < len(described["anyOf"]):
        described["anyOf"] = options  # a union of unions comes flattened
    if len(options) == 1:
        del described["anyOf"]
        described.update(options[0] | {"description": described["description"]})


def _quantity(field: FieldInfo) -> Quantity | None:
    return next((each for each in field.metadata if isinstance(each, Quantity)), None)
