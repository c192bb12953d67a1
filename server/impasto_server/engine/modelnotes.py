"""What people and other programs note about a model in files beside it. No torch here.

AUTOMATIC1111 keeps what its user writes in `NAME.json`; the helpers for civitai write what that site says into
`NAME.civitai.info`. Nothing in them is relied on: they are shown, and a LoRA's family is taken from them where the file
itself does not tell. A damaged one counts as none.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .modelpath import beside

__all__ = ["Notes", "noted_hashes", "read_notes"]

MAX_BYTES = 4_000_000
MAX_WORDS = 100
_FAMILIES = {
    "SD1": "sd1",
    "SD2": "sd2",
    "SDXL": "sdxl",
    "SD 1.4": "sd1",
    "SD 1.5": "sd1",
    "SD 2.0": "sd2",
    "SD 2.1": "sd2",
    "SDXL 1.0": "sdxl",
    "Pony": "sdxl",
    "Illustrious": "sdxl",
}
"""What the two programs call the families that this one has names for."""


@dataclass(frozen=True)
class Notes:
    """`words` bring out what a LoRA or embedding was trained on; `strength` is the one its user prefers, 0 where none
    is said; `family` as in `identify.ModelInfo`; `text` is free."""

    words: tuple[str, ...] = ()
    strength: float = 0.0
    family: str = ""
    text: str = ""


def read_notes(path: str | Path) -> Notes:
    """The notes beside the model at `path`; the user's own go before the site's. Never raises."""
    stem = beside(path)
    mine, site = _read(stem + ".json"), _read(stem + ".civitai.info")
    if not mine and not site:
        return Notes()
    words = _text(mine, "activation text")
    trained = site.get("trainedWords")
    given = [word for word in trained if isinstance(word, str)] if isinstance(trained, list) else []
    strength = mine.get("preferred weight")
    number = isinstance(strength, int | float) and not isinstance(strength, bool) and math.isfinite(strength)
    return Notes(
        tuple(word[:500] for word in ([words] if words else given)[:MAX_WORDS] if word.strip()),
        float(strength) if number and strength is not None else 0.0,
        _FAMILIES.get(_text(mine, "sd version")) or _FAMILIES.get(_text(site, "baseModel"), ""),
        (_text(mine, "description") or _text(mine, "notes"))[:2000],
    )


def noted_hashes(path: str | Path) -> frozenset[str]:
    """What civitai says of the hashes of the model at `path`, all kinds of them, lower case. Never raises."""
    files = _read(beside(path) + ".civitai.info").get("files")
    found: set[str] = set()
    for file in files if isinstance(files, list) else []:
        hashes = file.get("hashes") if isinstance(file, dict) else None
        if isinstance(hashes, dict):
            found |= {digits.lower() for digits in hashes.values() if isinstance(digits, str) and len(digits) >= 8}
    return frozenset(found)


def _text(said: dict[str, Any], key: str) -> str:
    value = said.get(key)
    return value.strip() if isinstance(value, str) else ""


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            said = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
