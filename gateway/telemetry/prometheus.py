"""Prometheus text exposition format 0.0.4 from integer cells."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.telemetry.cells import NANOSECONDS, SECONDS, Catalogue, Labels, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}" if labels else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def render(catalogue: Catalogue, blocks: Sequence[memoryview]) -> str:
    """All series, summed over the workers' blocks. Series nobody touched are left out, but for gauges."""
    groups: dict[Metric, list[tuple[Labels, list[int]]]] = {}
    for metric, labels, place in catalogue.series():
        if metric.kind == "shared":
            continue
        end = place + metric.width
        untouched = bytes(8 * metric.width)  # most are, where there are thousands of routes
        if metric.kind == "gauge" or any(block[place:end].tobytes() != untouched for block in blocks):
            values = [sum(block[cell] for block in blocks) for cell in range(place, end)]
            groups.setdefault(metric, []).append((labels, values))
    lines: list[str] = []
    for metric, series in groups.items():
        lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}")
        for labels, values in series:
            lines += (
                _histogram(metric, labels, values)
                if metric.kind == "histogram"
                else [f"{metric.name}{_labels(labels)} {_number(values[0] / metric.scale)}"]
            )
    return "\n".join(lines) + "\n"


def _histogram(metric: Metric, labels: Labels, values: list[int]) -> list[str]:
    lines = []
    total = 0
    for bound, count in zip((*SECONDS, "+Inf"), values[: len(NANOSECONDS) + 1], strict=True):
        total += count
        lines.append(f"{metric.name}_bucket{_labels((*labels, ('le', str(bound))))} {total}")
    lines.append(f"{metric.name}_sum{_labels(labels)} {values[-1] / 1e9!r}")
    lines.append(f"{metric.name}_count{_labels(labels)} {total}")
    return lines
