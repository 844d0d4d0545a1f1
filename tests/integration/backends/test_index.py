"""`python -m backends.models.index`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from backends.models import index


def test_every_file_of_every_version_is_in_the_index(tmp_path: Path) -> None:
    (tmp_path / "3" / "variables").mkdir(parents=True)
    (tmp_path / "3" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "3" / "variables" / "variables.index").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    assert index.main([str(tmp_path)]) == 0
    written = json.loads((tmp_path / "index.json").read_text())
    assert written == {
        "versions": {
            "3": {
                "files": [
                    {"path": "saved_model.pb", "size": 5, "sha256": hashlib.sha256(b"graph").hexdigest()},
                    {"path": "variables/variables.index", "size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
                ]
            }
        }
    }


@pytest.mark.parametrize(("make", "says"), [("", "has no version directory"), ("1", "is a link or no file")])
def test_what_is_no_repository_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str, says: str
) -> None:
    if make:
        (tmp_path / make).mkdir()
        (tmp_path / make / "link").symlink_to("/etc/passwd")
    assert index.main([str(tmp_path)]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "index.json").exists()
