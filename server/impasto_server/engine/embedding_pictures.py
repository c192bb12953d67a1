"""Embeddings that travel in a picture, as A1111's training writes them: what stands in a PNG's text, or in its pixels.

The text chunk `sd-ti-embedding` holds base64 of JSON. Many sites take texts out of pictures, so the same JSON,
deflated, also stands in two strips left and right of the picture, a black column between: the lower four bits of each
value of the left strip are the lower halves of the bytes, those of the right one the upper halves, all mixed with a
sequence of numbers by exclusive or. What the upper bits show is ornament. A tensor is {"TORCHTENSOR": nested lists} in
either.

Nothing of a picture is believed: sizes are bounded, and what is in it is numbers or refused. No torch here.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.errors import ModelError
from numpy.typing import NDArray

__all__ = ["TEXT", "embedding_in", "mixing_numbers"]

TEXT = "sd-ti-embedding"
"""The keyword of the text chunk."""

_MAX_PIXELS = 1 << 24
_MAX_JSON = 1 << 24
"""75 vectors of 1024 numbers take about 2 MB."""

_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)
_DAMAGED = (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def embedding_in(path: str | Path) -> dict[str, NDArray[Any]] | None:
    """The numbers of the embedding in a PNG, by the names that they have in A1111's files; None where there is none.

    Raises ModelError `model.corrupt` for what is no picture and for a damaged embedding, `model.unknown` for a file
    that is not there.
    """
    path = Path(path)
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                text = image.info.get(TEXT)
                if text is None and image.width * image.height <= _MAX_PIXELS:
                    pixels = np.asarray(image.convert("RGB"))
                    text = image.info.get(TEXT)  # it may stand behind the pixels
                else:
                    pixels = np.zeros((0, 0, 3), np.uint8)
    except FileNotFoundError as error:
        raise ModelError("model.unknown", f"{path.name} is not there.", data={"file": path.name}) from error
    except (*_BROKEN, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = f"{path.name} cannot be opened as a picture ({error})."
        raise ModelError("model.corrupt", message, data={"file": path.name}) from error
    try:
        said = base64.b64decode(text) if isinstance(text, str) else _in_pixels(pixels)
        return None if said is None else _tensors(json.loads(said))
    except _DAMAGED as error:
        message = f"The embedding in the picture {path.name} is damaged."
        raise ModelError("model.corrupt", message, data={"file": path.name}) from error


def _tensors(content: Any) -> dict[str, NDArray[Any]]:
    found = {}
    for key, value in content["string_to_param"].items():
        found[f"string_to_param.{key}"] = tensor = np.array(value["TORCHTENSOR"])
        if tensor.dtype.kind not in "fiu":
            raise ValueError("something else than numbers")
    return found


def _in_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """The JSON in the strips of an RGB picture [height, width, 3]; None where they hold none."""
    lit = pixels.min(2, initial=255) > 0
    rows, columns = np.nonzero(lit)
    if not rows.size:
        return None
    low = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] & 0x0F
    black = np.flatnonzero(low.max((0, 2)) == 0)
    if black.size < 2:
        return None
    lower, upper = low[:, : black[0]], low[:, black[-1] + 1 :]
    if lower.shape != upper.shape or not lower.size:
        return None
    mixed = (mixing_numbers(lower.size) & 0x0F).astype(np.uint8)
    data = (((upper.ravel() ^ mixed) << 4) | (lower.ravel() ^ mixed)).tobytes()
    inflate = zlib.decompressobj()
    try:
        said = inflate.decompress(data, _MAX_JSON)
    except zlib.error:
        return None  # strips of another kind, or a picture that was scaled
    return said if inflate.eof and said.startswith(b"{") else None


def mixing_numbers(count: int) -> NDArray[np.uint64]:
    """The first numbers of the linear congruential sequence of Numerical Recipes (32 bits) from 0 on, modulo 255."""
    state, factor, step = np.array([1013904223], np.uint64), 1664525, 1013904223
    while len(state) < count:
        # As many again at once: n steps are one with another factor and another step.
        state = np.concatenate([state, (state * np.uint64(factor) + np.uint64(step)) & np.uint64(0xFFFFFFFF)])
        factor, step = factor * factor % 2**32, (factor * step + step) % 2**32
    return state[:count] % np.uint64(255)
