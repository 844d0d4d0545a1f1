"""A store that answers as it is told, and notes what it is asked."""

from __future__ import annotations

import asyncio

from gateway.limits.bucket import Taken
from gateway.promise import Promise


class FakeStore:
    """`reply`: one `Taken` for every limit, a list of them, or None: the store is away. `hold`: an event to wait for.

    With `manual` set nobody is answered before `answer`.
    """

    def __init__(self, reply=None):
        self.reply = reply
        self.hold = None
        self.manual = False
        self.asked, self.adjusted, self.released, self.renewed, self.leased, self.hinted = [], [], [], [], [], []
        self.forgotten = []
        self._tasks = set()

    def take(self, verdict):
        if self.reply is None:
            return False
        self.asked.append(verdict)
        verdict.pending = Promise(asyncio.get_running_loop())
        if not self.manual:
            task = asyncio.ensure_future(self._later(verdict))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    async def _later(self, verdict):
        if self.hold is not None:
            await self.hold.wait()
        self.answer(verdict)

    def answer(self, verdict, reply=None):
        reply = reply or self.reply
        if reply == "late":
            verdict.lost()
        else:
            taken = [reply] * len(verdict.keys) if isinstance(reply, Taken) else reply
            verdict.told([one.tokens for one in taken], b"".join(b"1" if one.allowed else b"0" for one in taken))
        verdict.pending.keep(None)

    def adjust(self, key, spec, tokens):
        if self.reply is None:
            return False
        self.adjusted.append((key, tokens))
        return True

    def release(self, key, member):
        self.released.append((key, member))

    def forget(self, key, worker):
        self.forgotten.append((key, worker))

    def renew(self, key, member, life_ns):
        self.renewed.append((key, member, life_ns))

    def lease(self, lease, want, to):
        self.leased.append((lease, want, to))
        return self.reply is not None

    def hint(self, key, spec, level):
        self.hinted.append((key, level))
