"""`--then MODE ...`: what follows a job within it, as options or from a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from impasto_protocol.errors import RequestError
from impasto_protocol.messages import ChainLink

from ..engine.chain import CHAINABLE
from .options import add_mode_options, given_values
from .suggest import SuggestingParser

__all__ = ["add_chain_options", "links_of"]


def add_chain_options(parser: argparse.ArgumentParser) -> None:
    """The options of a job that others can follow."""
    group = parser.add_argument_group("what follows, in the same job")
    modes = " | ".join(CHAINABLE)
    text = f"after all other options, may be given again: a job over the picture of the one before ({modes}), with its "
    group.add_argument(
        "--then",
        dest="then",
        nargs="...",
        metavar="MODE",
        default=[],
        help=f"{text}options; --pick N takes picture N of several, from 0",
    )
    text = "the same from a file: a JSON list of {mode, params, pick}"
    group.add_argument("--chain", dest="chain_file", type=Path, metavar="FILE", help=text)


def links_of(args: argparse.Namespace) -> tuple[ChainLink, ...]:
    """The links that were asked for. Raises RequestError for a file that holds something else."""
    file: Path | None = getattr(args, "chain_file", None)
    from_file = _read(file) if file is not None else ()
    given = getattr(args, "links", [])
    return (*getattr(args, "left", ()), *from_file, *(_link(words) for words in given))


def _link(words: Sequence[str]) -> ChainLink:
    parser = SuggestingParser(prog="impasto ... --then")
    subparsers = parser.add_subparsers(dest="mode", required=True, metavar="MODE")
    for mode in CHAINABLE:
        link = subparsers.add_parser(mode)
        link.add_argument("--pick", type=int, default=0)
        if mode == "upscale":
            from .generate import size_or_side

            link.add_argument("--size", type=size_or_side, default=None)
        add_mode_options(link, mode)
    args = parser.parse_args(list(words))
    values = given_values(args)
    if getattr(args, "size", None) is not None:
        values["width"], values["height"] = args.size
    if args.pick < 0:
        parser.error("--pick is counted from 0")
    for entry in (*values.get("control", ()), *values.get("references", ())):
        if entry.pop("file", ""):
            parser.error("a control unit that follows looks at the picture itself: leave its file empty, MODEL=tile:")
    return ChainLink(args.mode, values, args.pick)


def _read(file: Path) -> tuple[ChainLink, ...]:
    try:
        told: Any = json.loads(file.read_text(encoding="utf-8"))
        return tuple(
            ChainLink(str(link["mode"]), dict(link.get("params", {})), int(link.get("pick", 0))) for link in told
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RequestError(
            "request.bad_file",
            f"{file} is no chain ({error}); write a JSON list of maps with mode, params and pick.",
            path="chain",
        ) from error
