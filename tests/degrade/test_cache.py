"""Answers kept: what may be kept, for whom, how long and how many."""

from __future__ import annotations

import pytest

from gateway.degrade.cache import REWRITE, AnswerCache, CacheRules, Stored, cache_key, may_store
from gateway.request import Request, Response

SECOND = 1_000_000_000


def request(method=b"POST", target=b"/v1/models/digits:predict", body=b"[1]", **headers):
    fields = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return Request(method, target, target.partition(b"?")[0], {b"host": b"a", **fields}, body)


def response(status=200, size=10, **headers):
    fields = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Response(status, fields, b"x" * size)


def rules(max_entry):
    return CacheRules(fresh=1.0, stale_if_error=9.0, max_entry=max_entry)


def key(**changes):
    return cache_key(b"digits", request(**changes))


@pytest.mark.parametrize(
    "change",
    [
        {"method": b"GET"},
        {"target": b"/v1/models/digits:predict?a"},
        {"body": b"[2]"},
        {"accept": b"text/plain"},
        {"content_type": b"text/plain"},
        {"content_encoding": b"gzip"},
        {"inference_header_content_length": b"0"},
        {"host": b"evil"},
    ],
)
def test_another_question_is_another_key(change):
    assert key() is not None
    assert key(**change) != key()


def test_another_route_is_another_key_and_parts_do_not_run_together():
    assert cache_key(b"other", request()) != key()
    assert key(accept=b"ab", content_type=b"c") != key(accept=b"a", content_type=b"bc")


@pytest.mark.parametrize("change", [{"user_agent": b"x"}, {"x_api_key": b"alice"}, {"accept_encoding": b"gzip"}])
def test_the_same_question_has_the_same_key(change):
    assert key(**change) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"authorization": b"Bearer x"},
        {"cookie": b"session=1"},
        {"cache_control": b"no-store"},
        {"cache_control": b"max-age=0, No-Cache"},
        {"method": b"PUT"},
        {"method": b"DELETE"},
    ],
)
def test_no_key_where_an_answer_must_not_be_shared(change):
    assert key(**change) is None


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (response(), True),
        (response(cache_control=b"max-age=60"), True),
        (response(404), False),
        (response(206), False),
        (response(500), False),
        (response(cache_control=b"no-store"), False),
        (response(cache_control=b"max-age=3, Private"), False),
        (response(cache_control=b"NO-CACHE"), False),
        (response(cache_control=b"max-age=3, must-revalidate"), False),
        (response(set_cookie=b"a=b"), False),
        (response(vary=b"Accept-Encoding"), True),
        (response(vary=b"accept, Accept-Encoding"), True),
        (response(vary=b"accept-encoding, origin"), False),
        (response(vary=b"accept-language"), False),
        (response(content_encoding=b"gzip"), False),
        (response(vary=b"accept-encoding", content_encoding=b"gzip"), False),
        (response(vary=b"*"), False),
        (response(vary=b""), False),
    ],
)
def test_what_may_be_stored(answer, allowed):
    assert may_store(answer) is allowed


def test_age_is_bounded_on_both_sides():
    cache = AnswerCache(10_000)
    cache.put(b"k", response(), rules(10_000), 5 * SECOND)
    assert cache.get(b"k", 2.0, 7 * SECOND) is not None
    assert cache.get(b"k", 2.0, 7 * SECOND + 1) is None
    entry = cache.get(b"k", 60.0, 9 * SECOND - 1)
    assert entry is not None
    assert entry.age_s(9 * SECOND - 1) == 3
    assert cache.get(b"other", 60.0, 5 * SECOND) is None


def test_the_least_recently_used_goes_first_and_the_size_stays_bounded():
    cache = AnswerCache(2 * 1400)
    for name in (b"a", b"b"):
        cache.put(name, response(size=1000), rules(10_000), 0)
    cache.get(b"a", 1.0, 0)
    cache.put(b"c", response(size=1000), rules(10_000), 0)
    assert [cache.get(name, 1.0, 0) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert cache.size == 2800
    assert len(cache) == 2


def test_both_sides_of_the_entry_bound():
    cache = AnswerCache(100_000)
    cache.put(b"k", response(size=600), rules(1000), 0)
    assert len(cache) == 1
    cache.put(b"l", response(size=601), rules(1000), 0)
    assert len(cache) == 1
    cache.put(b"m", response(size=200_000), rules(10**9), 0)  # larger than the whole cache
    assert len(cache) == 1


def test_headers_weigh_too():
    cache = AnswerCache(100_000)
    cache.put(b"k", response(size=0, x=b"y" * 5000), rules(4000), 0)
    assert len(cache) == 0


def test_replacing_and_shrinking_keep_the_books():
    cache = AnswerCache(100_000)
    for size in (10, 5000, 100):
        cache.put(b"k", response(size=size), rules(100_000), 0)
    assert cache.size == 500
    for number in range(50):
        cache.put(b"%d" % number, response(size=600), rules(100_000), 0)
    cache.resize(5_500)
    assert cache.size <= 5_500
    assert len(cache) == 5
    cache.resize(0)
    assert (cache.size, len(cache)) == (0, 0)


def test_a_larger_answer_that_does_not_fit_forgets_nothing_else():
    cache = AnswerCache(1000)
    cache.put(b"k", response(size=10), rules(10_000), 0)
    cache.put(b"l", response(size=5000), rules(10_000), 0)
    assert cache.get(b"k", 1.0, 0) is not None


class Below:
    """A level below that remembers what it was told, and can be away."""

    def __init__(self):
        self.written = []
        self.found = None
        self.away = False

    def put(self, key, response, ttl_s):
        self.written.append((key, response.body, ttl_s))

    def get(self, key):
        if self.away:
            return None

        async def answer():
            return self.found

        return answer()


async def test_an_answer_is_found_in_the_level_below_and_remembered():
    below = Below()
    cache = AnswerCache(10_000, below)
    below.found = Stored(response(size=3), age=4.0)
    entry = await cache.find(b"k", 10.0, 100 * SECOND)
    assert (entry.response.body, entry.age_s(100 * SECOND)) == (b"xxx", 4)
    below.away = True
    assert (await cache.find(b"k", 10.0, 101 * SECOND)).age_s(101 * SECOND) == 5
    assert await cache.find(b"other", 10.0, 101 * SECOND) is None


async def test_an_answer_below_that_is_too_old_is_no_answer():
    below = Below()
    below.found = Stored(response(), age=10.1)
    assert await AnswerCache(10_000, below).find(b"k", 10.0, 0) is None


def test_a_repeated_answer_is_written_below_now_and_then_only():
    below = Below()
    cache = AnswerCache(10_000, below)
    for at in (0, 1, int(REWRITE), int(REWRITE) + 1):
        cache.put(b"k", response(size=at), rules(1000), at * SECOND)
    assert below.written == [(b"k", b"", 10.0), (b"k", b"x" * 11, 10.0)]


async def test_a_cache_that_is_off_writes_and_asks_nobody():
    below = Below()
    below.found = Stored(response(), age=0.0)
    cache = AnswerCache(0, below)
    cache.put(b"k", response(), rules(1000), 0)
    assert below.written == []
    assert await cache.find(b"k", 10.0, 0) is None
