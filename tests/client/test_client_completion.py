"""What is offered while a prompt is typed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_client.completion import complete, names_of

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
