"""Attention weights, BREAK and the chunks of 75 tokens."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from impasto_server.engine.prompt import (
    MAX_WEIGHT,
    EmbeddingNames,
    Placed,
    Span,
    format_attention,
    make_chunks,
    parse_attention,
)
from impasto_server.engine.tokenizer import BOS, COMMA, EOS, load_tokenizer

CASES = {
    "": [],
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    "un)balanced]": [("un)balanced]", 1.0)],
    r"\(literal\] \[too\) and \\": [(r"(literal] [too) and " + "\\", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "[a]": [("a", 1 / 1.1)],
    "(a:1.3)": [("a", 1.3)],
    "(a: 1.3 )": [("a", 1.3)],
    "(a:-1)": [("a", -1.0)],
    "(a:.5)": [("a", 0.5)],
    "((a) b:1.5)": [("a", 1.65), (" b", 1.5)],
    "[a:1.3]": [("a:1.3", 1 / 1.1)],
    "a:1.3)": [("a:1.3)", 1.0)],
    "(a:1.2.3)": [("a:1.2.3", 1.1)],
    "(a:.)": [("a:.", 1.1)],
    "(a:b:2)": [("a:b", 2.0)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)],
    "(((a:0)))": [("a", 0.0)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ],
}


@pytest.mark.parametrize("text", CASES)
def test_weights(text: str) -> None:
    spans = parse_attention(text)
    assert [span.text for span in spans] == [text for text, _ in CASES[text]]
    assert [span.weight for span in spans] == pytest.approx([weight for _, weight in CASES[text]])
    assert not any(span.ends_chunk for span in spans)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a BREAK b", (Span("a", 1.0, True), Span("b"))),
        ("a BREAK BREAK b", (Span("a", 1.0, True), Span("", 1.0, True), Span("b"))),
        ("BREAK", (Span("", 1.0, True),)),
        ("BREAKFAST, break", (Span("BREAKFAST, break"),)),
        ("(a BREAK b:1.5) c", (Span("a", 1.5, True), Span("b", 1.5), Span(" c"))),
    ],
)
def test_break(text: str, expected: tuple[Span, ...]) -> None:
    assert parse_attention(text) == expected


GRAMMAR = st.lists(st.sampled_from([*"ab ,()[]\\:.1-", "BREAK", " BREAK ", ":1.2)", "(("])).map("".join)


@given(st.one_of(st.text(), GRAMMAR))
def test_any_text_is_a_prompt(text: str) -> None:
    spans = parse_attention(text)
    assert all(abs(span.weight) <= MAX_WEIGHT for span in spans)
    assert all(span.text or span.ends_chunk for span in spans)
    make_chunks(spans, load_tokenizer().encode)


@example(" (BREAK")
@example("a( )BREAK( )b")
@given(st.one_of(st.text(max_size=60), GRAMMAR))
def test_what_is_printed_is_read_again(text: str) -> None:
    spans = parse_attention(text)
    assert parse_attention(format_attention(spans)) == spans


@given(st.lists(st.floats(0.5, 2.0).map(lambda x: round(x, 3)), min_size=1, max_size=6))
def test_weights_multiply(weights: list[float]) -> None:
    text = "x"
    product = 1.0
    for weight in weights:
        text = f"({text}:{weight})"
        product *= weight
    assert parse_attention(text)[0].weight == pytest.approx(product)


def test_a_thousand_brackets_stay_finite_and_quick() -> None:
    start = time.perf_counter()
    assert parse_attention("(" * 5000 + "a" + ")" * 5000)[0].weight == MAX_WEIGHT
    assert parse_attention("[" * 5000 + "a")[0].weight == pytest.approx(0.0)
    parse_attention("(" * 2500 + "[" * 2500 + "a)b]" * 2500)
    assert time.perf_counter() - start < 2.0


def ids(text: str) -> tuple[int, ...]:
    """A tokenizer of one id a word; a comma is CLIP's comma."""
    return tuple(COMMA if word == "," else len(word) for word in text.split())


def words(count: int, word: str = "xx") -> str:
    return " ".join([word] * count)


def laid(text: str) -> list[int]:
    """How many tokens lie in each chunk before the padding."""
    return [chunk.tokens.index(EOS) - 1 for chunk in make_chunks(parse_attention(text), ids)]


def test_a_chunk_is_77_tokens_padded_with_the_end_mark() -> None:
    (chunk,) = make_chunks(parse_attention("aa (bbb:1.5)"), ids)
    assert chunk.tokens == (BOS, 2, 3, *[EOS] * 74)
    assert chunk.weights == (1.0, 1.0, 1.5, *[1.0] * 74)
    (padded,) = make_chunks((Span("aa"),), ids, pad=0)
    assert padded.tokens == (BOS, 2, EOS, *[0] * 74)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0]),
        (words(75), [75]),
        (words(76), [75, 1]),
        (words(60) + " , " + words(20), [61, 20]),  # the phrase behind the comma stays whole
        (words(50) + " , " + words(40), [75, 16]),  # the comma is too far back
        (words(55) + " , " + words(40), [56, 40]),  # at exactly 20 tokens
        (words(54) + " , " + words(40), [75, 20]),  # at 21
        (words(75) + " , " + words(2), [75, 3]),  # a comma itself never moves anything
        (words(10) + " BREAK " + words(10), [10, 10]),
        ("BREAK " + words(3), [0, 3]),
        (words(3) + " BREAK", [3]),
    ],
)
def test_chunks(text: str, expected: list[int]) -> None:
    assert laid(text) == expected


