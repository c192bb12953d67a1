"""`{a|b}` and `__name__` in a prompt: choices that the seed makes. No torch here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from impasto_protocol.errors import RequestError
from impasto_protocol.nearest import nearest

from .extra_networks import networks_in
from .prompt_errors import PromptError

__all__ = ["WildcardFolders", "expand", "strip_comments", "wildcard_names"]

MAX_ROUNDS = 20
"""How deep lines of wildcards may name further ones."""
MAX_LENGTH = 20_000
MAX_FILE = 4 << 20

_NAME = r"__((?:[A-Za-z0-9*](?:[\w\-./* ]*?[A-Za-z0-9*])?))__"
_TOKEN = re.compile(rf"\\.|{_NAME}|[{{}}|]|[^\\_{{}}|]+|.", re.DOTALL)
_COUNT = re.compile(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*")
_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*::", re.ASCII)

Lines = Mapping[str, tuple[str, ...]]
"""Name of a wildcard, in lower case -> its lines."""


def strip_comments(text: str) -> str:
    r"""The text without its comments: from # to the end of the line, whole lines with their line break; \# stays."""
    text = re.sub(r"^[ \t]*#[^\n]*(?:\n|\Z)", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<!\\)#[^\n]*", "", text)


@dataclass(frozen=True)
class Named:
    """A wildcard in a text: its name in lower case, what is written, and where. It need not exist inside of
    ``<lora:my__style__v2>``, where it may well be a part of a file's name.
    """

    name: str
    source: str
    position: int
    must_exist: bool


def wildcard_names(text: str) -> tuple[Named, ...]:
    """The wildcards that a text names."""
    inside = [match.span() for match in networks_in(text)]
    return tuple(
        Named(
            match.group(1).lower(),
            match.group(),
            match.start(),
            not any(start < match.start() < end for start, end in inside),
        )
        for match in _TOKEN.finditer(text)
        if match.group(1) is not None
    )


def expand(text: str, lines: Lines, seed: str) -> str:
    """The text with every choice made; equal seeds make equal choices, and what comes out has no choice left.

    ``{a|b}`` takes one, ``{3::a|b}`` the first three times as often, ``{2$$a|b|c}`` two different ones joined by ", ",
    ``{1-2$$ and $$a|b|c}`` one or two joined by " and "; all of them nest. ``{a}`` is text. ``__name__`` takes a line
    of that file. Raises PromptError for a count that cannot be had, a wildcard that is not in `lines`, and lines that
    name one another without end.
    """
    random = Random(seed)
    for _ in range(MAX_ROUNDS):
        expanded = _once(text, lines, random)
        if expanded == text:
            return text
        if len(expanded) > MAX_LENGTH:
            break
        text = expanded
    raise PromptError(
        f"its wildcards do not come to an end (after {MAX_ROUNDS} rounds or {MAX_LENGTH} characters); look for a "
        "file whose lines name itself.",
        0,
        text[:40],
    )


@dataclass
class _Braces:
    start: int
    sides: list[str] = field(default_factory=lambda: [""])


def _once(text: str, lines: Lines, random: Random) -> str:
    named = {found.position: found for found in wildcard_names(text)}
    frames = [_Braces(0)]
    for token in _TOKEN.finditer(text):
        value, wildcard = token.group(), named.get(token.start())
        if wildcard is not None:
            found = lines.get(wildcard.name)
            if found is None and wildcard.must_exist:
                raise _unknown(wildcard, lines)
            frames[-1].sides[-1] += value if not found else found[int(random.random() * len(found))]
        elif value == "{":
            frames.append(_Braces(token.start()))
        elif value == "|" and len(frames) > 1:
            frames[-1].sides.append("")
        elif value == "}" and len(frames) > 1:
            frame = frames.pop()
            frames[-1].sides[-1] += _chosen(frame, text[frame.start : token.end()], random)
        else:
            frames[-1].sides[-1] += value
    while len(frames) > 1:  # never closed: text
        frame = frames.pop()
        frames[-1].sides[-1] += "{" + "|".join(frame.sides)
    return frames[0].sides[0]


