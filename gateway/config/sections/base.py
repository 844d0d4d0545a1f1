"""What every section is: frozen, closed to unknown keys, and built only when the whole model is.

``Surroundings`` is what validation may ask of the outside world: files named by the configuration. It is handed in as
pydantic's validation context; without one (a model made in Python) referenced files are not read.
"""

from typing import Annotated, Any, Protocol, cast

from pydantic import BaseModel, ConfigDict

from gateway.config.scalars import Text

NAME_PATTERN = r"[a-z0-9][a-z0-9-]*"

ZONE = Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits or any of . _ -")

Name = Annotated[str, Text(NAME_PATTERN, "made of lower-case letters, digits and '-'")]
FileName = Annotated[str, Text(r"[^\x00\n]+", "a file name")]


class Surroundings(Protocol):
    """The files beside the configuration. Both raise pydantic's custom error with a plain sentence."""

    def read(self, name: str) -> bytes:
        """The content of a file named relative to the configuration file."""

    def tenants(self, name: str) -> dict[str, str]:
        """The key file's tenants by client."""

    def overrides(self, name: str) -> dict[str, Any]:
        """The overrides (`sections.limits.Override`) in a file; faults inside it are reported at their own place."""

    def api_keys(self, name: str) -> dict[str, str]:
        """The key file's clients by SHA-256 in lower-case hex; faults inside it are reported at their own place."""


class Section(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def surroundings(context: object) -> Surroundings | None:
    """The validation context under its type."""
    return cast("Surroundings | None", context)
