"""The backend that misbehaves on request, which benchmarks and chaos are judged by: its own counts must be exact."""

import asyncio
import shutil

import pytest

from loadtests import bench_peers
from loadtests.peers.programs import find_go
from loadtests.peers.slots import Slots

pytestmark = pytest.mark.undisturbed


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    go = find_go()
    if go is None:
        pytest.skip("no Go here")
    bench_peers.BUILT.mkdir(parents=True, exist_ok=True)
    assert bench_peers.build_own(go, "slotserver") is None
    return shutil.which("slotserver", path=str(bench_peers.BUILT))


async def ask(backend, target="/", wait=30.0):
    """The status, or None for a connection that was refused or ended without one."""
    try:
        reader, writer = await asyncio.open_connection(backend.endpoint.host, backend.endpoint.port)
    except ConnectionRefusedError:
        return None
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(wait):
            answer = await reader.read()
        return int(answer.split(b" ")[1]) if answer else None
    except ConnectionResetError:
        return None
    finally:
        writer.close()


async def counted(backend, **expected):
    """Waits (bounded) until the counts are as expected: a client's leaving takes a moment to be noticed."""
    for _ in range(2000):
        stats = await asyncio.to_thread(backend.stats)
        if all(getattr(stats, name) == value for name, value in expected.items()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{stats} instead of {expected}")


async def test_what_becomes_of_every_request_is_counted(built, tmp_path):
    with Slots(tmp_path, slots=2, service_us=1000) as backend:
        assert await asyncio.gather(*(ask(backend) for _ in range(6))) == [200] * 6
        await counted(backend, received=6, started=6, finished=6, running=0, waiting=0)
        backend.set(stall=True, queue=1)
        held = [asyncio.create_task(ask(backend))]
        await counted(backend, received=7, waiting=1)
        assert await ask(backend) == 503
        held[0].cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await counted(backend, abandoned=1, refused=1, started=6, waiting=0)
        backend.set(stall=False, error_share=1, error_status=500)
        assert await ask(backend) == 500
        backend.set(error_share=0, refuse_share=1, retry_after=3)
        assert await ask(backend) == 429
        backend.set(refuse_share=0, reset_share=1)
        assert await ask(backend) is None
        await counted(backend, errors=1, refused=2, started=7, finished=7)


async def test_work_for_a_client_that_left_is_wasted_to_its_end(built, tmp_path):
    with Slots(tmp_path, slots=1, service_us=500_000) as backend:
        gone = asyncio.create_task(ask(backend))
        await counted(backend, running=1)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await counted(backend, wasted=1, finished=0, running=0)


async def test_a_setting_that_there_is_not_is_refused(built, tmp_path):
    with Slots(tmp_path) as backend, pytest.raises(OSError, match="400"):
        backend.set(slotz=3)


async def test_it_can_be_killed_and_started_again(built, tmp_path):
    with Slots(tmp_path, service_us=0) as backend:
        backend.kill()
        assert await ask(backend) is None  # refused, or reset while the kernel still clears up
        backend.start()
        assert await ask(backend) == 200
