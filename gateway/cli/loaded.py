"""The configuration a verb works with, or its diagnostics on standard error."""

from __future__ import annotations

import argparse
import sys

from gateway.cli.options import colour, config_path
from gateway.config.errors import ConfigError
from gateway.config.load import load
from gateway.config.model import Config


def loaded(args: argparse.Namespace, otherwise: str = "") -> Config | None:
    """None when the file is wrong; the reader has then been told, and what that means: `otherwise`."""
    try:
        return load(config_path(args))
    except ConfigError as error:
        for each in error.diagnostics:
            print(each.render(colour(sys.stderr)), file=sys.stderr)
        if otherwise:
            print(otherwise, file=sys.stderr)
        return None
