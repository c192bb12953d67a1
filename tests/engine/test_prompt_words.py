"""Styles, comments, choices and wildcards: what was written becomes the prompts of one picture."""

from __future__ import annotations

import pickle
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import RequestError
from impasto_server.engine.extra_networks import LoraUse
from impasto_server.engine.modes import Txt2Img
from impasto_server.engine.prompt import parse_attention
from impasto_server.engine.prompt_errors import PromptError
from impasto_server.engine.prompt_grammar import format_prompt
from impasto_server.engine.prompt_styles import Style, apply_style, read_styles, style_names, styles_text
from impasto_server.engine.prompt_words import WordFiles, WordSources, check_words, resolve_words
from impasto_server.engine.wildcards import WildcardFolders, expand, strip_comments

LINES = {"hair": ("red hair", "black hair"), "deep": ("__hair__ of {silk|gold}",), "self": ("x __self__",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a # b\nc", "a \nc"),
        ("# whole line\na", "a"),
        ("a\n  # whole line\nb", "a\nb"),
        ("a #ff0000", "a "),
        (r"best \#1", r"best \#1"),
        ("a", "a"),
    ],
)
def test_comments(text: str, expected: str) -> None:
    assert strip_comments(text) == expected == strip_comments(expected)


def test_choices_are_made_by_the_seed() -> None:
    text = "{red|green|blue} {cat|dog}"
    seen = Counter(expand(text, {}, str(seed)) for seed in range(600))
    assert len(seen) == 6 and all(60 <= count <= 145 for count in seen.values())
    assert expand(text, {}, "7") == expand(text, {}, "7")


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("{a|b}", {"a", "b"}),
        ("{a|}x", {"ax", "x"}),
        ("{a}", {"{a}"}),
        ("{", {"{"}),
        ("{a|b", {"{a|b"}),
        ("a|b}", {"a|b}"}),
        (r"\{a|b\}", {r"\{a|b\}"}),
        ("{{a|b} c|d}", {"a c", "b c", "d"}),
        ("{2$$a|b}", {"a, b", "b, a"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{0::a|1::b}", {"b"}),
        ("__hair__", {"red hair", "black hair"}),
        ("__HAIR__", {"red hair", "black hair"}),
        ("__deep__", {f"{c} hair of {m}" for c in ("red", "black") for m in ("silk", "gold")}),
        ("<lora:my__style__2:1>", {"<lora:my__style__2:1>"}),
        ("snake_case, ____, _a_", {"snake_case, ____, _a_"}),
        (r"\__hair__", {r"\__hair__"}),
        ("[{a|b}:c:0.5]", {"[a:c:0.5]", "[b:c:0.5]"}),
    ],
)
def test_what_choices_give(text: str, possible: set[str]) -> None:
    assert {expand(text, LINES, str(seed)) for seed in range(80)} == possible


def test_shares() -> None:
    seen = Counter(expand("{3::a|b}", {}, str(seed)) for seed in range(1000))
    assert 690 <= seen["a"] <= 810


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("a __hairs__", 2, "Did you mean __hair__"),
        ("x {3$$a|b}", 2, "asks for 3 of 2"),
        ("{two$$a|b}", 0, "how many"),
        ("__self__", 0, "do not come to an end"),
    ],
)
def test_a_wrong_choice_says_where(text: str, position: int, says: str) -> None:
    with pytest.raises(PromptError) as caught:
        expand(text, LINES, "1")
    assert says in caught.value.message and caught.value.position == position


PIECES = ["a", " ", "{", "}", "|", "::", "$$", "1", "2", "\\", "_", "__hair__", "__deep__", "#", "\n", "<lora:x:1>"]


@given(st.lists(st.sampled_from(PIECES)).map("".join), st.integers(0, 5))
def test_what_is_resolved_stays(text: str, seed: int) -> None:
    """So a recipe may keep it and be run again, with any seed."""
    try:
        once = expand(strip_comments(text), LINES, str(seed))
    except PromptError:
        return
    assert expand(strip_comments(once), LINES, "another") == strip_comments(once)


