"""``gateway check``: every mistake in a configuration with its place, or a summary of what it says.

Imports the configuration package and nothing else of the gateway, so it starts fast enough for an editor or a commit
hook.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.cli import options
from gateway.config.errors import ConfigError, Diagnostic
from gateway.config.lint import lint
from gateway.config.load import load
from gateway.config.model import Config, Limit, PoolRung, Route, Rung, StaticRung
from gateway.config.units import format_duration, format_rate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="the same as -c FILE")
    options.add_config(parser)
    options.add_format(parser)
    parser.add_argument("--strict", action="store_true", help="fail on warnings too")


def run(args: argparse.Namespace) -> int:
    # pydantic searches all installed distributions for plug-ins (25 ms); a checker wants none of them.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if args.file is not None and args.config is not None:
        print("gateway check: name one FILE, bare or with -c; see gateway check --help", file=sys.stderr)
        return 2
    path = args.file or options.config_path(args)
    config: Config | None = None
    diagnostics: Sequence[Diagnostic]
    try:
        config = load(path)
        diagnostics = lint(config)
    except ConfigError as error:
        diagnostics = error.diagnostics
    failed = config is None or (args.strict and bool(diagnostics))
    if args.format == "json":
        print(json.dumps(_report(path, config, diagnostics, failed), indent=2))
    else:
        _print(config, diagnostics, failed)
    return 1 if failed else 0


def _report(path: Path, config: Config | None, diagnostics: Sequence[Diagnostic], failed: bool) -> dict[str, Any]:
    """The JSON form: always the same four keys."""
    return {
        "file": str(path),
        "ok": not failed,
        "diagnostics": [asdict(each) for each in diagnostics],
        "config": config.model_dump(mode="json") if config else None,
    }


def _print(config: Config | None, diagnostics: Sequence[Diagnostic], failed: bool) -> None:
    colour = options.colour(sys.stdout)
    for each in diagnostics:
        print(each.render(colour))
    if diagnostics:
        print()
    errors = sum(each.severity == "error" for each in diagnostics)
    warnings = len(diagnostics) - errors
    if config is None or failed:
        counts = [_count(errors, "error")] * bool(errors) + [_count(warnings, "warning")] * bool(warnings)
        print(f"failed: {', '.join(counts)}")
    else:
        print("\n".join(summary(config, warnings)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def summary(config: Config, warnings: int = 0) -> list[str]:
    """What the configuration says, on one screen."""
    backends = sum(len(pool.backends) for pool in config.pools.values())
    counts = [_count(len(config.pools), "pool"), _count(backends, "backend"), _count(len(config.routes), "route")]
    counts.append(_count(len(config.limits), "limit"))
    counts += [_count(warnings, "warning")] * bool(warnings)
    keys = config.identity.api_keys
    clients = f"{_count(len(set(keys.clients.values())), 'client')} with keys, " if keys else ""
    lines = [
        f"ok: {', '.join(counts)}",
        "",
        f"  listen    {', '.join(map(str, config.listen))}  (workers: {config.workers})",
        f"  admin     {config.admin.listen}{'  (token)' if config.admin.token else ''}",
        f"  store     {config.store.url}  (decision within {format_duration(config.store.timeout)})",
        f"  identity  {clients}anonymous: {config.identity.anonymous}",
    ]
    lines += _table("limits", [
        [name, *_figures(limit), f"else {limit.on_store_failure}"]
        for name, limit in config.limits.items()
    ])  # fmt: skip
    lines += _table("pools", [
        [name, pool.balance.type, ", ".join(f"{each.name} x{each.weight}" for each in pool.backends)]
        for name, pool in config.pools.items()
    ])  # fmt: skip
    lines += _table("routes", [
        [
            route.name,
            f"{','.join(route.match.methods or ['any'])} {','.join(route.match.host)}{_path(route)}",
            f"-> {_destination(route)}",
            format_duration(route.timeout),
        ]
        for route in config.routes
    ])  # fmt: skip
    return lines


def _path(route: Route) -> str:
    match = route.match
    return match.path + "".join(f" {name}" for name in (*match.headers, *(f"?{name}" for name in match.query)))


def _destination(route: Route) -> str:
    if route.redirect is not None:
        return f"redirect {route.redirect.status}"
    if route.respond is not None:
        return f"answer {route.respond.status}"
    first = ", ".join(f"{side.pool} x{side.weight}" for side in route.sides) or str(route.pool)
    shadow = f"  (shadow: {route.shadow.pool})" if route.shadow is not None else ""
    return " | ".join([first, *map(_rung, route.degrade), "503"]) + shadow


def _rung(rung: Rung) -> str:
    if isinstance(rung, PoolRung):
        return rung.pool
    return f"{rung.static}" if isinstance(rung, StaticRung) else "stale"


def _figures(limit: Limit) -> tuple[str, str]:
    """What a limit allows to whom, in two columns."""
    scope = " and ".join(
        each.word or (f"header {each.header}" if each.header else f"ip/{each.ip.v4}, /{each.ip.v6}" if each.ip else "")
        for each in limit.key
    )
    notes = "".join(
        f", {note}" for note in (limit.mode if limit.mode != "exact" else "", "shadow" * limit.shadow) if note
    )
    if limit.rate is None or limit.burst is None:
        return f"{limit.concurrent} at once per {scope}", f"concurrent{notes}"
    return f"{format_rate(limit.rate)} per {scope}", f"burst {limit.burst}{notes}"


def _table(title: str, rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return ["", f"  {title}", *(f"    {row}" for row in cells)] if rows else []
