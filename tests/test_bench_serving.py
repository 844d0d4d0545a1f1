"""What `bench_serving` sends, reads and makes of it; the measuring itself is proved when it runs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import cast

import pytest

from loadtests import bench_serving
from loadtests.bars import Floor
from loadtests.bench_serving import Beside, Point, Results, Saturated, bars, windows
from loadtests.serving.load import Load
from loadtests.serving.servers import Running, Server
from loadtests.serving.wire import LENGTH_FIELD, Json, OpenInference, Predict, Raw, part, parts, varint

ROWS = [[1] * 64, [2] * 64]
LABELS = struct.pack("<2q", 7, 300)


def test_json_is_the_row_format() -> None:
    assert json.loads(Json().encode(ROWS)) == {"instances": ROWS}
    assert Json().labels(b'{"predictions": [{"label": 7}, {"label": 300}]}', {}) == [7, 300]


def test_raw_rows_are_bytes_both_ways() -> None:
    assert Raw().encode(ROWS) == struct.pack("<64f", *ROWS[0]) + struct.pack("<64f", *ROWS[1])
    assert Raw().labels(LABELS + bytes(80), {}) == [7, 300]


def test_open_inference_says_where_its_tensors_lie() -> None:
    encoding = OpenInference()
    body, head = encoding.encode(ROWS), int(encoding.fields(2)[LENGTH_FIELD])
    [image] = json.loads(body[:head])["inputs"]
    assert (image["shape"], image["parameters"]) == ([2, 64], {"binary_data_size": len(body) - head})
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data_size": 80}},
        {"name": "label", "parameters": {"binary_data_size": 16}},
    ]
    answer = json.dumps({"outputs": outputs}).encode()
    assert encoding.labels(answer + bytes(80) + LABELS, {LENGTH_FIELD.lower(): str(len(answer))}) == [7, 300]
    in_json = json.dumps({"outputs": [{"name": "label", "data": [7, 300]}]}).encode()
    assert encoding.labels(in_json, {}) == [7, 300]


def test_a_predict_request_has_its_rows_in_tensor_content() -> None:
    body = Predict().encode(ROWS)
    compressed, length = struct.unpack(">BI", body[:5])
    assert (compressed, length) == (0, len(body) - 5)
    request = dict(parts(body[5:]))
    assert dict(parts(request[1])) == {1: b"digits"}
    entry = dict(parts(request[2]))
    assert entry[1] == b"image"
    assert dict(parts(entry[2]))[4] == Raw().encode(ROWS)


@pytest.mark.parametrize("tensor", [part(4, LABELS), part(10, varint(7) + varint(300))])
def test_a_predict_answer_is_read_in_either_form(tensor: bytes) -> None:
    other = part(1, part(1, b"probabilities") + part(2, b""))
    assert Predict().labels(part(2, b"") + other + part(1, part(1, b"label") + part(2, tensor)), {}) == [7, 300]


def saturated(server: str, encoding: str, rate: float, p99: float, memory: float, rows: int = 1) -> Saturated:
    return Saturated(server, encoding, rows, 64, rate, p99 / 2, p99, memory, 1.0)


def test_bars_are_of_json_with_one_row() -> None:
    results = Results(
        [
            saturated("go_infer", "JSON", 20_000, 5, 300),
            saturated("go_infer", "JSON", 1, 1, 300, rows=32),
            saturated("go_infer, unbatched", "JSON", 5_000, 50, 300),
            saturated("Python gRPC", "gRPC", 2_500, 40, 800),
            saturated("Flask + gunicorn", "JSON", 1_000, 100, 900),
            saturated("Flask + gunicorn", "binary", 2_000, 100, 900),
        ]
    )
    values = {bar.claim: (bar.value, bar.holds) for bar in bars(results)}
    assert values["JSON requests/s, times Flask + gunicorn"] == (20, True)
    assert values["p99 at each one's own saturation, times Flask + gunicorn"] == (0.05, True)
    assert values["resident memory, times Flask + gunicorn"] == (pytest.approx(1 / 3), True)
    assert values["JSON requests/s, times Python gRPC"] == (8, True)
    assert values["requests/s, times unbatched"] == (4, True)
    assert values["JSON requests/s, times Flask + gunicorn, threads"] == (None, False)


def test_bars_are_medians_of_the_rounds_ratios() -> None:
    rates = [(20_000, 1_000), (9_000, 300), (10_000, 1_000)]  # 20, 30 and 10 times
    results = Results(
        [
            Saturated(server, "JSON", 1, 64, rate, 1, 2, 300, 1.0, round=number)
            for number, pair in enumerate(rates)
            for server, rate in zip(("go_infer", "Flask + gunicorn"), pair, strict=True)
        ]
    )
    [bar] = [bar for bar in bars(results) if bar.claim == "JSON requests/s, times Flask + gunicorn"]
    assert (bar.value, bar.low, bar.high, bar.holds) == (20, 10, 30, True)


@pytest.mark.parametrize(
    ("rate", "seconds", "least", "expected"),
    [(8_000, 4.0, 0.5, 8), (8_000, 4.0, 1.0, 4), (100, 4.0, 0.5, 2), (10, 4.0, 0.5, 1), (8_000, 0.3, 0.5, 1)],
)
def test_a_window_is_long_enough_for_a_p99(rate: float, seconds: float, least: float, expected: int) -> None:
    assert windows(rate, seconds, least) == expected


def test_at_the_same_load_p99s_are_compared_of_json_alone() -> None:
    threads = "Flask + gunicorn, threads"
    same = [
        Beside(Point(threads, as_, 900.0, 20, 50), Point("go_infer", as_, 900.0, 0.4, p99))
        for as_, p99 in (("JSON", 2.0), ("binary", 40.0))
    ]
    values = {bar.claim: (bar.value, bar.holds) for bar in bars(Results(same=same))}
    assert values[f"p99 at the same load, times {threads}"] == (0.04, True)
    assert "p99 at the same load, times Flask + gunicorn" not in values
    assert "p99 2.00 ms to 50.00 (1/25)" in str(same[0])


class Machine:
    """A server that uses one second, and a machine that does so much besides in each run."""

    def __init__(self, besides: list[float]) -> None:
        self.besides = besides
        self.runs = 0

    def cpu_seconds(self) -> float:
        return float(self.runs)

    def run(self) -> Load:
        self.runs += 1
        return Load(float(self.runs), 1.0, 2.0, 10)

    def machine_seconds(self) -> tuple[float, float]:
        return self.runs + sum(self.besides[: self.runs]), 0.0


@pytest.mark.parametrize(
    ("besides", "runs", "counts"),
    [([0.0, 9.0], 1, 1), ([9.0, 0.0, 9.0], 2, 2), ([9.0, 3.0, 5.0, 0.0], 3, 2)],
)
def test_a_disturbed_run_is_taken_again_and_the_quietest_counts(
    monkeypatch: pytest.MonkeyPatch, besides: list[float], runs: int, counts: int
) -> None:
    machine = Machine(besides)
    seconds = iter(range(100))
    monkeypatch.setattr(bench_serving, "machine_seconds", machine.machine_seconds)
    monkeypatch.setattr(bench_serving, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(bench_serving.time, "monotonic", lambda: float(next(seconds)))
    taken = bench_serving.quietest(cast("Running", machine), machine.run)
    assert (machine.runs, taken.load.rate, taken.cpu) == (runs, counts, 1.0)
    assert taken.others == besides[counts - 1]


def test_a_floor_is_to_be_reached() -> None:
    assert str(Floor("a", 20, 19.5)) == "bar MISSED: a >= 20: 19.50"
    assert str(Floor("a", 20, 20.5, unit="x")) == "bar holds: a >= 20x: 20.50x"
    assert str(Floor("a", 20, None)) == "bar not measured: a >= 20"


def test_what_is_missing_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_serving, "find_program", lambda name: None if name == "h2load" else name)
    python = Server("some", (), (Json(),), needs=("no_such_module",))
    assert bench_serving.problem([Server("some", (), (Predict(),))], quick=True) == (
        "h2load is not here: run 'make bench-peers' first"
    )
    assert "no_such_module is not installed" in (bench_serving.problem([python], quick=True) or "")
    assert bench_serving.problem([Server("some", (), (Json(),))], quick=True) is None
    assert bench_serving.main(["--binary", str(tmp_path / "none")]) == 1
    assert "none does not exist: run 'python -m backends.build' first" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        bench_serving.main(["--rows", "7"])
