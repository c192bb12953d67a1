"""The prompt's tree: what A1111 reads it reads, its printer and its parser agree, and what is wrong says where."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_server.engine.extra_networks import LoraUse, take_networks
from impasto_server.engine.prompt_errors import PromptError
from impasto_server.engine.prompt_grammar import (
    Alternate,
    Edit,
    Node,
    Nodes,
    Part,
    Prompt,
    Text,
    When,
    format_prompt,
    parse_negative,
    parse_prompt,
)
from impasto_server.engine.prompt_schedule import phases, text_at, total_calls


def table(text: str, total: int = 10) -> list[tuple[int, str]]:
    """A1111's table of a prompt: up to and including which of its entries, counted from 1, a text holds."""
    (part,) = parse_prompt(text).parts
    entries: list[tuple[int, str]] = []
    for number in range(1, total + 1):
        said = text_at(part.nodes, number, total)
        if entries and entries[-1][1] == said:
            entries.pop()
        entries.append((number, said))
    return entries


# Ten steps each; the worked examples that A1111's own parser documents, and the rules of its later versions.
TABLES = {
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a [[b]]")],
    "[(a:2):3]": [(3, ""), (10, "(a:2)")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, "a [unbalanced")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "((a][:b:c [d:3]": [(3, "((a][:b:c "), (10, "((a][:b:c d")],
    "[a|(b:1.1)]": [(n, "(b:1.1)" if n % 2 == 0 else "a") for n in range(1, 11)],
    "[fe|]male": [(n, "male" if n % 2 == 0 else "female") for n in range(1, 11)],
    "[from::0.25] x": [(2, "from x"), (10, " x")],
    "[a:b:0]": [(10, "b")],
    "[a:b:99]": [(10, "a")],
    "[a:b:1.5]": [(10, "a")],  # a fraction of the hires pass
    "[[a|b]:c:2]": [(1, "a"), (2, "b"), (10, "c")],
    "[a:b]": [(10, "[a:b]")],
    "[16:9 picture]": [(10, "[16:9 picture]")],
    "[style: 80s]": [(10, "[style: 80s]")],
    r"[a\:b:c:2]": [(2, r"a\:b"), (10, "c")],
    r"[a\|b]": [(10, r"[a\|b]")],
    "(a|b) c | d": [(10, "(a|b) c | d")],
    "a <3 b": [(10, "a <3 b")],
    r"\<lora:a:1>": [(10, r"\<lora:a:1>")],
    "x :1.2": [(10, "x :1.2")],  # without AND a colon is a colon
    r"A\ND": [(10, r"A\ND")],
    "SAND and BRAND": [(10, "SAND and BRAND")],
}


@pytest.mark.parametrize("text", TABLES)
def test_tables(text: str) -> None:
    assert table(text) == TABLES[text]


def test_the_first_entry_serves_for_two_calls() -> None:
    """A1111 counts calls from 0 and entries from 1: of `[a:b:3]` the first four calls show a."""
    (part,) = parse_prompt("[a:b:3]").parts
    assert [(p.text, p.start, p.end) for p in phases(part.nodes, 10)] == [("a", 0, 4), ("b", 4, 10)]
    (part,) = parse_prompt("[a|b]").parts
    assert [p.text for p in phases(part.nodes, 5) for _ in range(p.start, p.end)] == ["a", "a", "b", "a", "b"]


def test_samplers_that_look_twice_have_twice_the_calls() -> None:
    assert total_calls("dpmpp_2m", 20) == 20 and total_calls("heun", 20) == 40 and total_calls("dpmpp_sde", 5) == 10
    (part,) = parse_prompt("[a:b:0.5]").parts
    assert phases(part.nodes, total_calls("heun", 20))[0].end == 21
    (part,) = parse_prompt("[a:b:10]").parts
    assert phases(part.nodes, total_calls("heun", 20))[0].end == 11  # a number counts calls, as in A1111


def test_and() -> None:
    assert parse_prompt("a cat :1.2 AND [a:b:3] dog :-.4 AND x") == Prompt(
        (
            Part((Text("a cat"),), 1.2),
            Part((Edit((Text("a"),), (Text("b"),), When(3, False)), Text(" dog")), -0.4),
            Part((Text("x"),)),
        )
    )
    assert parse_prompt(r"16\:9 AND x").parts[0] == Part((Text(r"16\:9"),))
    assert parse_prompt("(a:1.2) AND x").parts[0] == Part((Text("(a:1.2)"),))
    assert parse_negative("a AND b") == (Text("a AND b"),)


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("<lora:a>", LoraUse("a", 1.0, 1.0)),
        ("<lora:a:0.8>", LoraUse("a", 0.8, 0.8)),
        ("<lora:a:0.8:.5>", LoraUse("a", 0.5, 0.8)),
        ("<lora:a b:-1>", LoraUse("a b", -1.0, -1.0)),
        ("<lora:a:te=0.5>", LoraUse("a", 0.5, 0.5)),
        ("<lora:a:unet=0.5:te=0.25>", LoraUse("a", 0.5, 0.25)),
        ("<lora:a:1:unet=0>", LoraUse("a", 0.0, 1.0)),
        ("<lyco:a=b:1>", LoraUse("a=b", 1.0, 1.0)),
    ],
)
def test_networks(text: str, use: LoraUse) -> None:
    assert parse_prompt(f"x {text}, y") == Prompt((Part((Text("x , y"),)),), (use,))
    assert take_networks(text) == ("", (use,))


