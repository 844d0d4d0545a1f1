"""Every metric the gateway has. HTTP durations follow OpenTelemetry's semantic conventions in Prometheus spelling.

No label ever holds a client's name or a raw path: cardinality is bounded by the configuration.
"""

from __future__ import annotations

from typing import Final

from gateway.telemetry.cells import Metric

SERVER_DURATION: Final = Metric(
    "http_server_request_duration_seconds",
    "histogram",
    "Time from a request's last byte to its answer, by route and status.",
)
CLIENT_DURATION: Final = Metric(
    "http_client_request_duration_seconds", "histogram", "Time of one attempt at a backend, whatever its outcome."
)
ACTIVE_REQUESTS: Final = Metric("http_server_active_requests", "gauge", "Requests being handled now.")
CONNECTIONS: Final = Metric("gateway_client_connections", "gauge", "Open client connections.")
REFUSED_CONNECTIONS: Final = Metric(
    "gateway_refused_connections_total", "counter", "Client connections over the limit."
)
REFUSED_PER_ADDRESS: Final = Metric(
    "gateway_refused_connections_per_address_total",
    "counter",
    "Client connections refused because their address had too many; also counted as refused.",
)
HANDSHAKE_FAILURES: Final = Metric(
    "gateway_tls_handshake_failures_total", "counter", "Client connections that did not get through the TLS handshake."
)
PROXY_ERRORS: Final = Metric(
    "gateway_proxy_protocol_errors_total",
    "counter",
    "Connections closed because their PROXY header was missing, malformed, late or not from a trusted proxy.",
)
REQUEST_LIMITS: Final = Metric(
    "gateway_connections_at_request_limit_total", "counter", "Connections closed after their last allowed request."
)
PROTOCOL_ERRORS: Final = Metric("gateway_protocol_errors_total", "counter", "Requests that were not acceptable HTTP.")
CLIENT_GONE: Final = Metric("gateway_client_gone_total", "counter", "Requests whose client left before the answer.")
LIMIT_DECISIONS: Final = Metric(
    "gateway_limit_decisions_total",
    "counter",
    "Limit decisions by limit, result and who decided: the store (shared), a lease (leased), or without the store "
    "this worker alone (local) or nobody (open, closed). A limit in shadow counts here as refused what it would have "
    "refused.",
)
LIMIT_TOO_LARGE: Final = Metric(
    "gateway_limit_too_large_total",
    "counter",
    "Requests refused for good because they cost more than the limit's burst; they count as refused, too.",
)
DEGRADED: Final = Metric(
    "gateway_degraded_responses_total", "counter", "Answers served from a rung of the degrade ladder."
)
CACHE_HITS: Final = Metric("gateway_cache_hits_total", "counter", "Answers served fresh from the cache.")
CACHE_BYTES: Final = Metric("gateway_cache_bytes", "gauge", "Memory held by cached answers.")
RETRIES: Final = Metric("gateway_retries_total", "counter", "Tries after a request's first, by what went wrong before.")
RETRIES_DENIED: Final = Metric(
    "gateway_retries_denied_total", "counter", "Retries not made because the pool's budget was spent."
)
RETRIES_WAITING: Final = Metric("gateway_retries_waiting", "gauge", "Retries of a pool that wait in a back-off.")
HEDGES: Final = Metric(
    "gateway_hedges_total",
    "counter",
    "Second attempts beside one that was late: sent, of these won and cancelled; denied by the pool's budget.",
)
WASTED: Final = Metric(
    "gateway_wasted_attempts_total", "counter", "Attempts whose answer went to nobody, of requests that had several."
)
EXPIRED: Final = Metric(
    "gateway_expired_requests_total", "counter", "Requests refused because no time was left before anybody was asked."
)
SPLIT: Final = Metric("gateway_split_requests_total", "counter", "Requests of a split route by the pool they came to.")
SHADOWS: Final = Metric(
    "gateway_shadow_requests_total", "counter", "Shadow copies by result: a class of statuses, failed or dropped."
)
SHADOW_DURATION: Final = Metric(
    "gateway_shadow_duration_seconds", "histogram", "Time of one shadow copy, whatever its result."
)
SHED: Final = Metric(
    "gateway_shed_total",
    "counter",
    "Requests that got no place in their pool: over max_inflight, or refused by admission.",
)
ADMISSION_PLACES: Final = Metric("gateway_admission_places", "shared", "Who has which of a pool's places.")
ADMISSION_LIMIT: Final = Metric(
    "gateway_admission_limit", "gauge", "Requests that the pool may have in flight: learnt, or as configured."
)
ADMISSION_INFLIGHT: Final = Metric("gateway_admission_inflight", "gauge", "Requests that have a place in the pool.")
ADMISSION_QUEUED: Final = Metric("gateway_admission_queued", "gauge", "Requests that wait for one, by priority.")
ADMISSION_OVERLOADED: Final = Metric(
    "gateway_admission_overloaded_workers", "gauge", "Workers that hold the priority to be in standing overload."
)
ADMISSION_REFUSED: Final = Metric(
    "gateway_admission_refused_total", "counter", "Requests refused: queue full, too late to be answered, or overload."
)
ADMISSION_RATE: Final = Metric(
    "gateway_admission_rate", "gauge", "Answers per second while every place is taken, as learnt.", 1000.0
)
ADMISSION_LATENCY: Final = Metric(
    "gateway_admission_latency_seconds", "gauge", "Usual time to an answer as learnt; the sum over the workers.", 1e9
)
ATTEMPTS: Final = Metric("gateway_backend_attempts_total", "counter", "Attempts at a backend by outcome.")
BACKEND_INFLIGHT: Final = Metric("gateway_backend_inflight", "gauge", "Attempts under way at a backend.")
BACKEND_HEALTHY: Final = Metric("gateway_backend_healthy_workers", "gauge", "Workers that hold the backend healthy.")
BREAKER_WORKERS: Final = Metric(
    "gateway_breaker_workers", "gauge", "Workers whose breaker for the backend is in this state."
)
BREAKER_TRIPS: Final = Metric(
    "gateway_breaker_trips_total", "counter", "Times a breaker opened, by reason; those of models included."
)
BREAKER_DOUBTS: Final = Metric(
    "gateway_breaker_doubts_total", "counter", "Times a closed breaker let only probes through for a moment, by reason."
)
BREAKER_FORCED: Final = Metric(
    "gateway_breaker_forced_workers", "gauge", "Workers whose breaker an operator holds in this state."
)
BREAKER_WINDOW: Final = Metric(
    "gateway_breaker_window", "gauge", "Calls, failures and slow calls in the windows of the breakers now."
)
BREAKER_MODELS: Final = Metric(
    "gateway_breaker_models_not_closed", "gauge", "Breakers of single models that are open or half-open."
)
BREAKER_HINTS_TOLD: Final = Metric(
    "gateway_breaker_hints_told_total", "counter", "Trips told to the other workers and gateways."
)
BREAKER_HINTS_HEEDED: Final = Metric(
    "gateway_breaker_hints_heeded_total", "counter", "Trips of others that were heard and looked into."
)
BREAKER_HINTS_IGNORED: Final = Metric(
    "gateway_breaker_hints_ignored_total", "counter", "Hints heard that came too often or meant nothing here."
)
PANIC: Final = Metric(
    "gateway_pool_panic_workers", "gauge", "Workers that use backends something speaks against: too few are left."
)
EJECTED: Final = Metric("gateway_backend_ejected", "gauge", "1 while the backend is ejected as an outlier.")
EJECTIONS: Final = Metric("gateway_backend_ejections_total", "counter", "Times a backend was ejected, by reason.")
FLEET_WORKERS: Final = Metric(
    "gateway_fleet_workers", "gauge", "Live workers of all gateways that share the store, as this one last heard."
)
FLEET_DROPPED: Final = Metric(
    "gateway_fleet_dropped_total", "counter", "Messages to other workers dropped because the store was away or behind."
)
LEASED_KEYS: Final = Metric("gateway_leased_keys", "gauge", "Keys of which workers hold tokens in advance.")
HELD_PLACES: Final = Metric("gateway_held_places", "gauge", "Requests that hold a place of a concurrency limit.")
ADJUSTMENTS: Final = Metric(
    "gateway_limit_adjustments_total", "counter", "Costs given back or charged after the decision."
)
LATE_REFUNDED: Final = Metric(
    "gateway_limit_late_refunded_tokens_total",
    "counter",
    "Tokens the store took too late, for nothing, and was given back.",
)
LATE_OWED: Final = Metric(
    "gateway_limit_late_owed_tokens_total",
    "counter",
    "Tokens spent while the store was late, which it would not have given.",
)
COSTS_MISREAD: Final = Metric(
    "gateway_limit_costs_misread_total", "counter", "Answers whose cost header held no cost; the reserve stayed."
)
STORE_UP: Final = Metric("gateway_store_up_workers", "gauge", "Workers whose limits are shared through the store.")
STORE_CALLS: Final = Metric(
    "gateway_store_calls_total", "counter", "Script calls to the store; one carries many decisions."
)
STORE_LATE: Final = Metric(
    "gateway_store_late_total",
    "counter",
    "Times the store was late, kept and soon asked again: it or its host was busy.",
)
STORE_FAILURES: Final = Metric("gateway_store_failures_total", "counter", "Store calls or connections that failed.")
LOG_DROPPED: Final = Metric(
    "gateway_access_log_dropped_total", "counter", "Access log lines dropped because the disk was slow or full."
)
STATE_FAILURES: Final = Metric(
    "gateway_state_file_failures_total", "counter", "Times that admin.state_file could not be written."
)
SPANS_DROPPED: Final = Metric(
    "gateway_trace_spans_dropped_total", "counter", "Spans dropped because too many waited to be handed on."
)
GENERATION: Final = Metric("gateway_config_generation", "gauge", "Generation of the configuration in force.")
RELOADS: Final = Metric("gateway_config_reloads_total", "counter", "Reloads by result.")
WORKERS: Final = Metric("gateway_workers", "gauge", "Live workers.")
WORKER_RESTARTS: Final = Metric("gateway_worker_restarts_total", "counter", "Workers that died and were replaced.")
