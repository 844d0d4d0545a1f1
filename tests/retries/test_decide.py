"""What follows a try that failed; docs/retries.md shows this very table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retries.decide import OVERLOAD, Failed, Others, decide
from gateway.retries.rules import IDEMPOTENT, REASONS, RetryRules, may_run_twice
from tests.upstreams.scene import CELLS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "retries.md"
MS = 1_000_000
SECOND = 1000 * MS
EVERY = frozenset(REASONS)
RULES = RetryRules(CELLS, 3, EVERY)
ALONE = RetryRules(CELLS, 3, EVERY, same_backend=True)

CONNECT = Failed("connect", unseen=True)
FULL = Failed("connect", unseen=True, overload=True)
RESET = Failed("reset")
TIMEOUT = Failed("timeout")
BUSY = Failed("503", overload=True)
BUSY_FOR_A_SECOND = Failed("503", overload=True, wait=SECOND)
BROKEN = Failed("502")
NONSENSE = Failed("")


class Case(NamedTuple):
    says: str
    failed: Failed
    others: Others
    expected: str
    tries: int = 1
    twice: bool = True
    left: int = 5 * SECOND
    rules: RetryRules = RULES


#: `rand` is 1 - 1e-12, so a back-off shows its bound.
TABLE = [
    Case("no connection", CONNECT, Others.FRESH, "at once"),
    Case("no connection, the request may not run twice", CONNECT, Others.FRESH, "at once", twice=False),
    Case("reset", RESET, Others.FRESH, "at once"),
    Case("reset, the request may not run twice", RESET, Others.FRESH, "no: the request may not run twice", twice=False),
    Case("the try's own time (`per_try`) is over", TIMEOUT, Others.FRESH, "at once"),
    Case("502 (500 and 504 likewise)", BROKEN, Others.FRESH, "at once"),
    Case("503 (429 likewise)", BUSY, Others.FRESH, "within 25 ms"),
    Case("503 with `Retry-After: 1`", BUSY_FOR_A_SECOND, Others.FRESH, "within 25 ms"),
    Case("all our connections to it are in use", FULL, Others.FRESH, "within 25 ms"),
    Case("the second try failed", RESET, Others.FRESH, "within 50 ms", tries=2),
    Case("the second try failed", RESET, Others.TRIED, "within 50 ms", tries=2),
    Case("the second try was answered 503 with `Retry-After: 1`", BUSY_FOR_A_SECOND, Others.TRIED, "after 1000 ms, within 50 ms more", tries=2),
    Case("the same with 900 ms left", BUSY_FOR_A_SECOND, Others.TRIED, "no: no time left to wait", tries=2, left=900 * MS),
    Case("the third try of three failed", RESET, Others.FRESH, "no: no more tries", tries=3),
    Case("anything", RESET, Others.NONE, "no: nobody else to ask"),
    Case("anything, with `same_backend: true`", RESET, Others.NONE, "within 25 ms", rules=ALONE),
    Case("503 with `Retry-After: 1` and `same_backend: true`", BUSY_FOR_A_SECOND, Others.NONE, "after 1000 ms, within 25 ms more", rules=ALONE),
    Case("not in `on`, or not an HTTP response, or too large", NONSENSE, Others.FRESH, "no: not a reason of the route"),
]  # fmt: skip
WHO = {Others.FRESH: "one not tried yet", Others.TRIED: "one tried before the last", Others.NONE: "nobody"}


def outcome(case, rand=1 - 1e-12):
    step = decide(case.rules, case.failed, case.tries, case.others, case.left, twice=case.twice, rand=rand)
    if not step.again:
        assert step.pause == 0
        return f"no: {step.why}"
    if not step.pause:
        return "at once"
    wait = case.failed.wait if case.others is not Others.FRESH else 0
    more = f"within {round((step.pause - wait) / MS)} ms"
    return f"after {wait // MS} ms, {more} more" if wait else more


@pytest.mark.parametrize("case", TABLE, ids=[f"{case.says}, {case.others.name}" for case in TABLE])
def test_the_table(case):
    assert outcome(case) == case.expected


def test_the_page_shows_the_table():
    rows = [f"| {case.says} | {WHO[case.others]} | {case.expected} |" for case in TABLE]
    text = "\n".join(["| what happened | else there is | another try |", "| --- | --- | --- |", *rows])
    assert text in PAGE.read_text(), f"docs/retries.md is to have:\n{text}"


failures = st.builds(
    lambda reason, wait: Failed(reason, reason == "connect", reason in OVERLOAD, wait),
    st.sampled_from(["", *REASONS]),
    st.sampled_from([0, 10 * MS, SECOND, 3600 * SECOND]),
)


@given(
    failures,
    st.integers(1, 6),
    st.sampled_from(list(Others)),
    st.integers(-SECOND, 10 * SECOND),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
    st.frozensets(st.sampled_from(REASONS)),
    st.booleans(),
)
def test_what_always_holds(failed, tries, others, left, twice, rand, on, same):
    rules = RetryRules(CELLS, 3, on, same_backend=same)
    step = decide(rules, failed, tries, others, left, twice=twice, rand=rand)
    if not step.again:
        assert step.why
        return
    assert failed.reason in on
    assert twice or failed.reason == "connect"
    assert tries < 3
    assert 0 <= step.pause < left
    assert others is not Others.NONE or same
    assert others is Others.FRESH or step.pause >= failed.wait


def test_a_try_with_a_time_of_its_own_may_be_repeated_for_it():
    assert "timeout" in RetryRules(CELLS, 2, frozenset(), per_try=1).on
    assert "timeout" not in RetryRules(CELLS, 2, frozenset()).on


def test_only_what_may_be_repeated_or_hedged_is_watched():
    assert not RetryRules(CELLS, 2).watched
    assert RetryRules(CELLS, 2, per_try=1).watched
    assert not RetryRules(CELLS, 1, per_try=1).watched


KEY = {b"idempotency-key": b'"1"'}


@pytest.mark.parametrize(
    ("rules", "method", "headers", "twice"),
    [
        (None, b"GET", {}, True),
        (None, b"POST", KEY, False),
        (RetryRules(CELLS), b"POST", {}, False),
        (RetryRules(CELLS), b"POST", KEY, False),
        (RetryRules(CELLS, replay_field=b"idempotency-key"), b"POST", KEY, True),
        (RetryRules(CELLS, replay_field=b"idempotency-key"), b"POST", {}, False),
        (RetryRules(CELLS, replay_field=b"x-key"), b"PATCH", KEY, False),
        (RetryRules(CELLS, replayable=True), b"PATCH", {}, True),
    ],
)
def test_what_may_run_twice(rules, method, headers, twice):
    assert may_run_twice(rules, method, headers) == twice


def test_idempotent_methods_are_those_of_rfc_9110():
    assert frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")) == IDEMPOTENT
