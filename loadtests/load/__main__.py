"""Offer load to a server on this machine and say exactly what came back.

Open loop (--rate): requests are sent when due and latency counts from then. Closed loop (--connections): each
connection waits for its answer. Bodies and paths are sent in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.load import report
from loadtests.load.load import Load
from loadtests.load.model import Check, Client, Request, Response

EPILOG = """examples:
  python -m loadtests.load http://127.0.0.1:8080/v1/models/digits:predict --rate 200 --body-file digit.json
  python -m loadtests.load http://127.0.0.1:8080/ --connections 64 --duration 5
  python -m loadtests.load http://127.0.0.1:8080/ --client alice:50:x-api-key=a --client bob:2000 --plot run.png
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "python -m loadtests.load",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("url", help="http://HOST:PORT/PATH")
    pace = p.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="R", help="open loop, R requests per second (default 100)")
    pace.add_argument("--connections", type=int, metavar="N", help="closed loop, N connections")
    pace.add_argument("--client", action="append", default=[], metavar="NAME:RATE[:HEADER=VALUE]",
                      help="one of several open-loop clients; repeatable")  # fmt: skip
    p.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    p.add_argument("--duration", type=float, default=10.0, metavar="S", help="seconds, at most 3600 (default 10)")
    p.add_argument("--timeout", type=float, default=10.0, metavar="S", help="give up after S seconds (default 10)")
    p.add_argument("--max-in-flight", type=int, default=1024, metavar="N", help="per client (default 1024)")
    p.add_argument("--method", help="default GET, or POST with a body")
    p.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    p.add_argument("--body", action="append", default=[], metavar="TEXT")
    p.add_argument("--body-file", action="append", default=[], type=Path, metavar="FILE")
    p.add_argument("--expect", metavar="TEXT", help="an answer without this text in its body is counted as wrong")
    p.add_argument("--label", action="append", default=[], metavar="HEADER",
                   help="count the values of this response header (default: Degraded)")  # fmt: skip
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--format", choices=("text", "json"), default="text")
    p.add_argument("--plot", type=Path, metavar="FILE.png")
    p.add_argument("--allow-remote", action="store_true", help="the target is not this machine, and it is mine to load")
    return p


def clients_of(arguments: argparse.Namespace, path: str) -> list[Client]:
    """The clients a command line describes; ``ValueError`` says what is wrong with it."""
    bodies = [text.encode() for text in arguments.body] + [file.read_bytes() for file in arguments.body_file]
    method = arguments.method or ("POST" if bodies else "GET")
    requests = tuple(Request(method, path, body) for body in bodies or [b""])
    headers = dict(_pair(header, ":") for header in arguments.header)
    if bodies and not any(name.lower() == "content-type" for name in headers):
        headers["content-type"] = "application/json"
    paces: list[tuple[str, float | None, int | None, dict[str, str]]] = []
    for spec in arguments.client:
        name, _, rest = spec.partition(":")
        rate, _, header = rest.partition(":")
        paces.append((name, float(rate), None, dict([_pair(header, "=")]) if header else {}))
    if not paces:
        rate = None if arguments.connections else (arguments.rate or 100.0)
        paces.append(("client", rate, arguments.connections, {}))
    return [
        Client(
            name,
            rate,
            connections,
            requests,
            headers | own,
            _contains(arguments.expect) if arguments.expect else None,
            arguments.arrivals,
            arguments.timeout,
            max(arguments.max_in_flight, connections or 1),
            seed=arguments.seed + i,
        )
        for i, (name, rate, connections, own) in enumerate(paces)
    ]


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise ValueError(f"{text!r} is not NAME{separator}VALUE")
    return name.strip(), value.strip()


def _contains(text: str) -> Check:
    wanted = text.encode()

    def check(_: Request, response: Response) -> bool:
        return wanted in response.body

    return check


async def run(arguments: argparse.Namespace) -> Load:
    """Offer the load a command line describes."""
    url = urlsplit(arguments.url)
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"{arguments.url!r} is not http://HOST:PORT/PATH")
    if not 0 < arguments.duration <= 3600:
        raise ValueError("--duration must be over 0 and at most 3600 seconds")
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    load = Load(
        url.hostname,
        url.port or 80,
        clients_of(arguments, path),
        labels=arguments.label or ["degraded"],
        max_seconds=arguments.duration,
        patience=arguments.timeout,
        allow_remote=arguments.allow_remote,
    )
    async with load:
        await asyncio.sleep(arguments.duration)
    return load


def _fastest_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main(argv: list[str] | None = None) -> int:
    """Exit 0 when every request got an answer, 1 when some did not, 2 for a wrong command line."""
    arguments = parser().parse_args(argv)
    try:
        with asyncio.Runner(loop_factory=_fastest_loop) as runner:
            load = runner.run(run(arguments))
    except (ValueError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report.as_dict(load), indent=2) if arguments.format == "json" else report.text(load))
    if arguments.plot:
        from loadtests.load.plot import plot

        plot(load, arguments.plot, arguments.url)
    return 1 if load.summary().failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
