"""`impasto doctor`: what is here, what works, and the command that mends what does not."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import read_endpoint, token_file

from .. import __version__
from ..service.home import ensure_home, ensure_token
from ..service.server import catalogue_of
from ..service.settings import Settings

__all__ = ["Finding", "add_arguments", "run"]


class Finding(NamedTuple):
    """`level` is "ok", "note" or "BAD"; what is bad says how to mend it."""

    level: str
    text: str


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb `doctor`."""
    subparsers.add_parser("doctor", help="check this installation and say what to mend")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 where one is bad."""
    bad = False
    for finding in _findings(Settings()):
        print(f"{finding.level:<5} {finding.text}")
        bad |= finding.level == "BAD"
    return 1 if bad else 0


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", f"Impasto {__version__}, Python {platform.python_version()} ({sys.executable})")
    try:
        ensure_home(settings.home)
        if token_file(settings.home).exists():
            ensure_token(settings.home)
        yield Finding("ok", f"user folder {settings.home}")
    except ImpastoError as e:
        yield Finding("BAD", e.message)
    yield from _torch()
    catalogue = catalogue_of(settings)
    catalogue.scan()
    usable = catalogue.checkpoints()
    if usable:
        yield Finding("ok", f"{len(usable)} checkpoint(s) of {len(catalogue.models)} model files")
    else:
        yield Finding("BAD", catalogue.no_checkpoint)
    for model in catalogue.models:
        if model.facts.kind == "unknown":
            yield Finding("note", f"{model.path}: {model.facts.reason}")
    upscalers = sum(model.facts.kind == "upscaler" for model in catalogue.models)
    if find_spec("spandrel") is not None:
        yield Finding("ok", f"{upscalers} upscaler model(s), loaded by spandrel {version('spandrel')}")
    else:
        yield Finding("note", f"{upscalers} upscaler model(s); to use them: pip install --no-deps spandrel einops")
    record = read_endpoint(settings.home)
    yield Finding("ok", f"server: port {record.port}, process {record.pid}" if record else "server: none is running")
    krita = shutil.which("krita")
    yield Finding("ok" if krita else "note", f"Krita: {krita or 'not found in PATH'}")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as e:
        yield Finding("BAD", f"torch cannot be imported ({e}); install Impasto again.")
        return
    yield Finding("ok", f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        major, minor = torch.cuda.get_device_capability(0)
        built = torch.cuda.get_arch_list()
        if f"sm_{major}{minor}" in built or any(a.startswith(f"sm_{major}") for a in built):
            yield Finding("ok", f"{name} (compute capability {major}.{minor})")
        else:
            yield Finding(
                "BAD",
                f"{name} needs code for sm_{major}{minor}, but this torch has {', '.join(built)}; install a build of "
                "torch for CUDA 12.6 (at most version 2.14 for GTX 10xx and older).",
            )
    else:
        yield Finding("note", "no graphics card that torch can use: jobs run on the processor")
