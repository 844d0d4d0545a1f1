"""Where a configuration came from. It takes no part in equality (a moved line is not a change) nor in pickling."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.source import Source


@dataclass(frozen=True, slots=True)
class Provenance:
    source: "Source | None" = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["Provenance"], tuple[()]]:
        return (Provenance, ())
