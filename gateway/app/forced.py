"""What an operator says of breakers, kept by the supervisor: it outlasts reloads and the workers, and with
`admin.state_file` the gateway (`kept.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from gateway.app.compile import backend_address
from gateway.breakers.gate import FOREVER
from gateway.config.model import Config
from gateway.upstreams.registry import backend_key
from gateway.workers.control import Forced

STATES = ("open", "closed", "auto")


class ForcedBreakers:
    """By backend key. `now` is monotonic nanoseconds. `forced` is what was said before the gateway started."""

    def __init__(self, forced: Mapping[str, Forced] | None = None) -> None:
        self._forced: dict[str, Forced] = dict(forced or {})

    def set(self, config: Config, pool: str, backend: str, state: str, seconds: float | None, now: int) -> str:
        """Takes the operator's word; returns what is wrong with it, or nothing."""
        if pool not in config.pools:
            return _unknown("pool", pool, list(config.pools))
        known = {each.name: each for each in config.pools[pool].backends}
        if backend not in known:
            return _unknown(f"backend of '{pool}'", backend, list(known))
        if state not in STATES:
            return f"the state must be open, closed or auto, not '{state}'"
        if seconds is not None and (state == "auto" or not 0 < seconds <= 365 * 86_400):
            return "a time goes with open and closed, and is above 0 s and at most a year"
        key = backend_key(pool, backend_address(known[backend]))
        if state == "auto":
            self._forced.pop(key, None)
        else:
            self._forced[key] = (state, FOREVER if seconds is None else now + int(seconds * 1e9))
        return ""

    def use(self, config: Config) -> None:
        """Forgets backends that the configuration does not have."""
        keys = {
            backend_key(name, backend_address(each)) for name, pool in config.pools.items() for each in pool.backends
        }
        self._forced = {key: forced for key, forced in self._forced.items() if key in keys}

    def at(self, now: int) -> dict[str, Forced]:
        """All that are in force."""
        self._forced = {key: forced for key, forced in self._forced.items() if now < forced[1]}
        return dict(self._forced)

    def left(self, now: int) -> dict[str, float | None]:
        """Seconds for which each is still in force; None is for ever."""
        return {key: None if until >= FOREVER else (until - now) / 1e9 for key, (_, until) in self.at(now).items()}


def over_workers(pool: str, backend: str, seen: list[dict[str, Any]], seconds: float | None) -> dict[str, Any]:
    """One backend's breaker from what each worker says of it."""
    states = [each["breaker"] for each in seen]
    forced = next((each["forced"] for each in seen if each["forced"]), None)
    return {
        "pool": pool,
        "backend": backend,
        "states": {state: states.count(state) for state in sorted(set(states))},
        "forced": forced,
        "forced_for_s": round(seconds, 1) if forced and seconds is not None else None,
        "ejected": any(each["ejected"] for each in seen),
        "trips": sum(each["trips"] for each in seen),
        "tripped": _added(each["tripped"] for each in seen),
        "doubted": _added(each["doubted"] for each in seen),
        "window": _added(each["window"] for each in seen),
        "models": _added(_not_closed(each.get("models", {})) for each in seen),
    }


def _not_closed(models: dict[str, Any]) -> dict[str, int]:
    return {model: 1 for model, about in models.get("troubled", {}).items() if about["breaker"] != "closed"}


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"there is no {what} named '{name}'; " + (
        f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    )
