"""Where the demo keeps what it builds, and which processes it has."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build"
GATEWAY: Final = Path(sys.executable).with_name("gateway")  # as installed: with its request path compiled
GO_INFER: Final = BUILD / "bin" / "go_infer"
MODELS: Final = BUILD / "models"
PICTURES: Final = BUILD / "pictures"
CONFIG: Final = ROOT / "config" / "gateway.yaml"


@dataclass(frozen=True, slots=True)
class ModelServer:
    """One go_infer process."""

    name: str
    model: str
    port: int


#: The backends of config/gateway.yaml.
SERVERS: Final = (
    ModelServer("digits-a", "digits", 8501),
    ModelServer("digits-b", "digits", 8502),
    ModelServer("digits-small", "digits-small", 8503),
)
GATEWAY_PORT: Final = 8080
ADMIN_PORT: Final = 9090
