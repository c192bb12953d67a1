"""Which inpainting checkpoint belongs to which ordinary one: by what the model says, else by the names of the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .facts import Facts

__all__ = ["partners"]

_INPAINTING = re.compile(r"inpaint(?:ing)?", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9]+")
_ASIDE = frozenset(("bf16", "ckpt", "ema", "emaonly", "fp16", "fp32", "full", "no", "nonema", "only", "pruned", "sd"))
"""Words of file names that say how the weights were stored, not which they are."""


def partners(models: Mapping[str, tuple[Path, Facts]]) -> dict[str, str]:
    """Id of an ordinary checkpoint -> id of its inpainting partner, for those that have one.

    A partner can be used, is of the same family and has the input channels of an inpainting checkpoint. Its name is
    that of the other with "inpainting" (or "inpaint") in it, whatever stands between the words: deliberate_v2 and
    deliberate_v2-inpainting. Of several the one in the same folder is taken, and of those the shortest name.
    """
    usable = {name: (path, facts) for name, (path, facts) in models.items() if _usable(facts)}
    inpainting = {name: found for name, found in usable.items() if found[1].variant == "inpaint"}
    by_key: dict[tuple[str, ...], list[str]] = {}
    for name in inpainting:
        by_key.setdefault((inpainting[name][1].family, *_key(name)), []).append(name)
    found: dict[str, str] = {}
    for name, (path, facts) in usable.items():
        if facts.variant == "inpaint":
            continue
        if facts.says_partner is not None:
            said = inpainting.get(facts.says_partner)
            if said is not None and said[1].family == facts.family:
                found[name] = facts.says_partner
            continue
        key = _key(name)
        ranked = sorted(
            (inpainting[other][0].parent != path.parent, len(other), other)
            for other in by_key.get((facts.family, *key), ())
        )
        if key and ranked:
            found[name] = ranked[0][2]
    return found


def _usable(facts: Facts) -> bool:
    return facts.kind == "checkpoint" and facts.usable


def _key(name: str) -> tuple[str, ...]:
    """The words of a name that say which model it is."""
    bare = _INPAINTING.sub(" ", name.split("~")[0]).lower()
    return tuple(word for word in _WORD.findall(bare) if word not in _ASIDE)
