"""What is offered while a prompt is typed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_client.completion import complete, names_of
from impasto_client.events import Failed, WordsFound
from impasto_client.vocabulary import Vocabulary
from impasto_protocol.errors import ResourceError
from impasto_protocol.lists import Word

MODELS = [
    {"kind": "lora", "id": "ink"},
    {"kind": "lora", "id": "styles/drawing-ink"},
    {"kind": "lora", "id": "torn", "usable": False},
    {"kind": "embedding", "id": "EasyNegative"},
    {"kind": "checkpoint", "id": "inkpunk"},
    {"kind": "wildcard", "id": "colours"},
]
NAMES = names_of(MODELS)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a cat, <", ["a cat, <lora:ink:1>", "a cat, <lora:styles/drawing-ink:1>"]),
        ("a cat, <lora:INK", ["a cat, <lora:ink:1>", "a cat, <lora:styles/drawing-ink:1>"]),
        ("<draw", ["<lora:styles/drawing-ink:1>"]),
        ("<lora:ink:0.5", []),
        ("<lora:ink:1> easy", ["<lora:ink:1> EasyNegative"]),
        ("bad, easyn", ["bad, EasyNegative"]),
        ("e", []),
        ("EasyNegative", []),
        ("a __col", ["a __colours__"]),
        ("__", ["__colours__"]),
        ("a cat", []),
        ("", []),
    ],
)
def test_what_is_offered(text: str, after: list[str]) -> None:
    found = complete(text, len(text), NAMES)
    assert [text[: found.start] + suggestion.text for suggestion in found.suggestions] == after


@settings(deadline=None)
@given(st.text("<lora:_easy ink>,()", max_size=20), st.integers(0, 20))
def test_it_only_replaces_what_was_typed(text: str, caret: int) -> None:
    caret = min(caret, len(text))
    found = complete(text, caret, NAMES)
    assert 0 <= found.start <= caret
    assert complete(text, caret, {}).suggestions == ()


TAGS = [Word("long hair", 4_350_743), Word("long sleeves", 1_200), Word("very long hair", 0, "longer hair")]


def tags(typed: str) -> list[Word]:
    return [word for word in TAGS if typed.casefold() in word.text]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a girl, long ha", ["a girl, long hair", "a girl, very long hair"]),
        ("LONG S", ["long sleeves"]),
        ("(long s", ["(long sleeves"]),
        ("a girl,\nlong sl", ["a girl,\nlong sleeves"]),
        ("long hair", ["very long hair"]),
        ("a long", ["a long"]),
        ("(red:1.2", []),
        ("<long ha", []),
        ("a girl, ", []),
    ],
)
def test_tags_take_the_place_of_all_words_since_the_comma(text: str, after: list[str]) -> None:
    found = complete(text, len(text), {}, tags)
    offered = [text[: found.start] + suggestion.text for suggestion in found.suggestions]
    assert offered == (after if after != [text] else [])


def test_a_tag_shows_how_often_it_was_met_and_by_which_name_it_was_found() -> None:
    shown = [suggestion.shown for suggestion in complete("long", 4, {}, tags).suggestions]
    assert shown == ["long hair  (4.4 M)", "long sleeves  (1.2 k)", "longer hair → very long hair"]


def test_an_embedding_beside_tags_keeps_the_words_before_it() -> None:
    names = {"embedding": ["hairy"]}
    found = complete("x, long hair", 12, names, lambda typed: [Word("long hairband")])
    assert found.start == 3
    assert [suggestion.text for suggestion in found.suggestions] == ["long hairy", "long hairband"]


class Asked:
    """A runner that notes what it is asked."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, str, str]] = []

    def words(self, ticket: str, kind: str, typed: str) -> None:
        self.questions.append((ticket, kind, typed))


def test_the_server_is_asked_once_for_what_is_typed_and_the_fields_hear_of_the_answer() -> None:
    runner, heard = Asked(), []
    words = Vocabulary(runner)  # type: ignore[arg-type]
    words.listeners.append(lambda: heard.append(1))
    assert not words.offer("long_h", 6).suggestions
    words.offer("long h", 6)
    assert [question[1:] for question in runner.questions] == [("tag", "long h")]
    assert words.take(WordsFound(runner.questions[0][0], (TAGS[0],))) and heard == [1]
    assert words.offer("Long h", 6).suggestions[0].text == "long hair"
    assert len(runner.questions) == 1
    words.learn(MODELS)
    assert not words.offer("long h", 6).suggestions, "another catalogue may come with other lists"
    assert len(runner.questions) == 2


def test_an_answer_that_came_too_late_and_an_error_change_nothing() -> None:
    runner, heard = Asked(), []
    words = Vocabulary(runner)  # type: ignore[arg-type]
    words.listeners.append(lambda: heard.append(1))
    words.offer("lo", 2)
    words.offer("lon", 3)
    first, second = (question[0] for question in runner.questions)
    assert words.take(WordsFound(first, (TAGS[0],))) and not heard
    error = ResourceError("resource.no_answer", "The server is silent.")
    assert words.take(Failed(second, error)) and not heard
    assert not words.take(Failed("estimate-1", error)), "that is somebody else's"
