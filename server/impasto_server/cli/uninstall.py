"""`impasto uninstall`: takes away what the set-up and the server made; pictures and models only if asked to."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from impasto_protocol.home import home_folder, models_folder, read_endpoint

from . import found_editors
from .asking import Asker
from .plugin import remove_krita
from .plugin_gimp import remove_gimp
from .vendor import cache_folder

__all__ = ["OURS", "PICTURES", "add_arguments", "run"]

OURS = (
    *("endpoint.json", "launch.json", "folders.json", "token", "server.lock", "server.log", "server.log.1"),
    *("models.json", "hashes.json", "spool", "kit", "pairings.json", "paired.json", "tls.pem"),
)
"""What the server and the set-up keep in the user's folder, apart from pictures and models."""
PICTURES = ("history", "first-picture.png")


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `uninstall`."""
    parser = subparsers.add_parser("uninstall", help="take the plug-ins and what the set-up made away again")
    parser.add_argument("--yes", action="store_true", help="say yes to every question")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--pictures", action="store_true", help="delete the kept results too")
    parser.add_argument("--models", action="store_true", help="delete Impasto's own folder of models too")


def run(args: argparse.Namespace) -> int:
    """Remove; every path that goes is printed."""
    home, asker = home_folder(), Asker(args.yes)
    if not args.dry_run and not asker.agrees("Take Impasto's plug-ins, settings and log away?"):
        return 0
    if not args.dry_run and read_endpoint(home) is not None:
        from .main import main

        main(["stop"])
    for editor in found_editors.find(found_editors.mine()):
        _remove_plug_in(editor, args.dry_run)
    for name in OURS:
        _remove(home / name, args.dry_run)
    _remove(cache_folder(), args.dry_run)  # what else lies beside it, a developer made
    kept = []
    for wanted, paths in ((args.pictures, [home / n for n in PICTURES]), (args.models, [models_folder(home)])):
        for path in paths:
            if wanted and path.exists() and (args.dry_run or asker.agrees(f"Delete {path} ({_size(path)})?")):
                _remove(path, args.dry_run)
            elif path.exists() and (path.is_file() or any(path.iterdir())):
                kept.append(path)
    if not args.dry_run and home.is_dir():
        for folder in (models_folder(home), home, cache_folder().parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    for path in kept:
        print(f"kept: {path} ({_size(path)})", file=sys.stderr)
    program = shlex.join([sys.executable, "-m", "pip", "uninstall", "impasto"])
    print(f"The program itself goes with: {program}", file=sys.stderr)
    return 0


def _remove_plug_in(editor: found_editors.Editor, dry_run: bool) -> None:
    if found_editors.plug_in_version(editor) is None or editor.plug_in.is_symlink():
        return
    if dry_run:
        print(editor.plug_in)
    elif editor.kritarc is not None:
        print("\n".join(str(path) for path in remove_krita(editor.resources, editor.kritarc)))
    else:
        print("\n".join(str(path) for path in remove_gimp(editor.resources)))


def _remove(path: Path, dry_run: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    print(path)
    if dry_run:
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return f"{len(files)} file(s), {sum(p.stat().st_size for p in files) / 1e6:.1f} MB"
