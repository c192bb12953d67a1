"""The starter model, for those who have no checkpoint yet."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from impasto_protocol.errors import ModelError

__all__ = ["install_starter", "remove_starter"]

log = logging.getLogger("impasto.catalogue")


def install_starter(folder: Path) -> Path:
    """Unpack the starter model and what goes with it into `folder`, unless the right files are there already, and give
    the model's path. What goes with it: inpainting partner, ControlNets, a LoRA, an embedding, a decoder for previews.

    Raises ModelError `model.unknown` where this installation does not contain it, `model.corrupt` where its packed
    weights are missing or damaged.
    """
    try:
        unpack = importlib.import_module("starter.unpack")
        variants = importlib.import_module("starter.unpack_variants")
    except ModuleNotFoundError as e:
        if e.name not in ("starter", "starter.unpack", "starter.unpack_variants"):
            raise
        raise ModelError("model.unknown", "This installation does not contain the starter model.") from e
    try:
        path = Path(unpack.install(folder))
        variants.install(folder)
    except unpack.StarterDamaged as e:
        raise ModelError("model.corrupt", f"{e}; if that does not help, install Impasto again.") from e
    log.info("the starter model is there: %s", path)
    return path


def remove_starter(folder: Path) -> None:
    """Take the unpacked starter model and what goes with it out of `folder`, so that all is unpacked anew."""
    (folder / importlib.import_module("starter.unpack").NAME).unlink(missing_ok=True)
    importlib.import_module("starter.unpack_variants").remove(folder)
