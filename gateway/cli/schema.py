"""``gateway schema``: the JSON schema that editors use for completion and checks."""

import argparse

from gateway.config.schema import text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - the signature all verbs share
    print(text(), end="")
    return 0
