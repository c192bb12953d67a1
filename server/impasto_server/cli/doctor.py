"""`impasto doctor`: one page of what is here, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from impasto_client.endpoint import read_endpoint
from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import endpoint_file, read_launch, token_file

from .. import __version__
from ..service.home import ensure_home, ensure_token
from ..service.remembered import read_folders
from ..service.server import catalogue_of
from ..service.settings import Settings
from . import cards, found_editors, torch_builds, torch_probe
from .findings import Finding, of_disk, of_memory, of_plug_in, of_torch, page
from .setup import plug_in_state

__all__ = ["add_arguments", "findings", "memory", "run"]


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `doctor`."""
    doctor = subparsers.add_parser("doctor", help="check this installation and say what to mend")
    doctor.add_argument("--json", action="store_true", help="one JSON object: version, bad, findings, the page as text")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 where one is bad."""
    found = list(findings(Settings()))
    text = page(found, Path.home())
    bad = sum(finding.level == "BAD" for finding in found)
    if args.json:
        told = {"version": __version__, "bad": bad, "findings": [f._asdict() for f in found], "text": text}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(text)
    return 1 if bad else 0


def findings(settings: Settings) -> Iterator[Finding]:
    """Everything that is looked at, from the machine up to the models."""
    told = f"Impasto {__version__}, Python {platform.python_version()} on {platform.platform()} ({sys.executable})"
    yield Finding("impasto", "ok", told)
    yield from of_torch(cards.found(), torch_probe.probe())
    yield from of_memory(*memory())
    yield from _home(settings.home)
    yield from _server(settings.home)
    yield from _editors()
    yield from _models(settings)


def memory() -> tuple[int, int]:
    """(total, available) bytes of the computer's memory; 0 is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return told.get("MemTotal", 0), told.get("MemAvailable", 0)
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "win32":
        return 0, 0
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), 0
    except (ValueError, OSError):
        return 0, 0


def _home(home: Path) -> Iterator[Finding]:
    try:
        ensure_home(home)
        if token_file(home).exists():
            ensure_token(home)
        yield Finding("folder", "ok", f"user folder {home}")
        yield of_disk(home, shutil.disk_usage(home).free)
    except ImpastoError as e:
        yield Finding("folder", "BAD", e.message)
    except OSError as e:
        yield Finding("disk", "BAD", f"{home}: {e.strerror}")


def _server(home: Path) -> Iterator[Finding]:
    launch = read_launch(home)
    if launch is None:
        yield Finding("server", "note", "editors do not know yet how to start it", "impasto setup launch")
    elif shutil.which(launch[0]) is None:
        yield Finding("server", "BAD", f"editors would start {launch[0]}, which is gone", "impasto setup launch")
    try:
        endpoint = read_endpoint(home)
    except ImpastoError as e:
        yield Finding("server", "BAD", e.message)
        return
    if endpoint is not None:
        try:
            with socket.create_connection((endpoint.host, endpoint.port), timeout=5):
                pass
            yield Finding("server", "ok", f"answers on {endpoint.host} port {endpoint.port} (process {endpoint.pid})")
        except OSError as e:
            text = f"process {endpoint.pid} does not answer on {endpoint.host} port {endpoint.port} ({e.strerror or e})"
            yield Finding("server", "BAD", text, "impasto stop; impasto serve")
        return
    stale = " (a record of one that ended is there; it does no harm)" if endpoint_file(home).exists() else ""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listening,
            socket.create_connection(listening.getsockname(), timeout=5),
        ):
            pass
        yield Finding("server", "ok", f"none is running{stale}; a port of this machine can be used")
    except OSError as e:
        yield Finding(
            "server", "BAD", f"no program can listen on 127.0.0.1 here ({e.strerror or e})", "look at the firewall"
        )


def _editors() -> Iterator[Finding]:
    editors = found_editors.find(found_editors.mine())
    for editor in editors:
        yield of_plug_in(editor, found_editors.plug_in_version(editor), plug_in_state(editor))
        if editor.name == "krita" and editor.program == Path("/usr/bin/krita"):
            code, _ = cards.run_command(("/usr/bin/python3", "-c", "import PyQt5.QtWidgets"))
            other, _ = cards.run_command(("/usr/bin/python3", "-c", "import PyQt6.QtWidgets"))
            if code != 0 and other != 0:
                text = "the system's Python has no PyQt, without which Krita loads no plug-in"
                yield Finding("krita", "BAD", text, "apt-get install python3-pyqt5    (Debian; python-pyqt5 elsewhere)")
    if not editors:
        yield Finding("editors", "note", "neither Krita nor GIMP 3 was found")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        for name, folders in read_folders(settings.home).items():
            for folder in folders:
                if not folder.is_dir():
                    mend = f"impasto setup folders --forget {folder}"
                    yield Finding("folder", "note", f"{name}: {folder} is not there", mend)
        catalogue = catalogue_of(settings)
        catalogue.scan()
    except ImpastoError as e:
        yield Finding("models", "BAD", e.message)
        return
    usable = len(catalogue.checkpoints())
    if usable:
        yield Finding("models", "ok", f"{usable} checkpoint(s) of {len(catalogue.models)} model files")
    elif find_spec("starter") is not None:
        text = "no checkpoint yet; the first start of the server installs the starter model"
        yield Finding("models", "note", text, "impasto models pull --list    (larger ones)")
    else:
        yield Finding("models", "BAD", catalogue.no_checkpoint)
    modes = catalogue.modes()
    yield Finding("modes", "ok", "work now: " + (", ".join(m.name for m in modes if m.available) or "none"))
    reasons = {m.reason for m in modes if not m.available} - ({catalogue.no_checkpoint} if not usable else set())
    for reason in sorted(reasons):
        names = ", ".join(m.name for m in modes if not m.available and m.reason == reason)
        # What is missing is the painter's own to give; that there is no checkpoint is said above.
        yield Finding(names, "note", reason)
    for model in catalogue.models:
        if not model.facts.usable:
            yield Finding("model", "note", f"{model.path}: {model.facts.reason}")
    upscalers = sum(model.facts.kind == "upscaler" for model in catalogue.models)
    if find_spec("spandrel") is not None:
        yield Finding("models", "ok", f"{upscalers} upscaler model(s), loaded by spandrel {version('spandrel')}")
    else:
        mend = "pip install --no-deps spandrel einops"
        yield Finding("models", "note", f"{upscalers} upscaler model(s), which need spandrel", mend)
    if find_spec("pip") is None and not torch_builds.installed():
        yield Finding("torch", "BAD", "this Python has no pip", f"{sys.executable} -m ensurepip --upgrade")
