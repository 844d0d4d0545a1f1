"""Options and habits that several verbs share: which configuration, which format, colour or not."""

import argparse
import os
from pathlib import Path
from typing import TextIO

DEFAULT_CONFIG = "config/gateway.yaml"


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help=f"configuration file (default: $GATEWAY_CONFIG, else {DEFAULT_CONFIG})",
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default: text)")


def config_path(args: argparse.Namespace) -> Path:
    """The configuration file that was asked for."""
    given: Path | None = args.config
    return given or Path(os.environ.get("GATEWAY_CONFIG") or DEFAULT_CONFIG)


def colour(stream: TextIO) -> bool:
    """Whether to colour: only on a terminal, and not with NO_COLOR (https://no-color.org: any non-empty value)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
