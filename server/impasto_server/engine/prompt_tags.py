"""Lists of tags that a prompt may be completed from: the files of A1111's tag completion. No torch here."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Tag", "TagFiles", "read_tags", "tag_files_of"]

MAX_FILE = 64 << 20
"""Bytes of a file of tags; a larger one is none."""
SMILEY = 3
"""Names of at most so many characters keep their underscores: they are faces such as ^_^."""


@dataclass(frozen=True)
class Tag:
    """A tag as it goes into a prompt, how many pictures have it (0: not known), and its other names, in lower case and
    with spaces."""

    text: str
    uses: int = 0
    aliases: tuple[str, ...] = ()


@dataclass
class TagFiles:
    """The tags of some files; read when they are first asked for, and again when a file changed. For any thread."""

    files: Sequence[Path] = ()
    folders: Sequence[Path] = ()
    """Their .csv and .txt files count too, also those that come later."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _stamps: tuple[tuple[Path, int, int], ...] = ()
    _rows: tuple[tuple[str, Tag], ...] = ()

    def find(self, typed: str, limit: int) -> list[tuple[Tag, str]]:
        """At most `limit` tags with what was typed, each with the other name by which it was found, or "".

        Upper and lower case are the same, and so are spaces and underscores. First come those that begin with it, then
        those with an other name that does, then those in which a word does; of each kind the most used first.
        """
        sought = _plain(typed).lstrip()
        if not sought.strip():
            return []
        rows = self._read()
        ranks: tuple[list[tuple[Tag, str]], ...] = ([], [], [])
        inside = " " + sought
        for name, tag in rows:
            if name.startswith(sought):
                ranks[0].append((tag, ""))
                if len(ranks[0]) == limit:
                    break
            elif alias := next((a for a in tag.aliases if a.startswith(sought)), ""):
                ranks[1].append((tag, alias))
            elif inside in name:
                ranks[2].append((tag, ""))
        return [found for rank in ranks for found in rank][:limit]

    def _read(self) -> tuple[tuple[str, Tag], ...]:
        """(name to be looked for, tag), the most used first."""
        with self._lock:
            stamps = tuple(self._stamped())
            if stamps != self._stamps:
                tags = read_tags(path for path, _, _ in stamps)
                self._rows = tuple((_plain(tag.text.replace("\\", "")), tag) for tag in tags)
                self._stamps = stamps
            return self._rows

    def _stamped(self) -> Iterator[tuple[Path, int, int]]:
        inside = (path for folder in self.folders for path in sorted(folder.glob("*")))
        for path in dict.fromkeys((*self.files, *(p for p in inside if p.suffix.lower() in (".csv", ".txt")))):
            try:
                stat = path.stat()
            except OSError:
                continue
            if path.is_file() and stat.st_size <= MAX_FILE:
                yield path, stat.st_mtime_ns, stat.st_size


def read_tags(files: Iterable[Path]) -> list[Tag]:
    """The tags of all files, each once, the most used first.

    A line is a tag, or `name,category,uses,"other,names"` as A1111's tag completion has it; what is not a number there
    counts as unknown. Files that cannot be read are left out: completion is a convenience, no part of a picture.
    """
    found: dict[str, Tag] = {}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            continue
        for row in csv.reader(text.replace("\0", "").splitlines()):
            name = row[0].strip() if row else ""
            if not name or name.startswith("#"):
                continue
            uses = int(row[2]) if len(row) > 2 and row[2].strip().isdecimal() else 0
            others = tuple(_plain(alias).strip() for alias in row[3].split(",")) if len(row) > 3 else ()
            text_of = _as_prompt(name)
            found.setdefault(text_of, Tag(text_of, uses, tuple(a for a in others if a)))
    return sorted(found.values(), key=lambda tag: (-tag.uses, tag.text))


def tag_files_of(a1111: Path) -> tuple[Path, ...]:
    """The files that the tag completion of an AUTOMATIC1111 folder uses, by its settings; they need not exist."""
    try:
        settings = json.loads((a1111 / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    if not isinstance(settings, dict):
        settings = {}
    wanted = (
        settings.get("tac_tagFile", "danbooru.csv"),
        settings.get("tac_extra.extraFile", "extra-quality-tags.csv"),
    )
    # A name alone: a settings file is no reason to read elsewhere.
    names = [name for name in wanted if isinstance(name, str) and name and Path(name).name == name and name != "None"]
    folders = sorted((a1111 / "extensions").glob("*/tags"))
    return tuple(folder / name for folder in folders for name in names)


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def _as_prompt(name: str) -> str:
    """As it is written in a prompt: spaces for underscores, and round brackets that stress nothing."""
    if len(name) > SMILEY:
        name = name.replace("_", " ")
    return name.replace("\\(", "(").replace("\\)", ")").replace("(", "\\(").replace(")", "\\)")
