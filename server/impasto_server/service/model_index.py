"""What was found out about model files, kept between runs by path, size and time."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import write_private

from .facts import Facts, index_version

__all__ = ["Known", "load_index", "save_index"]

log = logging.getLogger("impasto.catalogue")


@dataclass(frozen=True, slots=True)
class Known:
    """What a file or folder in that state is."""

    size: int
    mtime_ns: int
    facts: Facts


_DEFAULTS = {
    f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
    for f in dataclasses.fields(Facts)
}


_TUPLES = frozenset(name for name, default in _DEFAULTS.items() if isinstance(default, tuple))


def load_index(file: Path | None) -> dict[str, Known]:
    """The index of an earlier run by path; an old or damaged one is made anew."""
    if file is None or not file.exists():
        return {}
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["version"] != index_version():
            return {}
        return {path: Known(int(size), int(time), _facts(said)) for path, (size, time, said) in raw["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        log.warning("the index of models is made anew: %s", e)
        return {}


def save_index(file: Path | None, known: Mapping[str, Known]) -> None:
    """Write the index, or log why it cannot be."""
    if file is None:
        return
    rows = {path: (entry.size, entry.mtime_ns, _said(entry.facts)) for path, entry in known.items()}
    try:
        write_private(file, json.dumps({"version": index_version(), "files": rows}))
    except (OSError, ImpastoError) as e:
        log.warning("the index of models could not be saved: %s", e)


def _said(facts: Facts) -> dict[str, Any]:
    values = {name: getattr(facts, name) for name in _DEFAULTS}
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


def _facts(said: dict[str, Any]) -> Facts:
    for name in _TUPLES & said.keys():
        said[name] = tuple(said[name])
    return Facts(**said)
