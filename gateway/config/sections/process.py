"""The process and its edges: admin, store, HTTP limits, shared cache, logs, traces, drain.

Precedents for the defaults of ``http``: 8 KiB request line and 32 KiB headers (nginx 4 x 8k, HAProxy 16k, Envoy 60k),
100 header fields (HAProxy 101, Envoy 100), 75 s idle (nginx), 10 s for headers (against Slowloris; Apache's
reqtimeout 20 s).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from gateway.config.addresses import Listen, StoreUrl
from gateway.config.scalars import Address, Duration, Network, Ratio, Size, Text, Whole, refuse
from gateway.config.sections.base import FileName, Section, surroundings
from gateway.config.sections.tls import StoreTls


class Admin(Section):
    """The operator's listener: probes, metrics, status."""

    listen: Annotated[Listen, Address(Listen, "127.0.0.1:9090")] = Field(
        default=Listen("127.0.0.1", 9090),
        description="Address of the admin listener: host:port, [ipv6]:port or unix:/path.",
    )
    token_file: FileName | None = Field(
        default=None,
        description="File with the bearer token that admin requests must carry. Required when the listener can be "
        "reached from other machines.",
    )
    state_file: FileName = Field(
        default="off",
        description="File that keeps what operators say of breakers (`gateway breaker`), so that a restart of the "
        "gateway knows it; one for each gateway. 'off': only reloads and restarts of workers do.",
        examples=["/var/lib/sluicegate/state.json"],
    )
    _token: str | None = PrivateAttr(default=None)

    @field_validator("token_file")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None:
            token = files.read(value).strip()
            if not token or not token.isascii() or not token.decode().isprintable():
                raise refuse(f": {value!r} must hold one line of printable ASCII, the token")
        return value

    @model_validator(mode="after")
    def _guarded(self, info: ValidationInfo) -> Self:
        if self.token_file is None and not self.listen.loopback:
            raise refuse(
                f": {self.listen} can be reached from other machines, so admin.token_file is required",
                "listen on 127.0.0.1, or write a long random token to a file and name it in token_file",
                at="listen",
            )
        files = surroundings(info.context)
        if files is not None and self.token_file is not None:
            self._token = files.read(self.token_file).strip().decode()
        return self

    @property
    def token(self) -> str | None:
        """The bearer token, read when the configuration was loaded."""
        return self._token


