"""The kit in the user's folder: its upscaler among the other models, and what `impasto models` tells of the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from impasto_protocol.errors import ModelError
from impasto_protocol.home import kit_folder

from ..engine.kit.runtime import installed, known
from .facts import Facts

__all__ = ["KitFile", "checking", "install_upscalers", "kit_files"]

log = logging.getLogger("impasto.catalogue")

UPSCALER = "upscaler"


@dataclass(frozen=True)
class KitFile:
    """One network of the kit. `state` is "there", "packed" (unpacked when first used), "to pull" (it does not come
    along) or what is wrong."""

    name: str
    kind: str
    about: str
    licence: str
    origin: str
    paper: str
    file: str
    state: str


def kit_files(home: Path) -> Iterator[KitFile]:
    """All networks of the kit, as they are in the folder of this home. Raises what `known` raises."""
    for name, entry in known().items():
        path = kit_folder(home) / entry["file"]
        state = "packed" if "sha256" in entry else "to pull"
        if path.exists():
            state = _replaced(name, path) or "there"
        told = {key: str(entry.get(key, "")) for key in ("kind", "about", "licence", "origin", "paper")}
        yield KitFile(name, file=str(path), state=state, **told)


def install_upscalers(home: Path) -> None:
    """Unpack the kit's upscalers, which are chosen from the list of models and so have to lie there.

    Raises ModelError as `installed` does.
    """
    for name, entry in known().items():
        if entry["kind"] == UPSCALER and "sha256" in entry:
            installed(name, kit_folder(home))


def checking(identify: Callable[[Path], Facts], home: Path) -> Callable[[Path], Facts]:
    """`identify` that knows the kit's own files in its folder; what only has the name of one cannot be used."""
    folder = kit_folder(home)

    def checked(path: Path) -> Facts:
        if path.parent == folder:
            try:
                entries = known()
            except ModelError as e:
                log.error("%s", e)
                entries = {}
            for name, entry in entries.items():
                if entry["file"] != path.name:
                    continue
                reason = _replaced(name, path)
                if reason:
                    return Facts("unknown", usable=False, reason=reason, code="model.unsupported")
                if entry["kind"] != UPSCALER:
                    return Facts(entry["kind"])
        return identify(path)

    return checked


def _replaced(name: str, path: Path) -> str:
    """Why the file at `path`, which is there, is not the kit's `name`; "" where it is."""
    try:
        installed(name, path.parent)
    except ModelError as e:
        return e.message
    return ""
