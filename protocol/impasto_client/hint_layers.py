"""The hint of a control unit, made while the painter still sets it up: a layer to correct and feed in, or to look at.

Both are jobs of the mode `annotate`, of the layer that the unit names or of what the canvas shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from impasto_protocol.schema import Mode, Param

from .document import ResultLayer
from .editor import Host, Obstacle, Target
from .notice import Notice
from .targets import ANNOTATE, LAYER, PLAINEST

__all__ = ["HintLayers", "HintWish", "makes_hints", "no_hint"]

NOTHING = "none"
"""The preprocessor of a picture that is a hint already."""
HINT_SIZE = 256
"""Pixels to which a hint is scaled to be looked at."""


@dataclass(frozen=True)
class HintWish:
    """Entry `at` of a list of units as it was when its hint was asked for: to `keep` as a layer, or to look at."""

    at: int
    entry: Mapping[str, Any]
    keep: bool

    def is_of(self, entries: Sequence[Mapping[str, Any]]) -> bool:
        """Is the unit still there, with the same picture and preprocessor?"""
        asked = ("model", "image", "preprocessor")
        return self.at < len(entries) and all(entries[self.at].get(key) == self.entry.get(key) for key in asked)


def makes_hints(p: Param) -> bool:
    """Do the entries of this list have a picture of which a preprocessor makes a hint?"""
    return {"image", "preprocessor"} <= {item.name for item in p.items}


def no_hint(entry: Mapping[str, Any]) -> str:
    """Why no hint can be made for a unit; empty where one can."""
    if entry.get("preprocessor", NOTHING) == NOTHING:
        return "Choose a preprocessor first: it makes the hint of a picture."
    return ""


class HintLayers:
    """Part of the controller. `bound(wish, value)` hears of a new layer, as a parameter that takes a picture has it;
    `shown(wish, picture)` of a small picture of the toolkit's own kind.
    """

    def __init__(
        self,
        host: Host,
        say: Callable[[Optional[Notice]], None],
        begin: Callable[[Callable[[], Target], HintWish], bool],
    ) -> None:
        self.bound: Callable[[HintWish, str], None] = lambda wish, value: None
        self.shown: Callable[[HintWish, Any], None] = lambda wish, picture: None
        self._host, self._say, self._begin = host, say, begin

    def ask(self, document: Optional[Any], mode: Optional[Mode], at: int, entry: Mapping[str, Any], keep: bool) -> bool:
        """Have the hint of a unit made; `mode` is `annotate` as the server describes it.

        False where it cannot be, which the notice says.
        """
        wish = HintWish(at, dict(entry), keep)
        return self._begin(lambda: self._target(document, mode, wish.entry), wish)

    def _target(self, document: Optional[Any], mode: Optional[Mode], entry: Mapping[str, Any]) -> Target:
        host = self._host
        sentence = host.obstacle(PLAINEST, document) or no_hint(entry)
        if sentence:
            raise Obstacle(sentence)
        if mode is None:
            raise Obstacle("This server makes no hints; update it.")
        canvas, layer = host.canvas_of(document), None
        value = str(entry.get("image", ""))
        if value.startswith(LAYER):
            layer = host.layer_named(document, value[len(LAYER) :])
            if layer is None:
                raise Obstacle("The layer of this control unit is gone; choose another picture for it.")
            if host.is_blank(document, layer, canvas):
                raise Obstacle("The layer of this control unit is empty; paint on it, or choose another picture.")
        params: Dict[str, Any] = {p.name: entry[p.name] for p in mode.params if p.name in entry}
        return Target(ANNOTATE, document, canvas, params, layer=layer, above=layer)

    def receive(self, result: ResultLayer, wish: HintWish, document: Any, paste: Callable[[], None]) -> None:
        """A hint has come: show it, or `paste` it and tell which layer it is."""
        if not wish.keep:
            self.shown(wish, self._host.thumbnail(result.pixels, result.box.width, result.box.height, HINT_SIZE))
            return
        before = {name for name, _ in self._host.layers_of(document)}
        paste()
        fresh = [name for name, _ in self._host.layers_of(document) if name not in before]
        if len(fresh) == 1:
            self.bound(wish, f"{LAYER}{fresh[0]}")
