"""Compiles the request path with mypyc; everything else about the package is said in pyproject.toml.

The sources stay plain Python and run as they are; compiled they cost about a fifth less CPU per request
(docs/adr/0006-compiled-request-path.md). SLUICEGATE_COMPILE=0 builds without, =1 fails where compiling fails;
unset, a machine without a C compiler gets plain Python.
"""

import os

from setuptools import Extension, setup

HOT = (
    "admission/adaptive", "admission/admission", "admission/blocks", "admission/limit", "admission/noise",
    "admission/onset", "admission/overload", "admission/places", "admission/priority", "admission/queue",
    "admission/refusals", "admission/search", "balance/draw", "balance/groups", "balance/hashing", "balance/latency",
    "balance/least_request", "balance/load", "balance/maglev", "balance/peak_ewma", "balance/policy", "balance/prequal",
    "balance/random", "balance/ring_hash", "balance/weighted_round_robin", "breakers/eras", "breakers/gate",
    "breakers/hearing", "breakers/models", "breakers/open_time", "breakers/permit", "breakers/rates", "breakers/usable",
    "breakers/window", "fallback", "http/client", "http/fields", "http/forwarded", "http/origin", "http/other_protocol",
    "http/reader", "http/response_reader", "http/response_writer", "http/serialise", "http/server",
    "http/server_connection", "http/target", "http/upstream", "identity/keys", "limits/bucket", "limits/costs",
    "limits/held", "limits/leases", "limits/leasing", "limits/limiter", "limits/local", "limits/memory",
    "limits/policy", "limits/scopes", "limits/verdict", "link/connection", "link/decoder", "link/encoder",
    "link/exchange", "link/frames", "link/pool", "link/pulse", "link/request_encoder", "link/upgrade", "link/uploads",
    "notes", "pipeline", "promise", "replies", "request", "retries/budget", "retries/deadline", "retries/decide",
    "retries/hedge", "retries/latencies", "retries/rules", "routing/table", "snapshot", "store/buckets",
    "store/cluster_buckets", "store/connection", "store/program", "telemetry/cells", "upstreams/asking",
    "upstreams/attempt", "upstreams/backend", "upstreams/caller", "upstreams/entrance", "upstreams/forward",
    "upstreams/pool", "upstreams/race",
)  # fmt: skip

# Functions that only this library calls: without the detour by which another could replace them, and inlined.
LOCAL = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]


def extensions() -> list[Extension]:
    wish = os.environ.get("SLUICEGATE_COMPILE", "")
    if wish == "0":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - not needed, and perhaps not there, for a plain build

    made: list[Extension] = mypycify(
        ["--config-file", "pyproject.toml", *(f"gateway/{name}.py" for name in HOT)],
        opt_level="3",
        debug_level="0",
        target_dir="build/mypyc",
    )
    for extension in made:
        extension.optional = wish != "1"
        if os.name == "posix":
            extension.extra_compile_args += LOCAL
    return made


setup(ext_modules=extensions(), options={"build": {"build_base": "build/package"}})
