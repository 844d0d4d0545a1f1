"""The configuration as the rest of the gateway sees it: frozen, typed, numbers in seconds, bytes and events per second.

Contract: a ``Config`` from :func:`gateway.config.load.load` is complete. Every name it mentions exists, every file it
mentions has been read, and it pickles whole into worker processes. A ``Config`` made directly in Python (tests) is
checked field by field only. The JSON schema and the reference page are generated from the descriptions here and in
``sections/``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator

from gateway.config.addresses import Listen, Origin, StoreUrl
from gateway.config.provenance import Provenance
from gateway.config.scalars import Whole
from gateway.config.sections.admission import Admission, Priority
from gateway.config.sections.balance import Balance, HashKey, Session
from gateway.config.sections.base import ZONE, Name, Section
from gateway.config.sections.limits import Cost, Limit, Override, Prefix, Scope
from gateway.config.sections.listeners import Listener, OneListener
from gateway.config.sections.matching import Match, ValueTest
from gateway.config.sections.policies import ApiKeys, Identity
from gateway.config.sections.pools import Backend, Breaker, Connections, Ejection, Health, Pool
from gateway.config.sections.process import AccessLog, Admin, CacheStore, Drain, Http, Store, Tracing
from gateway.config.sections.retrying import Hedge, Retry, RetryBudget
from gateway.config.sections.routes import PoolRung, Route, RouteCache, Rung, StaleRung, StaticRung
from gateway.config.sections.tls import BackendTls, Tls
from gateway.config.sections.traffic import (
    Redirect,
    RequestEdits,
    Respond,
    ResponseEdits,
    Rewrite,
    Shadow,
    Side,
    Sticky,
)

__all__ = [
    "AccessLog",
    "Admin",
    "Admission",
    "ApiKeys",
    "Backend",
    "BackendTls",
    "Balance",
    "Breaker",
    "CacheStore",
    "Config",
    "Connections",
    "Cost",
    "Drain",
    "Ejection",
    "HashKey",
    "Health",
    "Hedge",
    "Http",
    "Identity",
    "Limit",
    "Listen",
    "Listener",
    "Match",
    "Origin",
    "Override",
    "Pool",
    "PoolRung",
    "Prefix",
    "Priority",
    "Redirect",
    "RequestEdits",
    "Respond",
    "ResponseEdits",
    "Retry",
    "RetryBudget",
    "Rewrite",
    "Route",
    "RouteCache",
    "Rung",
    "Scope",
    "Session",
    "Shadow",
    "Side",
    "StaleRung",
    "StaticRung",
    "Sticky",
    "Store",
    "StoreUrl",
    "Tls",
    "Tracing",
    "ValueTest",
]


def _or_one(schema: dict[str, Any]) -> None:
    """One listener may stand without its list."""
    schema["anyOf"] = [schema["items"], {name: schema.pop(name) for name in ("type", "items", "minItems")}]
    schema["default"] = "127.0.0.1:8080"


class Config(Section):
    """The gateway's whole configuration."""

    version: Literal[1] = Field(description="Version of this file format; 1 is the only one.", examples=[1])
    listen: tuple[OneListener, ...] = Field(
        default=(Listener.model_construct(_fields_set={"address"}, address=Listen("127.0.0.1", 8080)),),
        min_length=1,
        description="Where clients connect: host:port, [ipv6]:port or unix:/path, or a mapping with more; one or a "
        "list. Port 0 takes a free port.",
        json_schema_extra=_or_one,
    )
    workers: Annotated[int | Literal["auto"], Whole(1, 256, ("auto",))] = Field(
        default="auto", description="Worker processes; 'auto' is one per core."
    )
    zone: Annotated[str, ZONE] | None = Field(
        default=None, description="Where this gateway stands: backends in the same zone are preferred."
    )
    admin: Admin = Field(default=Admin.model_construct(), description="The operator's listener.")
    store: Store = Field(default=Store.model_construct(), description="Shared state of all workers and gateways.")
    http: Http = Field(default=Http.model_construct(), description="Limits and timeouts of the front door.")
    identity: Identity = Field(default=Identity.model_construct(), description="How a request is tied to a client.")
    limits: Mapping[Name, Limit] = Field(default={}, description="Rate limits by name; routes refer to them.")
    pools: Mapping[Name, Pool] = Field(
        min_length=1, description="Pools of backends by name.", examples=["{digits: {backends: [{url: ...}]}}"]
    )
    routes: tuple[Route, ...] = Field(
        min_length=1,
        description="Routes; the first that matches wins.",
        examples=["[{name: ..., match: ..., pool: ...}]"],
    )
    priority: Priority = Field(
        default=Priority.model_construct(), description="How a request may say how urgent it is."
    )
    cache: CacheStore = Field(default=CacheStore.model_construct(), description="The response cache all routes share.")
    access_log: AccessLog = Field(default=AccessLog.model_construct(), description="One JSON line per request.")
    tracing: Tracing = Field(default=Tracing.model_construct(), description="OpenTelemetry traces.")
    drain: Drain = Field(default=Drain.model_construct(), description="How the gateway stops.")

    _provenance: Provenance = PrivateAttr(default_factory=Provenance)

    @field_validator("listen", mode="before")
    @classmethod
    def _one_or_list(cls, value: object) -> object:
        return [value] if isinstance(value, (str, Mapping, Listen, Listener)) else value

    def placed(self, provenance: Provenance) -> Self:
        """The same configuration, which now knows where it came from. For the loader alone."""
        self._provenance = provenance
        return self

    @property
    def provenance(self) -> Provenance:
        """Where the configuration was read from; empty after pickling and for a model made in Python."""
        return self._provenance
