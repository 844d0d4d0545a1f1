#!/usr/bin/env python3
"""Writes docs/configuration.md from the configuration model: meaning, default and bounds of every key.

.venv/bin/python scripts/config_docs.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the sources, and not what is installed

from gateway.config.schema import schema  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"

HEAD = """# Configuration

Made from the model by `scripts/config_docs.py`; a test holds it in step. `config/gateway.yaml` is a commented example,
`gateway check` tells what is wrong with a file (`file:line:col`), `gateway schema` prints the JSON schema for editors.

Durations are `500ms 5s 2m 1h`, sizes `16KiB 1MiB 64KB`, rates `100/s 6000/m 1000/h`. Unknown and duplicate keys are
errors. A reload (SIGHUP, `gateway reload`) may change all but `workers`, `admin`, `store`, `access_log` and the
addresses of `listen`; it reads certificates again.

A route has one of `pool`, `split`, `redirect` and `respond`. Rewritten paths and hosts, redirects and header values may
hold `{captures}` of the route's path and the variables `{client}` `{host}` `{method}` `{path}` `{peer}` `{pool}`
`{request_id}` `{route}`; `{{` and `}}` stand for the braces themselves. A capture takes part of one path segment.
`config/examples/routing.yaml` shows all of it.
"""


def resolve(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The node behind a `$ref`, with what stands beside the reference on top."""
    if "$ref" in node:
        target = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return {**resolve(target, root), **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def kind(node: dict[str, Any]) -> str:
    """The type in words, with bounds."""
    bounds = [
        f"{word} {node[key]}"
        for key, word in (("minimum", "from"), ("x-minimum", "from"), ("maximum", "to"), ("x-maximum", "to"))
        if key in node and not (key in ("minimum", "maximum") and f"x-{key}" in node)
    ]
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if "anyOf" in node or "oneOf" in node:
        options = [kind(each) for each in node.get("anyOf", node.get("oneOf", ())) if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(option for option in options if option))
    names = {
        "object": "section",
        "array": "list",
        "integer": "number",
        "boolean": "`true` or `false`",
        "string": "text",
    }
    return " ".join([names.get(str(node.get("type", "")), ""), *bounds]).strip()


def shown(default: object) -> str:
    """A default as one would write it in YAML; nothing for sections and for null."""
    if default in (None, {}, []) or (isinstance(default, list) and isinstance(default[0], dict)):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def rows(node: dict[str, Any], path: str, root: dict[str, Any]) -> list[str]:
    """One table row per key below `node`, depth first."""
    node = resolve(node, root)
    found: list[str] = []
    for name, raw in node.get("properties", {}).items():
        child = resolve(raw, root)
        where = f"{path}.{name}" if path else name
        needed = name in node.get("required", ())
        default = "required" if needed else shown(child.get("default"))
        about = str(child.get("description", "")).replace("|", "\\|").replace("\n", " ")
        found.append(f"| `{where}` | {kind(child)} | {default} | {about} |")
        found += below(child, where, root)
    return found


def named(node: dict[str, Any], where: str, root: dict[str, Any]) -> list[str]:
    """Rows of a section that may also be a plain text."""
    sections = (each for each in (node, *node.get("anyOf", ())) if "properties" in each)
    return next((rows(each, where, root) for each in sections), [])


def below(node: dict[str, Any], where: str, root: dict[str, Any]) -> list[str]:
    """Rows of sections, of named sections and of lists of sections."""
    for option in (node, *(resolve(each, root) for each in (*node.get("anyOf", ()), *node.get("oneOf", ())))):
        if "properties" in option:
            return rows(option, where, root)
        if isinstance(option.get("additionalProperties"), dict):
            return named(resolve(option["additionalProperties"], root), f"{where}.NAME", root)
        pattern = option.get("patternProperties")
        if pattern:
            return named(resolve(next(iter(pattern.values())), root), f"{where}.NAME", root)
        if isinstance(option.get("items"), dict):
            item = resolve(option["items"], root)
            if "properties" not in item and ("oneOf" in item or "anyOf" in item):
                found = []
                for each in item.get("oneOf", item.get("anyOf", ())):
                    found += rows(each, f"{where}[]", root)
                return found
            return rows(item, f"{where}[]", root)
    return []


def page() -> str:
    """The whole page."""
    root = schema()
    table = ["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows(root, "", root)]
    return HEAD + "\n" + "\n".join(table) + "\n"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == text else "docs/configuration.md is out of step: run scripts/config_docs.py")
    PAGE.write_text(text)
