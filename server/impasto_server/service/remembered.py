"""The folders of other programs that the user chose once: every server of theirs uses them, whoever starts it.

They are kept in `folders.json` of the user's folder, written by `impasto setup folders`; options of the command line
come on top.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ResourceError
from impasto_protocol.home import write_private

from .settings import Settings

__all__ = ["PROGRAMS", "folders_file", "read_folders", "with_remembered", "write_folders"]

PROGRAMS = ("a1111", "comfyui", "invokeai", "models")
"""Whose folders: three programs, and plain folders of models."""


def folders_file(home: Path) -> Path:
    """Where the folders are kept."""
    return home / "folders.json"


def read_folders(home: Path) -> dict[str, tuple[Path, ...]]:
    """Program -> its folders, whether they are there now or not.

    Raises ResourceError `resource.home` for a file that is not as it was written: to go on without would hide models.
    """
    file = folders_file(home)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {name: tuple(Path(folder) for folder in told.get(name, ())) for name in PROGRAMS}
    except FileNotFoundError:
        return dict.fromkeys(PROGRAMS, ())
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise ResourceError(
            "resource.home", f"{file} cannot be read ({e}); delete it and run `impasto setup folders` again."
        ) from e


def write_folders(home: Path, folders: Mapping[str, tuple[Path, ...]]) -> None:
    """Keep the folders, or delete the file where none are left."""
    kept = {name: [str(folder) for folder in folders.get(name, ())] for name in PROGRAMS}
    if any(kept.values()):
        write_private(folders_file(home), json.dumps(kept, indent=1, ensure_ascii=False))
    else:
        folders_file(home).unlink(missing_ok=True)


def with_remembered(settings: Settings) -> Settings:
    """The settings with the user's folders behind those that it names."""
    there = {field.name for field in dataclasses.fields(Settings)}
    changes: dict[str, Any] = {}
    for name, folders in read_folders(settings.home).items():
        if name in there and folders:
            named = getattr(settings, name)
            changes[name] = (*named, *(folder for folder in folders if folder not in named))
    return dataclasses.replace(settings, **changes) if changes else settings
