"""Frames that a broken or hostile peer might send: seeded, so that what fails fails again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from impasto_protocol.codec import encode

from tests.protocol.vectors import load_vectors, with_bytes

_INTERESTING = (0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xC6, 0xC7, 0xC9, 0xCB, 0xCF, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, -(2**53), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\x00", "é" * 40, "../../etc/passwd", "0" * 32, "9" * 5000, b"", b"\xff" * 33, [], {}),
    *([[]], [1, 2], [1, 2, 3, 4], [2**53] * 4, [-1, -1, 0, 0], {"a": {"b": {"c": []}}}, [None] * 100),
)


def seeds(without: tuple[str, ...] = ()) -> list[Mapping[str, Any]]:
    """The maps of the clients' messages, each of which is right as it is."""
    maps = [with_bytes(vector["map"]) for vector in load_vectors()["client"]]
    return [fields for fields in maps if fields["type"] not in without]


def frames(chance: random.Random, count: int, maps: list[Mapping[str, Any]]) -> Iterator[bytes]:
    """`count` frames: right ones, with other values and fields, with other bytes, and noise."""
    whole = [encode(fields) for fields in maps]
    for _ in range(count):
        draw = chance.random()
        if draw < 0.45:
            frame = encode(_other_values(chance, chance.choice(maps)))
            yield _other_bytes(chance, frame) if chance.random() < 0.2 else frame
        elif draw < 0.85:
            yield _other_bytes(chance, chance.choice(whole))
        elif draw < 0.95:
            yield chance.randbytes(chance.randrange(64))
        else:
            yield chance.choice(whole)


def _other_values(chance: random.Random, fields: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(fields)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        key = chance.choice(list(changed)) if changed else "type"
        draw = chance.random()
        if draw < 0.15:
            changed.pop(key, None)
        elif draw < 0.25:
            changed[chance.choice(("id", "job", "x" * 300, "type", ""))] = chance.choice(_VALUES)
        elif draw < 0.5 and isinstance(changed.get(key), dict):
            changed[key] = _other_values(chance, changed[key])
        else:
            changed[key] = chance.choice(_VALUES)
    return changed


def _other_bytes(chance: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data) + 1)
        draw = chance.random()
        if draw < 0.3 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif draw < 0.55 and at < len(data):
            data[at] = chance.choice(_INTERESTING)
        elif draw < 0.7:
            del data[at:]
        elif draw < 0.8:
            del data[at : at + chance.randrange(1, 9)]
        elif draw < 0.9:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + chance.randrange(1, 200)]
    return bytes(data)
