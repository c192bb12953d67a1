"""Weights by a key: examples as a painter sees them, and properties against the engine's own reading of prompts."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from impasto_client.prompt_edit import is_settings, shift_weight
from impasto_server.engine.prompt import parse_attention


def shown(text: str, steps: int = 1) -> str:
    """`text` with the selection between two |, or the caret at one; the same of what comes out."""
    parts = text.split("|")
    start = len(parts[0])
    edit = shift_weight("".join(parts), start, start + (len(parts[1]) if len(parts) == 3 else 0), steps)
    return f"{edit.text[: edit.start]}|{edit.text[edit.start : edit.end]}|{edit.text[edit.end :]}"


@pytest.mark.parametrize(
    ("before", "steps", "after"),
    [
        ("a red ha|ir ribbon", 1, "a red (|hair|:1.1) ribbon"),
        ("a red |hair", 1, "a red (|hair|:1.1)"),
        ("a |red hair |ribbon", 1, "a (|red hair|:1.1) ribbon"),
        ("a (|hair|:1.1) b", 1, "a (|hair|:1.2) b"),
        ("a (|hair|:1.1) b", -1, "a |hair| b"),
        ("a (red ha|ir:1.2)", 1, "a (|red hair|:1.3)"),
        ("a |(red hair:1.2)|", -1, "a (|red hair|:1.1)"),
        ("a (ha|ir)", 1, "a (|hair|:1.2)"),
        ("a (ha|ir)", -1, "a |hair|"),
        ("ha|ir", -1, "(|hair|:0.9)"),
        ("(|hair|:0.05)", -1, "(|hair|:0)"),
        ("(| a|:1.2)", 1, "(| a|:1.3)"),
        ("((ha|ir:1.2) and skin:1.1)", 1, "((|hair|:1.3) and skin:1.1)"),
        ("[ha|ir:skin:0.5]", 1, "[(|hair|:1.1):skin:0.5]"),
        (r"\(ha|ir\)", 1, r"(|\(hair\)|:1.1)"),
        ("<lora:in|k:0.8> a", 1, "<lora:in||k:0.85> a"),
        ("<lora:in|k> a", -2, "<lora:in||k:0.9> a"),
        ("a (b|, c) d| e", 1, "a (b|, c) d| e"),
        ("a,  |  ", 1, "a,  ||  "),
        ("", 1, "||"),
    ],
)
def test_what_a_key_press_does(before: str, steps: int, after: str) -> None:
    assert shown(before if before else "|", steps) == after


words = st.text("ab ,.:()[]\\<>|{}_1", max_size=24)
places = st.tuples(st.integers(0, 24), st.integers(0, 24))


@settings(deadline=None)
@given(words, places, st.integers(-3, 3))
@example("(a:1.1)", (1, 2), -1)
def test_it_never_fails_and_keeps_every_word(text: str, place: tuple[int, int], steps: int) -> None:
    edit = shift_weight(text, *place, steps)
    assert 0 <= edit.start <= edit.end <= len(edit.text)
    if edit.text != text:
        # Only brackets and numbers come and go around the words, which are still selected (or the caret in a tag).
        head = next(i for i in range(len(text) + 1) if i == len(text) or text[i] != edit.text[i : i + 1])
        assert edit.start <= len(text) and text[:head] == edit.text[:head]


@settings(deadline=None)
@given(st.text("ab ,.:()[]\\|{}_2", max_size=24), places, st.integers(1, 4))
def test_up_and_down_again_means_the_same(text: str, place: tuple[int, int], steps: int) -> None:
    up = shift_weight(text, *place, steps)
    if up.text != text and ":2" not in text and ":.2" not in text:  # a weight that is written may be at its limit
        down = shift_weight(*up, -steps)
        # (words) without a number come back as (words:1.1).
        assert plain(down.text) == plain(text)


plain_words = st.lists(st.sampled_from(["red", "hair", "a cat", "(blue:1.3)", "[old]", "(soft)", "sky"]), min_size=1)


@settings(deadline=None)
@given(plain_words, st.data())
def test_the_engine_reads_the_new_weight(pieces: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(pieces) - 1))
    text = ", ".join(pieces)
    start = sum(len(piece) + 2 for piece in pieces[:at])
    edit = shift_weight(text, start, start + len(pieces[at]), 1)
    first = sum(len(piece.strip("()[]").split(":")[0]) + 2 for piece in pieces[:at])
    meant = range(first, first + len(pieces[at].strip("()[]").split(":")[0]))
    for place, (old, new) in enumerate(zip(plain(text), plain(edit.text), strict=True)):
        assert old[0] == new[0]
        raised = old[1] * 1.1 if pieces[at] == "[old]" else old[1] + 0.1
        assert new[1] == pytest.approx(raised if place in meant else old[1], abs=1e-4)


def plain(text: str) -> list[tuple[str, float]]:
    """Every letter as the engine reads it, and its weight."""
    return [(letter, round(span.weight, 4)) for span in parse_attention(text) for letter in span.text]


def test_the_settings_of_a_picture_are_no_prompt() -> None:
    assert is_settings("a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    assert not is_settings("a cat, Steps: 20") and not is_settings("Steps: 20") and not is_settings("")
