"""``gateway version``: the version of the installed distribution, and of the Python that runs it."""

import argparse
import platform
from importlib import metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - the signature all verbs share
    try:
        version = metadata.version("sluicegate")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    print(f"sluicegate {version}, {platform.python_implementation()} {platform.python_version()}")
    return 0
