"""Writes FlatBuffers from plain values, so that the reader and the converter can be tried on small networks."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

SLOTS = {"b": "PrependInt8Slot", "B": "PrependUint8Slot", "i": "PrependInt32Slot", "I": "PrependUint32Slot"}


def encoded(root: dict[int, Any], mark: bytes = b"TFL3") -> bytes:
    """A buffer with `root`: field number -> ("form", number), text, array, table (dict) or list of tables."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, root), file_identifier=mark)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, fields: dict[int, Any]) -> int:
    placed = {number: _placed(builder, value) for number, value in fields.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, value in fields.items():
        if isinstance(value, tuple):
            getattr(builder, SLOTS[value[0]])(number, value[1], None)
        else:
            builder.PrependUOffsetTRelativeSlot(number, placed[number], 0)
    return int(builder.EndObject())


def _placed(builder: flatbuffers.Builder, value: Any) -> int:
    if isinstance(value, tuple):
        return 0
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, dict):
        return _table(builder, value)
    offsets = [_table(builder, entry) for entry in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
