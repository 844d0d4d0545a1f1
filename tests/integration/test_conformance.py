"""The corpus on the wire: a gateway process between hostile clients, hostile backends, and nginx."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conformance import house
from tests.conformance.origin import Origin
from tests.conformance.requests import CASES
from tests.conformance.responses import ANSWERS
from tests.conformance.runner import RequestRun, ResponseRun

PROMPT = [case for case in CASES if not case.waits]
WAITING = [case for case in CASES if case.waits]


def complain(told: list[str]) -> None:
    wrong = [line for line in told if line]
    assert not wrong, f"{len(wrong)} of {len(told)}:\n" + "\n".join(wrong[:12])


async def test_requests(tmp_path: Path):
    """Each is answered, closed and forwarded exactly as the corpus says; a canary behind it gets its own answer."""
    async with Origin() as origin:
        with house.gateway(tmp_path, origin.port) as port:
            run = RequestRun(origin, port)
            complain([await run.strictly(case) for case in PROMPT])


async def test_requests_that_are_not_whole(tmp_path: Path):
    """Nothing of them is forwarded, so they may wait for their deadline together."""
    async with Origin() as origin:
        with house.gateway(tmp_path, origin.port) as port:
            complain(await asyncio.gather(*(RequestRun(origin, port).half(case) for case in WAITING)))
        assert not origin.seen


@pytest.mark.skipif(house.NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")
async def test_requests_through_nginx(tmp_path: Path):
    """nginx reads them its own way; whatever it makes of them, the origin never sees two where one was sent."""
    async with Origin() as origin:
        with house.gateway(tmp_path, origin.port) as behind, house.nginx(tmp_path, behind) as port:
            run = RequestRun(origin, port)
            complain([await run.loosely(case) for case in CASES])
        complain(run.passed_on((tmp_path / "access.log").read_text()))
        assert len(run.claims) > 50


async def test_responses(tmp_path: Path):
    """Hostile backends: what the client is told, and no connection used again that must not be."""
    assert len(ANSWERS) >= 60
    assert len({case.id for case in ANSWERS}) == len(ANSWERS)
    run = ResponseRun(ANSWERS)
    async with Origin(run.script) as origin:
        with house.gateway(tmp_path, origin.port) as port:
            alone = [number for number, case in enumerate(ANSWERS) if case.reused is None]
            together = [number for number in range(len(ANSWERS)) if number not in alone]
            told = await asyncio.gather(*(run.play(origin, port, number) for number in together))
            again = [number for number, wrong in zip(together, told, strict=True) if wrong]
            assert len(again) <= 2, told  # one that met what another's backend sent; a defect is there alone, too
            complain([await run.play(origin, port, number) for number in again])
            # What comes late into an idle connection could meet another's request there; no client can tell.
            complain([await run.play(origin, port, number) for number in alone])
        assert not origin.faults
