"""A result as a PNG file that says how it was made, in the words that AUTOMATIC1111's readers know. zlib alone."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Iterator, Mapping, Tuple

from impasto_protocol.images import Buffer

from .document import ResultLayer

__all__ = ["png_of", "save_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SLICE = 1 << 20
"""Bytes that are compressed at a time: other threads get their turn in between."""


def save_png(result: ResultLayer, path: Path) -> None:
    """Write a result whole or not at all. Raises OSError."""
    written = path.with_name(path.name + ".new")
    try:
        written.write_bytes(png_of(result))
        os.replace(str(written), str(path))
    finally:
        if written.exists():
            written.unlink()


def png_of(result: ResultLayer) -> bytes:
    """Lossless, 8 bit RGBA; with A1111's `parameters`, the recipe (`impasto`) and the IPTC digital source type."""
    width, height = result.box.width, result.box.height
    pixels = result.in_format("rgba8").pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"sRGB", b"\0"), *_texts(result.recipe), (b"IDAT", _compressed(pixels, 4 * width))]
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in (*chunks, (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _compressed(pixels: Buffer, row: int) -> bytes:
    """Rows, each behind its filter "none": what a painter saves is large once, and time counts more."""
    packer, view, out = zlib.compressobj(6), memoryview(pixels), []
    rows = max(1, _SLICE // row)
    for start in range(0, len(view), row * rows):
        part = view[start : start + row * rows]
        out.append(packer.compress(b"".join(b"\0" + bytes(part[at : at + row]) for at in range(0, len(part), row))))
    return b"".join((*out, packer.flush()))


def _texts(recipe: Mapping[str, Any]) -> Iterator[Tuple[bytes, bytes]]:
    if recipe.get("parameters"):
        yield _text("parameters", str(recipe["parameters"]))
    yield _text("impasto", json.dumps(dict(recipe), default=str))
    kind = recipe.get("digital_source_type")
    if kind:
        yield _international("XML:com.adobe.xmp", _xmp(str(kind)))


def _text(key: str, text: str) -> Tuple[bytes, bytes]:
    """As A1111 writes it: tEXt where Latin-1 holds it, else iTXt."""
    try:
        return b"tEXt", key.encode() + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        return _international(key, text)


def _international(key: str, text: str) -> Tuple[bytes, bytes]:
    return b"iTXt", key.encode() + b"\0\0\0\0\0" + text.encode()


def _xmp(kind: str) -> str:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{_SOURCE}{kind}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
