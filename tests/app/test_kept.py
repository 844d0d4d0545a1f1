"""What operators said, over restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.app.kept import KeptBreakers
from gateway.breakers.permit import FOREVER
from gateway.errors import StartError

SECOND = 1_000_000_000
DAY = 86_400.0


def test_it_comes_back_on_another_clock(tmp_path: Path) -> None:
    kept = KeptBreakers(tmp_path / "state.json")
    assert kept.read(5 * SECOND, DAY) == {}
    forced = {"p/a:1": ("open", 65 * SECOND), "p/b:1": ("closed", FOREVER), "p/c:1": ("open", 15 * SECOND)}
    kept.write(forced, 5 * SECOND, DAY)
    # 20 s later, and the machine has started again: its monotonic clock is at 2 s
    again = KeptBreakers(tmp_path / "state.json").read(2 * SECOND, DAY + 20.0)
    assert again == {"p/a:1": ("open", 42 * SECOND), "p/b:1": ("closed", FOREVER)}
    # what is over is not kept
    assert set(json.loads((tmp_path / "state.json").read_text())["breakers"]) == {"p/a:1", "p/b:1"}
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.json").touch()
    assert KeptBreakers(tmp_path / "state.json").read(0, DAY) == {}


@pytest.mark.parametrize(
    "content",
    [
        "version: 1\n",
        "{}",
        "[]",
        "1",
        '{"version": 2, "breakers": {}}',
        '{"version": 1, "breakers": []}',
        '{"version": 1, "breakers": {"a": "open"}}',
        '{"version": 1, "breakers": {"a": {"state": "ajar", "until": null}}}',
        '{"version": 1, "breakers": {"a": {"state": "open", "until": "soon"}}}',
        '{"version": 1, "breakers": {"a": {"state": "open"}}}',
        "\x00\xff",
    ],
)
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "theirs"
    path.write_text(content)
    with pytest.raises(StartError, match="is no state of a gateway; name another file, or move it away"):
        KeptBreakers(path).read(0, DAY)
    assert path.read_text() == content


def test_where_nothing_can_be_written_is_known_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^admin.state_file: cannot write '.*/none/state.json': No such file"):
        KeptBreakers(tmp_path / "none/state.json").read(0, DAY)
    with pytest.raises(StartError, match=r"^admin.state_file: cannot read"):
        KeptBreakers(tmp_path).read(0, DAY)


def test_a_disk_that_fails_later_does_not_take_the_word_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "there").mkdir()
    kept = KeptBreakers(tmp_path / "there/state.json")
    kept.read(0, DAY)
    (tmp_path / "there/state.json").unlink()
    (tmp_path / "there").rmdir()
    for _ in range(2):
        kept.write({"p/a:1": ("open", FOREVER)}, 0, DAY)
    assert caplog.text.count("so a restart will not know") == 1
    assert (kept.owed, kept.failures) == (True, 2)
    (tmp_path / "there").mkdir()
    kept.write({"p/a:1": ("open", FOREVER)}, 0, DAY)
    assert "state.json' is written again" in caplog.text
    assert (kept.owed, kept.failures) == (False, 2)


def test_a_time_from_a_wild_clock_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "breakers": {"p/a:1": {"state": "open", "until": 1e300}}}))
    assert KeptBreakers(path).read(0, DAY) == {"p/a:1": ("open", int(366 * DAY) * SECOND)}
