"""The figures of `bench_proxy` as a table, and the bars they are held against.

Contract: a ratio is of medians of one run; its spread is the smallest and the largest ratio of the same round (peer
to Envoy), so drift of the machine does not widen it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loadtests.load.report import aligned
from loadtests.measure import QUIET, Measured, Measurement

REFERENCE = "envoy"
SUBJECT = "sluicegate"


def _proxy(one: Measurement) -> float:
    return one.proxy_us


def _limiting(one: Measurement) -> float:
    return one.limiting_us


# Peer, largest ratio of the gateway's worker to it, and what of the peer is counted.
BARS: tuple[tuple[str, float, Callable[[Measurement], float]], ...] = (
    ("envoy", 1.3, _proxy),
    ("envoy+ratelimit", 0.3, _limiting),
)


def as_dict(measured: Sequence[Measured], skipped: dict[str, str], connections: int, seconds: float) -> dict[str, Any]:
    """Everything in plain JSON types."""
    by_name = {(each.peer, each.scenario): each for each in measured if each.rounds}
    return {
        "connections": connections,
        "seconds": seconds,
        "skipped": skipped,
        "peers": [_peer(each, by_name.get((REFERENCE, each.scenario))) for each in by_name.values()],
        "bars": [_bar(by_name, scenario, *bar) for scenario in _scenarios(measured) for bar in BARS],
    }


def _scenarios(measured: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(each.scenario for each in measured))


def _peer(each: Measured, reference: Measured | None) -> dict[str, Any]:
    roles = list(each.rounds[0].cpu_us)
    return {
        "peer": each.peer,
        "scenario": each.scenario,
        "cpu_us": {role: each.median(lambda one, role=role: one.cpu_us[role]) for role in roles},  # type: ignore[misc]
        "with_service_us": each.median(_limiting),
        "with_service_us_rounds": [one.limiting_us for one in each.rounds],
        "requests_per_second": each.median(lambda one: one.requests_per_second),
        "store_commands_per_request": each.median(lambda one: one.store_commands),
        "others_busy_cores": each.median(lambda one: one.others),
        "p50_us": each.median(lambda one: one.p50_us),
        "p99_us": each.median(lambda one: one.p99_us),
        "to_envoy": _ratio(each, reference, _limiting, _limiting) if reference else None,
    }


def _ratio(
    one: Measured, other: Measured, mine: Callable[[Measurement], float], theirs: Callable[[Measurement], float]
) -> dict[str, float]:
    each = [mine(a) / theirs(b) for a, b in zip(one.rounds, other.rounds, strict=True)]
    return {"ratio": one.median(mine) / other.median(theirs), "min": min(each), "max": max(each)}


def _bar(
    by_name: dict[tuple[str, str], Measured],
    scenario: str,
    peer: str,
    most: float,
    theirs: Callable[[Measurement], float],
) -> dict[str, Any]:
    bar: dict[str, Any] = {"scenario": scenario, "to": peer, "most": most, "holds": False, "ratio": None}
    mine, other = by_name.get((SUBJECT, scenario)), by_name.get((peer, scenario))
    if mine and other:
        bar |= _ratio(mine, other, _proxy, theirs)
        bar["holds"] = bar["ratio"] <= most
    return bar


HEADINGS = ("", "CPU us", "+ service", "least", "to envoy", "(rounds)", "req/s", "p50 ms", "p99 ms", "beside it")


def text(result: dict[str, Any]) -> str:
    """The table, cheapest first, then the bars and who stayed out."""
    lines: list[str] = []
    for scenario in dict.fromkeys(each["scenario"] for each in result["peers"]):
        rows: list[tuple[str, ...]] = [HEADINGS]
        peers = [each for each in result["peers"] if each["scenario"] == scenario]
        rows += [_row(each) for each in sorted(peers, key=lambda each: each["with_service_us"])]
        lines.append(
            f"{scenario}: {result['connections']} keep-alive clients, one worker, {result['seconds']:g} s a round"
        )
        lines += aligned(rows, left=(0, len(HEADINGS) - 1))
        lines.append("")
    others = max((each["others_busy_cores"] for each in result["peers"]), default=0.0)
    if others > QUIET:
        lines.append(
            f"warning: up to {others:.1f} cores were busy with something else: run it again on a quiet machine"
        )
    lines += [_verdict(bar) for bar in result["bars"]]
    lines += [f"not measured: {name}: {reason.splitlines()[0]}" for name, reason in result["skipped"].items()]
    return "\n".join(lines)


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    ratio = each["to_envoy"]
    beside = [f"{role} {value:.1f} us" for role, value in each["cpu_us"].items() if role != "proxy"]
    if each["store_commands_per_request"] >= 0.001:
        beside.append(f"{each['store_commands_per_request']:.2f} commands a request")
    return (
        each["peer"],
        f"{each['cpu_us']['proxy']:.1f}",
        f"{each['with_service_us']:.1f}",
        f"{min(each['with_service_us_rounds']):.1f}",
        f"{ratio['ratio']:.2f}" if ratio else "-",
        f"{ratio['min']:.2f}-{ratio['max']:.2f}" if ratio else "-",
        f"{each['requests_per_second']:.0f}",
        f"{each['p50_us'] / 1e3:.2f}",
        f"{each['p99_us'] / 1e3:.2f}",
        ", ".join(beside),
    )


def _verdict(bar: dict[str, Any]) -> str:
    claim = f"{SUBJECT} <= {bar['most']:g}x {bar['to']} ({bar['scenario']})"
    if bar["ratio"] is None:
        return f"bar not measured: {claim}"
    verdict = "holds" if bar["holds"] else "MISSED"
    return f"bar {verdict}: {claim}: {bar['ratio']:.2f} ({bar['min']:.2f}-{bar['max']:.2f})"
