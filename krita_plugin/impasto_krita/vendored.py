"""The packages that travel inside the plug-in: msgpack, websockets, impasto_protocol, impasto_client."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

__all__ = ["PACKAGES", "import_vendored"]

PACKAGES = ("msgpack", "websockets", "impasto_protocol", "impasto_client")


def import_vendored() -> None:
    """Import the vendored packages, and leave `sys.path` as it was: other plug-ins bring packages of the same names.

    Raises ImportError with one short sentence, which Krita shows as the tool tip of the greyed-out plug-in.
    """
    folder = Path(__file__).parent / "_vendor"
    if not folder.is_dir():
        raise ImportError(
            "Impasto is incomplete: its folder has no _vendor. Build it with `impasto plugin build krita`, or install "
            "it with `impasto plugin install krita`."
        )
    sys.path.insert(0, str(folder))
    try:
        for name in PACKAGES:
            importlib.import_module(name)
        # Loaded by name later on; by then the folder is no longer on the path, but the package knows its own.
        importlib.import_module("websockets.sync.client")
    finally:
        sys.path.remove(str(folder))
