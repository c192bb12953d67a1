"""Prompts over a real socket: a wrong one is refused with its place before it is accepted; files come from folders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.messages import Accepted, Error, WordsRequest
from impasto_server.engine.modes import Txt2Img
from impasto_server.service.server import word_sources_of

from tests.service.fakes import ask_submit, connected, running, settings_for


@pytest.fixture
def a1111(tmp_path: Path) -> Path:
    """A web UI's folder with a style and the wildcards of an extension."""
    root = tmp_path / "webui"
    wildcards = root / "extensions" / "sd-dynamic-prompts" / "wildcards"
    wildcards.mkdir(parents=True)
    (wildcards / "beast.txt").write_text("cat\ndog\n", encoding="utf-8")
    (root / "styles.csv").write_text("name,prompt,negative_prompt\nInk,ink of {prompt},blurry\n", encoding="utf-8")
    return root


def test_files_are_found_where_they_lie(a1111: Path, tmp_path: Path) -> None:
    home, further = tmp_path / "home", tmp_path / "further"
    (home / "wildcards").mkdir(parents=True)
    (home / "wildcards" / "beast.txt").write_text("owl\n", encoding="utf-8")
    further.mkdir()
    (further / "tone.txt").write_text("blue\n", encoding="utf-8")
    params = Txt2Img(prompt="a __beast__ in __tone__", styles="Ink")
    found = word_sources_of(settings_for(home, a1111=(a1111,), wildcards=(further,))).gather(params)
    assert found.wildcards == {"beast": ("owl",), "tone": ("blue",)}, "the home goes first"
    assert found.styles["Ink"].negative_prompt == "blurry"
    plain = Txt2Img(prompt="a __beast__", styles="Ink")
    assert word_sources_of(settings_for(tmp_path, a1111=(a1111,))).gather(plain).wildcards == {"beast": ("cat", "dog")}


@pytest.mark.parametrize(
    ("params", "code", "path", "position"),
    [
        ({"prompt": "a [cat:dog:half]"}, "request.invalid_param", "params.prompt", 2),
        ({"negative_prompt": "x <lora:a:1>"}, "request.invalid_param", "params.negative_prompt", 2),
        ({"prompt": "a __bast__"}, "request.invalid_param", "params.prompt", 2),
        ({"styles": "Inc"}, "request.invalid_param", "params.styles", None),
        ({"prompt": "<lora:a:1>"}, "model.unknown", "params.prompt", None),
        ({"clip_skip": 13}, "request.invalid_param", "params.clip_skip", None),
    ],
)
def test_a_wrong_prompt_is_refused_before_it_is_accepted(
    a1111: Path, tmp_path: Path, params: dict[str, object], code: str, path: str, position: int | None
) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path, a1111=(a1111,))) as (_, endpoint), connected(endpoint) as peer:
            answer = await ask_submit(peer, "wrong", params=params)
            assert isinstance(answer, Error), answer
            assert (answer.code, answer.path) == (code, path) and len(answer.message) > 20
            assert (answer.data or {}).get("position") == position
            right = {"prompt": "a __beast__ {at night|by day}, [cat|dog] AND x :-1", "styles": "Ink", "steps": 1}
            assert isinstance(await ask_submit(peer, "right", params=right), Accepted)

    asyncio.run(scenario())


def test_tags_and_styles_are_looked_up_by_what_was_typed(a1111: Path, tmp_path: Path) -> None:
    tags = a1111 / "extensions" / "tagcomplete" / "tags"
    tags.mkdir(parents=True)
    (tags / "danbooru.csv").write_text('long_hair,0,4350743,"longhair"\n', encoding="utf-8")
    home = tmp_path / "home"
    (home / "tags").mkdir(parents=True)
    (home / "tags" / "mine.txt").write_text("long brush strokes\n", encoding="utf-8")

    async def scenario() -> None:
        async with running(settings_for(home, a1111=(a1111,))) as (_, endpoint), connected(endpoint) as peer:

            async def words(kind: str, typed: str, limit: int = 12) -> list[tuple[str, int, str]]:
                answer: Any = await peer.ask(WordsRequest, kind, typed, limit)
                return [(word.text, word.uses, word.alias) for word in answer.words]

            assert await words("tag", "long") == [("long hair", 4350743, ""), ("long brush strokes", 0, "")]
            assert await words("tag", "longh") == [("long hair", 4350743, "longhair")]
            assert await words("tag", "long", 1) == [("long hair", 4350743, "")]
            assert await words("style", "in") == [("Ink", 0, "")] and await words("style", "z") == []
            refused: Any = await peer.ask(WordsRequest, "verb", "paint")
            assert (refused.code, refused.path) == ("request.invalid_param", "kind")

    asyncio.run(scenario())