class Store(Section):
    """The shared state of all workers and gateways: rate limit buckets."""

    url: Annotated[StoreUrl, Address(StoreUrl, "redis://127.0.0.1:6379/0")] = Field(
        default=StoreUrl(embedded=True),
        description="'embedded' starts a private Valkey with the gateway; otherwise redis://[user:password@]host:port/db"
        ", rediss:// (TLS), unix:///path, redis+sentinel://host:port,host:port/SERVICE (the master is asked for) or "
        "redis+cluster://host:port,host:port. valkey means the same as redis.",
        json_schema_extra={"default": "embedded"},
    )
    tls: StoreTls | None = Field(
        default=None,
        description="For a rediss:// store: whom to believe, and who we are; the system's authorities if not given.",
    )
    sentinel_username: Annotated[str, Text(r"[\x21-\x7e]{1,128}", "a user name")] | None = Field(
        default=None, description="User of the sentinels themselves, if they have an ACL; with sentinel_password_file."
    )
    sentinel_password_file: FileName | None = Field(
        default=None,
        description="File with the password of the sentinels themselves. The login in the url is for the servers they "
        "watch, and is never sent to them.",
    )
    timeout: Annotated[float, Duration("1ms", "5s")] = Field(
        default=0.025, description="Deadline of one decision; after it the limit's on_store_failure applies."
    )
    connect_timeout: Annotated[float, Duration("1ms", "30s")] = Field(
        default=0.25, description="Time allowed to connect and log in."
    )
    reconnect_min: Annotated[float, Duration("1ms", "1m")] = Field(
        default=0.05, description="First pause before connecting again; it doubles up to reconnect_max."
    )
    reconnect_max: Annotated[float, Duration("1ms", "10m")] = Field(
        default=0.5, description="Longest pause before connecting again."
    )
    key_prefix: Annotated[str, Text(r"[A-Za-z0-9_.:-]{1,64}", "1 to 64 letters, digits or any of _ . : -")] = Field(
        default="sluicegate", description="Start of every key in the store; gateways that share limits share it."
    )

    ready_keys: Annotated[int, Whole(100, 10_000_000)] = Field(
        default=10_000,
        description="Most keys of buckets (and networks of addresses) that a worker keeps ready, over all limits "
        "together, each of 140 to 500 bytes. What is more is made anew: a microsecond, tens for an IPv6 network.",
    )

    _sentinel_password: str | None = PrivateAttr(default=None)

    @field_validator("sentinel_password_file")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None:
            password = files.read(value).strip()
            if not password or b"\n" in password or not password.isascii():
                raise refuse(f": {value!r} must hold one line of ASCII, the password")
        return value

    @model_validator(mode="after")
    def _ordered(self, info: ValidationInfo) -> Self:
        if self.reconnect_min > self.reconnect_max:
            raise refuse(" must not be longer than store.reconnect_max", at="reconnect_min")
        if self.tls is not None and not self.url.tls:
            raise refuse(" is for a store that speaks TLS", "write the url with rediss://", at="tls")
        for name in ("sentinel_username", "sentinel_password_file"):
            if getattr(self, name) is not None and not self.url.sentinels:
                raise refuse(" is for a redis+sentinel:// store", at=name)
        if self.sentinel_username is not None and self.sentinel_password_file is None:
            raise refuse(" is of no use without sentinel_password_file", at="sentinel_username")
        files = surroundings(info.context)
        if files is not None and self.sentinel_password_file is not None:
            self._sentinel_password = files.read(self.sentinel_password_file).strip().decode()
        return self

    @property
    def sentinel_password(self) -> str | None:
        """The sentinels' password, read when the configuration was loaded."""
        return self._sentinel_password


