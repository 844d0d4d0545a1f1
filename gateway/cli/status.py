"""`gateway status`: what a running gateway is doing, on one screen."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from gateway.cli.options import add_config, add_format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    from gateway.cli.admin_client import Unreachable, call
    from gateway.cli.loaded import loaded

    config = loaded(args)
    if config is None:
        return 1
    try:
        _, body = call(config, "GET", "/status", timeout=5.0, known_by="workers")
    except Unreachable as error:
        print(f"gateway status: {error}", file=sys.stderr)
        return 1
    print(json.dumps(body, indent=2) if args.format == "json" else "\n".join(_screen(body)))
    return 1 if body["not_ready"] else 0


def _screen(status: dict[str, Any]) -> list[str]:
    ready = "ready" if not status["not_ready"] else "NOT READY: " + "; ".join(status["not_ready"])
    lines = [
        f"{ready}  generation {status['generation']}  up {status['uptime_s']:.0f} s  on {', '.join(status['listen'])}",
        f"config {status['config']}",
    ]
    reload = status["last_reload"]
    if reload is not None and not reload["applied"]:
        lines.append(f"last reload refused: {reload['error'].splitlines()[0]}")
    for worker in status["workers"]:
        about = f"worker {worker['worker']}  pid {worker['pid']}  {worker['state']}"
        if worker["state"] == "running":
            about += (
                f"  {worker['active_requests']} requests, {worker['connections']} connections"
                f"  limits {worker['store']}  cache {worker['cache']['entries']} answers"
            )
        lines.append(about)
    return lines + _backends(status["workers"])


def _backends(workers: list[dict[str, Any]]) -> list[str]:
    """One line per backend over all workers; a breaker is shown as the workers' states when they differ."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for worker in workers:
        for backend in worker.get("backends", ()):
            rows.setdefault((backend["pool"], backend["name"]), []).append(backend)
    lines = []
    for (pool, name), seen in rows.items():
        states = sorted({each["breaker"] for each in seen})
        health = "healthy" if all(each["healthy"] for each in seen) else "OUT"
        forced = next((f", FORCED {each['forced']}" for each in seen if each["forced"]), "")
        ejected = ", EJECTED" if any(each["ejected"] for each in seen) else ""
        inflight, trips = sum(each["inflight"] for each in seen), sum(each["trips"] for each in seen)
        lines.append(
            f"  {pool:<16} {name:<22} weight {seen[0]['weight']:<4} {health:<8} breaker {'/'.join(states):<10}"
            f" {inflight} in flight, {trips} trips{forced}{ejected}"
        )
    return lines
