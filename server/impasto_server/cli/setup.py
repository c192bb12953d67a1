"""`impasto setup [STEP]`: the first start. Every step can be run alone and again; `impasto uninstall` undoes it."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from impasto_protocol.errors import ImpastoError, RequestError, ResourceError
from impasto_protocol.home import home_folder, read_launch
from impasto_protocol.version import PROTOCOL, VERSION

from . import cards, found_editors, found_folders, torch_builds
from .asking import Asker
from .found_editors import Editor
from .plugin import place_krita
from .plugin_gimp import place_gimp

__all__ = ["STEPS", "add_arguments", "install_torch", "place_plug_in", "plug_in_state", "run"]

PICTURE = "first-picture.png"
SPACE = 3
"""A download of torch takes this many times its size while it is installed."""


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `setup`."""
    setup = subparsers.add_parser(
        "setup",
        help="the first start: torch, plug-ins, folders of models, a test picture",
        description="Without a STEP all of them, in this order: "
        + "; ".join(f"{name}: {text}" for name, (_, text) in STEPS.items())
        + ".",
    )
    setup.add_argument("step", nargs="?", choices=tuple(STEPS), metavar="STEP", help=" | ".join(STEPS))
    setup.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="for the step folders: use these")
    setup.add_argument("--yes", action="store_true", help="say yes to every question")
    setup.add_argument("--dry-run", action="store_true", help="only say what would be done, with the exact commands")
    setup.add_argument("--build", choices=torch_builds.KINDS, help="another build of torch than the one that fits")
    setup.add_argument(
        "--index", metavar="URL", help='a package index for torch in the place of its own; "none" uses pip\'s settings'
    )
    setup.add_argument("--forget", nargs="*", type=Path, metavar="DIR", help="folders: no longer use these, or any")


def run(args: argparse.Namespace) -> int:
    """Run the steps; 1 where one failed. A step that fails does not keep the others from running."""
    if args.folders and args.step != "folders":
        raise RequestError("request.invalid_param", "Folders can be named for one step: impasto setup folders DIR ...")
    asker = Asker(args.yes)
    names = [args.step] if args.step else list(STEPS)
    failed = False
    for name in names:
        if not args.step:
            _say(f"\n== {STEPS[name][1]}")
        try:
            STEPS[name][0](args, asker)
        except ImpastoError as error:
            if args.step or error.code == "request.confirm":
                raise
            _say(f"impasto: {error.message}")
            failed = True
    if not args.step and not args.dry_run:
        _say("\nDone." if not failed else "\nNot all of it could be done; `impasto doctor` says what is missing.")
    return 1 if failed else 0


# --- torch ----------------------------------------------------------------------------------------------------------


def install_torch(args: argparse.Namespace, asker: Asker) -> None:
    """Find the card, choose the build that has code for it, install it."""
    machine = cards.found()
    for card in machine.cards:
        memory = f", {card.memory / 2**30:.0f} GiB" if card.memory else ""
        driver = f", driver {card.driver}" if card.driver else ""
        _say(f"card: {card.name or card.vendor}{memory}{driver}")
    if machine.trouble:
        _say(f"the driver does not answer: {machine.trouble}")
    build = torch_builds.build_of(args.build) if args.build else torch_builds.choose(machine)
    there = torch_builds.installed()
    if torch_builds.is_installed(build, there):
        _say(f"torch {there} is here, and it is the right build ({build.reason})")
        commands = [] if find_spec("spandrel") else [torch_builds.upscaler_command()]
        need = 0.0
        question = "Install spandrel, which loads upscaler models (1 MB)?"
    else:
        _say(f"torch for {build.kind}: {build.reason}" + (f"; {there} is here" if there else ""))
        commands = torch_builds.install_commands(build, args.index, there)
        need = float(build.download.split()[0]) * 1e9 * SPACE
        question = f"Download and install {build.requirement} (about {build.download})?"
    if args.dry_run:
        print("\n".join(shlex.join(command) for command in commands))
        return
    if not commands:
        return
    _check_pip_and_space(need)
    if asker.agrees(question):
        torch_builds.pip_install(commands)
        _say(f"torch {torch_builds.installed()} is installed")


def _check_pip_and_space(need: float) -> None:
    if find_spec("pip") is None:
        raise ResourceError(
            "resource.install_failed",
            f"This Python has no pip; run: {shlex.join([sys.executable, '-m', 'ensurepip', '--upgrade'])}",
        )
    free = shutil.disk_usage(sys.prefix).free
    if free < need:
        raise ResourceError(
            "resource.disk_full",
            f"torch needs about {need / 1e9:.0f} GB while it is installed, and {sys.prefix} has {free / 1e9:.1f} GB "
            "left; make room and try again.",
        )


# --- plug-ins -------------------------------------------------------------------------------------------------------


def install_plugins(args: argparse.Namespace, asker: Asker) -> None:
    """Put the plug-in into every Krita and every GIMP 3 that has none, or another one than this."""
    editors = found_editors.find(found_editors.mine())
    if not editors:
        _say("neither Krita nor GIMP 3 was found; install one, and run `impasto setup plugins`")
    placed, errors = set(), []
    for editor in editors:
        title = f"{editor.name.capitalize()} ({editor.packaging}, {editor.resources})"
        state = plug_in_state(editor)
        if state == "current":
            _say(f"{title}: the plug-in is there")
            continue
        _say(f"{title}: {'no plug-in yet' if state == 'none' else f'the plug-in there is {state}'}")
        if args.dry_run or not asker.agrees(f"Put the plug-in into {editor.name.capitalize()} (close it first)?"):
            continue
        try:
            _say(f"  installed: {place_plug_in(editor)}")
        except ImpastoError as error:
            errors.append(error)
            _say(f"  impasto: {error.message}")
            continue
        placed.add(editor.name)
        if editor.sandboxed:
            _say("  a Flatpak cannot start programs: run `impasto serve` before you use the plug-in")
    for name in sorted(placed):
        where = "Settings > Dockers > Impasto" if name == "krita" else "Filters > Impasto"
        _say(f"start {name.capitalize()} again; Impasto is under {where}")
    if errors:
        raise errors[0]


