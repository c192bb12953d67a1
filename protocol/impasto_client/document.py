"""What leaves the editor's document and what comes back to it: plain pixels with their place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple, Optional

from impasto_protocol.errors import AssetError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import BYTES_PER_PIXEL, Buffer

__all__ = ["Part", "ResultLayer", "Snapshot"]


class Part(NamedTuple):
    """Pixels of a layer, and where they lie."""

    box: Box
    pixels: Buffer


@dataclass(frozen=True)
class Snapshot:
    """A part of the document as it was when the job was asked for.

    `pixels` are those of `box` in `format` ("bgra8" or "rgba8"; rows top to bottom, no padding, straight alpha, sRGB).
    `mask` covers the same box with one byte a pixel, 255 where selected; None where the job takes no mask.
    `backdrop` is what lies under a sketch: the same box in the same format; None where it is not asked for.
    `pictures` are further ones by the names of the inputs, of the same format.
    `pixels` is empty for a job that takes no picture; its box says where the result belongs.
    """

    canvas: Size
    box: Box
    pixels: Buffer = field(repr=False)
    format: str = "bgra8"
    mask: Optional[Buffer] = field(default=None, repr=False)
    backdrop: Optional[Buffer] = field(default=None, repr=False)
    pictures: Mapping[str, Part] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        """Raise AssetError `asset.bad_image` unless the buffers are as long as box and format say."""
        area = self.box.width * self.box.height
        for part in self.pictures.values():
            Snapshot(self.canvas, part.box, part.pixels, self.format).check()
        if self.format not in BYTES_PER_PIXEL:
            raise AssetError("asset.bad_image", f"The pixel format {self.format!r} is not known.")
        for picture in (self.pixels, self.backdrop):
            if picture and len(picture) != area * BYTES_PER_PIXEL[self.format]:
                raise AssetError(
                    "asset.bad_image",
                    f"{self.box.width} x {self.box.height} pixels of {self.format} are "
                    f"{area * BYTES_PER_PIXEL[self.format]} bytes, not {len(picture)}; read the document again.",
                )
        if self.mask is not None and len(self.mask) != area:
            raise AssetError(
                "asset.bad_image",
                f"A mask of {self.box.width} x {self.box.height} pixels is {area} bytes, not {len(self.mask)}; "
                "read the selection again.",
            )


@dataclass(frozen=True)
class ResultLayer:
    """A finished picture, ready to become a layer at `box` of the document.

    `pixels` are in `format`, the format of the snapshot. `alpha` is "soft" (the layer's alpha shapes it) or "opaque".
    `recipe` is all that is needed to make the picture again: mode, params with the seed that was drawn, model.
    """

    job_id: str
    index: int
    box: Box
    pixels: bytes = field(repr=False)
    format: str
    name: str
    stage: str
    alpha: str
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def in_format(self, format: str) -> ResultLayer:
        """The same picture in "rgba8" or "bgra8": an editor may find a result that another one asked for."""
        if format == self.format:
            return self
        if {format, self.format} != {"rgba8", "bgra8"}:
            raise AssetError("asset.bad_image", f"A result in {self.format!r} cannot be turned into {format!r}.")
        swapped = bytearray(self.pixels)
        swapped[0::4], swapped[2::4] = self.pixels[2::4], self.pixels[0::4]
        return dataclasses.replace(self, pixels=bytes(swapped), format=format)
