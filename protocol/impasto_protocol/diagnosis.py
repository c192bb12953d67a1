"""Messages about the installation behind the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from .parts import UINT, Message

__all__ = ["Doctor", "DoctorOk"]


@dataclass(frozen=True)
class Doctor(Message):
    """Look at the whole installation. It takes seconds, during which other requests are answered."""

    TYPE = "doctor"
    id: int = field(metadata=UINT)


@dataclass(frozen=True)
class DoctorOk(Message):
    """The page of `impasto doctor`, to read and to copy, and how many of its findings are bad."""

    TYPE = "doctor_ok"
    id: int = field(metadata=UINT)
    text: str
    bad: int = field(metadata=UINT)
