"""One command measures: go_infer and one of its peers for a second each, their labels right, figures and plot written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.layout import ROOT
from loadtests.peers.programs import find_program


def test_go_infer_and_flask_are_measured_side_by_side(tmp_path: Path) -> None:
    for program in ("wrk", "h2load"):
        if find_program(program) is None:
            pytest.skip(f"{program} is not installed (make bench-peers)")
    command = [sys.executable, "-m", "loadtests.bench_serving", "--quick", "--seconds=1", "--rows=1", "--rounds=1"]
    done = subprocess.run(
        [*command, "--servers=go_infer,Flask", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measured = {
        (row["server"], row["encoding"]): row
        for row in json.loads((tmp_path / "serving.json").read_text())["saturated"]
    }
    assert {("go_infer", "JSON"), ("Flask + gunicorn", "JSON"), ("Flask + gunicorn, threads", "binary")} <= set(
        measured
    )
    assert all(row["rate"] > 0 and row["cpu"] > 0 and row["memory"] > 50 for row in measured.values())
    assert (tmp_path / "serving.svg").read_text().rstrip().endswith("</svg>")
    assert "bar holds" in done.stdout or "bar MISSED" in done.stdout
