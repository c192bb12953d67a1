"""Pixels on the wire: what a buffer of bytes means, and its content address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Dict, Union

from .errors import AssetError

__all__ = ["BYTES_PER_PIXEL", "Buffer", "ImageFormat", "digest_of"]

Buffer = Union[bytes, bytearray, memoryview]

BYTES_PER_PIXEL: Dict[str, int] = {"rgba8": 4, "bgra8": 4, "rgb8": 3, "l8": 1}
"""Formats, 8 bit a channel, rows top to bottom without padding; alpha is straight, the colour space sRGB."""


@dataclass(frozen=True)
class ImageFormat:
    """What the bytes of a picture are. `format` is a key of BYTES_PER_PIXEL, `profile` the colour space's name."""

    width: int
    height: int
    format: str
    profile: str = "srgb"

    @property
    def byte_count(self) -> int:
        return self.width * self.height * BYTES_PER_PIXEL[self.format]

    def check(self, max_pixels: int, path: str) -> None:
        """Raise AssetError `asset.bad_image` or `asset.too_large` unless size and format are usable."""
        if self.format not in BYTES_PER_PIXEL:
            raise AssetError(
                "asset.bad_image",
                f"The pixel format {self.format[:40]!r} is not known; send one of {', '.join(BYTES_PER_PIXEL)}.",
                path=path,
            )
        if self.width < 1 or self.height < 1:
            raise AssetError(
                "asset.bad_image",
                f"A picture of {self.width} x {self.height} pixels is empty; send at least one pixel.",
                path=path,
            )
        if self.width * self.height > max_pixels:
            raise AssetError(
                "asset.too_large",
                f"A picture of {self.width} x {self.height} pixels is above the limit of {max_pixels} pixels; "
                "send a smaller box.",
                path=path,
                data={"limit": max_pixels},
            )


def digest_of(data: Buffer) -> str:
    """The content address of a buffer: BLAKE2b with 128 bits, as 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