class Http(Section):
    """Limits of the front door, per connection unless said otherwise."""

    max_request_line: Annotated[int, Size("256B", "64KiB")] = Field(
        default=8 * 1024, description="Longest request line (method, target, version); longer is answered 414."
    )
    max_header_bytes: Annotated[int, Size("1KiB", "1MiB")] = Field(
        default=32 * 1024, description="Largest sum of all header fields; larger is answered 431."
    )
    max_headers: Annotated[int, Whole(8, 1000)] = Field(
        default=100, description="Most header fields in one request; more is answered 431."
    )
    max_body: Annotated[int, Size("1KiB", "4GiB")] = Field(
        default=16 * 1024 * 1024, description="Largest request body; larger is answered 413."
    )
    body_min_rate: Annotated[int, Size("1B", "1GiB")] = Field(
        default=1024,
        description="Bytes per second a request body must come at, once http.body_timeout has passed.",
    )
    paths: Literal["normalise", "refuse"] = Field(
        default="normalise",
        description="What is done with a path that has another spelling (dot segments, escaped letters): 'normalise' "
        "sends the one on that the routes decided on, 'refuse' answers 400. What is ambiguous is always refused.",
    )
    header_timeout: Annotated[float, Duration("10ms", "10m")] = Field(
        default=10.0, description="Time from the first byte of a request to the end of its headers; then 408."
    )
    body_timeout: Annotated[float, Duration("10ms", "1h")] = Field(
        default=30.0,
        description="Time a request body has to arrive, and one second more for each http.body_min_rate bytes of it "
        "that came; then 408. The time in which the backend takes nothing does not count.",
    )
    idle_timeout: Annotated[float, Duration("10ms", "1h")] = Field(
        default=75.0, description="How long a keep-alive connection may wait for its next request."
    )
    write_timeout: Annotated[float, Duration("10ms", "1h")] = Field(
        default=30.0,
        description="Time in which a client must take what waits for it of an answer, or at least http.write_min_rate "
        "bytes for each second of it; then its connection is cut.",
    )
    write_min_rate: Annotated[int, Size("1B", "1GiB")] = Field(
        default=1024, description="Bytes per second a client must take of an answer; see http.write_timeout."
    )
    half_close: Literal["cancel", "answer"] = Field(
        default="cancel",
        description="What a client means that closes its sending half (shutdown, nc -N). 'cancel': it has given up, so "
        "its work is cancelled at once; on the wire it looks like a client that just closes, as most do that no longer "
        "want an inference. 'answer': what it asked for is answered first, and a client that is really gone is noticed "
        "when it is written to. TLS has no half-closed connections.",
    )
    tls_handshake_timeout: Annotated[float, Duration("10ms", "10m")] = Field(
        default=10.0, description="Time a client has for the TLS handshake; then its connection is closed."
    )
    max_connections: Annotated[int, Whole(1, 1_000_000)] = Field(
        default=10_000, description="Most client connections per worker; more are closed at once."
    )
    max_connections_per_address: Annotated[int | Literal["unlimited"], Whole(1, 1_000_000, ("unlimited",))] = Field(
        default=1_000,
        description="Most connections of one client address per worker; more are closed at once. An IPv6 address "
        "counts as its /64. Connections of trusted proxies and over unix sockets are not counted.",
    )
    max_requests_per_connection: Annotated[int | Literal["unlimited"], Whole(1, 1_000_000_000, ("unlimited",))] = Field(
        default="unlimited",
        description="Requests answered on one connection; the last answer says 'Connection: close'.",
    )
    max_pipelined: Annotated[int, Whole(1, 1024)] = Field(
        default=32, description="Most requests waiting on one connection before it is no longer read."
    )

    trusted_proxies: tuple[Annotated[str, Network()], ...] = Field(
        default=(),
        description="Proxies whose word about the client is taken: addresses, networks such as 10.0.0.0/8, and 'unix' "
        "for whoever connects over a unix socket. The client is then the last hop they name that is not one of them.",
    )
    trusted_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for",
        description="The field that trusted proxies speak through, and the only one looked at: with "
        "'x-forwarded-for' also X-Forwarded-Proto and X-Forwarded-Host. They must set or remove it themselves.",
    )
    forwarded_fields: tuple[Literal["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"], ...] = (
        Field(
            default=("x-forwarded-for", "x-forwarded-proto"),
            description="What backends are told about the client. The lists begin with the client that was decided on, "
            "then come the trusted proxies; what others claim is never sent on.",
        )
    )
    via: Annotated[str, Text(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", "a name such as sluicegate, or 'off'")] = Field(
        default="sluicegate",
        description="What the gateway calls itself in 'Via', which backends and clients are sent behind what earlier "
        "hops said there (RFC 9110 section 7.6.3); 'off' says nothing, for backends that compress nothing for proxies.",
    )


class CacheStore(Section):
    """The response cache that routes with 'cache' share."""

    max_bytes: Annotated[int, Size("0B", "64GiB")] = Field(
        default=64 * 1024 * 1024, description="Memory for cached responses, per worker; 0B turns the cache off."
    )


class AccessLog(Section):
    """One JSON line per request."""

    path: FileName = Field(default="off", description="A file, '-' for standard output, or 'off'.")
    sample: Annotated[float, Ratio()] = Field(
        default=1.0, description="Share of requests that are logged, from 0 to 1; errors are always logged."
    )


class Tracing(Section):
    """OpenTelemetry traces; exported when the OTEL_* environment variables name a collector."""

    sample: Annotated[float, Ratio()] = Field(
        default=0.01, description="Share of requests traced when the caller has not decided, from 0 to 1."
    )


class Drain(Section):
    """How the gateway stops: wait 'delay' while readiness says no, then finish what is in flight."""

    delay: Annotated[float, Duration("0s", "10m")] = Field(
        default=0.0, description="Time between 'not ready' and the end of accepting, for a load balancer to notice."
    )
    timeout: Annotated[float, Duration("0s", "1h")] = Field(
        default=30.0, description="Longest wait for requests in flight; then they are cut off."
    )
    idle: Annotated[float, Duration("0s", "10m")] = Field(
        default=1.0, description="How long an idle keep-alive connection stays open while draining."
    )
