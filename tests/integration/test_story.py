"""The story of `make story`: real Valkey, real go_infer, real models, two workers, ten ways to break it.

Its promises are in milliseconds and percents, which a machine that is busy for a moment breaks too: what is not kept in
one telling must be kept in one of the next two, and each telling is shown.
"""

from pathlib import Path

from demo.story import Story


async def test_the_story(tmp_path: Path) -> None:
    broken: list[str] = []
    for telling in ("first", "second", "third"):
        told: list[str] = []
        (folder := tmp_path / telling).mkdir()
        chapters = await Story(folder, told.append).tell()
        print("\n".join(told))
        assert len(chapters) == 10
        broken = [str(chapter) for chapter in chapters if chapter.broken]
        if not broken:
            break
    assert broken == []
