"""The limiter over a store that answers now, later, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from gateway.limits.bucket import BucketSpec, Taken
from gateway.limits.costs import BodyCost, Cost, HeaderCost
from gateway.limits.limiter import GRACE, LONGEST, Limiter
from gateway.limits.policy import LimitPolicy
from gateway.limits.scopes import GlobalScope, RouteScope
from gateway.limits.verdict import ALONE, SHARED, RouteLimits
from gateway.request import Request, Response
from gateway.stream import Stream
from tests.limits.fakes import FakeStore

WIDE = LimitPolicy("wide", spec=BucketSpec(10.0, 20.0))
NARROW = LimitPolicy("narrow", RouteScope(), BucketSpec(1.0, 2.0))
BUSY = LimitPolicy("busy", RouteScope(), concurrent=4)
BY_ANSWER = LimitPolicy("units", spec=BucketSpec(10.0, 100.0), cost=HeaderCost(b"x-units", 30.0))
YES = Taken(True, 7.0)
S = 1_000_000_000


def request(client=b"alice", body=b""):
    request = Request(b"GET", b"/", b"/", {}, body, peer=b"10.0.0.9")
    request.client = client
    return request


def limits(*policies):
    return RouteLimits("digits", policies, "gw")


async def decided(reply, *policies, now=0, workers=1, deadline=0, **how):
    store = FakeStore(reply)
    limiter = Limiter(store, workers, b"worker-1")
    return store, limiter, await limiter.check(limits(*policies), request(**how), now, deadline)


# -- asking -----------------------------------------------------------------------------------------------------


async def test_it_asks_for_every_limit_of_the_route_at_once():
    store, _, verdict = await decided([Taken(True, 19.0), Taken(True, 1.0)], WIDE, NARROW)
    assert (store.asked[0].keys, list(store.asked[0].costs)) == (
        [b"gw:wide:{alice}", b"gw:narrow:{digits}"],
        [1.0, 1.0],
    )
    assert verdict.allowed
    assert verdict.by == SHARED
    assert verdict.refused_by is None
    assert verdict.left_header() == b'"wide";r=19;t=1, "narrow";r=1;t=1'


async def test_the_first_bucket_that_refuses_is_named():
    _, _, verdict = await decided([Taken(True, 19.0), Taken(False, 0.5)], WIDE, NARROW)
    assert not verdict.allowed
    assert verdict.refused_by is NARROW
    assert verdict.retry_after() == 1


async def test_a_limit_in_shadow_refuses_nobody_and_says_nothing():
    shadow = LimitPolicy("shadow", spec=BucketSpec(1.0, 1.0), shadow=True)
    _, _, verdict = await decided([Taken(False, 0.0), Taken(True, 1.0)], shadow, NARROW)
    assert verdict.allowed
    assert (verdict.policy_header(), verdict.left_header()) == (b'"narrow";q=2;w=2', b'"narrow";r=1;t=1')
    assert verdict.flags == b"01"
    assert limits(shadow).silent
    _, _, alone = await decided(None, shadow, shadow)
    assert alone.allowed


async def test_overrides_are_other_figures_for_single_keys():
    vip = LimitPolicy("l", spec=BucketSpec(1000.0, 5000.0))
    policy = LimitPolicy("l", spec=BucketSpec(1.0, 5.0), overrides={b"vip": vip})
    _, _, common = await decided(YES, policy)
    _, _, special = await decided(YES, policy, client=b"vip")
    assert common.policy_header() == b'"l";q=5;w=5'
    assert special.policy_header() == b'"l";q=5000;w=5'
    assert common.shape != special.shape
    assert special.shape == bytes((0,)) + vip.packed


async def test_costs_of_the_request_are_asked_for():
    policy = LimitPolicy("l", spec=BucketSpec(10.0, 100.0), cost=BodyCost(10))
    store, _, _ = await decided(YES, policy, NARROW, body=b"x" * 95)
    assert store.asked[0].costs == [10.0, 1.0]
    assert store.asked[0].shape[0] == 1


def test_what_is_constant_is_built_once():
    assert limits(WIDE, NARROW).policy_header == b'"wide";q=20;w=2, "narrow";q=2;w=2'
    assert limits(WIDE).legacy is None
    assert limits(WIDE).plain
    assert not limits(BUSY).plain


# -- without the store --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [None, "late"])
async def test_without_the_store_it_decides_alone_from_the_last_shared_level(away):
    store, limiter, _ = await decided(Taken(True, 4.0), WIDE, workers=2)
    store.reply = away
    verdicts = [await limiter.check(limits(WIDE), request(), 0) for _ in range(4)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, False]  # half of what was left
    assert {verdict.by for verdict in verdicts} == {ALONE}
    assert verdicts[-1].refused_by is WIDE
    assert verdicts[-1].mode() == b"local"


@pytest.mark.parametrize(("mode", "allowed"), [("open", True), ("closed", False)])
@pytest.mark.parametrize("kind", [{"spec": BucketSpec(1.0, 1.0)}, {"concurrent": 1}])
async def test_open_and_closed(mode, allowed, kind):
    policy = LimitPolicy("l", on_store_failure=mode, **kind)
    limiter = Limiter(FakeStore(None))
    for _ in range(5):
        verdict = await limiter.check(limits(policy), request(), 0)
        assert verdict.allowed is allowed
        assert (verdict.refused_by is None) is allowed
        assert verdict.mode() == mode.encode()


async def test_alone_too_a_request_is_admitted_by_all_or_takes_from_none():
    store, limiter, _ = await decided([Taken(True, 3.0), Taken(True, 1.0)], WIDE, NARROW)
    store.reply = None
    assert [(await limiter.check(limits(WIDE, NARROW), request(), 0)).allowed for _ in range(9)].count(True) == 1
    assert [(await limiter.check(limits(WIDE), request(), 0)).allowed for _ in range(9)].count(True) == 2


async def test_the_number_of_workers_is_read_at_each_decision():
    limiter = Limiter(FakeStore(None), workers=1)
    assert (await limiter.check(limits(NARROW), request(), 0)).allowed
    limiter.share_with(4)  # one of two tokens is left to the fleet, a quarter of one to us
    assert not (await limiter.check(limits(NARROW), request(), 0)).allowed


async def test_each_worker_holds_its_share_of_the_places():
    store, limiter, _ = await decided(YES, BUSY)
    store.reply = None
    limiter.share_with(2)
    assert [(await limiter.check(limits(BUSY), request(), 0)).allowed for _ in range(3)] == [True, False, False]


async def test_a_store_that_forgot_is_told_the_levels_with_the_first_ask():
    store, limiter, _ = await decided([Taken(True, 4.0), Taken(True, 1.0)], WIDE, NARROW, now=S)
    limiter.away(2 * S)
    store.reply = None
    await limiter.check(limits(WIDE), request(), 2 * S)  # spends one locally
    store.reply = YES
    limiter.back(3 * S, forgot=True)
    await limiter.check(limits(WIDE, NARROW), request(), 3 * S)
    # Of the narrow one there was one of two left two seconds ago, so it is full: nothing to tell.
    assert store.hinted == [(b"gw:wide:{alice}", 13.0)]
    assert store.adjusted == [], "what is hinted is not charged besides"
    await limiter.check(limits(WIDE, NARROW), request(), 3 * S + 1)
    await limiter.check(limits(WIDE), request(b"nobody-knows"), 3 * S + 1)
    assert len(store.hinted) == 1


async def test_a_store_that_remembers_is_charged_with_what_was_spent_meanwhile():
    store, limiter, _ = await decided(Taken(True, 20.0), WIDE, now=S, workers=2)
    limiter.away(2 * S)
    store.reply = None
    assert [(await limiter.check(limits(WIDE), request(), 2 * S)).allowed for _ in range(4)] == [True] * 4
    assert store.adjusted == []
    store.reply = Taken(True, 7.0)
    limiter.back(2 * S, forgot=False)
    for _ in range(3):
        await limiter.check(limits(WIDE), request(), 2 * S)
    assert store.adjusted == [(b"gw:wide:{alice}", -4.0)]


async def test_what_was_asked_when_the_store_was_lost_is_not_charged_twice():
    store, limiter, _ = await decided(Taken(True, 20.0), WIDE, now=S)
    store.reply = "late"
    assert (await limiter.check(limits(WIDE), request(), 2 * S)).by == ALONE
    store.reply = Taken(True, 7.0)
    limiter.back(2 * S, forgot=False)
    await limiter.check(limits(WIDE), request(), 2 * S)
    assert store.adjusted == []


async def late(*policies, deadline=0, store_says=YES, **how):
    """One request about which the store did not answer in time."""
    store = FakeStore(store_says)
    limiter = Limiter(store, 1, b"worker-1")
    store.manual = True
    verdict = limiter.begin(limits(*policies), request(**how), 0, deadline)
    verdict.lost()
    return store, limiter, verdict


CLOSED = LimitPolicy("closed", spec=BucketSpec(10.0, 20.0), on_store_failure="closed")
OPEN_UNITS = LimitPolicy(
    "units", spec=BucketSpec(10.0, 100.0), cost=HeaderCost(b"x-units", 30.0), on_store_failure="open"
)


async def test_what_the_store_took_of_a_request_refused_meanwhile_comes_back():
    store, limiter, verdict = await late(CLOSED, WIDE)
    assert not verdict.allowed
    verdict.late(b"11")
    assert store.adjusted == [(b"gw:closed:{alice}", 1.0), (b"gw:wide:{alice}", 1.0)]
    assert limiter.refunded == 2.0


@pytest.mark.parametrize("flags", [b"01", b"10", b"00"])
async def test_what_the_store_did_not_take_does_not_come_back(flags):
    store, limiter, verdict = await late(CLOSED, WIDE)
    verdict.late(flags)
    assert (store.adjusted, limiter.refunded, limiter.owed) == ([], 0.0, 0.0)


async def test_what_the_store_took_pays_for_what_was_admitted_meanwhile():
    store, limiter, verdict = await late(WIDE)
    assert verdict.allowed
    verdict.late(b"1")
    limiter.back(0, forgot=False)
    limiter.begin(limits(WIDE), request(), 0)
    limiter.end(verdict, request(), sent=True)
    assert store.adjusted == []


async def test_what_was_admitted_meanwhile_and_the_store_refused_is_owed_once():
    store, limiter, verdict = await late(WIDE)
    verdict.late(b"0")
    limiter.back(0, forgot=False)
    for _ in range(2):
        limiter.begin(limits(WIDE), request(), 0)
    assert store.adjusted == [(b"gw:wide:{alice}", -1.0)]
    assert limiter.owed == 1.0


@pytest.mark.parametrize("ends_first", [True, False])
@pytest.mark.parametrize("policy", [WIDE, OPEN_UNITS])
async def test_one_that_was_never_sent_gets_back_once_what_the_store_took_late(policy, ends_first):
    store, limiter, verdict = await late(policy)
    assert verdict.allowed
    cost = verdict.costs[0]
    if ends_first:
        limiter.end(verdict, request(), sent=False)
        assert store.adjusted == []
    verdict.late(b"1")
    limiter.end(verdict, request(), sent=False)
    assert [tokens for _, tokens in store.adjusted] == [cost]


async def test_one_cancelled_before_the_deadline_gets_back_what_the_store_took_late():
    store = FakeStore(YES)
    store.manual = True
    limiter = Limiter(store)
    verdict = limiter.begin(limits(WIDE), request(), 0)
    limiter.end(verdict, request(), sent=False)
    verdict.lost()
    verdict.late(b"1")
    assert store.adjusted == [(b"gw:wide:{alice}", 1.0)]


async def test_giving_back_what_the_store_was_asked_for_makes_no_other_debt_less():
    store, limiter, _ = await decided(Taken(True, 20.0), WIDE, now=S)
    limiter.away(S)
    store.reply = None
    await limiter.check(limits(WIDE), request(), S)  # this one is owed
    store.reply, store.manual = YES, True
    asked = limiter.begin(limits(WIDE), request(), S)
    asked.lost()
    limiter.end(asked, request(), sent=False)
    asked.late(b"0")
    limiter.back(S, forgot=False)
    limiter.begin(limits(WIDE), request(), S)
    assert store.adjusted == [(b"gw:wide:{alice}", -1.0)]


@pytest.mark.parametrize("settles_first", [True, False])
async def test_a_cost_is_settled_once_whether_the_store_speaks_before_or_after(settles_first):
    store, limiter, verdict = await late(OPEN_UNITS)
    if settles_first:
        limiter.answered(verdict, Response(200, [(b"x-units", b"12")]))
        assert store.adjusted == []
    verdict.late(b"1")
    if not settles_first:
        limiter.answered(verdict, Response(200, [(b"x-units", b"12")]))
    assert store.adjusted == [(b"gw:units:{alice}", 18.0)]


async def test_a_place_the_store_gave_late_is_given_back_unless_it_is_held():
    store, limiter, verdict = await late(BUSY, CLOSED)
    verdict.late(b"11")
    assert [key for key, _ in store.released] == [b"gw:busy:{digits}"]
    store, limiter, verdict = await late(BUSY)
    verdict.late(b"1")
    assert store.released == []
    limiter.end(verdict, request(), sent=True)
    assert store.released == [(b"gw:busy:{digits}", verdict.member)]


async def test_a_store_that_remembers_is_told_nothing():
    store, limiter, _ = await decided(YES, WIDE, now=S)
    limiter.away(2 * S)
    limiter.back(3 * S, forgot=False)
    await limiter.check(limits(WIDE), request(), 3 * S)
    assert store.hinted == []


# -- costs that are settled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "back"), [(b"50", -20.0), (b"10", 20.0), (b"30", None), (b"junk", None)])
async def test_the_answer_says_what_it_cost(said, back):
    store, limiter, verdict = await decided([Taken(True, 40.0), Taken(True, 1.0)], BY_ANSWER, NARROW)
    assert store.asked[0].costs == [30.0, 1.0]
    limiter.answered(verdict, Response(200, [(b"x-units", said)]))
    limiter.end(verdict, request(), sent=True)
    assert store.adjusted == ([] if back is None else [(b"gw:units:{alice}", back)])
    assert verdict.levels[0] == 40.0 + (back or 0.0)
    assert limiter.misread == (said == b"junk")


async def test_a_request_that_was_never_sent_costs_nothing():
    store, limiter, verdict = await decided([Taken(True, 40.0), Taken(True, 1.0)], BY_ANSWER, NARROW)
    limiter.end(verdict, request(), sent=False)
    limiter.end(verdict, request(), sent=False)
    assert store.adjusted == [(b"gw:units:{alice}", 30.0), (b"gw:narrow:{digits}", 1.0)]


async def test_a_refused_request_gets_nothing_back():
    store, limiter, verdict = await decided([Taken(True, 40.0), Taken(False, 0.0)], WIDE, NARROW)
    limiter.end(verdict, request(), sent=False)
    assert store.adjusted == []


async def test_one_that_is_cancelled_while_it_waits_gets_everything_back_when_the_decision_comes():
    store = FakeStore(YES)
    store.manual = True
    limiter = Limiter(store)
    gone, refused = (limiter.begin(limits(WIDE, BUSY), request(), 0, S) for _ in range(2))
    for verdict in (gone, refused):
        limiter.end(verdict, request(), sent=False)
    assert (store.adjusted, store.released) == ([], [])
    store.answer(gone)
    store.answer(refused, [Taken(True, 3.0), Taken(False, 0.0)])
    assert store.adjusted == [(b"gw:wide:{alice}", 1.0)]
    assert [key for key, _ in store.released] == [b"gw:busy:{digits}"]
    assert limiter.held_places == 0


async def test_alone_too_costs_are_settled():
    store, limiter, _ = await decided(Taken(True, 60.0), BY_ANSWER)
    store.reply = None
    verdict = await limiter.check(limits(BY_ANSWER), request(), 0)
    limiter.answered(verdict, Response(200, [(b"x-units", b"5")]))
    assert [(await limiter.check(limits(BY_ANSWER), request(), 0)).allowed for _ in range(3)] == [True, False, False]
    assert store.adjusted == []


async def test_a_stream_of_unknown_length_is_charged_when_it_has_come():
    policy = LimitPolicy("l", spec=BucketSpec(10.0, 100.0), cost=BodyCost(10))
    store = FakeStore(YES)
    limiter = Limiter(store)
    asking = request()
    asking.stream = Stream(asyncio.get_running_loop(), lambda: None, lambda: None)
    verdict = await limiter.check(limits(policy), asking, 0)
    asking.stream.feed(b"x" * 95)
    limiter.end(verdict, asking, sent=True)
    assert store.adjusted == [(b"gw:l:{alice}", -9.0)]


# -- places -------------------------------------------------------------------------------------------------------


async def test_a_place_is_held_until_the_request_ends_and_given_back_once():
    store, limiter, verdict = await decided(YES, BUSY, WIDE, now=5 * S, deadline=7 * S)
    assert (verdict.member[:8], len(verdict.member)) == (b"worker-1", 16)
    assert verdict.life_ns == 2 * S + GRACE
    assert limiter.held_places == 1
    limiter.end(verdict, request(), sent=True)
    limiter.end(verdict, request(), sent=True)
    assert store.released == [(b"gw:busy:{digits}", verdict.member)]
    assert (limiter.held_places, store.adjusted) == (0, [])


async def test_no_two_requests_are_the_same_member():
    _, limiter, one = await decided(YES, BUSY)
    two = await limiter.check(limits(BUSY), request(), 0)
    assert one.member != two.member


async def test_a_long_request_is_renewed_and_a_short_one_is_not():
    store, limiter, verdict = await decided(YES, BUSY, deadline=3600 * S)
    assert verdict.life_ns == LONGEST
    limiter.tick(LONGEST // 2)
    assert store.renewed == []
    for second in range(6, 30):
        limiter.tick(second * S)
    assert len(store.renewed) in (4, 5)
    assert store.renewed[0] == (b"gw:busy:{digits}", verdict.member, LONGEST)
    limiter.end(verdict, request(), sent=True)
    limiter.tick(3600 * S)
    assert len(store.renewed) in (4, 5)


async def test_a_store_that_is_back_is_told_who_holds_a_place():
    store, limiter, verdict = await decided(YES, BUSY)
    limiter.away(S)
    limiter.back(2 * S, forgot=True)
    assert store.renewed == [(b"gw:busy:{digits}", verdict.member, verdict.life_ns)]


async def test_what_the_store_may_hold_for_requests_that_ended_while_it_was_away_is_forgotten():
    store, limiter, verdict = await decided(YES, BUSY)
    limiter.end(verdict, request(), sent=True)
    limiter.away(S)
    limiter.back(2 * S, forgot=False)
    assert store.forgotten == [(b"gw:busy:{digits}", verdict.member[:8])]
    assert store.renewed == []
    limiter.tick(LONGEST + S)
    limiter.tick(2 * LONGEST + 2 * S)
    limiter.back(2 * LONGEST + 2 * S, forgot=False)
    assert len(store.forgotten) == 1, "by now they have run out"


async def test_places_of_long_requests_that_end_while_the_store_is_away_are_forgotten_too():
    store, limiter, verdict = await decided(YES, BUSY)
    for second in range(1, 27):
        limiter.tick(second * S)
    limiter.away(26 * S)
    limiter.end(verdict, request(), sent=True)
    limiter.back(27 * S, forgot=False)
    assert store.forgotten == [(b"gw:busy:{digits}", verdict.member[:8])]


async def test_places_taken_while_the_store_is_away_are_not_kept_in_mind():
    store, limiter, verdict = await decided(YES, BUSY)
    limiter.end(verdict, request(), sent=True)
    limiter.away(S)
    store.reply = None
    for second in range(2, 50):
        limiter.end(await limiter.check(limits(BUSY), request(), second * S), request(), sent=True)
    assert len(limiter._held._known) == 1
    other = LimitPolicy("other", RouteScope(), concurrent=2)
    limiter.end(await limiter.check(limits(other), request(), 50 * S), request(), sent=True)
    assert len(limiter._held._known) == 1


async def test_a_place_in_shadow_that_was_not_had_is_not_renewed():
    shadow = LimitPolicy("s", RouteScope(), concurrent=1, shadow=True)
    store, limiter, _ = await decided([Taken(False, 0.0), YES], shadow, BUSY)
    limiter.back(S, forgot=False)
    assert [key for key, _, _ in store.renewed] == [b"gw:busy:{digits}"]


async def test_a_cost_above_the_burst_is_never_admitted_alone_either():
    policy = LimitPolicy("l", GlobalScope(), BucketSpec(10.0, 5.0), cost=Cost(6.0))
    _, limiter, verdict = await decided(None, policy)
    assert not verdict.allowed
    assert not (await limiter.check(limits(policy), request(), 3600 * S)).allowed
    assert verdict.hopeless() == 0


async def test_what_can_never_pass_is_told_from_what_can_later():
    large = LimitPolicy("large", GlobalScope(), BucketSpec(10.0, 5.0), cost=Cost(6.0))
    shadow = LimitPolicy("s", GlobalScope(), BucketSpec(10.0, 5.0), cost=Cost(6.0), shadow=True)
    no = Taken(False, 0.0)
    assert (await decided([no, no], WIDE, large))[2].hopeless() == 1, "the first that refuses is another"
    assert (await decided([no, no], WIDE, shadow))[2].hopeless() == -1
    assert (await decided(no, LimitPolicy("p", concurrent=1, cost=Cost(6.0))))[2].hopeless() == -1
