"""Buckets on a real cluster of three nodes, and on a master that sentinels exchange."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from gateway.config.addresses import StoreUrl
from gateway.limits.bucket import BucketSpec
from gateway.limits.leases import Lease
from gateway.limits.limiter import Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import ClientScope, GlobalScope, RouteScope
from gateway.limits.verdict import ALONE, SHARED, RouteLimits
from gateway.request import Request
from gateway.store.address import StoreAddress
from gateway.store.link import StoreTimes
from gateway.store.shared import SharedStore
from gateway.store.slots import slot_of
from loadtests.peers.valkeys import Nodes, Watched
from tests.patience import GUARD

pytestmark = pytest.mark.long

TIMES = StoreTimes(deadline=10.0, connect_timeout=10.0, reconnect_min=0.01, reconnect_max=0.1)
CLIENT = LimitPolicy("client", ClientScope(), BucketSpec(0.001, 5.0))
ROUTE = LimitPolicy("route", RouteScope(), BucketSpec(0.001, 8.0))
EVERYBODY = LimitPolicy("all", GlobalScope(), BucketSpec(0.001, 100.0))
BUSY = LimitPolicy("busy", RouteScope(), concurrent=3)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 0x31C3), (b"foo", 12182), (b"{user1000}.following", slot_of(b"user1000")),
        (b"foo{{bar}}zap", slot_of(b"{bar")), (b"foo{bar}{zap}", slot_of(b"bar")),
        (b"", 0), (b"{", slot_of(b"{")),
    ],
)  # fmt: skip
def test_slots_are_those_of_the_specification(key, slot):
    assert slot_of(key) == slot


def address(url):
    parsed = StoreUrl.parse(url)
    return StoreAddress(sentinels=parsed.sentinels, service=parsed.service, seeds=parsed.seeds)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("cluster"))
    yield nodes
    nodes.close()


class Worker:
    def __init__(self, url, times=TIMES):
        self.turns = []
        self.store = SharedStore(address(url), times, "gw", lambda up, forgot: self.turns.append((up, forgot)))
        self.limiter = Limiter(self.store.buckets, identity=b"worker-1")

    async def start(self):
        self.store.start()
        assert await self.store.ready(GUARD)
        return self

    async def ask(self, *policies, client=b"alice", route="r"):
        request = Request(b"GET", b"/", b"/", {})
        request.client = client
        limits = RouteLimits(route, policies, "gw")
        return await self.limiter.check(limits, request, time.monotonic_ns(), time.monotonic_ns() + 10**10)


@pytest.fixture
async def worker(nodes):
    for server in nodes.servers:
        server.client.flushall()
    worker = await Worker(nodes.url).start()
    yield worker
    await worker.store.close()


@pytest.fixture
async def impatient(nodes):
    for server in nodes.servers:
        server.client.flushall()
    worker = await Worker(nodes.url, StoreTimes(0.2, 10.0, 0.01, 0.1)).start()
    yield worker
    await worker.store.close()


def owners_differ(nodes, one, other):
    return nodes.owner(slot_of(one)) is not nodes.owner(slot_of(other))


async def until(condition, seconds=GUARD):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_keys_of_all_nodes_are_asked_at_once_one_call_a_slot(worker):
    clients = [b"client-%d" % (i % 60) for i in range(180)]
    verdicts = await asyncio.gather(*(worker.ask(CLIENT, client=client) for client in clients))
    assert all(verdict.allowed and not verdict.by for verdict in verdicts)
    assert worker.store.calls == len({slot_of(client) for client in clients})
    assert len({worker.store.link(b"{%s}" % client) for client in clients}) == 3
    left = sorted(int(verdict.levels[0] + 0.01) for verdict in verdicts)
    assert left == [2] * 60 + [3] * 60 + [4] * 60


async def test_a_request_in_several_slots_is_admitted_by_all_or_takes_from_none(worker):
    verdicts = [await worker.ask(EVERYBODY, CLIENT, ROUTE) for _ in range(7)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 5 + [False] * 2
    assert {verdict.refused_by for verdict in verdicts[5:]} == {CLIENT}
    left = await worker.ask(EVERYBODY, ROUTE, client=b"bob")
    assert list(left.levels) == pytest.approx([94, 2], abs=0.01)


async def test_everybody_at_once_is_never_too_many(worker):
    verdicts = await asyncio.gather(*(worker.ask(EVERYBODY, CLIENT, ROUTE, client=b"%d" % (i % 5)) for i in range(60)))
    assert 1 <= sum(verdict.allowed for verdict in verdicts) <= 8
    await until(lambda: True)
    left = await worker.ask(EVERYBODY, client=b"x")
    assert left.levels[0] == pytest.approx(99 - sum(verdict.allowed for verdict in verdicts), abs=0.01)


async def test_places_in_another_slot_are_given_back_when_a_bucket_refuses(worker):
    spent = LimitPolicy("spent", ClientScope(), BucketSpec(0.001, 1.0))
    first, second = await worker.ask(BUSY, spent), await worker.ask(BUSY, spent)
    assert (first.allowed, second.allowed) == (True, False)
    third = await worker.ask(BUSY, client=b"bob")
    assert list(third.levels) == [1.0]


@pytest.mark.parametrize(("mode", "left"), [("closed", (5, 8, 3)), ("local", (4, 7, 3))])
async def test_what_slots_took_of_a_request_that_one_was_late_for_pays_for_it_or_comes_back(
    impatient, nodes, mode, left
):
    worker = impatient
    client = next(name for name in (b"%d" % i for i in range(99)) if owners_differ(nodes, name, b"r"))
    policies = [
        LimitPolicy(one.name, one.scope, one.spec, mode, concurrent=one.concurrent) for one in (CLIENT, ROUTE, BUSY)
    ]
    late = nodes.owner(slot_of(client))
    late.signal(signal.SIGSTOP)
    try:
        verdict = await worker.ask(*policies, client=client)
    finally:
        late.signal(signal.SIGCONT)
    assert (verdict.by, verdict.allowed) == (ALONE, mode == "local")
    link = worker.store.link(b"{%s}" % client)
    await until(lambda: link.connection is not None)
    worker.limiter.end(verdict, Request(b"GET", b"/", b"/", {}), sent=True)
    again = await worker.ask(*policies, client=client)
    assert again.by == SHARED
    assert list(again.levels) == pytest.approx([one - 1 for one in left], abs=0.4)  # they fill meanwhile


async def test_what_is_not_a_decision_finds_its_node_too(worker):
    buckets = worker.store.buckets
    assert buckets.adjust(b"gw:client:{alice}", CLIENT.spec, -2.0)
    assert (await worker.ask(CLIENT)).levels[0] == pytest.approx(2.0, abs=0.01)
    buckets.hint(b"gw:client:{new}", CLIENT.spec, 1.0)
    assert (await worker.ask(CLIENT, client=b"new")).levels[0] == pytest.approx(0.0, abs=0.01)
    came = []

    class Holder:
        def granted(self, lease, tokens, level):
            came.append(tokens)

    assert buckets.lease(Lease(b"gw:client:{leased}", *CLIENT.spec, 0), 3.0, Holder())
    await until(lambda: came == [3.0])


async def test_a_slot_that_moves_is_followed_and_its_bucket_keeps_its_level(worker, nodes):
    client = b"mover"
    slot = slot_of(client)
    assert (await worker.ask(CLIENT, client=client)).allowed
    target = next(server for server in nodes.servers if server is not nodes.owner(slot))
    nodes.move(slot, target)
    try:
        verdict = await worker.ask(CLIENT, client=client)
        assert verdict.by == 0
        assert verdict.levels[0] == pytest.approx(3.0, abs=0.01)
        assert worker.store.buckets.redirections == 1
        assert (await worker.ask(CLIENT, client=client)).levels[0] == pytest.approx(2.0, abs=0.01)
        assert worker.store.buckets.redirections == 1
    finally:
        source, owner = nodes.owner(slot), nodes.owner
        nodes.owner = lambda _: target
        nodes.move(slot, source)
        nodes.owner = owner


async def test_a_slot_on_its_way_is_asked_for_at_its_new_place(worker, nodes):
    client = b"on-its-way"
    slot = slot_of(client)
    assert (await worker.ask(CLIENT, client=client)).allowed
    source = nodes.owner(slot)
    target = next(server for server in nodes.servers if server is not source)
    nodes.move(slot, target, finish=False)
    try:
        left = [(await worker.ask(CLIENT, client=client)).levels[0] for _ in range(2)]
        assert left == pytest.approx([3.0, 2.0], abs=0.01)
        assert worker.store.buckets.redirections == 2
    finally:
        for key in target.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            target.client.execute_command("ASKING")
            target.client.execute_command("DEL", key)
        for server in (source, target):
            server.client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


@pytest.mark.undisturbed(stall=0.05)
async def test_while_a_node_is_away_its_keys_alone_are_decided_locally(nodes):
    for server in nodes.servers:
        server.client.flushall()
    by_node = {}
    for i in range(50):
        by_node.setdefault(nodes.owner(slot_of(b"c%d" % i)).port, b"c%d" % i)
    lost = nodes.servers[1]
    worker = await Worker(nodes.url, StoreTimes(0.3, 10.0, 0.01, 0.1)).start()
    try:
        for client in by_node.values():
            assert (await worker.ask(CLIENT, client=client)).by == 0
        lost.signal(19)
        verdicts = await asyncio.gather(*(worker.ask(CLIENT, client=client) for client in by_node.values()))
        assert {port: verdict.by for port, verdict in zip(by_node, verdicts, strict=True)} == {
            server.port: int(server is lost) for server in nodes.servers
        }
        both = await worker.ask(EVERYBODY, CLIENT, ROUTE)
        assert both.allowed
        assert not worker.store.up
        lost.signal(18)
        await until(lambda: worker.store.up)
        assert (await worker.ask(CLIENT, client=by_node[lost.port])).by == 0
        assert (False, True) in worker.turns
        assert (True, True) in worker.turns
    finally:
        lost.signal(18)
        await worker.store.close()


# -- sentinel -----------------------------------------------------------------------------------------------------


async def test_the_new_master_is_found_after_a_failover_and_levels_survive(tmp_path):
    watched = Watched(tmp_path)
    try:
        worker = await Worker(watched.url).start()
        for _ in range(3):
            assert (await worker.ask(CLIENT)).by == 0
        old = watched.master()
        await asyncio.sleep(0.1)  # replication is asynchronous
        old.kill()
        await until(lambda: not worker.store.up)
        assert (await worker.ask(CLIENT, client=b"bob")).by == 1
        await until(lambda: worker.store.up)
        assert watched.master() is not old
        verdict = await worker.ask(CLIENT)
        assert verdict.by == 0
        assert verdict.levels[0] == pytest.approx(1.0, abs=0.01)
        await worker.store.close()
    finally:
        watched.close()


async def test_without_any_sentinel_the_store_is_away():
    worker = Worker("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main")
    worker.store.start()
    assert not await worker.store.ready(0.1)
    assert (await worker.ask(CLIENT)).by == 1
    await worker.store.close()
