"""What the panel remembers between two sessions: one JSON file in GIMP's settings folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping

from gi.repository import Gimp

__all__ = ["load", "save"]


def _file() -> Path:
    return Path(Gimp.directory()) / "impasto.json"


def load() -> Dict[str, Any]:
    """What was saved last; {} where there is nothing or it is damaged."""
    try:
        kept = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def save(kept: Mapping[str, Any]) -> None:
    """Write it whole or not at all; a folder that cannot be written costs the settings, and nothing else."""
    written = _file().with_suffix(".new")
    try:
        written.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(str(written), str(_file()))
    except OSError:
        return
