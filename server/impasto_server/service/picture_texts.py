"""The texts that a picture file carries, from its container alone: no pixel is decoded. Standard library only.

PNG text chunks by their keyword; EXIF's UserComment of JPEG, WebP and AVIF, and comments of JPEG and GIF, under
"parameters", where A1111 puts its text. Files come from anywhere: every length is checked, what unpacks is bounded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from impasto_protocol.errors import AssetError

from .exif_comment import Damaged, exif_comment

__all__ = ["MAX_FILE", "MAX_TEXT", "PictureTexts", "picture_texts"]

MAX_FILE = 1 << 30
"""Bytes of a file."""

MAX_TEXT = 4 << 20
"""Bytes of all texts of a file together, unpacked."""

_MAX_PIECES = 100_000
"""Chunks, segments and boxes of a file; real pictures have some thousands at most."""

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class PictureTexts:
    """`texts` by keyword. `damaged` says what is wrong with the file where something could still be read."""

    format: str
    texts: dict[str, str] = field(default_factory=dict)
    damaged: str = ""

    def add(self, keyword: str, text: str) -> None:
        """The first text of a keyword is kept. Raises AssetError `asset.too_large`."""
        if sum(map(len, self.texts.values())) + len(text) > MAX_TEXT:
            raise _too_large(MAX_TEXT)
        self.texts.setdefault(keyword, text)


def picture_texts(data: bytes) -> PictureTexts:
    """The texts of a PNG, JPEG, WebP, GIF or AVIF file; other bytes are taken as a text themselves, as "parameters".

    Raises AssetError `asset.bad_image` for what is neither, and for a damaged file that says nothing;
    `asset.too_large` beyond `MAX_FILE` and `MAX_TEXT`.
    """
    if len(data) > MAX_FILE:
        raise AssetError("asset.too_large", f"The file is longer than {MAX_FILE} bytes.", data={"limit": MAX_FILE})
    for format, begins, read in _FORMATS:
        if begins(data):
            found = PictureTexts(format)
            try:
                read(data, found)
            except (Damaged, struct.error, zlib.error, IndexError) as e:
                found.damaged = str(e) or "it ends early"
                if not found.texts:
                    raise AssetError(
                        "asset.bad_image", f"The {format} file is damaged: {found.damaged}; get it again."
                    ) from e
            return found
    return PictureTexts("text", {"parameters": _plain_text(data)})


def _too_large(limit: int) -> AssetError:
    return AssetError(
        "asset.too_large",
        f"What the file says unpacks to more than {limit} bytes; no program writes so much about a picture.",
        data={"limit": limit},
    )


def _plain_text(data: bytes) -> str:
    if len(data) > MAX_TEXT:
        raise AssetError("asset.bad_image", "This is no PNG, JPEG, WebP, GIF or AVIF file, and too long for a text.")
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise AssetError(
            "asset.bad_image", "This is no PNG, JPEG, WebP, GIF or AVIF file, and no text in UTF-8 either."
        ) from e
    if "\0" in text:
        raise AssetError("asset.bad_image", "This is no PNG, JPEG, WebP, GIF or AVIF file, and no text either.")
    return text


def _bounded(pieces: Iterator[tuple[bytes, int, int]]) -> Iterator[tuple[bytes, int, int]]:
    for count, piece in enumerate(pieces):
        if count > _MAX_PIECES:
            raise Damaged("it has too many parts")
        yield piece


# ---- PNG


def _png(data: bytes, found: PictureTexts) -> None:
    exif = ""
    for kind, start, end in _bounded(_png_chunks(data)):
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
            continue
        chunk = data[start:end]
        if zlib.crc32(kind + chunk) != int.from_bytes(data[end : end + 4], "big"):
            raise Damaged(f"a text chunk at byte {start} is not what was written")
        if kind == b"eXIf":
            exif = exif_comment(chunk)
            continue
        keyword, _, rest = chunk.partition(b"\0")
        name = keyword.decode("latin-1")
        if kind == b"tEXt":
            found.add(name, _latin_or_utf8(rest))
        elif kind == b"zTXt":
            found.add(name, _latin_or_utf8(_unpacked(rest[1:])))
        else:
            packed = rest[:1] == b"\1"
            text = rest[2:].split(b"\0", 2)[-1]
            found.add(name, (_unpacked(text) if packed else text).decode("utf-8", "replace"))
    if exif:
        found.add("parameters", exif)  # where no chunk says it


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = len(_PNG)
    while at < len(data):
        if at + 12 > len(data):
            raise Damaged("it ends early")
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            raise Damaged("it ends early")
        kind = data[at + 4 : at + 8]
        yield kind, at + 8, end
        if kind == b"IEND":
            return
        at = end + 4
    raise Damaged("it ends early")


def _latin_or_utf8(text: bytes) -> str:
    """tEXt is Latin-1; some programs write UTF-8 nevertheless, which Latin-1 hardly ever happens to be."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _unpacked(packed: bytes) -> bytes:
    work = zlib.decompressobj()
    text = work.decompress(packed, MAX_TEXT)
    if work.unconsumed_tail:
        raise _too_large(MAX_TEXT)
    if not work.eof:
        raise Damaged("a packed text ends early")
    return text


