"""`impasto params FILE`: what a picture, or a text, says of how it was made; and `--from FILE` of the job verbs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from impasto_protocol.errors import RequestError

from ..engine.fields import params_of
from ..engine.modes import MODES
from .server import add_engine_options

__all__ = ["Told", "add_arguments", "params_for", "read_file", "run", "tell_notes", "told_lines"]

T = TypeVar("T")

_MOST_BYTES = 1 << 30


class Told(Protocol):
    """A note, as the engine and as the wire have it."""

    @property
    def kind(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def message(self) -> str: ...


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `params`."""
    parser = subparsers.add_parser("params", help="what a picture says of how it was made")
    parser.add_argument("file", metavar="FILE", help="PNG, JPEG, WebP, GIF, AVIF or text; - reads the standard input")
    parser.add_argument("--json", action="store_true", help="tell it as one JSON object")
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was understood and what was not; nothing runs, and no server is asked."""
    from ..service.home import ensure_home
    from ..service.reading import CatalogueNames, read_parameters
    from ..service.server import catalogue_of, word_sources_of
    from .server import settings_from

    settings = settings_from(args)
    ensure_home(settings.home)
    catalogue = catalogue_of(settings)
    catalogue.scan()
    names = CatalogueNames(catalogue, word_sources_of(settings))
    read = read_file(args.file, lambda source: read_parameters(source, names))
    if args.json:
        notes = [
            {"kind": note.kind, "key": note.key, "value": note.value, "message": note.message} for note in read.notes
        ]
        print(json.dumps({"mode": read.mode, "params": dict(read.params), "notes": notes, "source": read.source}))
        return 0
    print(MODES[read.mode][1] + (f", by {read.source}" if read.source else ""))
    said = {name: value for name, value in read.params.items() if value not in ("", [], ())}
    width = max(map(len, said), default=0)
    for name, value in said.items():
        lines = (value if isinstance(value, str) else json.dumps(value)).split("\n")
        print(f"  {name:<{width}}  {lines[0]}", *(f"  {'':<{width}}  {line}" for line in lines[1:]), sep="\n")
    if read.notes:
        print("Not taken over, or not as it was said:")
    for line in told_lines(read.notes):
        print(f"  {line}")
    return 0


def read_file(name: str, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the file; of the text beside a picture, `picture.txt`, where the picture says nothing.

    Raises RequestError `request.bad_file` where it cannot be opened, and what `read` raises.
    """
    source = _bytes(name)
    try:
        return read(source)
    except RequestError as e:
        beside = Path(name).with_suffix(".txt")
        if e.code != "request.no_parameters" or name == "-" or beside == Path(name) or not beside.is_file():
            raise
    return read(_bytes(str(beside)))


def _bytes(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(_MOST_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(_MOST_BYTES + 1)
    except OSError as e:
        raise RequestError("request.bad_file", f"{name} cannot be read ({e.strerror}).", path="from") from e


def params_for(verb: str, mode: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The read parameters that the verb has, and the names of the others that are not at their default."""
    known = {p.name for p in params_of(MODES[verb][0])}
    defaults = {p.name: p.default for p in params_of(MODES[mode][0])}
    taken = {name: value for name, value in params.items() if name in known}
    left = [name for name, value in params.items() if name not in known and value != defaults.get(name)]
    return taken, left


def told_lines(notes: Sequence[Told]) -> list[str]:
    """A line a note."""
    return [": ".join(part for part in (n.key, n.value, f"{n.message} ({n.kind})") if part) for n in notes]


def tell_notes(mode: str, verb: str, left: Sequence[str], notes: Sequence[Told]) -> None:
    """What `--from` could not take over, on stderr."""
    if left:
        print(f"impasto: --from was {MODES[mode][1].lower()}; {verb} has no {', '.join(left)}", file=sys.stderr)
    for line in told_lines([note for note in notes if note.kind != "info"]):
        print(f"impasto: --from: {line}", file=sys.stderr)
