"""The built binary and models, made on demand (`make test` has made them already), and a small disk to fill."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.layout import GO_INFER, MODELS
from demo.prepare import prepare


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not (GO_INFER.exists() and (MODELS / "digits" / "2").exists()):
        assert prepare() == 0, "backends or models could not be built"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small real disk: `disk("size=2m")`."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        if (
            shutil.which("mount") is None
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
            ).returncode
        ):
            pytest.skip("mounting needs root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
