"""``gateway init``: a commented configuration to start from, written where the other verbs look for it."""

import argparse
import sys
from pathlib import Path

from gateway.cli.options import DEFAULT_CONFIG
from gateway.whole import write_whole

STARTER = """\
# Sluicegate configuration. `gateway check` says what is wrong with it, `gateway schema` prints all keys.
# Durations: 500ms 5s 2m 1h. Sizes: 16KiB 1MiB 64KB. Rates: 100/s 6000/m 1000/h.
version: 1

listen: 127.0.0.1:8080            # or unix:/run/gateway.sock, or a list
workers: auto                     # one per core

admin:
  listen: 127.0.0.1:9090          # probes, metrics, status; off loopback it needs token_file

store:
  url: embedded                   # a private Valkey; several gateways share redis://host:6379/0

limits:
  per-client:                     # a bucket for each API key, or IP address if there is none
    key: client
    rate: 100/s
    burst: 200

pools:
  models:
    backends:
      - {url: "http://127.0.0.1:8501", weight: 1}
    health: {path: /readyz}       # go_infer's; TensorFlow Serving: /v1/models/NAME, Triton: /v2/health/ready
    breaker: {failures: 5, open_for: 5s}

routes:
  - name: models
    match: {path: "/v1/models/*"} # a final '*' makes it a prefix; the first route that matches wins
    pool: models
    limits: [per-client]
    timeout: 2s
    retry: {attempts: 2, on: [connect]}
    cache: {stale_if_error: 10m}
    degrade: [stale]              # what to answer when the pool cannot; after the last rung, 503
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, default=Path(DEFAULT_CONFIG), help=f"default: {DEFAULT_CONFIG}"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    path: Path = args.file
    if path.exists() and not args.force:
        print(f"gateway init: '{path}' exists; --force replaces it", file=sys.stderr)
        return 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, STARTER)
    except OSError as error:
        print(f"gateway init: '{path}' cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {path}; edit it, then: gateway check -c {path}")
    return 0
