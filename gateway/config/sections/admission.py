"""Admission to a pool: how much it is given at a time, who waits, and who goes first."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gateway.config.scalars import Duration, Text, Whole, is_number, refuse, shown
from gateway.config.sections.base import Section
from gateway.config.sections.matching import FIELD

CLIENT = Text(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", "1 to 64 letters, digits or any of . _ @ -")


class Admission(Section):
    """How much a pool is given at a time, and who waits for the rest (docs/overload.md)."""

    limit: Annotated[int | Literal["adaptive", "off"], Whole(1, 1_000_000, ("adaptive", "off"))] = Field(
        default="adaptive",
        description="Requests in flight in the pool, of all workers of the gateway: 'adaptive' holds nobody back until "
        "answers take longer because of it, and then learns how many pay; a number is for a capacity that is known; "
        "'off' leaves it at the pool's max_inflight for each worker and lets nobody wait.",
    )
    queue: Annotated[int, Whole(0, 100_000)] = Field(
        default=1024,
        description="Most requests that wait for a place, per worker. Under standing overload only a few do, whatever "
        "is written here; the others are refused at once.",
    )
    target: Annotated[float, Duration("0s", "10s")] = Field(
        default=0.005,
        description="Time to an answer up to which the adaptive limit does not look whether requests queue in the "
        "backend.",
    )

    @model_validator(mode="before")
    @classmethod
    def _limit_alone(cls, value: Any) -> Any:
        if value in ("adaptive", "off") or is_number(value):
            raise refuse(f" must be a mapping of keys to values, not {shown(value)}", f"write {{limit: {value}}}")
        return value

    @model_validator(mode="after")
    def _nobody_waits(self) -> Self:
        if self.limit == "off" and "queue" in self.model_fields_set:
            raise refuse(" is of no use with limit: off, for nobody waits then", "remove it", at="queue")
        if self.limit != "adaptive" and "target" in self.model_fields_set:
            said = f" is of no use with limit: {self.limit}, for nothing is learnt then"
            raise refuse(said, "remove it", at="target")
        return self


class Priority(Section):
    """How a request may say how urgent it is; without 'header' its route alone decides."""

    header: Annotated[str, FIELD] | None = Field(
        default=None,
        description="Request header that may say critical, default or batch. Every client may make itself less urgent "
        "than its route says, and only those under 'critical' more urgent.",
        examples=["x-priority"],
    )
    critical: tuple[Annotated[str, CLIENT], ...] = Field(
        default=(), description="Clients (by the names of their API keys) that may claim any priority."
    )

    @model_validator(mode="after")
    def _claimed_somewhere(self) -> Self:
        if self.critical and self.header is None:
            raise refuse(" is of no use without 'header'", "name the header, such as x-priority", at="critical")
        return self
