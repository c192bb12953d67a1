"""Reads FlatBuffers without their schema: tables by field number, vectors as numpy arrays.

The format: https://flatbuffers.dev/internals. Only what `tflite` needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


def _at(data: bytes, form: str, at: int) -> int:
    return struct.unpack_from("<" + form, data, at)[0]


@dataclass(frozen=True)
class Table:
    """One table of the buffer `data`, which begins at byte `at`. Fields are numbered as in the schema."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _at(data, "I", 0))

    def _field(self, number: int) -> int | None:
        """Where the field lies, or None where it has its default."""
        vtable = self.at - _at(self.data, "i", self.at)
        if 4 + 2 * number >= _at(self.data, "H", vtable):
            return None
        offset = _at(self.data, "H", vtable + 4 + 2 * number)
        return self.at + offset if offset else None

    def _target(self, number: int) -> int | None:
        field = self._field(number)
        return None if field is None else field + _at(self.data, "I", field)

    def number(self, number: int, form: str = "i", default: int = 0) -> int:
        """A scalar: `form` is struct's letter (b, B, i, I)."""
        field = self._field(number)
        return default if field is None else _at(self.data, form, field)

    def table(self, number: int) -> Table | None:
        target = self._target(number)
        return None if target is None else Table(self.data, target)

    def tables(self, number: int) -> list[Table]:
        target = self._target(number)
        if target is None:
            return []
        places = (target + 4 + 4 * i for i in range(_at(self.data, "I", target)))
        return [Table(self.data, place + _at(self.data, "I", place)) for place in places]

    def array(self, number: int, dtype: str = "<i4") -> np.ndarray:
        """A vector of scalars; empty where the field is absent."""
        target = self._target(number)
        if target is None:
            return np.zeros(0, dtype)
        return np.frombuffer(self.data, dtype, _at(self.data, "I", target), target + 4)

    def text(self, number: int) -> str:
        return self.array(number, "u1").tobytes().decode()
