"""What others do, after their sources and with their defaults, reduced to the rule: limits to hold ours against.

They refuse at once what is over the limit, as they are used; none has a queue.
"""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.limit import Limit
from gateway.request import Outcome
from loadtests.admission.sim import MS, S

MOST = 1024
FIRST = 20


class Rival(Limit):
    """One rule: `sample` is called for each answer, `lost` for each request that was refused or gave up."""

    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(FIRST)
        self.exact = float(FIRST)
        self.inflight = 0

    def sent(self, inflight: int, now: int) -> int:
        del now
        self.inflight = inflight
        return inflight

    def done(self, mark: int, took: int, outcome: Outcome, now: int) -> None:
        if outcome is Outcome.SUCCESS:
            self.sample(took, mark, now)
        else:
            self.lost()
        self.exact = min(float(MOST), max(1.0, self.exact))
        self.allowed = int(self.exact)

    def sample(self, took: int, inflight: int, now: int) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        self.exact *= 0.9

    @classmethod
    def worker(cls) -> Admission:
        admission = Admission(AdmissionSettings(FIRST, MOST, 0, 0))
        admission.limit = cls()
        return admission


class Aimd(Rival):
    """Netflix's AIMDLimit, with the clients' patience as its timeout."""

    name: ClassVar[str] = "AIMD"

    def sample(self, took: int, inflight: int, now: int) -> None:
        del now
        if took > 500 * MS:
            self.lost()
        elif inflight * 2 >= self.exact:
            self.exact += 1


class Vegas(Rival):
    """Netflix's VegasLimit: the queue by the least latency, which is forgotten from time to time."""

    name: ClassVar[str] = "Vegas"

    def __init__(self) -> None:
        super().__init__()
        self._least = 0
        self._probes = 0

    def sample(self, took: int, inflight: int, now: int) -> None:
        del now
        self._probes += 1
        if not self._least or took < self._least or self._probes > 30 * self.exact:
            self._least, self._probes = took, 0
            return
        if inflight * 2 < self.exact:
            return
        log = max(1.0, math.log10(self.exact))
        queue = math.ceil(self.exact * (1 - self._least / took))
        if queue <= log:
            self.exact += 6 * log
        elif queue < 3 * log:
            self.exact += log
        elif queue > 6 * log:
            self.exact -= log


class Gradient2(Rival):
    """Netflix's Gradient2Limit: latency against its own long average, and room for a queue of 4."""

    name: ClassVar[str] = "gradient2"

    def __init__(self) -> None:
        super().__init__()
        self._long = 0.0

    def sample(self, took: int, inflight: int, now: int) -> None:
        del now
        self._long = self._long + (took - self._long) * 2 / 601 if self._long else float(took)
        if self._long / took > 2:
            self._long *= 0.95
        if inflight * 2 < self.exact:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long / took))
        self.exact = max(20.0, self.exact * 0.8 + (self.exact * gradient + 4) * 0.2)  # 20 is its least limit


class Bbr(Rival):
    """BBR's model: the greatest rate times the least latency of the last 10 s, in its cycle of gains."""

    name: ClassVar[str] = "BBR-like"
    GAINS: ClassVar[tuple[float, ...]] = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self._latencies: deque[tuple[int, int]] = deque()  # each less than those after it
        self._rates: deque[tuple[int, float]] = deque()
        self._count = 0
        self._since = 0
        self._phase = 0

    def sample(self, took: int, inflight: int, now: int) -> None:
        del inflight
        while self._latencies and self._latencies[-1][1] >= took:
            self._latencies.pop()
        self._latencies.append((now, took))
        while self._latencies[0][0] < now - 10 * S:
            self._latencies.popleft()
        least = self._latencies[0][1]
        self._count += 1
        if now - self._since > 3 * least and self._count >= 8:
            self._rates.append((now, self._count / (now - self._since)))
            while self._rates[0][0] < now - 10 * S:
                self._rates.popleft()
            self._count, self._since = 0, now
            self._phase = (self._phase + 1) % len(self.GAINS)
        if self._rates:
            self.exact = max(rate for _, rate in self._rates) * least * self.GAINS[self._phase] + 1


class EnvoyGradient(Rival):
    """Envoy's gradient controller: least latency by 50 requests at a limit of 3 twice a minute, p90 of 100 ms."""

    name: ClassVar[str] = "Envoy"

    def __init__(self) -> None:
        super().__init__()
        self._window: list[int] = []
        self._since = 0
        self._least = 0
        self._probe_at = 0
        self._kept = 0.0
        self._probing = False

    def sample(self, took: int, inflight: int, now: int) -> None:
        del inflight
        if not self._probing and now >= self._probe_at:
            self._probing, self._kept, self.exact = True, self.exact, 3.0
            self._window = []
        self._window.append(took)
        if self._probing:
            if len(self._window) >= 50:
                self._least = sorted(self._window)[int(len(self._window) * 0.9)]
                self._probing, self.exact, self._probe_at = False, self._kept, now + 30 * S
                self._window, self._since = [], now
            return
        if now - self._since >= 100 * MS and len(self._window) >= 5:
            p90 = sorted(self._window)[int(len(self._window) * 0.9)]
            gradient = max(0.5, min(2.0, self._least * 1.25 / p90))
            self.exact = self.exact * gradient + math.sqrt(self.exact)
            self._window, self._since = [], now

    def lost(self) -> None:
        pass


RIVALS: tuple[type[Rival], ...] = (Aimd, Vegas, Gradient2, Bbr, EnvoyGradient)
