"""Environments of foreign clients: what cannot be had is said, and not asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import environments
from tests.interop.programs import NotHere


def test_an_environment_that_cannot_be_had_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = []

    def fail(command: list[str], failure: str, folder: Path | None = None) -> None:
        tried.append(command)
        raise NotHere(f"{failure}: no network")

    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    monkeypatch.setattr(environments, "_missing", {})
    monkeypatch.setattr(environments, "_run", fail)
    for _ in range(3):
        with pytest.raises(NotHere, match="the environment of nobody cannot be made: no network"):
            environments.python("nobody", "nothing==1")
    assert len(tried) == 1
