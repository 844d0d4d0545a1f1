"""What the smaller benchmarks make of what they read; the measuring itself is proved when they run."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from loadtests import bench_batching, bench_idle, bench_latency, bench_slow, bench_stages, openload
from loadtests.bars import Bar, over, report
from loadtests.openload import Open
from loadtests.peers.processes import NotUp
from loadtests.wrk import Failed


def one(p50: float, p99: float) -> Open:
    return Open(1000, p50, p99, p99 * 2, 0.1)


def test_a_bar_says_whether_it_held_and_over_what_spread() -> None:
    assert str(Bar("a", 1.5, 1.25, 1.0, 2.0, " ms")) == "bar holds: a <= 1.5 ms: 1.25 ms (1.00-2.00)"
    assert str(over("a", 1.0, [3.0, 1.0, 2.0])) == "bar MISSED: a <= 1: 2.00 (1.00-3.00)"
    assert str(over("a", 1.0, [])) == "bar not measured: a <= 1"


def test_only_check_makes_a_missed_bar_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    held, missed, unknown = Bar("a", 1.0, 1.0), Bar("b", 1.0, 1.1), Bar("c", 1.0, None)
    assert [report([held, missed], check=check) for check in (False, True)] == [0, 1]
    assert [report([held], check=True), report([unknown], check=True)] == [0, 1]
    assert "bar MISSED: b <= 1: 1.10" in capsys.readouterr().out


def test_what_is_added_is_of_the_same_round() -> None:
    found = {
        "direct": [one(0.1, 1.0), one(0.2, 9.0), one(0.1, 1.0)],
        "nginx": [one(0.1, 2.0), one(0.1, 10.0), one(0.1, 2.0)],
        "nginx+lua+redis": [one(0.1, 4.0), one(0.1, 5.0), one(0.1, 2.0)],
        "sluicegate": [one(0.3, 2.0), one(0.6, 10.0), one(0.4, 4.0)],
        "sluicegate, leased": [one(0.3, 3.0), one(0.6, 15.0), one(0.4, 3.0)],
    }
    p50, p99, to_nginx, leased, to_limiting = bench_latency.bars(found, 0.3)
    assert p50.value == pytest.approx(0.3)
    assert p99.value == pytest.approx(1.0)
    assert to_nginx.value == pytest.approx(1.0)
    assert leased.value == pytest.approx(1.5)
    assert to_limiting.value == pytest.approx(2.0)
    assert "at 30% of saturation" in p50.claim
    assert "sluicegate" in bench_latency.text(found)


def test_the_generator_s_line_is_read_and_anything_unanswered_is_a_failure() -> None:
    line = '{"offered":10,"answered":%d,"errors":%s,"seconds":1,"p50":90,"p90":1,"p99":1500,"p999":1,"max":2000,"lag_p99":7}'
    assert openload.parse(line % (10, "{}")) == Open(10, 0.09, 1.5, 2.0, 0.007)
    with pytest.raises(Failed, match=r"9 of 10 answered, errors \{'status 429': 1\}"):
        openload.parse(line % (9, '{"status 429":1}'))
    with pytest.raises(Failed, match="printed"):
        openload.parse("panic")


def test_what_was_refused_is_told_apart_from_what_broke() -> None:
    also = '{"503":{"answered":2,"took":[60,3000]},"504":{"answered":0}}'
    line = '{"offered":9,"answered":6,"counted":4,"also":%s,"errors":{"closed":1},"seconds":2,"p50":90,"p99":1500,"cpu":0.5}'
    found = openload.parse_offered(line % also, 2.0, 0.4)
    assert found == openload.Offered(1.6, 4, 0.09, 1.5, {503: [0.06, 3.0], 504: []}, 1, 0.25)
    assert found.rate == pytest.approx(2.5)
    with pytest.raises(Failed, match="nothing was answered"):
        openload.parse_offered((line % also).replace('"counted":4', '"counted":0'), 2.0, 0.4)
    with pytest.raises(Failed, match="printed"):
        openload.parse_offered("panic", 2.0, 0.4)


def test_goodput_is_of_all_turns_together_and_percentiles_are_ranks() -> None:
    turns = [openload.Offered(1.0, good, 1.0, 2.0, {}, 0, 0.1) for good in (100, 200)]
    assert bench_batching.mean(turns) == 150
    assert [bench_batching.at(range(1, 101), q) for q in (50, 99, 100)] == [50, 99, 100]
    assert math.isnan(bench_batching.at([], 99))


def test_pss_is_found_and_the_growth_is_per_connection() -> None:
    rollup = "5600 r--p\nRss:  90 kB\nPss:               46012 kB\nPss_Dirty:  1 kB\n"
    assert bench_idle.pss(rollup) == 46012
    assert bench_idle.pss(Path("/proc/self/smaps_rollup").read_text()) > 1000
    assert "bar holds: an idle connection <= 6 KiB of the worker: 5.00" in bench_idle.text(
        bench_idle.Growth(1000, 40_000, 45_000, 45_000)
    )
    assert bench_idle.source(0) == "127.0.0.2"
    assert bench_idle.source(bench_idle.PER_ADDRESS) == "127.0.0.3"


@pytest.mark.parametrize(
    ("answer", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", True),
    ],
)
def test_an_answer_is_whole_when_its_body_is(answer: bytes, complete: bool) -> None:
    assert bench_idle.whole(answer) is complete


def test_another_status_than_200_is_no_idle_connection() -> None:
    with pytest.raises(NotUp, match="503"):
        bench_idle.whole(b"HTTP/1.1 503 No\r\n\r\n")


def test_open_connections_of_a_port_are_counted() -> None:
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F90 00000000:0000 0A\n"
        "   1: 0100007F:1F90 0100007F:D431 01\n"
        "   2: 0100007F:D431 0100007F:1F90 01\n"
        "   3: 0100007F:1F90 0100007F:D433 06\n"
    )
    assert bench_slow.established(8080, table) == 1


def test_attacks_are_bounded_and_on_loopback() -> None:
    for kind in bench_slow.KINDS:
        command = bench_slow.command(kind, 8080, 12)
        assert command[command.index("-l") + 1] == "12"
        assert command[-1].startswith("http://127.0.0.1:8080/")
    assert not bench_slow.bar("-H", [one(0, 1)], [one(0, 1), one(0, 9), one(0, 3)]).holds
    assert bench_slow.bar("-H", [], []).value is None


def test_the_budget_adds_up() -> None:
    table = bench_stages.text({"parse request": 3.0, "route": 1.0}, bench_stages.Whole(15.0, 5.0))
    for name, us in {
        "sum of the stages": "4.00",
        "event loop, tasks, pipeline": "11.00",
        "the whole": "20.00",
    }.items():
        assert any(line.strip().startswith(name) and us in line for line in table.splitlines()), name
    user, system = bench_stages.times(Path("/proc/self/stat").read_text())
    assert user + system <= sum(os.times()[:2]) + 0.1