def plug_in_state(editor: Editor) -> str:
    """ "none", "current", "older" or "another version" of the plug-in in that editor."""
    there = found_editors.plug_in_version(editor)
    if there is None:
        return "none"
    version, protocol = there
    if version == VERSION and protocol == PROTOCOL:
        return "current"
    return "older" if protocol is None or protocol < PROTOCOL else "another version"


def place_plug_in(editor: Editor) -> Path:
    """Put the plug-in into that editor, whole or not at all; its folder."""
    if editor.name == "krita":
        assert editor.kritarc is not None
        return place_krita(editor.resources, editor.kritarc)
    return place_gimp([editor.resources])[0]


# --- folders --------------------------------------------------------------------------------------------------------


def choose_folders(args: argparse.Namespace, asker: Asker) -> None:
    """Offer the folders of other programs, or take the ones that were named, and remember them for every server."""
    from ..service.home import ensure_home
    from ..service.remembered import folders_file, read_folders, write_folders

    home = home_folder()
    kept = read_folders(home)
    if args.forget is not None:
        gone = {folder.expanduser().absolute() for folder in args.forget}
        kept = {name: tuple(f for f in there if gone and f not in gone) for name, there in kept.items()}
    elif args.folders:
        for folder in args.folders:
            folder = folder.expanduser().absolute()
            if not folder.is_dir():
                raise RequestError("request.invalid_param", f"There is no folder {folder}.")
            name = found_folders.kind_of(folder) or "models"
            kept[name] = tuple(dict.fromkeys((*kept[name], folder)))
    else:
        found = found_folders.find(found_folders.places())
        for name, folders in found.items():
            for folder in folders:
                title = f"{found_folders.TITLES[name]} in {folder}"
                if folder in kept[name]:
                    _say(f"{title}: in use")
                elif args.dry_run:
                    _say(f"{title}: found")
                elif asker.agrees(f"Use the models of {title} (where they lie; nothing there is changed)?"):
                    kept[name] = (*kept[name], folder)
        if not any(found.values()) and not any(kept.values()):
            _say("no AUTOMATIC1111, ComfyUI or InvokeAI was found; `impasto setup folders DIR` names any folder")
    if not args.dry_run:
        ensure_home(home)
        write_folders(home, kept)
        for name, folders in kept.items():
            for folder in folders:
                _say(f"{name}: {folder}" + ("" if folder.is_dir() else " (not there now)"))
        _say(f"kept in {folders_file(home)}" if any(kept.values()) else "no folders are kept")


# --- launch and picture ---------------------------------------------------------------------------------------------


def record_launch(args: argparse.Namespace, asker: Asker) -> None:
    """Keep the command by which an editor starts the server; one that no longer works is replaced."""
    from ..service.home import ensure_home, write_launch
    from ..service.settings import Settings
    from .server import launch_command

    home = home_folder()
    there = read_launch(home)
    command = launch_command(Settings())
    if there is not None and os.access(there[0], os.X_OK):
        _say(f"editors start: {shlex.join(there)}")
        return
    if not args.dry_run:
        ensure_home(home)
        write_launch(home, command)
    _say(f"editors start: {shlex.join(command)}")


def make_picture(args: argparse.Namespace, asker: Asker) -> None:
    """Start the server as an editor would, let it paint, say where the picture is."""
    from impasto_client.launch import find_or_start

    from .main import main

    target = home_folder() / PICTURE
    words = ["txt2img", "--prompt", "red apple", "--seed", "1", "-o", str(target)]
    if args.dry_run:
        print(shlex.join(["impasto", *words]))
        return
    if not torch_builds.installed():
        raise ResourceError("resource.no_torch", "Nothing can be painted without torch; run `impasto setup torch`.")
    record_launch(args, asker)
    find_or_start(180.0, lambda _, sentence: _say(sentence))
    if main(words) != 0:
        raise ResourceError("resource.install_failed", "The test picture could not be made; the lines above say why.")
    _say(f"the picture is {target}")
    _show(target)


def _show(picture: Path) -> None:
    """Open the picture where there is a desktop to do it; it is no failure where there is none."""
    if not sys.stdout.isatty():
        return
    if sys.platform == "win32":
        os.startfile(picture)
        return
    opener = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if opener and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        subprocess.Popen([opener, str(picture)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


STEPS: dict[str, tuple[Callable[[argparse.Namespace, Asker], None], str]] = {
    "torch": (install_torch, "the build of torch that fits the graphics card"),
    "plugins": (install_plugins, "the plug-ins in Krita and GIMP 3"),
    "folders": (choose_folders, "the models of AUTOMATIC1111, ComfyUI and InvokeAI"),
    "launch": (record_launch, "how an editor starts the server"),
    "picture": (make_picture, "a test picture"),
}
"""Step -> what does it, what it is."""
