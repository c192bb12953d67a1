"""Taking a result further: what is offered, and from the server's answer to a job or to a panel's settings."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .editor import Host, Obstacle, Target
from .events import Event, Failed, ParametersRead, ServerCatalog
from .gallery import Shown
from .notice import Notice
from .orders import Orders
from .recipes import read_recipe
from .targets import again, remade
from .tasks import Runner
from .ways import actions

__all__ = ["FURTHER", "Further", "layer_of", "offered"]

HIRES = "hires"
FURTHER: Tuple[Tuple[str, str], ...] = (
    (HIRES, "Finer, in a second pass (hires)"),
    ("img2img", "Refine (image to image)"),
    ("inpaint", "Inpaint in it"),
    ("upscale", "Upscale"),
    ("refine", "Refine in tiles"),
)
"""(way, in words)."""
TICKET = "further:"
"""How the tickets of what is asked for here begin."""
FIRST = {
    "img2img": "Choose the strength and press",
    "inpaint": "Select what to repaint and press",
    "upscale": "Press",
    "refine": "Press",
}
"""What is left to the painter."""


def offered(catalog: Optional[ServerCatalog], shown: Optional[Shown]) -> List[str]:
    """The ways that the server has for a result."""
    if catalog is None or shown is None or not shown.mode:
        return []
    made_by = catalog.mode(shown.mode)
    has_pass = made_by is not None and made_by.available and any(p.name == HIRES for p in made_by.params)
    ways = [HIRES] if has_pass and not shown.params.get(HIRES) else []
    for way, _ in FURTHER:
        mode = catalog.mode(way)
        if mode is not None and mode.available:
            ways.append(way)
    return ways


def layer_of(host: Host, document: Optional[Any], shown: Shown) -> Optional[Any]:
    """The layer of the document that holds the result, by the recipe that is kept with it."""
    if document is None or not host.is_open(document):
        return None
    wanted = json.loads(json.dumps(shown.recipe.get("params"), default=str))
    for name, _ in host.layers_of(document):
        layer = host.layer_named(document, name)
        try:
            recipe = read_recipe(host.recipe_of(document, layer) if layer is not None else b"")
        except Obstacle:
            continue  # the painter's own
        same = (recipe.get("seed"), recipe.get("box"), recipe["mode"]) == (shown.seed, list(shown.box), shown.mode)
        if same and recipe["params"] == wanted:
            return layer
    return None


class Further:
    """Part of the controller. A hires pass begins at once: it is the same job, over the same place. Of the others the
    painter has something to choose first: `taken(mode, params)` hears their settings, and the notice says what is left.
    """

    def __init__(
        self,
        host: Host,
        runner: Runner,
        orders: Orders,
        say: Callable[[Optional[Notice]], None],
        begin: Callable[[Callable[[], Target]], bool],
    ) -> None:
        self.taken: Callable[[str, Dict[str, Any]], None] = lambda mode, params: None
        self._host, self._runner, self._orders, self._say, self._begin = host, runner, orders, say, begin
        self._asked = 0
        self._wish: Optional[Tuple[Any, Shown, str]] = None

    def ask(self, document: Optional[Any], shown: Shown, way: str) -> None:
        """Take a result further, with `document` in front: one of FURTHER."""
        self._asked += 1
        self._wish = (document, shown, way)
        self._say(None)
        self._runner.start()
        params = shown.recipe.get("params")
        held = {**(params if isinstance(params, Mapping) else {}), "seed": shown.seed}
        self._runner.further(f"{TICKET}{self._asked}", way, {"mode": shown.mode, "params": held})

    def take(self, event: Event, catalog: Optional[ServerCatalog]) -> bool:
        """Is this event an answer to `ask`? Only the one to the last wish is followed."""
        if not isinstance(event, (ParametersRead, Failed)) or not event.ticket.startswith(TICKET):
            return False
        if event.ticket == f"{TICKET}{self._asked}" and self._wish is not None:
            wish, self._wish = self._wish, None
            if isinstance(event, Failed):
                self._say(Notice(event.error.message, is_error=True))
            elif wish[2] == HIRES:
                self._begin(lambda: self._target(wish[0], wish[1], event.params))
            else:
                self._take_over(wish[0], wish[1], event, catalog)
        return True

    def _target(self, document: Optional[Any], shown: Shown, params: Mapping[str, Any]) -> Target:
        layer, order = layer_of(self._host, document, shown), self._orders.get(shown.job_id)
        if layer is not None:
            target = again(self._host, document, layer, {})
        elif order is not None:
            target = remade(self._host, order.whole(), {})
        else:
            raise Obstacle(f"This picture is no layer of the {self._host.word}; add it as one, and choose this again.")
        return dataclasses.replace(target, params=dict(params))

    def _take_over(
        self, document: Optional[Any], shown: Shown, read: ParametersRead, catalog: Optional[ServerCatalog]
    ) -> None:
        word, mode = self._host.word, catalog.mode(read.mode) if catalog is not None else None
        params = dict(read.params)
        for p in mode.params if mode is not None else ():
            if p.name == "strength":  # that of the first picture meant something else
                params.setdefault(p.name, p.default)
        left = f"{FIRST.get(read.mode, 'Press')} “{actions(word)[read.mode].button}”"
        if layer_of(self._host, document, shown) is None:
            text = f"This picture is no layer of the {word}: add it as one first. {left}."
        else:
            text = f"The settings are ready. {left}: it begins with what the {word} shows."
        self._say(Notice(text))
        self.taken(read.mode, params)
