"""What a painter does with results: add them as layers, save them, star them; those of earlier days too.

Small pictures are in the gallery; pixels are those of the last results, or fetched again from the server's disk.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .document import ResultLayer
from .editor import Host
from .enlarging import COPY, NEW, enlarged
from .events import Done, ResultFetched
from .gallery import Gallery, Key, Query
from .kept import Kept
from .notice import Notice
from .orders import Order, Orders
from .png import save_png
from .recipes import written_recipe
from .targets import NEW_DOCUMENT

__all__ = ["PICTURE_SIZE", "Results"]

PICTURE_SIZE = 640
"""Pixels to which a picture is scaled for the panel."""
KEEP_BYTES = 256 << 20
"""Bytes of the last results that stay in memory."""


@dataclass(frozen=True)
class _Wish:
    """Something to do once the pixels of all `keys` are there."""

    keys: Tuple[Key, ...]
    deed: Callable[[List[ResultLayer]], None]


class Results:
    """Part of the controller; `say` shows a sentence to the painter."""

    def __init__(self, host: Host, kept: Kept, orders: Orders, say: Callable[[Optional[Notice]], None]) -> None:
        self._host, self._kept, self._orders, self._say = host, kept, orders, say
        self.gallery = Gallery(self._ask, lambda key: kept.fetch(*key))
        self._pixels: Dict[Key, ResultLayer] = {}
        self._wishes: List[_Wish] = []

    def _ask(self, query: Query, count: int) -> None:
        self._kept.list(count, key=query, search=query.search, starred=query.starred, begins=query.begins)

    # ---- deeds

    def apply(self, keys: Sequence[Key], document: Optional[Any], place: str = "") -> None:
        """Add results as layers of `document`, in one undo step: `place` is "top", "above" (the active layer), "group"
        (a new group on top) or "" (where the job's first layer went).

        Upscaled pictures are opened as new documents instead.
        """
        word = self._host.word

        def paste(results: List[ResultLayer]) -> None:
            for result in [r for r in results if r.stage == NEW_DOCUMENT]:
                self._host.open_new(result, written_recipe(result), None)
            layers = [r for r in results if r.stage != NEW_DOCUMENT]
            if not layers:
                return
            if document is None or not self._host.is_open(document):
                one = "an" if word[0] in "aeiou" else "a"
                self._say(Notice(f"Open {one} {word} first; the picture is added at its place there.", is_error=True))
                return
            canvas = self._host.canvas_of(document)
            inside = [r for r in layers if canvas.intersect(r.box) is not None]
            if len(inside) < len(layers):
                self._say(Notice(f"The place of this picture lies outside this {word}.", is_error=True))
            if inside:
                # The newest is first in the strip, and on top.
                self.paste(document, list(reversed(inside)), place)

        self._with_pixels(keys, paste)

    def open(self, result: ResultLayer, order: Optional[Order]) -> None:
        """An upscaled picture, where its job's order says: a new document, or the old one or its copy, larger."""
        target, word = order.target if order is not None else None, self._host.word
        if target is not None and target.into != NEW:
            if self._host.is_open(target.document) and self._host.canvas_of(target.document) == target.canvas:
                size, box = enlarged(target, result.box.size)
                placed = dataclasses.replace(result, box=box)
                told = self._host.enlarge(target.document, placed, written_recipe(placed), size, target.into == COPY)
                if told:
                    self._say(Notice(told))
                return
            what = "changed its size" if self._host.is_open(target.document) else "was closed"
            self._say(Notice(f"The {word} {what} meanwhile; the picture is a {word} of its own."))
        self._host.open_new(result, written_recipe(result), target.resolution if target is not None else None)

    def save(self, key: Key, path: Path) -> None:
        """Write a result as a PNG file that says how it was made."""
        self._with_pixels([key], lambda results: self._kept.do(("saved", path), lambda: save_png(results[0], path)))

    def star(self, key: Key, on: bool) -> None:
        """Keep a result beyond the server's quota, or no longer."""
        self._kept.star(*key, on)
        self.gallery.starred(key, on)

    def paste(self, document: Any, results: List[ResultLayer], place: str = "") -> None:
        """Add results as layers, the last one on top."""
        recipes, above = [], None
        for result in results:
            order = self._orders.get(result.job_id)
            recipes.append(written_recipe(result) if order is None else order.recipe(result))
            if order is not None and not place and self._same(order.target.document, document):
                above = order.target.above
        if place == "above":
            above = self._host.active_layer(document)
        told = self._host.paste(document, results, recipes, above, "Impasto" if place == "group" else "")
        if told:
            self._say(Notice(told))

    def _same(self, one: Any, other: Any) -> bool:
        return one is other or (self._host.is_open(one) and self._host.key_of(one) == self._host.key_of(other))

    def _with_pixels(self, keys: Sequence[Key], deed: Callable[[List[ResultLayer]], None]) -> None:
        if all(key in self._pixels for key in keys):
            deed([self._pixels[key] for key in keys])
            return
        self._wishes.append(_Wish(tuple(keys), deed))
        for key in keys:
            if key not in self._pixels:
                self._kept.fetch(*key)

    # ---- what comes

    def received(self, result: ResultLayer, before: Optional[Any]) -> None:
        """A job's result has come."""
        self.keep(result)
        self.gallery.add(result, self._small(result), before)

    def fetched(self, event: ResultFetched) -> None:
        """A result has come from the server's disk, or is gone."""
        key = (event.job_id, event.index)
        result = event.result.in_format(self._host.format) if event.result is not None else None
        waiting = [wish for wish in self._wishes if key in wish.keys]
        if result is None:
            self._wishes = [wish for wish in self._wishes if key not in wish.keys]
            if waiting and event.error is not None:
                self._say(Notice(event.error.message, is_error=True))
        elif waiting:
            self.keep(result)
        shown = self.gallery.get(key)
        if shown is not None and shown.small is None:
            self.gallery.fetched(key, self._small(result) if result is not None else None)
        for wish in [wish for wish in waiting if all(key in self._pixels for key in wish.keys)]:
            self._wishes.remove(wish)
            wish.deed([self._pixels[key] for key in wish.keys])

    def done(self, event: Done) -> None:
        """A file has been written, or not."""
        _, path = event.key
        if event.error is None:
            self._say(Notice(f"Saved as {path}."))
        else:
            reason = getattr(event.error, "strerror", None) or str(event.error)
            self._say(Notice(f"{path} could not be written: {reason}. Choose another folder.", is_error=True))

    def keep(self, result: ResultLayer) -> None:
        """Remember the pixels of a result, and forget the oldest ones."""
        self._pixels.pop((result.job_id, result.index), None)
        self._pixels[result.job_id, result.index] = result
        wanted = {key for wish in self._wishes for key in wish.keys}
        size = sum(len(kept.pixels) for kept in self._pixels.values())
        for key in list(self._pixels)[:-1]:
            if size > KEEP_BYTES and key not in wanted:
                size -= len(self._pixels.pop(key).pixels)

    def _small(self, result: ResultLayer) -> Any:
        return self._host.thumbnail(result.pixels, result.box.width, result.box.height, PICTURE_SIZE)
