"""`impasto VERB ...`: each verb is a module with `add_arguments(subparsers)` and `run(args) -> exit code`.

Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly. Modules are imported when their verb is used.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from impasto_protocol.errors import ImpastoError

from .. import __version__
from .suggest import SuggestingParser

__all__ = ["exit_code", "main", "parser_for"]

THEN = "--then"

VERBS = {
    "setup": ("setup", "the first start: torch, plug-ins, folders of models, a test picture"),
    "serve": ("server", "run the server that the editors talk to"),
    "stop": ("server", "stop the running server"),
    "free": ("server", "give back the memory that the running server holds for models"),
    "txt2img": ("generate", "paint a picture from a text"),
    "img2img": ("generate", "repaint a picture"),
    "inpaint": ("generate", "repaint what a mask selects"),
    "sketch": ("generate", "make a picture from a sketch"),
    "refine": ("generate", "repaint a picture of any size a little, in tiles"),
    "upscale": ("generate", "scale a picture up"),
    "faceswap": ("generate", "put the face of a profile in the place of others"),
    "annotate": ("generate", "make the hint for a ControlNet of a picture"),
    "params": ("params", "what a picture says of how it was made"),
    "models": ("models", "list, show and check models; install the starter model, pull others"),
    "faces": ("faces", "make, list and compare face profiles; find the faces of a picture"),
    "history": ("history", "list the results that are kept, make one again"),
    "pair": ("pair", "let another computer or a sandboxed editor use this server"),
    "plugin": ("plugin", "build or install an editor's plug-in"),
    "uninstall": ("uninstall", "take the plug-ins and what the set-up made away again"),
    "doctor": ("doctor", "check this installation and say what to mend"),
}
"""Verb -> (module, help)."""


def parser_for(verb: str | None) -> argparse.ArgumentParser:
    """The command line with all verbs named and `verb` complete."""
    parser = SuggestingParser(prog="impasto", description="Stable Diffusion for a painter's editor.")
    parser.add_argument("--version", action="version", version=f"impasto {__version__}")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    module = VERBS[verb][0] if verb in VERBS else None
    for name, (home, text) in VERBS.items():
        if home == module:
            if name == verb:
                _module(home).add_arguments(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in words if not word.startswith("-")), None)
    # What follows a job has options of its own, of the same names.
    first, links = split_chain(words)
    args = parser_for(verb).parse_args(first)
    args.links = links
    if links and VERBS[args.verb][0] != "generate":
        parser_for(verb).error(f"{THEN} follows a job, not {args.verb}")
    try:
        code = int(_module(VERBS[args.verb][0]).run(args))
        if args.verb == "plugin" and code == 0:
            # So that the editor can start the server before anybody has run `impasto serve`.
            _module("server").remember_launch()
        return code
    except ImpastoError as error:
        print(f"impasto: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("impasto: interrupted", file=sys.stderr)
        return 1


def split_chain(words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The words of the first job, and those of each `--then`."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == THEN:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts[0], parts[1:]


def exit_code(error: ImpastoError) -> int:
    """2 where what was asked for is wrong, else 1."""
    return 2 if error.code.startswith("request.") or error.code == "model.unknown" else 1


def _module(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{name}")


if __name__ == "__main__":
    sys.exit(main())