# ---- JPEG


def _jpeg(data: bytes, found: PictureTexts) -> None:
    comment = ""
    for kind, start, end in _bounded(_jpeg_segments(data)):
        if kind == b"\xe1" and data.startswith(b"Exif\0\0", start):
            _add_exif(data[start + 6 : end], found)
        elif kind == b"\xfe":
            comment = comment or _latin_or_utf8(data[start:end])
    if comment:
        found.add("parameters", comment)


def _jpeg_segments(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            raise Damaged(f"no segment begins at byte {at}")
        kind = data[at + 1 : at + 2]
        if kind in (b"\xda", b"\xd9"):  # pixels, or the end
            return
        if kind == b"\xff" or kind == b"\x01" or b"\xd0" <= kind <= b"\xd8":
            at += 1 if kind == b"\xff" else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(data):
            raise Damaged("it ends early")
        yield kind, at + 4, end
        at = end
    raise Damaged("it ends early")


def _add_exif(exif: bytes, found: PictureTexts) -> None:
    comment = exif_comment(exif)
    if comment:
        found.add("parameters", comment)


# ---- WebP


def _webp(data: bytes, found: PictureTexts) -> None:
    for kind, start, end in _bounded(_riff_chunks(data)):
        if kind == b"EXIF":
            _add_exif(data[start:end].removeprefix(b"Exif\0\0"), found)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            raise Damaged("it ends early")
        yield data[at : at + 4], at + 8, end
        at = end + (end & 1)


# ---- GIF


def _gif(data: bytes, found: PictureTexts) -> None:
    at = 13 + _palette(data[10])
    for _ in range(_MAX_PIECES):
        block = data[at]
        if block == 0x3B:
            return
        if block == 0x21:
            text, end = _sub_blocks(data, at + 2, data[at + 1] == 0xFE)
            if text:
                found.add("parameters", _latin_or_utf8(text))
            at = end
        elif block == 0x2C:
            _, at = _sub_blocks(data, at + 11 + _palette(data[at + 9]), False)
        else:
            raise Damaged(f"no block begins at byte {at}")
    raise Damaged("it has too many parts")


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _sub_blocks(data: bytes, at: int, wanted: bool) -> tuple[bytes, int]:
    pieces = []
    while size := data[at]:
        if wanted:
            pieces.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    text = b"".join(pieces)
    if len(text) > MAX_TEXT:
        raise _too_large(MAX_TEXT)
    return text, at + 1


# ---- AVIF


def _avif(data: bytes, found: PictureTexts) -> None:
    """The item of the type Exif: its number is in `iinf`, its place in `iloc`, both in the box `meta`."""
    meta = next(((start, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        raise Damaged("it has no box `meta`")
    number, places = -1, dict[int, tuple[int, int]]()
    for kind, start, end in _boxes(data, meta[0] + 4, meta[1]):
        if kind == b"iinf":
            skip = 6 if data[start] == 0 else 8
            for entry, at, stop in _boxes(data, start + skip, end):
                if entry == b"infe" and data[at] in (2, 3):
                    wide = 2 if data[at] == 2 else 4
                    if data[at + 6 + wide : min(at + 10 + wide, stop)] == b"Exif":
                        number = int.from_bytes(data[at + 4 : at + 4 + wide], "big")
        elif kind == b"iloc":
            places = _item_places(data, start, end)
    if number in places:
        start, size = places[number]
        if start + size > len(data) or size < 4:
            raise Damaged("its Exif lies beyond its end")
        item = data[start : start + size]
        _add_exif(item[4 + int.from_bytes(item[:4], "big") :].removeprefix(b"Exif\0\0"), found)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    return _bounded(_all_boxes(data, at, end))


def _all_boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            raise Damaged("it ends early")
        yield data[at + 4 : at + 8], at + head, at + size
        at += size


def _item_places(data: bytes, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Number -> first byte and length in the file, of the items that lie in one piece."""
    version, at = data[start], start + 4
    sizes = data[at] >> 4, data[at] & 15, data[at + 1] >> 4, data[at + 1] & 15 if version else 0
    wide = 4 if version == 2 else 2
    at += 2
    places = {}

    def number(size: int) -> int:
        nonlocal at
        if at + size > end:
            raise Damaged("its items end early")
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # which file; there is one
        base = number(sizes[2])
        extents = []
        for _ in range(number(2)):
            number(sizes[3])
            extents.append((base + number(sizes[0]), number(sizes[1])))
        if method == 0 and len(extents) == 1:
            places[item] = extents[0]
    return places


_FORMATS = (
    ("PNG", lambda data: data.startswith(_PNG), _png),
    ("JPEG", lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    ("WebP", lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    ("GIF", lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _gif),
    ("AVIF", lambda data: data[4:8] == b"ftyp", _avif),
)