def _chosen(frame: _Braces, source: str, random: Random) -> str:
    sides = frame.sides
    if len(sides) == 1 and "$$" not in sides[0]:
        return "{" + sides[0] + "}"
    low, high, joint = 1, 1, ", "
    if "$$" in sides[0]:
        count, *joints, first = sides[0].split("$$", 2)
        match = _COUNT.fullmatch(count)
        if match is None:
            raise PromptError("before $$ stands how many to take, such as {2$$a|b|c}.", frame.start, source)
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        joint = joints[0] if joints else joint
        sides = [first, *sides[1:]]
        if not low <= high <= len(sides):
            raise PromptError(
                f"it asks for {count.strip()} of {len(sides)} choices; ask for no more than there are.",
                frame.start,
                source,
            )
    pairs = [_shared(side) for side in sides]
    count_taken = low + int(random.random() * (high - low + 1))
    taken: list[str] = []
    for _ in range(count_taken):
        total = sum(share for share, _ in pairs)
        mark = random.random() * total
        place = 0
        while place < len(pairs) - 1 and mark >= pairs[place][0]:
            mark -= pairs[place][0]
            place += 1
        taken.append(pairs.pop(place)[1])
    return joint.join(taken)


def _shared(side: str) -> tuple[float, str]:
    """How often a choice is taken against the others, and its text."""
    match = _SHARE.match(side)
    return (min(float(match.group(1)), 1e6), side[match.end() :]) if match is not None else (1.0, side)


def _unknown(wildcard: Named, known: Iterable[str]) -> PromptError:
    near = nearest(wildcard.name, known)
    hint = f"Did you mean __{near[0]}__?" if near else "Put it into the wildcards folder, or write \\_ for text."
    return PromptError(f"there is no wildcard file {wildcard.name}.txt. {hint}", wildcard.position, wildcard.source)


@dataclass(frozen=True)
class WildcardFolders:
    """Folders of .txt files, one choice a line; the first folder that has a name gives it.

    A name is the path within the folder without .txt, ``people/hair``; upper and lower case are the same. ``*`` in a
    name takes the lines of all files that fit. Names are looked up in the listing, so that none leads out of it.
    """

    folders: tuple[Path, ...] = ()

    def gather(self, texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The lines of every wildcard that the texts name, and of those that the lines name.

        Raises PromptError for an unknown one, RequestError `request.bad_file` for a file that cannot be read.
        """
        found: dict[str, tuple[str, ...]] = {}
        waiting = list(texts)
        listed: dict[str, Path] | None = None
        while waiting:
            for wildcard in wildcard_names(waiting.pop()):
                if wildcard.name in found:
                    continue
                listed = self._listed() if listed is None else listed
                files = [path for key, path in sorted(listed.items()) if _fits(wildcard.name, key)]
                if not files and not wildcard.must_exist:
                    continue
                if not files:
                    raise _unknown(wildcard, listed)
                lines = tuple(line for path in files for line in _read(path))
                if not lines:
                    raise PromptError(f"{files[0].name} has no lines.", wildcard.position, wildcard.source)
                found[wildcard.name] = lines
                waiting.extend(line for line in lines if "__" in line)
        return found

    def _listed(self) -> dict[str, Path]:
        listed: dict[str, Path] = {}
        for folder in self.folders:
            for parent, _, names in os.walk(folder):
                for name in names:
                    if name.lower().endswith(".txt"):
                        path = Path(parent, name)
                        listed.setdefault(path.relative_to(folder).with_suffix("").as_posix().lower(), path)
        return listed


def _fits(name: str, key: str) -> bool:
    return fnmatchcase(key, name) if "*" in name else key == name


def _read(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > MAX_FILE:
            raise RequestError(
                "request.bad_file",
                f"The wildcard file {path.name} is larger than {MAX_FILE >> 20} MB; split it.",
                path="params.prompt",
            )
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise RequestError(
            "request.bad_file",
            f"The wildcard file {path.name} cannot be read as UTF-8 text ({e}); save it as such.",
            path="params.prompt",
        ) from e
    return tuple(line.strip() for line in strip_comments(text).splitlines() if line.strip())
