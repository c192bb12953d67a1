"""Parameters described as data: what a server can do, what a value may be, how a panel shows it.

The engine generates these descriptions from its dataclasses; the catalogue carries them; `validate` holds for the
server, the clients and the CLI alike, so that there is one set of ranges and defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import RequestError
from .nearest import nearest

__all__ = ["AUTO", "Intent", "Mode", "ModeInput", "Param", "Value", "validate"]

AUTO = "auto"
"""The value that leaves a number to the server (only where `Param.auto` is true)."""

Value = Union[None, bool, int, float, str, List[Any], Dict[str, Any]]


@dataclass(frozen=True)
class Param:
    """One parameter of a mode.

    `type` is number, integer, string, boolean or array (of objects whose fields are `items`). `minimum` and `maximum`
    are inclusive; for a string `maximum` limits its length. With `auto` the string "auto" is a value too. `enum` lists
    the only values of a string. `ui` and `choices` are hints for panels: {"widget", "group", "advanced", "unit"} and
    {"from": "models", "kind": "checkpoint"}; a panel that does not know a widget goes by `type`.
    """

    name: str
    type: str
    default: Value
    title: str
    description: str = ""
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    step: Optional[float] = None
    auto: bool = False
    enum: Tuple[str, ...] = ()
    items: Tuple[Param, ...] = ()
    ui: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    def to_wire(self) -> Dict[str, Any]:
        wire: Dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "default": self.default,
            "title": self.title,
            "description": self.description,
        }
        for key in ("minimum", "maximum", "step"):
            if getattr(self, key) is not None:
                wire[key] = getattr(self, key)
        if self.auto:
            wire["auto"] = True
        if self.enum:
            wire["enum"] = list(self.enum)
        if self.items:
            wire["items"] = [item.to_wire() for item in self.items]
        if self.ui:
            wire["ui"] = dict(self.ui)
        if self.choices:
            wire["choices"] = dict(self.choices)
        return wire

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> Param:
        return Param(
            name=str(wire["name"]),
            type=str(wire["type"]),
            default=wire.get("default"),
            title=str(wire.get("title", wire["name"])),
            description=str(wire.get("description", "")),
            minimum=wire.get("minimum"),
            maximum=wire.get("maximum"),
            step=wire.get("step"),
            auto=bool(wire.get("auto", False)),
            enum=tuple(str(v) for v in wire.get("enum", ())),
            items=tuple(Param.from_wire(item) for item in wire.get("items", ())),
            ui=dict(wire.get("ui", {})),
            choices=dict(wire.get("choices", {})),
        )


@dataclass(frozen=True)
class ModeInput:
    """A picture that a mode takes: `kind` is "image" or "mask".

    Those of the kind "image" whose name ends in `_*` may be several: NAME_1, NAME_2 and so on, named by parameters.
    """

    name: str
    kind: str
    title: str
    required: bool = True

    def to_wire(self) -> Dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "title": self.title, "required": self.required}

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> ModeInput:
        return ModeInput(
            str(wire["name"]), str(wire["kind"]), str(wire.get("title", wire["name"])), bool(wire["required"])
        )


@dataclass(frozen=True)
class Intent:
    """What a mode can be for: `params` are values to begin with. With `spanning` it suits a mask that reaches from one
    border of the canvas to the other.
    """

    name: str
    title: str
    description: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    spanning: bool = False

    def to_wire(self) -> Dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "params": dict(self.params),
            "spanning": self.spanning,
        }

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> Intent:
        return Intent(
            str(wire["name"]),
            str(wire.get("title", wire["name"])),
            str(wire.get("description", "")),
            dict(wire.get("params", {})),
            bool(wire.get("spanning", False)),
        )


@dataclass(frozen=True)
class Mode:
    """One kind of job. `available` says whether it can run now; if not, `reason` says why and how to mend it.

    `intents` are what it can be for, the plain one first; none where it is for one thing alone.
    """

    name: str
    title: str
    description: str
    inputs: Tuple[ModeInput, ...]
    params: Tuple[Param, ...]
    available: bool = True
    reason: str = ""
    intents: Tuple[Intent, ...] = ()

    def to_wire(self) -> Dict[str, Any]:
        wire: Dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputs": [i.to_wire() for i in self.inputs],
            "params": [p.to_wire() for p in self.params],
            "available": self.available,
            "reason": self.reason,
        }
        if self.intents:
            wire["intents"] = [intent.to_wire() for intent in self.intents]
        return wire

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> Mode:
        return Mode(
            name=str(wire["name"]),
            title=str(wire.get("title", wire["name"])),
            description=str(wire.get("description", "")),
            inputs=tuple(ModeInput.from_wire(i) for i in wire.get("inputs", ())),
            params=tuple(Param.from_wire(p) for p in wire.get("params", ())),
            available=bool(wire.get("available", True)),
            reason=str(wire.get("reason", "")),
            intents=tuple(Intent.from_wire(i) for i in wire.get("intents", ())),
        )


def validate(
    params: Sequence[Param],
    values: Mapping[str, Any],
    *,
    defaults: Optional[Mapping[str, Any]] = None,
    path: str = "params",
) -> Dict[str, Any]:
    """All values of `params`, checked and filled in; `defaults` (a checkpoint's hints) go before the schema's.

    Raises RequestError `request.invalid_param` with the path of the first wrong value, the nearest right name for an
    unknown one (also as the list `nearest` in its data), and the allowed range.
    """
    known = {p.name: p for p in params}
    for name in values:
        if name not in known:
            near = nearest(str(name), known)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(sorted(known))}."
            raise RequestError(
                "request.invalid_param",
                f"There is no parameter {str(name)[:80]!r}.{hint}",
                path=f"{path}.{str(name)[:80]}",
                data={"nearest": near},
            )
    filled: Dict[str, Any] = {}
    for p in params:
        if p.name in values:
            value = values[p.name]
        elif defaults is not None and p.name in defaults:
            value = defaults[p.name]
        else:
            value = p.default
        filled[p.name] = _check(p, value, f"{path}.{p.name}")
    return filled


def _refuse(p: Param, path: str, need: str, got: Any) -> RequestError:
    shown = repr(got)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return RequestError(
        "request.invalid_param",
        f"{p.title} ({p.name}) must be {need}, not {shown}.",
        path=path,
        data={"need": need},
    )


def _range(p: Param) -> str:
    if p.minimum is not None and p.maximum is not None:
        return f" from {p.minimum:g} to {p.maximum:g}"
    if p.minimum is not None:
        return f" of at least {p.minimum:g}"
    if p.maximum is not None:
        return f" of at most {p.maximum:g}"
    return ""


def _check(p: Param, value: Any, path: str) -> Any:
    if p.auto and value == AUTO:
        return AUTO
    if p.type in ("number", "integer"):
        word = "a whole number" if p.type == "integer" else "a number"
        need = word + _range(p) + (' or "auto"' if p.auto else "")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _refuse(p, path, need, value)
        if isinstance(value, float) and not math.isfinite(value):
            raise _refuse(p, path, need, value)
        if p.type == "integer" and value != int(value):
            raise _refuse(p, path, need, value)
        if (p.minimum is not None and value < p.minimum) or (p.maximum is not None and value > p.maximum):
            raise _refuse(p, path, need, value)
        return int(value) if p.type == "integer" else float(value)
    if p.type == "boolean":
        if not isinstance(value, bool):
            raise _refuse(p, path, "true or false", value)
        return value
    if p.type == "string":
        if not isinstance(value, str):
            raise _refuse(p, path, "a text", value)
        if p.enum and value not in p.enum:
            near = nearest(value, p.enum)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            refused = _refuse(p, path, "one of " + ", ".join(p.enum) + hint, value)
            refused.data["nearest"] = near
            raise refused
        if p.maximum is not None and len(value) > p.maximum:
            raise _refuse(p, path, f"a text of at most {p.maximum:g} characters", f"{len(value)} characters")
        return value
    if p.type == "array":
        if not isinstance(value, (list, tuple)):
            raise _refuse(p, path, "a list", value)
        if p.maximum is not None and len(value) > p.maximum:
            raise _refuse(p, path, f"a list of at most {p.maximum:g} entries", f"{len(value)} entries")
        entries = []
        for index, entry in enumerate(value):
            if not isinstance(entry, Mapping):
                raise _refuse(p, f"{path}[{index}]", "a list of maps", entry)
            entries.append(validate(p.items, entry, path=f"{path}[{index}]"))
        return entries
    raise ValueError(f"the schema of {p.name} has the unknown type {p.type!r}")
