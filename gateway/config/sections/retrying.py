"""Trying again, and asking twice: what a route allows, and what a pool allows of all routes together."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, field_validator, model_validator

from gateway.config.scalars import Duration, Rate, Ratio, Text, Whole, refuse, shown
from gateway.config.sections.base import Section
from gateway.config.units import format_duration

PERCENTILE = re.compile(r"p([5-9][0-9](?:\.[0-9])?)")


def _or_numbers(schema: dict[str, Any]) -> None:
    """Status codes may stand without quotes."""
    schema["items"]["enum"] += [int(each) for each in schema["items"]["enum"] if each.isdigit()]
    del schema["items"]["type"]


class Retry(Section):
    """When a failed try may be repeated on another backend. docs/retries.md says exactly when."""

    attempts: Annotated[int, Whole(1, 10)] = Field(default=2, description="Tries in total; 1 means no retry.")
    on: tuple[Literal["connect", "reset", "408", "425", "429", "500", "502", "503", "504"], ...] = Field(
        default=("connect",),
        description="What is retried: 'connect' (the backend never saw the request); 'reset' (the connection broke "
        "before the whole answer came) and answers with these status codes, which need a request that may run twice.",
        json_schema_extra=_or_numbers,
    )
    replayable: StrictBool = Field(
        default=False,
        description="Whether any request of the route may run twice, as pure inference may; without it only GET, HEAD, "
        "OPTIONS, TRACE, PUT and DELETE, and what has the field 'replay_header', are sent again once a backend may "
        "have seen them.",
    )
    replay_header: Annotated[str, Text(r"off|[a-z0-9!#$%&'*+.^_`|~-]{1,64}", "'off' or a field name in lower case")] = (
        Field(
            default="idempotency-key",
            description="A request that has this header field may run twice: whoever sends it vouches for that. 'off': "
            "no field says so.",
        )
    )
    per_try: Annotated[float, Duration("1ms", "1h")] | None = Field(
        default=None,
        description="Time of one try: one that takes longer is given up and made elsewhere, if another try and the "
        "pool's retry_budget allow it. Without it a try may take all the time there is.",
    )
    backoff: Annotated[float, Duration("1ms", "1m")] = Field(
        default=0.025,
        description="A retry that waits does so for a random time up to this, twice this before the next, and so on.",
    )
    backoff_max: Annotated[float, Duration("1ms", "10m")] = Field(
        default=0.25, description="The longest such time; what a backend asks for with Retry-After is waited for too."
    )
    same_backend: StrictBool = Field(
        default=False,
        description="Whether the backend that failed is asked again, after a back-off, where the pool has nobody else: "
        "for an address that stands for many servers.",
    )
    attempts_header: StrictBool = Field(
        default=False, description="Tell the client in the field X-Attempts how many attempts its answer took."
    )

    @field_validator("on", mode="before")
    @classmethod
    def _codes(cls, value: object) -> object:
        """Status codes are written bare in YAML."""
        if isinstance(value, (list, tuple)):
            return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff > self.backoff_max:
            raise refuse(
                f" must not be above backoff_max ({format_duration(self.backoff_max)}), not "
                f"{format_duration(self.backoff)}",
                at="backoff",
            )
        return self


@dataclass(frozen=True)
class Lateness(Duration):
    """A duration, or a percentile of the recent latencies as text: p50 to p99.9."""

    what = "a duration, or a percentile such as p95"

    def bounded(self, value: object, bare: tuple[type, ...]) -> float:
        if isinstance(value, str) and value[:1] == "p":
            if PERCENTILE.fullmatch(value):
                return value  # type: ignore[return-value]  # said so in the annotation of the field
            raise refuse(f"must be a percentile from p50 to p99.9, or a duration, not {shown(value)}")
        return super().bounded(value, bare)

    def parse(self, text: str) -> float:
        try:
            return super().parse(text)
        except ValueError as error:
            raise ValueError(f"a percentile such as p95, or {error}") from None

    def format(self, value: float | str) -> str:
        return value if isinstance(value, str) else super().format(value)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "pattern": f"^{PERCENTILE.pattern}$"}, super().json_schema()]}


class Hedge(Section):
    """A second attempt on another backend when the first is late; the first good answer wins, the other is called off.

    Only requests that may run twice and whose body is held whole.
    """

    after: Annotated[float | str, Lateness("1ms", "1h")] = Field(
        default="p95",
        description="How late: a duration, or a percentile (p50 to p99.9) of the recent latencies of the route at its "
        "pool; with p95 one request in twenty is hedged.",
        examples=["p95", "20ms"],
    )
    max: Annotated[int, Whole(1, 3)] = Field(
        default=1, description="Most such attempts for one request, each so much later."
    )


class RetryBudget(Section):
    """What may be sent to a pool on top of its requests: retries, those that wait included, and hedges."""

    ratio: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.1,
        description="As a share of the requests of the last ten seconds, from 0 to 1; one may have a quarter more.",
    )
    min: Annotated[float, Rate("0/s", "10000/s")] = Field(
        default=10.0,
        description="What is allowed where that share is less, so that a quiet pool can retry: by all workers of all "
        "gateways that share the store together.",
    )
