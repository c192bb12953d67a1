"""The starter model, for those who have no checkpoint yet."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from impasto_protocol.errors import ModelError

__all__ = ["install_starter"]

log = logging.getLogger("impasto.catalogue")


def install_starter(folder: Path) -> Path:
    """Unpack the starter model into `folder`, unless the right file is there already, and give its path.

    Raises ModelError `model.unknown` where this installation does not contain it, `model.corrupt` where its packed
    weights are missing or damaged.
    """
    try:
        unpack = importlib.import_module("starter.unpack")
    except ModuleNotFoundError as e:
        if e.name not in ("starter", "starter.unpack"):
            raise
        raise ModelError("model.unknown", "This installation does not contain the starter model.") from e
    try:
        path = Path(unpack.install(folder))
    except unpack.StarterDamaged as e:
        raise ModelError("model.corrupt", f"{e}; if that does not help, install Impasto again.") from e
    log.info("the starter model is there: %s", path)
    return path
