"""Answers kept in a real Valkey for all workers."""

from __future__ import annotations

import pytest
import redis

from gateway.request import Response
from gateway.store import answers
from gateway.store.address import StoreAddress
from gateway.store.answers import SharedAnswers
from gateway.store.link import StoreLink, StoreTimes
from tests.patience import GUARD

ANSWER = Response(200, [(b"content-type", b"a/b"), (b"x", b"\xfc")], b"one\ntwo\x00\xff")


@pytest.fixture
async def link(valkey):
    link = StoreLink(StoreAddress(unix_path=valkey), StoreTimes(GUARD, GUARD))
    link.start()
    assert await link.ready(GUARD)
    yield link
    await link.close()


@pytest.fixture
def client(valkey):
    with redis.Redis(unix_socket_path=valkey) as client:
        yield client


async def test_an_answer_comes_back_as_it_was(link, client):
    shared = SharedAnswers(lambda _: link, "gw")
    shared.put(b"\x01k", ANSWER, 30.0)
    stored = await shared.get(b"\x01k")
    assert (stored.response.status, stored.response.headers, stored.response.body) == (200, ANSWER.headers, ANSWER.body)
    assert 0 <= stored.age < 1
    assert client.keys() == [b"gw:answer:016b"]
    assert 29_000 < client.pttl("gw:answer:016b") <= 30_000


async def test_another_prefix_sees_nothing(link):
    SharedAnswers(lambda _: link, "gw").put(b"k", ANSWER, 30.0)
    assert await SharedAnswers(lambda _: link, "other").get(b"k") is None
    assert await SharedAnswers(lambda _: link, "gw").get(b"l") is None


async def test_a_large_answer_is_not_sent(link, client):
    SharedAnswers(lambda _: link, "gw").put(b"k", Response(200, [], b"x" * (answers.LARGEST + 1)), 30.0)
    assert await SharedAnswers(lambda _: link, "gw").get(b"k") is None


@pytest.mark.parametrize(
    "value",
    [
        b"", b"junk", b"{}\n", b"[]\n", b'{"at":"x","status":200,"headers":[]}\nb',
        b'{"at":1,"status":500,"headers":[]}\nb', b'{"at":1,"status":200,"headers":[["a"]]}\nb',
        b'{"at":1,"status":200,"headers":[["a","b\\r\\nset-cookie: c"]]}\nb',
        b'{"at":1,"status":200,"headers":[["a: b\\r\\nc","d"]]}\nb',
        '{"at":1,"status":200,"headers":[["a","☃"]]}\nb'.encode(),
    ],
)  # fmt: skip
async def test_what_others_put_there_is_not_taken_for_an_answer(link, client, value):
    client.set("gw:answer:" + b"k".hex(), value)
    assert await SharedAnswers(lambda _: link, "gw").get(b"k") is None


async def test_a_key_of_another_kind_is_no_answer_and_no_harm(link, client):
    client.lpush("gw:answer:" + b"k".hex(), "x")
    assert await SharedAnswers(lambda _: link, "gw").get(b"k") is None
    assert link.connection is not None


async def test_without_the_store_nobody_waits(link):
    shared = SharedAnswers(lambda _: link, "gw")
    await link.close()
    shared.put(b"k", ANSWER, 30.0)
    assert shared.get(b"k") is None
