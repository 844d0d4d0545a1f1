"""``gateway version``: the installed distribution, whether its request path is compiled, and its Python."""

import argparse
import platform
from importlib import metadata
from importlib.util import find_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - the signature all verbs share
    try:
        version = metadata.version("sluicegate")
    except metadata.PackageNotFoundError:
        version = "(not installed)"
    path = find_spec("gateway.pipeline")
    compiled = path is not None and path.origin is not None and not path.origin.endswith(".py")
    how = "compiled" if compiled else "not compiled"
    print(f"sluicegate {version}, {how}, {platform.python_implementation()} {platform.python_version()}")
    return 0
