"""Which backend of a pool gets a request: gates, probes, sessions, and what backends say of themselves."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.admission.admission import LONGEST_AWAY
from gateway.balance.groups import LONGEST_REST
from gateway.balance.registry import Recipe
from gateway.breakers.gate import FOREVER, BreakerSettings
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.link.frames import LoadReport
from gateway.request import Outcome, Request, Response
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool, Sharing
from gateway.upstreams.sticky import Sticky

SECOND = 10**9
NOW = 10**12
ASKED = Request(b"GET", b"/", b"/", {})
GATE = BreakerSettings(failures=1, open_for=5.0, probes=1)
SECRET = b"0123456789abcdef"


def backends(count, **more):
    return tuple(
        Backend(f"p/10.0.0.{n}:80", f"b{n}", Address(f"10.0.0.{n}", 80), 1, GATE, ClientLimits(), **more)
        for n in range(count)
    )


def pool(members, balance="random", panic=0.5, **sharing):
    return Pool("p", members, Recipe(balance, rand=random.Random(1).random), 100, panic, sharing=Sharing(**sharing))


def picked(one, picks=400, now=NOW, request=ASKED, tried=()):
    return Counter(one.pick(request, list(tried), now) for _ in range(picks))


def fail(backend, now=NOW):
    backend.gate.release(backend.gate.try_acquire(now), Outcome.FAILURE, now)


def pass_probe(backend, now):
    backend.gate.release(backend.gate.try_acquire(now), Outcome.SUCCESS, now)


# -- probes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["random", "peak-ewma", "maglev", "weighted-round-robin"])
def test_a_gate_that_is_to_be_probed_gets_the_next_request_and_only_that(balance):
    one = pool(members := backends(50), balance)
    fail(members[7])
    assert members[7] not in picked(one)
    later = NOW + 5 * SECOND
    assert one.pick(ASKED, [], later) is members[7]
    assert one.pick(ASKED, [members[7]], later) is not members[7]
    permit = members[7].gate.try_acquire(later)
    assert members[7] not in picked(one, now=later)
    members[7].gate.release(permit, Outcome.SUCCESS, later)
    if balance == "random":
        assert 0 < picked(one, 2000, later)[members[7]] < 100


def test_a_probe_goes_to_a_group_that_gets_nothing_else():
    first, second = backends(1), backends(2, priority=1)[1:]
    one = pool((*first, *second))
    assert set(picked(one)) == set(first)
    fail(first[0])
    assert set(picked(one)) == set(second)
    assert one.pick(ASKED, [], NOW + 5 * SECOND) is first[0]


def test_failing_over_is_no_reason_to_panic():
    """Three of four backends are away, and the one that is left is there for exactly that."""
    first, second = backends(3), backends(4, priority=1)[3:]
    one = pool((*first, *second))
    for each in first:
        each.mark(healthy=False, now=NOW)
    assert set(picked(one)) == set(second)


# -- slow start -----------------------------------------------------------------------------------------------------------


def test_after_an_open_breaker_the_weight_comes_back_little_by_little():
    one = pool(members := backends(2), slow_start=10 * SECOND)
    assert picked(one)[members[0]] == pytest.approx(200, abs=40)  # at the start nobody is slow
    fail(members[0])
    closed = NOW + 5 * SECOND
    pass_probe(members[0], closed)
    for age, share in ((0, 0.1 / 1.1), (5, 0.55 / 1.55), (10, 0.5)):
        got = picked(one, 4000, closed + age * SECOND)
        assert got[members[0]] / 4000 == pytest.approx(share, abs=0.02)


def test_who_is_added_or_recovers_starts_slowly_and_a_new_gateway_does_not():
    one = pool(members := backends(3), slow_start=10 * SECOND)
    members[0].added(NOW)
    members[1].mark(healthy=False, now=NOW - SECOND)
    members[1].mark(healthy=True, now=NOW)
    got = picked(one, 4000)
    assert got[members[0]] / 4000 == pytest.approx(0.1 / 1.2, abs=0.02)
    assert got[members[1]] / 4000 == pytest.approx(0.1 / 1.2, abs=0.02)


# -- Retry-After ----------------------------------------------------------------------------------------------------------


def test_who_asks_to_be_left_alone_is():
    one = pool(members := backends(4))
    assert len(picked(one)) == 4
    members[1].observe(Outcome.DROPPED, 1, NOW, 2 * SECOND)
    assert set(picked(one)) == set(members) - {members[1]}
    members[1].observe(Outcome.DROPPED, 1, NOW, SECOND)  # a shorter wish does not shorten the longer
    assert set(picked(one, now=NOW + 2 * SECOND - 1)) == set(members) - {members[1]}
    assert set(picked(one, now=NOW + 2 * SECOND)) == set(members)
    members[2].observe(Outcome.DROPPED, 1, NOW, 3600 * SECOND)
    assert set(picked(one, now=NOW + LONGEST_REST)) == set(members)


def test_only_a_refusal_can_ask_for_it():
    one = pool(members := backends(4))
    members[1].observe(Outcome.SUCCESS, 1, NOW, 2 * SECOND)
    assert len(picked(one)) == 4


# -- sessions ---------------------------------------------------------------------------------------------------------------


def sticky(members, cookie=b"sluice"):
    return Sticky(cookie, b"; Path=/; HttpOnly", SECRET, members)


def cookie_of(kept, backend, request=ASKED):
    response = Response(200, [])
    kept.keep(request, response, backend)
    return response.headers


def with_cookie(header):
    return Request(b"GET", b"/", b"/", {b"cookie": b"a=b; " + header.split(b";")[0]})


def test_a_session_comes_back_to_its_backend_and_is_told_so_once():
    members = backends(8)
    kept = sticky(members)
    one = pool(members, sticky=kept)
    [(name, line)] = cookie_of(kept, members[5])
    assert name == b"set-cookie"
    assert line.endswith(b"; Path=/; HttpOnly")
    request = with_cookie(line)
    assert set(picked(one, request=request)) == {members[5]}
    assert cookie_of(kept, members[5], request) == []


def test_a_session_moves_when_its_backend_is_gone_tried_or_without_weight():
    members = backends(8)
    kept = sticky(members)
    one = pool(members, sticky=kept)
    request = with_cookie(cookie_of(kept, members[5])[0][1])
    assert members[5] not in picked(one, request=request, tried=[members[5]])
    members[5].mark(healthy=False, now=NOW)
    assert len(picked(one, request=request)) == 7
    assert cookie_of(kept, members[2], request) == cookie_of(kept, members[2])  # and is told where it is now
    members[5].mark(healthy=True, now=NOW)
    assert set(picked(one, request=request)) == {members[5]}
    members[5].weight = 0
    one._unsettle()
    assert members[5] not in picked(one, request=request)


def test_the_cookie_says_nothing_about_addresses_and_cannot_be_made_up():
    members = backends(3)
    ours, theirs = sticky(members), Sticky(b"sluice", b"", b"another secret..", members)
    lines = [cookie_of(ours, each)[0][1] for each in members]
    assert len(set(lines)) == 3
    assert all(b"10.0" not in line and b"b0" not in line for line in lines)
    again = [cookie_of(sticky(members), each)[0][1] for each in members]
    assert again == lines
    assert ours.find(with_cookie(cookie_of(theirs, members[0])[0][1])) is None
    for value in (b"sluice=", b"sluice=x", b"sluice=\xff\x00", b"sluice"):
        assert ours.find(with_cookie(value)) is None


# -- load -------------------------------------------------------------------------------------------------------------------

REPORT = b'JSON {"named_metrics": {"queued": 3, "running": 4, "capacity": 8}}'


def test_reports_are_asked_for_where_the_policy_reads_them():
    members = backends(2)
    assert pool(members, "prequal", load_reports=True).reads_load
    assert members[0].connections.asks == b"endpoint-load-metrics-format: JSON\r\n"
    for balance, reports in (("prequal", False), ("random", True)):
        assert not pool(members, balance, load_reports=reports).reads_load
        assert members[0].connections.asks == b""
    pool(members, "prequal", load_reports=True)
    members[0].speak("auto", None)
    assert members[0].connections.asks == b"endpoint-load-metrics-format: JSON\r\n"


def test_a_report_is_taken_out_of_the_answer():
    backend = backends(1)[0]
    backend.inflight = 2
    response = Response(200, [(b"a", b"b"), (b"endpoint-load-metrics", REPORT), (b"c", b"d")])
    backend.hear(ASKED, response, NOW)
    assert response.headers == [(b"a", b"b"), (b"c", b"d")]
    assert backend.outstanding(NOW) == 3 + 4 - 1 + 2
    backend.hear(ASKED, Response(200, []), NOW)
    asking = Request(b"GET", b"/", b"/", {b"endpoint-load-metrics-format": b"JSON"})
    response = Response(200, [(b"endpoint-load-metrics", b"JSON {")])
    backend.hear(asking, response, NOW + SECOND)
    assert response.headers == [(b"endpoint-load-metrics", b"JSON {")]
    assert backend.load.heard == NOW


def test_a_report_on_the_link_is_the_same():
    backend = backends(1)[0]
    backend.inflight = 3
    backend.told(LoadReport(2, 5, 8, 0.02))
    load = backend.load
    assert (load.queued, load.running, load.capacity, load.service, load.mine) == (2, 5, 8, 2e7, 3)
    assert backend.outstanding(load.heard) == 7


# -- when it is worth asking again --------------------------------------------------------------------------------


def test_a_pool_held_open_as_a_whole_is_back_when_the_first_of_it_is():
    one = pool(members := backends(3))
    for number, member in enumerate(members):
        member.force("open", NOW, NOW + (20 - 5 * number) * SECOND)
    members[2].weight = 0  # gets nothing anyway
    assert one.retry_after(NOW) == 15
    assert one.retry_after(NOW + 14 * SECOND + 1) == 1
    assert one.retry_after(NOW + 16 * SECOND) == 1  # over, and not swept yet


def test_it_is_not_longer_away_than_whoever_is_not_held():
    one = pool(members := backends(2))
    members[0].force("open", NOW, FOREVER)
    assert one.retry_after(NOW) == 1
    fail(members[1])  # hard, and probed within a second if it is the last
    assert one.retry_after(NOW) == 1
    members[1].force("open", NOW, FOREVER)
    assert one.retry_after(NOW) == LONGEST_AWAY


def test_a_breaker_forced_closed_holds_nobody_off():
    one = pool(members := backends(1))
    members[0].force("closed", NOW, NOW + 60 * SECOND)
    assert one.retry_after(NOW) == 1
