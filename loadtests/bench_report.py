"""The figures of `bench_proxy` as a table, and the bars they are held against.

Contract: a ratio is of medians of one run; its spread is the smallest and the largest ratio of the same round (peer
to Envoy), so drift of the machine does not widen it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loadtests.bars import Bar
from loadtests.load.report import aligned
from loadtests.measure import QUIET, Measured, Measurement
from loadtests.peers import PEERS, Peer

REFERENCE = "envoy"
SUBJECT = "sluicegate"


def _proxy(one: Measurement) -> float:
    return one.proxy_us


def _limiting(one: Measurement) -> float:
    return one.limiting_us


# Ours, peer, largest ratio of our worker to it, and what of the peer is counted. Both have the same origin.
BARS: tuple[tuple[str, str, float, Callable[[Measurement], float]], ...] = (
    (SUBJECT, "envoy", 1.0, _proxy),
    (SUBJECT, "nginx+lua+redis", 1.4, _proxy),
    (SUBJECT, "envoy+ratelimit", 0.2, _limiting),
    ("sluicegate@link", "envoy@go", 0.8, _proxy),
    ("sluicegate@link", "nginx+lua+redis@go", 1.1, _proxy),
    ("sluicegate@link", "envoy+ratelimit@go", 0.2, _limiting),
)


def origin_of(peer: str) -> str:
    """What the peer of this name stands in front of: rows are compared with rows in front of the same."""
    return PEERS[peer].origin if peer in PEERS else Peer.origin


def reference_of(peer: str) -> str:
    """The Envoy in front of the same origin."""
    return next(name for name in (REFERENCE, f"{REFERENCE}@go") if origin_of(name) == origin_of(peer))


def as_dict(measured: Sequence[Measured], skipped: dict[str, str], connections: int, seconds: float) -> dict[str, Any]:
    """Everything in plain JSON types."""
    by_name = {(each.peer, each.scenario): each for each in measured if each.rounds}
    return {
        "connections": connections,
        "seconds": seconds,
        "skipped": skipped,
        "peers": [_peer(each, by_name.get((reference_of(each.peer), each.scenario))) for each in by_name.values()],
        "bars": [_bar(by_name, scenario, *bar) for scenario in _scenarios(measured) for bar in BARS],
    }


def _scenarios(measured: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(each.scenario for each in measured))


def _peer(each: Measured, reference: Measured | None) -> dict[str, Any]:
    roles = list(each.rounds[0].cpu_us)
    return {
        "peer": each.peer,
        "scenario": each.scenario,
        "origin": origin_of(each.peer),
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
    subject: str,
    peer: str,
    most: float,
    theirs: Callable[[Measurement], float],
) -> dict[str, Any]:
    bar: dict[str, Any] = {"scenario": scenario, "of": subject, "to": peer, "most": most, "holds": False, "ratio": None}
    mine, other = by_name.get((subject, scenario)), by_name.get((peer, scenario))
    if mine and other:
        bar |= _ratio(mine, other, _proxy, theirs)
        bar["holds"] = bar["ratio"] <= most
    return bar


HEADINGS = ("", "CPU us", "+ service", "least", "to envoy", "(rounds)", "req/s", "p50 ms", "p99 ms", "beside it")


def text(result: dict[str, Any]) -> str:
    """The table, cheapest first, then the bars and who stayed out."""
    lines: list[str] = []
    for scenario, origin in dict.fromkeys((each["scenario"], each["origin"]) for each in result["peers"]):
        rows: list[tuple[str, ...]] = [HEADINGS]
        peers = [each for each in result["peers"] if (each["scenario"], each["origin"]) == (scenario, origin)]
        rows += [_row(each) for each in sorted(peers, key=lambda each: each["with_service_us"])]
        lines.append(
            f"{scenario}: {result['connections']} keep-alive clients, one worker, {result['seconds']:g} s a round, "
            f"origin: {origin}"
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
    claim = f"{bar['scenario']}: {bar['of']} to {bar['to']}"
    return str(Bar(claim, bar["most"], bar["ratio"], bar.get("min", 0.0), bar.get("max", 0.0), "x"))
