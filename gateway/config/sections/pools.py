"""Pools of backends and how each is balanced, watched and connected to."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gateway.config.addresses import Origin
from gateway.config.scalars import Address, Duration, Ratio, Size, Text, Whole, refuse
from gateway.config.sections.admission import Admission
from gateway.config.sections.balance import Balance, Session
from gateway.config.sections.base import ZONE, Section
from gateway.config.sections.retrying import RetryBudget
from gateway.config.sections.tls import BackendTls
from gateway.config.units import format_duration
from gateway.routing.fields import OWN_REQUEST


def _named_after_url(data: dict[str, Any]) -> str:
    return data["url"].authority if "url" in data else "?"


class Backend(Section):
    """One model server."""

    url: Annotated[Origin, Address(Origin, "http://127.0.0.1:8501")] = Field(
        description="Address: http://host:port, https://host:port (see pools.NAME.tls) or unix:/path (HTTP over a unix "
        "socket).",
        examples=["http://127.0.0.1:8501"],
    )
    weight: Annotated[int, Whole(0, 1000)] = Field(
        default=1, description="Share of the pool's requests, relative to the other weights; 0 drains the backend."
    )
    name: Annotated[str, Text(r"[A-Za-z0-9._:\[\]-]{1,100}", "1 to 100 letters, digits or any of . _ - : [ ]")] = Field(
        default_factory=_named_after_url,
        description="Name in metrics and status; unique in its pool. Default: host:port of the url, or unix:/path.",
    )
    priority: Annotated[int, Whole(0, 9)] = Field(
        default=0,
        description="Priority group: 0 is asked first, the next as far as less than 71 % of those before is there.",
    )
    zone: Annotated[str, ZONE] | None = Field(
        default=None, description="Where it stands; those in the gateway's own 'zone' are preferred."
    )


class Breaker(Section):
    """The circuit breaker of each backend (docs/breakers.md): when it is left alone, and how it is tried again."""

    failures: Annotated[int, Whole(1, 1000)] = Field(
        default=5, description="Failures in a row that open the breaker: a backend that is dead shows it at once."
    )
    error_rate: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.5,
        description="Share of failed calls in the window that opens it, from 0 to 1; 0 does not look at it. One half "
        "is far above what bad requests or a restart cause, and far below what clients put up with.",
    )
    slow_after: Annotated[float, Duration("1ms", "5m")] | None = Field(
        default=None,
        description="A call that takes longer is slow, and counts before it has ended. Not given: no call is slow, for "
        "only you know what is normal; a little above the usual p99.9 is a good value.",
    )
    slow_rate: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.5, description="Share of slow calls in the window that opens it, where slow_after is given; 0 never."
    )
    min_calls: Annotated[int, Whole(1, 1000)] = Field(
        default=20, description="Calls that must be in the window before a rate of them means anything."
    )
    window: Annotated[float, Duration("100ms", "10m")] = Field(
        default=10.0, description="Rates are of calls that ended within this time ..."
    )
    window_calls: Annotated[int, Whole(1, 1000)] = Field(
        default=100, description="... and of the last so many, so that a change shows quickly under heavy traffic too."
    )
    silent_after: Annotated[float, Duration("0s", "5m")] | None = Field(
        default=None,
        description="When nothing at all has come back for so long after a call, only probes are let through until one "
        "is answered. Not given: slow_after, or else three times the longest recent answer and at least 500ms; "
        "0s: never.",
    )
    open_for: Annotated[float, Duration("10ms", "1h")] = Field(
        default=5.0, description="How long an open breaker refuses before it lets a probe through, the first time."
    )
    open_max: Annotated[float, Duration("10ms", "24h")] | None = Field(
        default=None,
        description="The time doubles up to this while probes keep failing; after having been closed for so long it "
        "begins anew. Not given: 60s, or open_for if that is longer.",
    )
    jitter: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.2,
        description="Part of that time that is left to chance, so that the workers of many gateways do not probe all "
        "at once; only ever earlier.",
    )
    probes: Annotated[int, Whole(1, 100)] = Field(
        default=1, description="Successful probe requests that close the breaker; also how many may run at once."
    )
    per: Literal["backend", "model"] = Field(
        default="backend",
        description="'model' gives each model (and version or label that is named) of a backend a breaker of its own, "
        "so that one that fails does not take the others with it; connections stay the backend's.",
    )
    panic: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.5,
        description="When less than this share of the pool's weight is closed, healthy and not ejected, all but the "
        "backends that answer nothing any more are used again (docs/breakers.md).",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.min_calls > self.window_calls:
            message = f" can never be reached: the window holds {self.window_calls} calls"
            raise refuse(message, "lower min_calls or raise window_calls", at="min_calls")
        if self.open_max is not None and self.open_max < self.open_for:
            message = f" must not be below open_for ({format_duration(self.open_for)})"
            raise refuse(message, at="open_max")
        return self


class Ejection(Section):
    """Outlier detection over all workers: who does far worse than the pool's others is left alone for a time."""

    interval: Annotated[float, Duration("1s", "10m")] = Field(default=10.0, description="Time between two judgements.")
    min_calls: Annotated[int, Whole(1, 1_000_000)] = Field(
        default=50, description="Calls within the interval that a backend must have had to be judged."
    )
    min_backends: Annotated[int, Whole(3, 1000)] = Field(
        default=3, description="Backends with so many calls that there must be: two cannot say which of them is odd."
    )
    success_factor: Annotated[float, Ratio(0.0, 20.0)] = Field(
        default=3.0,
        description="Standard deviations (robust ones: median absolute deviation and sampling error) below the pool's "
        "median that a success rate may be, beyond five points; 0 does not look at it.",
    )
    latency_factor: Annotated[float, Ratio(0.0, 100.0)] = Field(
        default=5.0, description="Times the pool's median that a mean latency may be; 0 does not look at it."
    )
    base: Annotated[float, Duration("1s", "1h")] = Field(
        default=30.0, description="How long it is left alone the first time; each further time, so much longer."
    )
    max: Annotated[float, Duration("1s", "24h")] = Field(default=300.0, description="Longest time it is left alone.")
    max_share: Annotated[float, Ratio(0.0, 0.5)] = Field(
        default=0.3,
        description="Share of the pool's weight that may be ejected at a time; one backend always may, if it is not "
        "more than half of it.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.base > self.max and "base" in self.model_fields_set:
            raise refuse(f" must not be above max ({format_duration(self.max)})", at="base")
        if self.base > self.max:
            raise refuse(f" must not be below base ({format_duration(self.base)})", "lower base, too", at="max")
        return self


class Health(Section):
    """Active checks: GET 'path' on every backend; any status from 200 to 399 is healthy, redirects are not followed."""

    path: Annotated[str, Text(r"/[!-~]*", "a path that starts with /")] = Field(
        default="/readyz", description="Path to ask for."
    )
    interval: Annotated[float, Duration("50ms", "10m")] = Field(default=2.0, description="Time between two checks.")
    timeout: Annotated[float, Duration("10ms", "1m")] = Field(
        default=1.0, description="A check that takes longer has failed."
    )
    unhealthy_after: Annotated[int, Whole(1, 100)] = Field(
        default=2, description="Failed checks in a row that take a backend out."
    )
    healthy_after: Annotated[int, Whole(1, 100)] = Field(
        default=1, description="Passed checks in a row that bring it back."
    )


class Connections(Section):
    """Keep-alive connections to the backends."""

    max: Annotated[int, Whole(1, 65_535)] = Field(
        default=256, description="Most connections to one backend, per worker."
    )
    idle: Annotated[float, Duration("100ms", "1h")] = Field(
        default=50.0,
        description="An unused connection is closed after this; keep it below the backend's own keep-alive timeout.",
    )
    connect_timeout: Annotated[float, Duration("1ms", "1m")] = Field(
        default=0.25,
        description="Time allowed to connect, a TLS handshake included; then the try counts as a connect failure.",
    )


class Pool(Section):
    """Backends that can answer for one another."""

    backends: tuple[Backend, ...] = Field(
        min_length=1,
        description="The model servers of the pool; at least one.",
        examples=["[{url: http://127.0.0.1:8501}]"],
    )
    balance: Balance = Field(
        default=Balance.model_construct(type="least-request"),
        description="How a backend is picked (docs/balancing.md): least-request, peak-ewma, prequal, "
        "weighted-round-robin, random, ring-hash or maglev; a mapping {type: ...} for those with settings.",
    )
    sticky: Session | None = Field(
        default=None, description="Sticky sessions by a cookie of the gateway's; none unless given ({} for defaults)."
    )
    slow_start: Annotated[float, Duration("0s", "1h")] = Field(
        default=0.0,
        description="How long a backend that is new, or back from an open breaker, an ejection or failed checks, takes "
        "to come to its full weight, in a straight line from a tenth; 0s gives it all at once.",
    )
    spill_above: Annotated[int | Literal["off"], Whole(1, 100_000, ("off",))] = Field(
        default="off",
        description="Requests in flight per unit of weight and worker from which a backend in the own zone passes "
        "requests on to a less busy one in another zone.",
    )
    load_reports: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether backends are asked to report their load with their answers (ORCA), where the policy goes "
        "by it (prequal); on a link they report unasked.",
    )
    protocol: Literal["http", "link", "auto"] = Field(
        default="http",
        description="How the backends are spoken to: HTTP/1.1; the multiplexed link of go_infer (docs/link.md); "
        "or the link where a backend speaks it and HTTP/1.1 where not.",
    )
    tls: BackendTls | None = Field(
        default=None,
        description="How TLS is spoken with the backends, which must then all be https://; as the defaults say if not "
        "given.",
    )
    breaker: Breaker = Field(default=Breaker.model_construct(), description="Circuit breaker of each backend.")
    ejection: Ejection | None = Field(
        default=None, description="Outlier detection; none unless given ({} for defaults)."
    )
    health: Health | None = Field(
        default=None, description="Active health checks; none unless given ({} for defaults)."
    )
    admission: Admission = Field(
        default=Admission.model_construct(),
        description="How much the pool is given at a time, and who waits for the rest.",
    )
    max_inflight: Annotated[int, Whole(1, 1_000_000)] = Field(
        default=1024,
        description="Most requests in flight in the pool, per worker, those that stream included; more take the "
        "degrade ladder. What admission learns stays below it.",
    )
    retry_budget: RetryBudget = Field(
        default=RetryBudget.model_construct(),
        description="What may be sent on top of the requests; all routes that come here share it.",
    )
    deadline_header: Annotated[
        str, Text(r"off|[a-z0-9!#$%&'*+.^_`|~-]{1,64}", "'off' or a field name in lower case")
    ] = Field(
        default="x-request-timeout",
        description="Header field that tells a backend how long its answer is waited for, such as 250ms; grpc-timeout "
        "is said in that field's own syntax. 'off': backends are not told over HTTP; the link always tells.",
    )
    connections: Connections = Field(
        default=Connections.model_construct(), description="Keep-alive connections to each backend."
    )
    max_response: Annotated[int, Size("1KiB", "16GiB")] = Field(
        default=64 * 1024 * 1024,
        description="Largest response body taken from a backend; larger is answered 502, or cut off if it streams.",
    )
    stream_above: Annotated[int, Size("1B", "1GiB")] = Field(
        default=1024 * 1024,
        description="A response of a stated length up to this is waited for, so that it can be kept or tried again; a "
        "larger one streams.",
    )
    stream_after: Annotated[float, Duration("1ms", "10s")] = Field(
        default=0.02,
        description="A response of unstated length (chunked) is waited for so long, then it streams; "
        "server-sent events stream at once.",
    )
    stream_idle: Annotated[float, Duration("100ms", "24h")] = Field(
        default=60.0, description="A response that streams, or a WebSocket, may be silent for so long."
    )

    @field_validator("deadline_header")
    @classmethod
    def _ours_to_say(cls, value: str) -> str:
        if value in OWN_REQUEST - {"grpc-timeout", "x-request-timeout"}:
            raise refuse(f" must not be {value!r}, for the gateway says something else with it")
        return value

    @model_validator(mode="after")
    def _no_way_around_tls(self) -> Self:
        plain = next((str(each.url) for each in self.backends if not each.url.tls), None)
        if self.tls is not None and plain is not None:
            raise refuse(f" is given, but {plain} is spoken to without TLS", "write https:// in its url", at="tls")
        return self
