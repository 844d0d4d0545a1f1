"""Which backends of a pool may be picked now: breakers, ejection and health together, and the panic rule.

A backend's verdicts are *hard* or *soft*. Hard is a gate that has seen nothing but failures (`AnyGate.hard`): there is
no capacity, as far as anybody knows. Soft is everything else that speaks against a backend: a failed health check,
ejection as an outlier, a gate that opened by a rate (some of its calls were answered) or that doubts: an opinion about
a backend that may still be better than none. An operator's `open` is beyond discussion: such a backend is not there.

With *available* the weight of the backends that are closed, healthy and not ejected, the rule is:

1. STRICT. Available is at least `panic` of the pool's weight: only what nothing speaks against is picked, which
   includes a gate whose time has come to probe.
2. LENIENT. Less is available: soft verdicts do not count. All but the hard ones are picked, so that what is left is not
   crushed by everybody's load. Gates stay in their state and go on probing beside it.
3. URGED. Every backend is hard: open gates need not wait out their time but 100 ms, and then let `probes` through.

When the first of a pool closes that was URGED, and when enough are closed again for the first rule, what was wrong with
all of them may be over: the others are probed at once, and do not wait out their time while those that came back before
them carry everything.

So neither a wrong opinion nor a wrong threshold can take a pool's last capacity, and traffic is never moved from
backends that work to backends that are known not to. Precedent: Envoy's panic threshold, which knows no hard verdicts
and spreads the load over the dead as well.

The answer is kept until something turns, or the next gate's time has come: picking costs nothing while nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from gateway.breakers.permit import FOREVER, LENIENT, PARTS, STRICT, URGED, AnyGate

NONE, SOME, ALL = 0, 1, 2  # of a pool, how much was lost when it was URGED and is not back


class Member(Protocol):
    """What is read of a backend; `standing` means healthy and not ejected."""

    weight: int

    @property
    def standing(self) -> bool: ...


M = TypeVar("M", bound=Member)


class Usable(Generic[M]):
    """Of one pool (and model) and worker. `gates` stand beside `members`; `panic` is a share from 0 to 1, of `needed`
    or, where that is 0, of the weight of all. (Of groups that stand in for one another each can carry everything.)
    """

    def __init__(self, members: Sequence[M], gates: Sequence[AnyGate], panic: float, needed: int = 0) -> None:
        self._members = tuple(members)
        self._gates = tuple(gates)
        self._panic = int(panic * PARTS)
        self._needed = needed
        self._picks: tuple[M, ...] = ()
        self._until = 0  # until when the picks are right if nothing turns
        self.spare: tuple[M, ...] = ()  # those only a soft verdict speaks against, for when all picks have been tried
        self.level = STRICT
        self._lost = NONE

    def unsettle(self) -> None:
        """Something turned: the next question is looked into."""
        self._until = 0

    def at(self, now: int) -> tuple[M, ...]:
        """Those to pick from; the same object for as long as nothing changes."""
        if now >= self._until:
            self._settle(now)
        return self._picks

    def _settle(self, now: int) -> None:
        fine: list[M] = []
        soft: list[M] = []
        hard: list[int] = []
        opened: list[AnyGate] = []
        total = available = 0
        works = False
        until = FOREVER
        for index, member in enumerate(self._members):
            gate = self._gates[index]
            weight = member.weight
            if not weight or gate.shut:
                continue
            total += weight
            ready = gate.ready(now)
            if not ready:
                until = min(until, gate.ready_from)
                opened.append(gate)
            if ready and member.standing:
                fine.append(member)
                works = works or not gate.hard
                if gate.closed:
                    available += weight
            elif ready or not gate.hard:
                soft.append(member)
            else:
                hard.append(index)
        self.spare = tuple(soft)
        if fine and available * PARTS >= self._panic * (self._needed or total):
            self.level = STRICT
            picks = tuple(fine)
        elif works or soft:
            self.level = LENIENT
            chosen = (*fine, *soft)
            picks = tuple(member for member in self._members if member in chosen)
        else:
            self.level = URGED
            for index in hard:
                gate = self._gates[index]
                gate.lean(URGED)
                if gate.available(now):
                    fine.append(self._members[index])
                elif gate.urged_from > now:
                    until = min(until, gate.urged_from)
            picks = tuple(member for member in self._members if member in fine)
        for gate in self._gates:
            gate.lean(self.level)
        if picks != self._picks:
            self._picks = picks
        self._until = until
        if self.level == URGED:
            self._lost = ALL
        elif self._lost and available:
            back = self._lost == ALL or self.level == STRICT
            self._lost = NONE if self.level == STRICT else SOME
            if back and opened:
                for gate in opened:
                    gate.hint_recovered(now)
                self._until = now

    def __repr__(self) -> str:
        level = ("strict", "lenient", "urged")[self.level]
        return f"<Usable {len(self._picks)} of {len(self._members)}, {level}>"
