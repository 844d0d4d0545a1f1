#!/usr/bin/env python3
"""Writes docs/metrics.md: every metric of the gateway, from `gateway/telemetry/names.py`, with its labels.

.venv/bin/python scripts/metrics_docs.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the sources, and not what is installed

from gateway.app.series import allot  # noqa: E402
from gateway.config.load import load_text  # noqa: E402
from gateway.telemetry import names  # noqa: E402
from gateway.telemetry.cells import Catalogue, Metric  # noqa: E402

PAGE = ROOT / "docs" / "metrics.md"

#: A configuration that has a series of every metric but those that only the supervisor counts.
EVERYTHING = """\
version: 1
limits:
  l: {key: client, rate: 1/s, burst: 1}
  m: {key: client, rate: 1/s, burst: 1, on_store_failure: open}
  n: {key: client, rate: 1/s, burst: 1, on_store_failure: closed}
pools:
  p: {backends: [{url: "http://a:1"}], ejection: {}}
  q: {backends: [{url: "http://b:1"}]}
routes:
  - name: r
    match: {path: /}
    split: [{pool: p, weight: 1}, {pool: q, weight: 1}]
    shadow: {pool: q}
    limits: [l, m, n]
    cache: {}
    degrade: [stale]
"""

HEAD = """# Metrics

Of the gateway, at `/metrics` of its admin listener, in Prometheus' text format, summed over the workers. Made from
`gateway/telemetry/names.py` by `scripts/metrics_docs.py`; a test holds it in step. What to alert on is in
[operations.md](operations.md#what-to-alert-on), go_infer's metrics are in
[its README](../backends/go_infer/README.md#metrics).

A series that has counted nothing yet is left out, but for gauges; `rate()` and `increase()` do not see the step with
which it appears. A gauge whose name ends in `_workers` counts workers. No label ever holds a client's name or a path;
`http_route` is a route's name, empty where no route took the request, and statuses that the gateway itself does not
give share `http_response_status_code="other"`.
"""


def metrics() -> list[Metric]:
    """All that are shown, in the order of their definition."""
    return [each for each in vars(names).values() if isinstance(each, Metric) and each.kind != "shared"]


def labels() -> dict[str, dict[str, list[str]]]:
    """Of each metric: its labels, with the values that do not come from the configuration."""
    catalogue = Catalogue()
    allot(catalogue, load_text(EVERYTHING, ROOT / "x.yaml"), 1)
    catalogue.place(names.RELOADS, (("result", "applied"),))  # the supervisor's own, as app/gateway.py has it
    catalogue.place(names.RELOADS, (("result", "refused"),))
    found: dict[str, dict[str, list[str]]] = {}
    for metric, pairs, _place in catalogue.series():
        of_metric = found.setdefault(metric.name, {})
        for name, value in pairs:
            of_metric.setdefault(name, [])
            if value not in of_metric[name]:
                of_metric[name].append(value)
    return found


#: Labels whose values are names of the configuration, or too many to be listed.
NAMES = {"pool", "backend", "http_route", "limit", "rung", "http_response_status_code"}


def row(metric: Metric, of_metric: dict[str, list[str]]) -> str:
    said = [f"`{name}`" + ("" if name in NAMES else f" ({', '.join(values)})") for name, values in of_metric.items()]
    return f"| `{metric.name}` | {metric.kind} | {', '.join(said)} | {metric.help} |"


def page() -> str:
    """The whole page."""
    of = labels()
    table = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    return HEAD + "\n" + "\n".join([*table, *(row(each, of.get(each.name, {})) for each in metrics())]) + "\n"


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(
            0 if PAGE.exists() and PAGE.read_text() == text else f"{PAGE} is out of step: run scripts/metrics_docs.py"
        )
    PAGE.write_text(text)
