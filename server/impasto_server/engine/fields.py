"""Parameters as fields of dataclasses: what a field says of itself, and the schema made of it. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from impasto_protocol.schema import Param

__all__ = ["STRENGTH", "Maps", "Number", "param", "params_of"]

Number = float | Literal["auto"]
Maps = Sequence[Mapping[str, Any]]

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "Number": "number", "Maps": "array"}


STRENGTH: dict[str, Any] = dict(
    minimum=0.0,
    maximum=1.0,
    step=0.01,
    ui={"widget": "slider", "group": "prompt", "unit": "%"},
)
"""What every `strength` has in common."""


def param(
    default: Any,
    title: str,
    description: str = "",
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    auto: bool = False,
    enum: tuple[str, ...] = (),
    ui: Mapping[str, Any] | None = None,
    choices: Mapping[str, Any] | None = None,
    items: tuple[Param, ...] = (),
) -> Any:
    """A dataclass field that carries its description for the schema (see impasto_protocol.schema.Param)."""
    meta = dict(
        title=title,
        description=description,
        minimum=minimum,
        maximum=maximum,
        step=step,
        auto=auto,
        enum=enum,
        ui=ui or {},
        choices=choices or {},
        items=items,
    )
    return dataclasses.field(default=default, metadata={"param": meta})


def params_of(cls: type[Any]) -> tuple[Param, ...]:
    """The schema of a parameter dataclass, in the order of its fields."""
    described = []
    for f in dataclasses.fields(cls):
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        meta = f.metadata["param"]
        described.append(Param(name=f.name, type=_TYPES[str(f.type)], default=cast(Any, default), **meta))
    return tuple(described)
