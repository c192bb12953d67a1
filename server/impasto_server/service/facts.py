"""What the catalogue knows of a file, from the engine's identification of its header."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ImpastoError

from ..engine.identify import Unknown, identify_file

__all__ = ["Facts", "identify"]

log = logging.getLogger("impasto.catalogue")


@dataclass(frozen=True)
class Facts:
    """`kind` is "checkpoint", another kind of model file, or "unknown"; `native_size` in pixels, 0 where it has none.

    Where it is not `usable`, `reason` says why and what to do, and `code` is that of the ModelError. `hints` are
    values of parameters that suit the checkpoint.
    """

    kind: str
    family: str = ""
    variant: str = ""
    title: str = ""
    native_size: int = 0
    hints: Mapping[str, Any] = field(default_factory=dict)
    usable: bool = True
    reason: str = ""
    code: str = ""


def identify(path: Path) -> Facts:
    """The facts of a file; whatever is wrong with it is told in them."""
    try:
        found = identify_file(path)
    except ImpastoError as e:
        return Facts("unknown", usable=False, reason=e.message, code=e.code)
    except OSError as e:
        return Facts("unknown", usable=False, reason=f"It cannot be read ({e.strerror}).", code="model.corrupt")
    if isinstance(found, Unknown):
        return Facts("unknown", usable=False, reason=found.reason, code=found.code)
    facts = Facts(found.kind, found.family, found.variant, found.title, found.native_size, dict(found.hints))
    if found.kind != "checkpoint" or found.config is None:
        reason = f"It is {found.described}, which Impasto cannot use yet."
        return replace(facts, usable=False, reason=reason, code="model.unsupported")
    return facts