def test_wildcard_files(tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "Hair.txt").write_text("\ufeffred\n\n# a comment\nblack # dark\n", encoding="utf-8")
    (tmp_path / "all.txt").write_text("__people/hair__ hair\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("# nothing\n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    folders = WildcardFolders((tmp_path / "missing", tmp_path))
    assert folders.gather(["x __all__", "y"]) == {"all": ("__people/hair__ hair",), "people/hair": ("red", "black")}
    assert folders.gather(["__people/*__"]) == {"people/*": ("red", "black")}
    for text, says in (("__al__", "Did you mean __all__"), ("__empty__", "has no lines")):
        with pytest.raises(PromptError, match=says):
            folders.gather([text])
    with pytest.raises(PromptError, match="no wildcard file"):
        folders.gather(["__../all__ __a/../all__"])
    with pytest.raises(RequestError, match="UTF-8") as caught:
        folders.gather(["__latin__"])
    assert caught.value.code == "request.bad_file"


def test_styles(tmp_path: Path) -> None:
    file = tmp_path / "styles.csv"
    file.write_text('\ufeffname,prompt,negative_prompt\nInk,"ink of {prompt}, black",blurry\n"A, B",soft,\n', "utf-8")
    old = tmp_path / "old.csv"
    old.write_text("name,text\nOil,oil on canvas\nInk,other\n", "utf-8")
    assert read_styles([file, tmp_path / "none.csv", old]) == {
        "Ink": Style("ink of {prompt}, black", "blurry"),
        "A, B": Style("soft"),
        "Oil": Style("oil on canvas"),
    }
    assert style_names(' Ink, "A, B" ') == ("Ink", "A, B") == style_names(styles_text(("Ink", "A, B")))
    assert apply_style("a cat", "ink of {prompt}") == "ink of a cat"
    assert apply_style("a cat ", " soft") == "a cat, soft"
    assert apply_style("", "soft") == "soft" and apply_style("a cat", "") == "a cat"
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(RequestError, match="first line must be"):
        read_styles([broken])


def test_words_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nInk,{prompt} in __tone__ ink # soft,blurry\n")
    (tmp_path / "tone.txt").write_text("black\nblue\n")
    params = Txt2Img(prompt="a {cat|dog} # or a bird", negative_prompt="bad", styles="Ink")
    sources = WordSources((tmp_path / "styles.csv",), WildcardFolders((tmp_path,)))
    files = pickle.loads(pickle.dumps(sources.gather(params)))
    check_words(params, files)
    seen = {resolve_words(params, files, seed).prompt for seed in range(60)}
    assert len(seen) == 4 and all(" in b" in text and "#" not in text for text in seen)
    words = resolve_words(params, files, 3)
    assert words.negative_prompt == "bad, blurry"
    again = words.params(params)
    assert again.styles == "" and resolve_words(again, WordFiles(), 99).prompt == words.prompt
    with pytest.raises(RequestError, match="Did you mean 'Ink'") as caught:
        sources.gather(Txt2Img(styles="Inc"))
    assert caught.value.path == "params.styles"


@pytest.mark.parametrize(
    ("values", "path", "data"),
    [
        (dict(prompt="a [b:c:d]"), "params.prompt", {"position": 2, "excerpt": "[b:c:d]"}),
        (dict(negative_prompt="[b:c:d]"), "params.negative_prompt", {"position": 0, "excerpt": "[b:c:d]"}),
        (dict(prompt="# note\n[b:c:d]"), "params.prompt", {"position": 7, "excerpt": "[b:c:d]"}),
        (dict(prompt="{[b:c:d]|[b:c:d]}"), "params.prompt", {"position": 0, "excerpt": "[b:c:d]", "resolved": True}),
        (dict(negative_prompt="<lora:x:1>"), "params.negative_prompt", {"position": 0, "excerpt": "<lora:x:1>"}),
        (dict(prompt="a __nothing__"), "params.prompt", {"position": 2, "excerpt": "__nothing__"}),
    ],
)
def test_a_wrong_prompt_is_a_typed_error(values: dict[str, str], path: str, data: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        check_words(Txt2Img(**values), WordFiles())
    assert caught.value.code == "request.invalid_param" and caught.value.path == path
    assert caught.value.data == data


NASTY = ("__a", "_", "<a:", "<lora:", "{", "{|", "{}", " ", "() AND ", "[a:1", "[|]", "#", "\\", ":1 ", "[", "((a:1")


def test_the_longest_prompts_are_read_in_time() -> None:
    """Nothing is quadratic in what a client sends: a second for all is plenty, seven for one was too much."""
    texts = [(piece * 10_000)[:10_000] for piece in NASTY]
    texts += ["[a:" + "1" * 9000 + "x]", "(a:" + "1" * 9000 + "x)", "{" * 4000 + "a|b", "a AND" + " " * 9000 + "b"]
    for text in texts:
        start = time.process_time()
        try:
            words = resolve_words(Txt2Img(prompt=text), WordFiles(), 1)
        except RequestError:
            continue
        parse_attention(words.prompt)
        assert time.process_time() - start < 2.0, text[:20]


def test_loras_are_taken_out_of_the_text() -> None:
    words = resolve_words(Txt2Img(prompt="a <lora:soft:1> <lora:hard:.5>"), WordFiles(), 1)
    assert words.loras == (LoraUse("soft", 1.0, 1.0), LoraUse("hard", 0.5, 0.5))


# ---- the painter's page


def written_in(heading: str) -> list[tuple[str, str]]:
    """(what is written, the rest of its row) of the first table under a heading of docs/prompts.md."""
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    rows = page.partition(f"## {heading}")[2].partition("\n\n## ")[0].split("\n|")[3:]
    found = []
    for row in rows:
        first = row.split("|")[0]
        for code in re.findall(r"`([^`]+)`|<code>(.*?)</code>", first):
            found.append(("".join(code).replace("&#124;", "|"), row))
    assert len(found) > 10
    return found


@pytest.mark.parametrize(("text", "row"), written_in("On one page"))
def test_what_the_page_shows_can_be_written(text: str, row: str) -> None:
    lines = {"hair": ("red",), "people/hair": ("red",), "people/*": ("red",)}
    words = resolve_words(Txt2Img(prompt=f"x {text} y"), WordFiles({}, lines), 1)
    assert format_prompt(words.tree)


@pytest.mark.parametrize(("text", "row"), written_in("What is refused"))
def test_what_the_page_says_is_refused(text: str, row: str) -> None:
    side = "negative_prompt" if "in the negative prompt" in row else "prompt"
    with pytest.raises(RequestError) as caught:
        resolve_words(Txt2Img(**{side: f"x {text}"}), WordFiles({}, {"hair": ("red",)}), 1)
    assert caught.value.path == f"params.{side}" and caught.value.data["position"] == 2
