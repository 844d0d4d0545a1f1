"""The story of `make story`: real Valkey, real go_infer, real models, two workers, ten ways to break it."""

from pathlib import Path

from demo.story import Story


async def test_the_story(tmp_path: Path) -> None:
    told: list[str] = []
    chapters = await Story(tmp_path, told.append).tell()
    print("\n".join(told))
    assert len(chapters) == 10
    assert [str(chapter) for chapter in chapters if chapter.broken] == []
