"""`gateway reload`: make a running gateway read its file again, and say what came of it."""

from __future__ import annotations

import argparse
import json
import sys

from gateway.cli.options import add_config, add_format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from gateway.cli.admin_client import Unreachable, call
    from gateway.cli.loaded import loaded

    config = loaded(args, otherwise="gateway reload: the running gateway was not asked, and goes on as it is")
    if config is None:
        return 1
    try:
        status, body = call(config, "POST", "/reload", timeout=90.0, known_by="applied")
    except Unreachable as error:
        print(f"gateway reload: {error}", file=sys.stderr)
        return 1
    if args.format == "json":
        print(json.dumps(body, indent=2))
    elif body["applied"]:
        print(f"generation {body['generation']} is in force on all workers")
    else:
        print(body["error"], file=sys.stderr)
        print(f"refused: generation {body['generation']} stays in force", file=sys.stderr)
    return 0 if status == 200 else 1
