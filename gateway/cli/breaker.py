"""`gateway breaker`: how the breakers of a running gateway stand, and an operator's word about one of them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gateway.cli.options import add_config, add_format

_STATES = {"open": "open", "close": "closed", "auto": "auto"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        choices=("list", *_STATES),
        help="list: show all; open: let nothing through; close: let everything through, whatever fails; auto: leave "
        "the breaker to itself again",
    )
    parser.add_argument("backend", nargs="?", metavar="POOL/BACKEND", help="which one, by the names of `list`")
    parser.add_argument("--for", dest="time", metavar="TIME", help="then auto again: 90s, 10m, 1h (default: never)")
    add_config(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    asked = None
    if args.what == "list":
        if args.backend or args.time:
            return _usage("list takes no backend and no time")
    elif args.backend is None or "/" not in args.backend:
        return _usage("say which one: POOL/BACKEND, as `gateway breaker list` names them")
    else:
        from gateway.config.units import parse_duration

        pool, _, backend = args.backend.partition("/")
        asked = {"pool": pool, "backend": backend, "state": _STATES[args.what]}
        if args.time is not None:
            try:
                asked["for"] = parse_duration(args.time)
            except ValueError as error:
                return _usage(f"--for must be {error}, not '{args.time}'")
    return _ask(args, asked)


def _ask(args: argparse.Namespace, asked: dict[str, Any] | None) -> int:
    from gateway.cli.admin_client import Unreachable, call
    from gateway.cli.loaded import loaded

    config = loaded(args)
    if config is None:
        return 1
    try:
        status, body = call(config, "GET" if asked is None else "POST", "/breakers", timeout=5.0, body=asked)
    except Unreachable as error:
        print(f"gateway breaker: {error}", file=sys.stderr)
        return 1
    if status != 200:
        print(f"gateway breaker: {body.get('error', body)}", file=sys.stderr)
        return 1
    print(json.dumps(body, indent=2) if args.format == "json" else "\n".join(map(line, body)))
    return 0


def line(breaker: dict[str, Any]) -> str:
    """One backend on one line; states are shown with the number of workers when they differ."""
    states = breaker["states"]
    state = next(iter(states)) if len(states) == 1 else ", ".join(f"{n} {name}" for name, n in states.items()) or "?"
    text = f"{breaker['pool'] + '/' + breaker['backend']:<36} {state:<10}"
    if breaker["forced"]:
        left = breaker["forced_for_s"]
        text += f" FORCED {breaker['forced']}" + (f" for {left:.0f} s" if left is not None else "")
    if breaker["ejected"]:
        text += " EJECTED"
    window = breaker["window"]
    if window.get("calls"):
        text += f"  {window['calls']} calls, {window['failures']} failed, {window['slow']} slow"
    if breaker["trips"]:
        text += f"  {breaker['trips']} trips ({', '.join(f'{n} {why}' for why, n in breaker['tripped'].items())})"
    if breaker["models"]:
        text += f"  not closed: {', '.join(breaker['models'])}"
    return text.rstrip()


def _usage(what: str) -> int:
    print(f"gateway breaker: {what}", file=sys.stderr)
    return 2
