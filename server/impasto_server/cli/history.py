"""`impasto history`: the results that are kept."""

from __future__ import annotations

import argparse
import itertools
import json
import time

from impasto_protocol.home import history_folder

from ..service.journal import Journal
from ..service.settings import Settings

__all__ = ["add_arguments", "run"]


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `history`."""
    parser = subparsers.add_parser("history", help="list the results that are kept")
    parser.add_argument("-n", "--number", type=int, default=20, help="how many, the newest first (default: 20)")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """List the newest results."""
    settings = Settings()
    journal = Journal(history_folder(settings.home), settings.history_bytes)
    for entry in itertools.islice(journal.entries(), max(0, args.number)):
        path = journal.path(entry)
        if args.json:
            told = {"file": str(path) if path else None, "job": entry.job, "mode": entry.mode, "created": entry.created}
            print(json.dumps({**told, "seed": entry.seed, "recipe": entry.recipe}))
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
            print(f"{when}  {entry.mode:<8} seed {entry.seed:<10} {path or '(picture is gone)'}")
    return 0
