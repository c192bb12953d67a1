"""Take a result further: from its recipe to the parameters of the next job. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from impasto_protocol.errors import RequestError

from .fields import params_of
from .modes import MODES
from .params_hires import Hires

__all__ = ["WAYS", "further", "remaining"]

WAYS = ("hires", "img2img", "inpaint", "upscale", "refine")
"""Once more with a hires pass; or what begins with the finished picture."""

_OWN = ("strength", "batch", "vary", "width", "height")
"""Not taken over by another mode: they were meant for what that picture began with."""


def further(recipe: Mapping[str, Any], way: str) -> tuple[str, dict[str, Any]]:
    """(mode, parameters) of the next job, ready for a plan or submit; the model, prompts, LoRAs and seed are the same.

    "hires" is the same job with a hires pass, and needs the pictures that it began with; the other ways begin with the
    result itself as their `image`. Raises RequestError `request.invalid_param`.
    """
    mode, held = str(recipe.get("mode", "")), recipe.get("params")
    if way not in WAYS:
        raise _wrong(f"There is no way {way[:40]!r} to go on; there are {', '.join(WAYS)}.")
    if mode not in MODES or not isinstance(held, Mapping):
        raise _wrong("This result has no recipe that says how to go on.")
    if way == "hires":
        cls = MODES[mode][0]
        if not issubclass(cls, Hires):
            raise _wrong(f"{MODES[mode][1]} has no hires pass; take the result further by img2img or upscale.")
        if held.get("hires"):
            raise _wrong("The result has been through a hires pass; take it further by img2img or upscale.")
        return mode, {**_changed(mode, held), "hires": True}
    taken = _changed(way, held)
    return way, {name: value for name, value in taken.items() if name not in _OWN and not name.startswith("hires")}


def remaining(recipe: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """(mode, parameters, what follows them) of what was left to do of a chain after the result of that recipe.

    Raises RequestError `request.invalid_param` where it was the last one, or of none.
    """
    left = recipe.get("then")
    if not isinstance(left, list) or not left or not all(_is_link(link) for link in left):
        raise _wrong("Nothing is left to do after this result: it is of no chain, or the last of one.")
    mode, params = left[0]["mode"], left[0]["params"]
    return mode, {name: value for name, value in params.items() if name != "vary"}, left[1:]


def _is_link(link: Any) -> bool:
    return isinstance(link, Mapping) and link.get("mode") in MODES and isinstance(link.get("params"), Mapping)


def _changed(mode: str, held: Mapping[str, Any]) -> dict[str, Any]:
    """What the mode knows of it. All of it is said, so that no hint of a checkpoint comes before it."""
    known = {p.name for p in params_of(MODES[mode][0])}
    kept = {name: value for name, value in held.items() if name in known and name not in ("batch", "vary")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def _wrong(message: str) -> RequestError:
    return RequestError("request.invalid_param", message, path="way")
