"""`gateway breaker`: how the breakers of a running gateway stand, and an operator's word about one of them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gateway.cli.options import add_config, add_format

_STATES = {"open": "open", "close": "closed", "auto": "auto"}
_WORDS = ("list", *_STATES)
_SPELT = {"closed": "close", "show": "list", "reset": "auto"}  # what else people call them
_LONGEST = 365 * 86_400.0  # seconds

_EXAMPLES = """\
examples:
  gateway breaker                                       show all
  gateway breaker open models/10.0.0.7:8501 --for 10m   take it out for ten minutes
  gateway breaker close models/10.0.0.7:8501            use it, whatever fails
  gateway breaker auto models/10.0.0.7:8501             leave it to its own rule again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gateway breaker [list | open | close | auto] [POOL/BACKEND] [--for TIME] [options]"
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "what",
        nargs="?",
        default="list",
        metavar="COMMAND",
        help="list: show all (the default); open: let nothing through; close: let everything through, whatever fails; "
        "auto: leave the breaker to itself again",
    )
    parser.add_argument("backend", nargs="?", metavar="POOL/BACKEND", help="which one, by the names of list")
    parser.add_argument(
        "--for", dest="time", metavar="TIME", help="then auto again: 90s, 10m, 1h (default: until told otherwise)"
    )
    add_config(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    what: str = args.what
    if what not in _WORDS:
        return _usage(f"there is no '{what}'; {_meant(what)}")
    if what == "list":
        if args.backend or args.time is not None:
            return _usage("list takes no backend and no time; to hold one: gateway breaker open POOL/BACKEND")
        return _ask(args, None)
    pool, slash, backend = (args.backend or "").partition("/")
    if not (pool and slash and backend):
        named = f"'{args.backend}' names none" if args.backend else "none is named"
        return _usage(f"{what} wants POOL/BACKEND, as gateway breaker list has them; {named}")
    asked: dict[str, Any] = {"pool": pool, "backend": backend, "state": _STATES[what]}
    if args.time is not None:
        if what == "auto":
            return _usage("auto holds until told otherwise and takes no --for")
        seconds = _seconds(args.time)
        if seconds is None:
            allowed = "a time above 0s and at most 8760h, as in 90s, 10m or 1h"
            return _usage(f"--for must be {allowed}, not '{args.time}'")
        asked["for"] = seconds
    return _ask(args, asked)


def _meant(what: str) -> str:
    from difflib import get_close_matches

    if "/" in what:
        return f"say what to do with it: gateway breaker open|close|auto {what}"
    near = [_SPELT[what]] if what in _SPELT else get_close_matches(what, _WORDS, n=1)
    return f"did you mean '{near[0]}'?" if near else f"there are {', '.join(_WORDS)}"


def _seconds(text: str) -> float | None:
    """None for what is no time, or none to hold a breaker for."""
    from gateway.config.units import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError:
        return None
    return seconds if 0 < seconds <= _LONGEST else None


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
        text += f" FORCED {breaker['forced']} " + ("until told otherwise" if left is None else f"for {_span(left)}")
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


def _span(seconds: float) -> str:
    """As people say it: 59 s, 10 min, 2 h 5 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes))


def _usage(what: str) -> int:
    print(f"gateway breaker: {what}\n  hint: gateway breaker --help", file=sys.stderr)
    return 2
