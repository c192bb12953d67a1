"""The recipe that an editor keeps with a layer: all that is needed to make it again, also after reopening.

A JSON map: what the server says of the result (mode, params, model, ...), its seed and box, and of the document the
selection (`selection`, its bounds; `mask`, base64 of zlib), the context where it was chosen (`context`, a box), the
sketch (`sketch`, as the editor names layers) and the layers that guided it (`pictures`, by the names of the inputs).
"""

from __future__ import annotations

import base64
import json
import threading
import zlib
from typing import Any, Dict, Mapping, Optional, Tuple

from impasto_protocol.geometry import Box

from .document import ResultLayer
from .editor import Obstacle, Region

__all__ = ["Packed", "context_in", "mode_of", "read_recipe", "region_in", "written_recipe"]


class Packed:
    """A region's mask as it is written into a recipe. Packed in a thread: a large one takes a while."""

    def __init__(self, region: Region) -> None:
        self._box = region.box
        self._text = ""
        self._region: Optional[Region] = region
        self._thread = threading.Thread(target=self._pack, name="impasto-recipe", daemon=True)
        self._thread.start()

    def _pack(self) -> None:
        assert self._region is not None
        self._text = base64.b64encode(zlib.compress(self._region.mask, 6)).decode()
        self._region = None

    @property
    def text(self) -> str:
        """The mask as text; waits until it is packed."""
        self._thread.join()
        return self._text

    def region(self) -> Region:
        """The region as it was."""
        return Region(self._box, zlib.decompress(base64.b64decode(self.text)))


def written_recipe(
    result: ResultLayer,
    area: Optional[Box] = None,
    mask: Optional[Packed] = None,
    sketch: Any = None,
    pictures: Optional[Mapping[str, Any]] = None,
    context: Optional[Box] = None,
) -> bytes:
    """What is kept with a result's layer."""
    recipe: Dict[str, Any] = {"seed": result.seed, "box": list(result.box), **result.recipe}
    if area is not None:
        recipe["selection"] = list(area)
    if mask is not None:
        recipe["mask"] = mask.text
    if sketch is not None:
        recipe["sketch"] = sketch
    if context is not None:
        recipe["context"] = list(context)
    if pictures:
        recipe["pictures"] = dict(pictures)
    return json.dumps(recipe, default=str).encode()


def read_recipe(kept: bytes) -> Dict[str, Any]:
    """The recipe kept with a layer. Raises Obstacle where there is none, or it is damaged."""
    if not kept:
        raise Obstacle("The active layer was not made by Impasto; choose one that was.")
    try:
        recipe = json.loads(kept)
        if not isinstance(recipe["mode"], str) or not isinstance(recipe["params"], dict):
            raise ValueError("not a recipe")
    except (ValueError, KeyError, TypeError) as error:
        raise Obstacle("The recipe of this layer is damaged; it cannot be made again.") from error
    return dict(recipe)


def mode_of(kept: bytes) -> str:
    """The mode of the job that made a layer; "" where there is no recipe that can be read."""
    try:
        return str(read_recipe(kept)["mode"])
    except Obstacle:
        return ""


def context_in(recipe: Mapping[str, Any]) -> Optional[Box]:
    """The context that was chosen for a layer, or None where the server planned it. Raises Obstacle."""
    if "context" not in recipe:
        return None
    try:
        return Box(*(int(v) for v in recipe["context"]))
    except (ValueError, TypeError) as error:
        raise Obstacle("The recipe of this layer is damaged; it cannot be made again.") from error


def region_in(recipe: Dict[str, Any]) -> Tuple[Optional[Box], Optional[Region]]:
    """The bounds of the selection of a recipe, and the selection itself where the recipe holds it. Raises Obstacle."""
    try:
        area = Box(*(int(v) for v in recipe["selection"])) if "selection" in recipe else None
        mask = zlib.decompress(base64.b64decode(recipe["mask"])) if "mask" in recipe else None
    except (ValueError, TypeError, zlib.error) as error:
        raise Obstacle("The recipe of this layer is damaged; it cannot be made again.") from error
    if area is None or mask is None or len(mask) != area.width * area.height:
        return area, None
    return area, Region(area, mask)
