"""EXIF's UserComment, read and written: where A1111 puts its text in files that are no PNG. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["Damaged", "exif_block", "exif_comment"]

_EXIF_IFD, _USER_COMMENT, _XP_COMMENT, _DESCRIPTION = 0x8769, 0x9286, 0x9C9C, 0x010E
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_UNDEFINED, _LONG = 7, 4
_UNICODE = b"UNICODE\0"


class Damaged(ValueError):
    """A file that breaks the rules of its format; says how."""


def exif_comment(exif: bytes) -> str:
    """The comment of a TIFF block in either byte order: UserComment, else what Windows calls comment, else the
    description; "" where there is none. Raises Damaged.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        raise Damaged("its Exif has no beginning")
    (first,) = struct.unpack_from(order + "I", exif, 4)
    top = dict(_entries(exif, order, first))
    inner: dict[int, bytes] = {}
    if len(top.get(_EXIF_IFD, b"")) == 4:
        inner = dict(_entries(exif, order, struct.unpack(order + "I", top[_EXIF_IFD])[0]))
    comment = _user_comment(inner.get(_USER_COMMENT, b""), order)
    if not comment and _XP_COMMENT in top:
        comment = top[_XP_COMMENT].decode("utf-16-le", "replace")
    if not comment and _DESCRIPTION in top:
        comment = top[_DESCRIPTION].decode("utf-8", "replace")
    return comment.rstrip("\0").strip()


def exif_block(comment: str) -> bytes:
    """A TIFF block with the UserComment alone, UTF-16 in the order of the block, big end first, as A1111 writes it."""
    text = _UNICODE + comment.encode("utf-16-be")
    head = b"MM\0*" + struct.pack(">I", 8)
    top = struct.pack(">HHHIII", 1, _EXIF_IFD, _LONG, 1, 26, 0)
    inner = struct.pack(">HHHIII", 1, _USER_COMMENT, _UNDEFINED, len(text), 44, 0)
    return head + top + inner + text


def _entries(exif: bytes, order: str, at: int) -> Iterator[tuple[int, bytes]]:
    """Tag and bytes of each entry of a directory."""
    if at + 2 > len(exif):
        raise Damaged("its Exif ends early")
    (count,) = struct.unpack_from(order + "H", exif, at)
    for index in range(count):
        place = at + 2 + 12 * index
        if place + 12 > len(exif):
            raise Damaged("its Exif ends early")
        tag, kind, number = struct.unpack_from(order + "HHI", exif, place)
        size = _SIZES.get(kind, 0) * number
        if size <= 4:
            start = place + 8
        else:
            (start,) = struct.unpack_from(order + "I", exif, place + 8)
        if tag in (_EXIF_IFD, _USER_COMMENT, _XP_COMMENT, _DESCRIPTION):
            if start + size > len(exif):
                raise Damaged("its Exif ends early")
            yield tag, exif[start : start + size]


def _user_comment(value: bytes, order: str) -> str:
    code, text = value[:8], value[8:]
    if code == _UNICODE:
        return _utf16(text, order)
    if code in (b"ASCII\0\0\0", b"\0" * 8, b"JIS\0\0\0\0\0"):
        return text.decode("shift_jis" if code[:3] == b"JIS" else "utf-8", "replace")
    return value.decode("utf-8", "replace")  # without the code of its characters


def _utf16(text: bytes, order: str) -> str:
    """Writers disagree whether the text follows the block's order: a mark decides, else the order in which more of the
    characters are Latin letters and signs."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    big, little = text.decode("utf-16-be", "replace"), text.decode("utf-16-le", "replace")
    plain_big, plain_little = (sum(32 <= ord(c) < 127 for c in side) for side in (big, little))
    if plain_big == plain_little:
        return big if order == ">" else little
    return big if plain_big > plain_little else little
