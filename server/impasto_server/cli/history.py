"""`impasto history`: the results that are kept, and one of them made again."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path

from impasto_protocol.errors import JobError, RequestError
from impasto_protocol.home import history_folder
from impasto_protocol.messages import ChainLink

from ..engine.fields import params_of
from ..engine.further import WAYS, further, remaining
from ..engine.modes import MODES
from ..service.journal import Entry, Journal
from ..service.settings import Settings
from . import generate
from .server import add_engine_options

__all__ = ["add_arguments", "run"]

_SHORT = 8
"""Characters of a job's id that are shown; any beginning that only one job has will do."""


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `history`."""
    parser = subparsers.add_parser(
        "history", help="list the results that are kept, make one again, or take one further"
    )
    parser.add_argument("-n", "--number", type=int, default=20, help="how many, the newest first (default: 20)")
    parser.add_argument("--json", action="store_true", help="tell the results as JSON")
    again = parser.add_argument_group("making a result again")
    again.add_argument("--again", metavar="JOB", help="run the recipe of this job once more, with the same seed")
    again.add_argument(
        "--further", metavar="JOB[:N]", help="take result N (0, the first) of this job further: see --to and --set"
    )
    again.add_argument(
        "--to", choices=WAYS, default="img2img", help="by a hires pass, or as the picture of another job (img2img)"
    )
    again.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value of a parameter, with --further"
    )
    again.add_argument(
        "--resume", metavar="JOB", help="go on with what is left of a chain, from its last finished picture or --image"
    )
    again.add_argument("--index", type=int, default=0, help="which of the job's results (default: 0, the first)")
    again.add_argument("--image", type=Path, metavar="FILE", help="the picture that the job began with, if it had one")
    again.add_argument("--mask", type=Path, metavar="FILE", help="the mask that the job had")
    again.add_argument("--backdrop", type=Path, metavar="FILE", help="what lay under the sketch")
    again.add_argument("-o", "--output", type=Path, metavar="FILE", help="the finished picture")
    again.add_argument("--layer", type=Path, metavar="FILE", help="the layer that an editor would paste, as PNG")
    again.add_argument("--in-process", action="store_true", help="do not use a server that is running")
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """List the newest results, or make one again."""
    settings = Settings()
    journal = Journal(history_folder(settings.home), settings.history_bytes)
    if args.further is not None:
        return generate.run(_further_as_options(args, journal))
    if args.resume is not None:
        return generate.run(_left_as_options(args, journal))
    if args.again is not None:
        return generate.run(_recipe_as_options(args, _found(journal, args.again, args.index)))
    for entry in itertools.islice(journal.entries(), max(0, args.number)):
        path = journal.path(entry)
        if args.json:
            told = {"file": str(path) if path else None, "job": entry.job, "mode": entry.mode, "created": entry.created}
            print(json.dumps({**told, "index": entry.index, "seed": entry.seed, "recipe": entry.recipe}))
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created))
            which = entry.job[:_SHORT] + (f":{entry.index}" if entry.index else "")
            what = f"{when}  {which:<{_SHORT + 3}}  {entry.mode:<8} seed {entry.seed:<10}"
            print(f"{what} {path or '(picture is gone)'}")
    return 0


def _found(journal: Journal, job: str, index: int | None) -> Entry:
    """The result of the job whose id begins so; None for any of them.

    Raises JobError `job.unknown`, RequestError where several do.
    """
    entries = [entry for entry in journal.entries() if entry.job.startswith(job)] if job else []
    names = {entry.job for entry in entries}
    if len(names) > 1 and job not in names:
        raise RequestError(
            "request.invalid_param", f"The ids of {len(names)} jobs begin with {job}; write more of it.", path="again"
        )
    for entry in entries:
        if index in (None, entry.index) and entry.job in (job, *(names if len(names) == 1 else ())):
            return entry
    raise JobError("job.unknown", f"There is no result {index} of a job {job[:40]!r}; see `impasto history`.")


def _further_as_options(args: argparse.Namespace, journal: Journal) -> argparse.Namespace:
    """The options of the verb that takes a result further."""
    job, _, number = args.further.partition(":")
    if number and not number.isdecimal():
        raise RequestError("request.invalid_param", f"{number!r} is no number; write JOB:2.", path="further")
    entry = _found(journal, job, int(number or 0))
    mode, params = further(entry.recipe, args.to)
    known = {p.name: p for p in params_of(MODES[mode][0])}
    for pair in args.set:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise RequestError(
                "request.invalid_param", f"{pair!r} sets no parameter of {mode}; write strength=0.4.", path="set"
            )
        params[name] = value if known[name].type == "string" else _plain(value)
    if args.to != "hires" and args.image is None:
        args.image = journal.path(entry)
        if args.image is None or args.image.suffix != ".png":
            raise JobError("job.unknown", "The picture of this result is not there (any more).")
    entry = dataclasses.replace(entry, mode=mode, recipe={"params": params})
    return _recipe_as_options(args, entry)


def _left_as_options(args: argparse.Namespace, journal: Journal) -> argparse.Namespace:
    """The options of the next verb of a chain, over the picture that it picks of those that were made last."""
    newest = _found(journal, args.resume, None)
    made = [e for e in journal.entries() if e.job == newest.job]
    left = min(len(e.recipe.get("then", ())) for e in made)
    last = sorted((e for e in made if len(e.recipe.get("then", ())) == left), key=lambda e: e.index)
    mode, params, rest = remaining(last[0].recipe)
    pick = int(last[0].recipe["then"][0].get("pick", 0))
    entry = last[min(pick, len(last) - 1)]
    args.image = args.image or journal.path(entry)
    if args.image is None or (args.image.suffix != ".png" and args.image.parent == journal.folder):
        raise JobError("job.unknown", "The picture of this result is not there (any more).")
    args.left = tuple(ChainLink(link["mode"], dict(link["params"]), int(link.get("pick", 0))) for link in rest)
    return _recipe_as_options(args, dataclasses.replace(entry, mode=mode, recipe={"params": params}))


def _plain(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _recipe_as_options(args: argparse.Namespace, entry: Entry) -> argparse.Namespace:
    """The options of the verb that made the entry. The pictures that a job began with are not kept: they are asked for.

    Raises RequestError `request.missing_input`.
    """
    params = entry.recipe.get("params")
    if entry.mode not in MODES or not isinstance(params, dict):
        raise JobError("job.unknown", "This result has no recipe that can be run again.")
    for needed in MODES[entry.mode][2]:
        if needed.required and getattr(args, needed.name, None) is None:
            raise RequestError(
                "request.missing_input",
                f"The mode {entry.mode} needs the {needed.name} again; give it with --{needed.name} FILE.",
                path=needed.name,
            )
    size = (params.get("width"), params.get("height"))
    options = {f"p_{name}": value for name, value in params.items()}
    # 0 is the model's own size, which is what no size means.
    return argparse.Namespace(**{**vars(args), **options, "verb": entry.mode, "size": size if all(size) else None})