def test_a_moved_phrase_keeps_its_weights() -> None:
    first, second = make_chunks(parse_attention(words(60) + " , (" + words(20) + ":1.4)"), ids)
    assert first.tokens[61] == COMMA and set(first.weights) == {1.0}
    assert second.weights[1:21] == (1.4,) * 20 and second.weights[21] == 1.0


WORDS = st.sampled_from(["a", "bb", "ccc", ",", "BREAK", "(dd:1.3)", "[ee]"])


@given(st.lists(WORDS, max_size=400), st.sampled_from([EOS, 0]), st.integers(0, 75))
def test_chunks_hold_every_token_once_and_in_order(text: list[str], pad: int, reach: int) -> None:
    """Whatever is asked for: 77 ids a chunk, the marks where they belong, nothing lost, moved or weighed wrongly."""
    spans = parse_attention(" ".join(text))
    chunks = make_chunks(spans, ids, pad=pad, comma_reach=reach)
    laid_out: list[tuple[int, float]] = []
    for chunk in chunks:
        assert len(chunk.tokens) == len(chunk.weights) == 77 and chunk.tokens[0] == BOS
        end = chunk.tokens.index(EOS)
        assert end <= 76 and set(chunk.tokens[end + 1 :]) <= {pad}
        assert chunk.weights[0] == 1.0 and set(chunk.weights[end:]) == {1.0}
        laid_out += zip(chunk.tokens[1:end], chunk.weights[1:end], strict=True)
    assert laid_out == [(token, span.weight) for span in spans for token in ids(span.text)]
    assert len(chunks) >= 1


@given(st.lists(st.lists(st.sampled_from(["a", "bb", ","]), max_size=200), min_size=1, max_size=4))
def test_break_begins_a_new_chunk_and_changes_nothing_else(parts: list[list[str]]) -> None:
    """Each part is laid out as it is by itself."""
    whole = make_chunks(parse_attention(" BREAK ".join(" ".join(part) for part in parts)), ids)
    each = [make_chunks(parse_attention(" ".join(part)), ids) for part in parts]
    if not parts[-1]:
        each.pop()  # behind the last BREAK nothing needs a chunk
    assert whole == tuple(chunk for chunks in each for chunk in chunks) or not each


@given(st.lists(st.sampled_from(["a", "bb", ","]), min_size=1, max_size=300))
def test_a_phrase_is_torn_only_where_no_comma_is_near(words_: list[str]) -> None:
    """A chunk that is not the last ends behind a comma, or is full."""
    chunks = make_chunks(parse_attention(" ".join(words_)), ids)
    for chunk in chunks[:-1]:
        used = chunk.tokens[1 : chunk.tokens.index(EOS)]
        assert used[-1] == COMMA or len(used) == 75


# ---- embeddings by name


def names(**counts: int) -> EmbeddingNames:
    return EmbeddingNames({name.replace("_", " "): count for name, count in counts.items()}, ids)


def test_an_embedding_takes_its_places() -> None:
    (chunk,) = make_chunks(parse_attention("a (bbbb:1.5) cc"), ids, embeddings=names(bbbb=3))
    assert chunk.tokens[:7] == (BOS, 1, 0, 0, 0, 2, EOS)
    assert chunk.weights[:7] == (1.0, 1.0, 1.5, 1.5, 1.5, 1.0, 1.0)
    assert chunk.embeddings == (Placed("bbbb", 2, 3),)


def test_the_longest_name_is_found_and_case_is_the_tokenizers() -> None:
    (chunk,) = make_chunks(parse_attention("a bbb cc d"), ids, embeddings=names(bbb=1, bbb_cc=2))
    assert [placed.name for placed in chunk.embeddings] == ["bbb cc"]
    encode = load_tokenizer().encode
    found = make_chunks(
        parse_attention("(easynegative:1.2), x"), encode, embeddings=EmbeddingNames({"EasyNegative": 8}, encode)
    )
    assert found[0].embeddings == (Placed("EasyNegative", 1, 8),)


def test_an_embedding_that_does_not_fit_moves_whole() -> None:
    chunks = make_chunks(parse_attention(words(70) + " bbbb x"), ids, embeddings=names(bbbb=8))
    assert [chunk.tokens.index(EOS) - 1 for chunk in chunks] == [70, 9]
    assert chunks[0].embeddings == () and chunks[1].embeddings == (Placed("bbbb", 1, 8),)
    # One that stands behind a near comma moves with its phrase.
    chunks = make_chunks(parse_attention(words(60) + " , x bbbb " + words(10)), ids, embeddings=names(bbbb=8))
    assert [chunk.tokens.index(EOS) - 1 for chunk in chunks] == [61, 19]
    assert chunks[0].embeddings == () and chunks[1].embeddings == (Placed("bbbb", 2, 8),)
    # More vectors than a chunk has places can never stand in a prompt.
    assert make_chunks(parse_attention("bbbb"), ids, embeddings=names(bbbb=76))[0].embeddings == ()