@pytest.mark.parametrize(
    ("text", "position", "excerpt", "says"),
    [
        ("x [a:b:c]", 2, "[a:b:c]", "'c' at which it switches is no number"),
        ("[a:b:0,5]", 0, "[a:b:0,5]", "no number"),
        ("[a:50%]", 0, "[a:50%]", "no number"),
        ("[a:b:-3]", 0, "[a:b:-3]", "no number"),
        ("[a:b:]", 0, "[a:b:]", "no number"),
        ("[a:b:[c:d:2]]", 0, "[a:b:[c:d:2]]", "no number"),
        ("[a:b:c:3]", 0, "[a:b:c:3]", "more than two colons"),
        ("[a:b:12.5]", 0, "[a:b:12.5]", "at most 2"),
        ("[a|b:0.5]", 0, "[a|b:0.5]", "both | and :"),
        ("y (a AND b:1.2)", 2, "(a AND b:1.2)", "AND stands inside"),
        ("a AND x [a:b:c]", 8, "[a:b:c]", "no number"),
        ("a <lorra:x:1>", 2, "<lorra:x:1>", "no kind of network"),
        ("<hypernet:x:1>", 0, "<hypernet:x:1>", "hypernetworks are not supported"),
        ("<lora:x:strong>", 0, "<lora:x:strong>", "is no number"),
        ("<lora:x:1:1:8>", 0, "<lora:x:1:1:8>", "dyn"),
        ("<lora::1>", 0, "<lora::1>", "names no file"),
        ("a <lora:x:1, b", 2, "<lora:x:1, b", "never closed"),
        ("[" * 60 + "a" + ":1]" * 60, 9, None, "50 deep"),
    ],
)
def test_a_wrong_prompt_says_where(text: str, position: int, excerpt: str | None, says: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(text)
    assert says in caught.value.message and caught.value.position == position
    assert excerpt is None or caught.value.excerpt == excerpt
    assert text.startswith(caught.value.excerpt, position)


def test_a_network_in_the_negative_prompt_is_refused() -> None:
    with pytest.raises(PromptError, match="does nothing in the negative"):
        parse_negative("bad <lora:x:1>")


# ---- printer and parser

PLAIN = st.sampled_from(["a", " cat", ", ", "(x:1.2)", "[y]", r"\:", r"\[", r"\|", "16", " BREAK ", r"\\", "é", "."])
NUMBERS = st.builds(
    lambda number, fraction: When(number / 100 if fraction else float(number), fraction),
    st.integers(0, 200),
    st.booleans(),
)


def joined(nodes: list[Node]) -> Nodes:
    """Without neighbouring texts."""
    out: list[Node] = []
    for node in nodes:
        last = out[-1] if out else None
        if isinstance(node, Text) and isinstance(last, Text):
            out[-1] = Text(last.text + node.text)
        else:
            out.append(node)
    return tuple(out)


TREES: st.SearchStrategy[Nodes] = st.recursive(
    st.lists(PLAIN.map(Text), max_size=3).map(joined),
    lambda inner: st.lists(
        st.one_of(
            PLAIN.map(Text),
            st.builds(Edit, inner, inner, NUMBERS),
            st.builds(Alternate, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        ),
        max_size=3,
    ).map(joined),
    max_leaves=8,
)
LORAS = st.builds(LoraUse, st.sampled_from(["a", "b c", "d_e"]), st.floats(-2, 2), st.floats(-2, 2))


def trimmed(nodes: Nodes) -> Nodes:
    """As the sides of an AND are read: without spaces at the ends."""
    out = list(nodes)
    if out and isinstance(out[0], Text):
        out[0] = Text(out[0].text.lstrip())
    if out and isinstance(out[-1], Text):
        out[-1] = Text(out[-1].text.rstrip())
    return tuple(node for node in out if not isinstance(node, Text) or node.text)


@given(TREES)
def test_what_is_printed_is_read_again(nodes: Nodes) -> None:
    prompt = Prompt((Part(nodes),))
    assert parse_prompt(format_prompt(prompt)) == prompt
    assert parse_negative(format_prompt(prompt)) == nodes


@given(st.lists(st.builds(Part, TREES.map(trimmed), st.floats(-5, 5)), min_size=2, max_size=3), st.lists(LORAS))
def test_parts_and_networks_are_read_again(parts: list[Part], loras: list[LoraUse]) -> None:
    prompt = Prompt(tuple(parts), tuple(loras))
    assert parse_prompt(format_prompt(prompt)) == prompt


PIECES = ["a", " ", ",", "(", ")", "[", "]", ":", "|", "\\", "0.5", "3", ".", "-", "<", ">", "lora", "AND", " AND "]
SOUP = st.lists(st.sampled_from([*PIECES, "BREAK", "<lora:x:1>", "[a:b:3]", "[c|d]", ":1.2", "\n", "é"])).map("".join)


@given(st.one_of(SOUP, st.text()))
def test_any_text_is_a_prompt_or_says_where(text: str) -> None:
    try:
        prompt = parse_prompt(text)
    except PromptError as e:
        assert e.message and 0 <= e.position <= len(text)
        return
    printed = format_prompt(prompt)
    assert parse_prompt(printed) == prompt and format_prompt(parse_prompt(printed)) == printed
    for part in prompt.parts:
        assert phases(part.nodes, 7)[-1].end == 7


def test_a_thousand_brackets_are_quick() -> None:
    start = time.perf_counter()
    for text in ("[" * 5000 + "a" + "]" * 5000, "(" * 5000, "[a:" * 3000, "[a|" * 3000, "[a:b:3]" * 1400):
        for part in parse_prompt(text).parts:
            phases(part.nodes, 40)
    assert time.perf_counter() - start < 5.0
