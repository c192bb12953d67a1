"""The jobs that were asked for in this session: what each is about, for as long as it may matter."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional

from impasto_protocol.geometry import Box

from .document import ResultLayer
from .editor import Target
from .flips import Sample
from .hint_layers import HintWish
from .recipes import Packed, written_recipe

__all__ = ["Order", "Orders"]

KEEP_ORDERS = 64
"""Jobs whose document is remembered."""


@dataclass
class Order:
    """A job as it was asked for: `place` in the queue is "back", "front" or "replace". `unread` until the document's
    pixels were read for it; `before` is a small picture of them. `mask`, `sketch` and `pictures` go into the recipe.
    """

    target: Target
    place: str = "back"
    mask: Optional[Packed] = None
    sketch: Any = None
    pictures: Mapping[str, Any] = field(default_factory=dict)
    before: Optional[Any] = None
    sample: Optional[Sample] = None
    """What was seen when it was read, where that was the document."""
    hint: Optional[HintWish] = None
    """Of a job that makes the hint of a control unit."""
    unread: bool = True

    def was_read(self) -> None:
        """Its pixels have been read: of a large selection only the packed mask is kept."""
        self.unread = False
        self.target = dataclasses.replace(self.target, region=None)

    def whole(self) -> Target:
        """The target as it was asked for."""
        return self.target if self.mask is None else dataclasses.replace(self.target, region=self.mask.region())

    def recipe(self, result: ResultLayer) -> bytes:
        """What is kept with a layer of this job."""
        context = self.target.context if isinstance(self.target.context, Box) else None
        return written_recipe(result, self.target.area, self.mask, self.sketch, self.pictures, context)


class Orders:
    """The last KEEP_ORDERS of them."""

    def __init__(self) -> None:
        self._orders: Dict[str, Order] = {}

    def add(self, job_id: str, order: Order) -> None:
        while len(self._orders) >= KEEP_ORDERS:
            del self._orders[next(iter(self._orders))]
        self._orders[job_id] = order

    def ended(self, job_id: str) -> None:
        """No more results will come: the picture of what was there before is the gallery's now."""
        if job_id in self._orders:
            self._orders[job_id].before = None

    def get(self, job_id: str) -> Optional[Order]:
        return self._orders.get(job_id)
