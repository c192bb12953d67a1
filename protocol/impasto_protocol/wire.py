"""Frozen dataclasses <-> plain maps, with type checks derived from the annotations.

Known annotations: bool, int, float, str, Buffer (bytes), Any, Optional[X], Tuple[X, ...], Tuple[X, Y], Dict[str, X],
named tuples, nested dataclasses, and classes with `to_wire()` and `from_wire(map)`. Field metadata narrows values:
`minimum` and `maximum` (numbers), `pattern` (strings) with `need` as its description.
Fields that are None are left out; unknown fields of a map are ignored, so that a newer peer may add some.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from functools import lru_cache
from typing import Any, Dict, Hashable, List, Mapping, Tuple, Type, TypeVar, Union, cast

from .errors import ProtocolError
from .images import Buffer

__all__ = ["from_map", "to_map"]

T = TypeVar("T")
_BUFFER_TYPES = frozenset(typing.get_args(Buffer))


def to_map(value: Any) -> Dict[str, Any]:
    """The map of a dataclass instance."""
    fields = {}
    for f in dataclasses.fields(value):
        item = getattr(value, f.name)
        if item is not None:
            fields[f.name] = _plain(item)
    return fields


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_map(value) if not hasattr(value, "to_wire") else value.to_wire()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def from_map(cls: Type[T], fields: Mapping[str, Any], path: str = "") -> T:
    """The dataclass of a map. Raises ProtocolError `protocol.bad_message` with the path of the first wrong field."""
    values: Dict[str, Any] = {}
    for f, kind in _fields_of(cast(Hashable, cls)):
        at = f"{path}.{f.name}" if path else f.name
        value = fields.get(f.name)
        if value is None:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and not _optional(kind):
                raise _bad(f"The field {at} is missing.", at)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                values[f.name] = None
            continue
        values[f.name] = _typed(kind, value, at, f.metadata)
    return cls(**values)


@lru_cache(maxsize=256)
def _fields_of(cls: Any) -> Tuple[Tuple[Any, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((f, hints[f.name]) for f in dataclasses.fields(cls))


@lru_cache(maxsize=256)
def _tuple_fields(cls: Any) -> Tuple[Any, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(hints[name] for name in cls._fields)


def _optional(kind: Any) -> bool:
    return typing.get_origin(kind) is Union and type(None) in typing.get_args(kind)


def _typed(kind: Any, value: Any, path: str, rules: Mapping[str, Any]) -> Any:
    """`value` as `kind`, or ProtocolError at `path`."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin is Union:
        args = typing.get_args(kind)
        if _BUFFER_TYPES.issubset(args):
            return _need(isinstance(value, bytes), value, "bytes", path)
        (inner,) = (arg for arg in args if arg is not type(None))
        return None if value is None else _typed(inner, value, path, rules)
    if kind is bytes:
        return _need(isinstance(value, bytes), value, "bytes", path)
    if kind is bool:
        return _need(isinstance(value, bool), value, "true or false", path)
    if kind is int:
        _need(isinstance(value, int) and not isinstance(value, bool), value, "an integer", path)
        return _in_range(value, path, rules)
    if kind is float:
        _need(isinstance(value, (int, float)) and not isinstance(value, bool), value, "a number", path)
        return float(_in_range(value, path, rules))
    if kind is str:
        _need(isinstance(value, str), value, "a string", path)
        pattern = rules.get("pattern")
        if pattern is not None:
            _need(re.fullmatch(pattern, value) is not None, value, rules["need"], path)
        return value
    if origin in (dict, Dict):
        return _dict(typing.get_args(kind)[1], value, path, rules)
    if origin in (tuple, Tuple):
        return _tuple(typing.get_args(kind), value, path, rules)
    if isinstance(kind, type) and issubclass(kind, tuple):
        types = _tuple_fields(kind)
        _need(isinstance(value, list) and len(value) == len(types), value, f"a list of {len(types)} integers", path)
        return kind(*(_typed(t, item, f"{path}[{i}]", {}) for i, (t, item) in enumerate(zip(types, value))))
    _need(isinstance(value, dict), value, "a map", path)
    if hasattr(kind, "from_wire"):
        try:
            return kind.from_wire(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad(f"The field {path} is not a valid {kind.__name__}.", path) from error
    return from_map(kind, value, path)


def _dict(kind: Any, value: Any, path: str, rules: Mapping[str, Any]) -> Dict[str, Any]:
    _need(isinstance(value, dict), value, "a map", path)
    return {key: _typed(kind, item, f"{path}.{key[:80]}", rules) for key, item in value.items()}


def _tuple(args: Tuple[Any, ...], value: Any, path: str, rules: Mapping[str, Any]) -> Tuple[Any, ...]:
    _need(isinstance(value, list), value, "a list", path)
    if len(args) == 2 and args[1] is Ellipsis:
        kinds: List[Any] = [args[0]] * len(value)
    else:
        kinds = list(args)
        _need(len(value) == len(kinds), value, f"a list of {len(kinds)} entries", path)
    return tuple(_typed(k, item, f"{path}[{i}]", rules) for i, (k, item) in enumerate(zip(kinds, value)))


def _in_range(value: Any, path: str, rules: Mapping[str, Any]) -> Any:
    low, high = rules.get("minimum"), rules.get("maximum")
    # Written so that NaN is out of every range.
    if low is not None and not value >= low:
        raise _bad(f"The field {path} must be at least {low}, not {value}.", path)
    if high is not None and not value <= high:
        raise _bad(f"The field {path} must be at most {high}, not {value}.", path)
    return value


def _need(holds: bool, value: Any, need: str, path: str) -> Any:
    if not holds:
        shown = repr(value) if not isinstance(value, (bytes, dict, list)) else type(value).__name__
        raise _bad(f"The field {path} must be {need}, not {shown[:60]}.", path)
    return value


def _bad(message: str, path: str) -> ProtocolError:
    return ProtocolError("protocol.bad_message", message, path=path)
