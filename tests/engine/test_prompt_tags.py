"""Lists of tags: A1111's format, what is found first, files that come and go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_server.engine.prompt_tags import MAX_FILE, TagFiles, read_tags, tag_files_of

DANBOORU = """1girl,0,6008644,"1girls,sole_female"
long_hair,0,4350743,"/lh,longhair"
very_long_hair,0,900000,
looking_at_viewer,0,3400000,"looking_at_camera"
saber_(fate),4,50000,
^_^,0,80000,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "danbooru.csv").write_text(DANBOORU, encoding="utf-8")
    return tmp_path


def found(files: TagFiles, typed: str, limit: int = 10) -> list[tuple[str, str]]:
    return [(tag.text, alias) for tag, alias in files.find(typed, limit)]


def test_what_begins_with_it_comes_first_then_other_names_then_words(folder: Path) -> None:
    files = TagFiles(folders=[folder])
    assert found(files, "long") == [("long hair", ""), ("very long hair", "")]
    assert found(files, "LONG_h", 1) == [("long hair", "")]
    assert found(files, "longh") == [("long hair", "longhair")]
    assert found(files, "looking at c") == [("looking at viewer", "looking at camera")]
    assert found(files, "hair") == [("long hair", ""), ("very long hair", "")]
    assert found(files, "air") == [] and found(files, "  ") == []


def test_brackets_stress_nothing_and_faces_stay_faces(folder: Path) -> None:
    files = TagFiles(folders=[folder])
    assert found(files, "saber (f") == [(r"saber \(fate\)", "")]
    assert found(files, "^") == [("^_^", "")]


def test_files_are_read_anew_where_they_changed_and_may_be_plain_lists(folder: Path) -> None:
    files = TagFiles([folder / "own" / "more.csv"], [folder])
    assert found(files, "glaze") == []
    (folder / "mine.txt").write_text("\ufeffglaze of oil\n# a comment\n\n", encoding="utf-8")
    assert found(files, "glaze") == [("glaze of oil", "")]
    (folder / "mine.txt").unlink()
    (folder / "own").mkdir()
    (folder / "own" / "more.csv").write_text("glaze,0,x,,\n", encoding="utf-8")
    assert found(files, "glaze") == [("glaze", "")]


def test_no_file_and_files_that_are_none_give_nothing(tmp_path: Path) -> None:
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "folder.csv").mkdir()
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    files = TagFiles([tmp_path / "gone.csv"], [tmp_path, tmp_path / "nowhere"])
    assert found(files, "long hair") == []


def test_the_files_of_a_web_ui_are_those_that_its_settings_name(tmp_path: Path) -> None:
    tags = tmp_path / "extensions" / "tagcomplete" / "tags"
    tags.mkdir(parents=True)
    assert tag_files_of(tmp_path) == (tags / "danbooru.csv", tags / "extra-quality-tags.csv")
    chosen = {"tac_tagFile": "e621.csv", "tac_extra.extraFile": "../../../secret.csv"}
    (tmp_path / "config.json").write_text(json.dumps(chosen), encoding="utf-8")
    assert tag_files_of(tmp_path) == (tags / "e621.csv",)
    for broken in ("[]", "{", '{"tac_tagFile": 3, "tac_extra.extraFile": "None"}'):
        (tmp_path / "config.json").write_text(broken, encoding="utf-8")
        assert all(path.parent == tags for path in tag_files_of(tmp_path))


@settings(max_examples=50, deadline=None)
@given(st.text(), st.lists(st.text(max_size=20), max_size=8))
def test_any_file_and_any_typing_are_borne(
    tmp_path_factory: pytest.TempPathFactory, text: str, typed: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tags")
    (folder / "any.csv").write_text(text, encoding="utf-8", errors="replace", newline="")
    files = TagFiles(folders=[folder])
    for words in typed:
        for tag, _ in files.find(words, 5):
            assert tag.text and tag in read_tags([folder / "any.csv"])
