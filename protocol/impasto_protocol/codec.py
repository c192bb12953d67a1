"""One frame <-> one map: msgpack with the strictness that a port on the network needs.

`decode` trusts nothing: size, nesting, truncation, trailing bytes, key types, extension types and the range of
integers are checked before anything else sees the map. NaN and infinities pass; the schema refuses them by name.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

import msgpack

from .errors import ProtocolError
from .images import Buffer
from .version import Limits

__all__ = ["MAX_INTEGER", "decode", "encode"]

MAX_INTEGER = 1 << 53
"""Largest magnitude of an integer on the wire: every language's numbers hold it exactly."""


def encode(fields: Mapping[str, Any]) -> bytes:
    """The frame of a map. Raises ProtocolError `protocol.bad_message` for values that the wire does not know."""
    try:
        return bytes(msgpack.packb(fields, use_bin_type=True))
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(
            "protocol.bad_message", f"The message cannot be sent, it holds a value that the wire does not know: {error}"
        ) from error


def decode(frame: Buffer, limits: Limits) -> Dict[str, Any]:
    """The map of a frame; ProtocolError `protocol.bad_message` with a sentence for everything that is not one."""
    if len(frame) > limits.frame:
        raise _bad(f"The frame has {len(frame)} bytes, the limit is {limits.frame}; send large data in chunks.")
    try:
        value = msgpack.unpackb(frame, raw=False, strict_map_key=False, ext_hook=_refuse_extension)
    except ProtocolError:
        raise
    except msgpack.exceptions.ExtraData as error:
        raise _bad("The frame goes on after its map; send exactly one msgpack map in a frame.") from error
    except msgpack.exceptions.StackError as error:
        raise _too_deep(limits) from error
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise _bad("The frame is not complete, valid msgpack with UTF-8 strings.") from error
    if not isinstance(value, dict):
        raise _bad(f"The frame holds {_kind(value)} where one msgpack map is needed.")
    _check(value, limits)
    return value


def _check(value: Dict[Any, Any], limits: Limits) -> None:
    """Walk the whole value with a list for a stack, so that nesting costs no recursion."""
    todo: List[Tuple[Any, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > limits.nesting:
            raise _too_deep(limits)
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise _bad(f"A map has {_kind(key)} as a key; all keys are strings.")
            children = list(item.values())
        else:
            children = item
        for child in children:
            kind = type(child)
            if kind is dict or kind is list:
                todo.append((child, depth + 1))
            elif kind is int:
                if not -MAX_INTEGER <= child <= MAX_INTEGER:
                    raise _bad("An integer is beyond 2^53; send integers of at most that magnitude.")
            elif not (kind is str or kind is bytes or kind is float or kind is bool or child is None):
                raise _bad(f"The frame holds {_kind(child)}, which the wire does not know.")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise _bad(f"The frame holds the msgpack extension type {code}; the wire uses none.")


def _kind(value: Any) -> str:
    names = {dict: "a map", list: "a list", str: "a string", bytes: "bytes", bool: "a boolean", int: "an integer"}
    if value is None:
        return "nil"
    return names.get(type(value), "a number" if isinstance(value, float) else "an extension type")


def _bad(message: str) -> ProtocolError:
    return ProtocolError("protocol.bad_message", message)


def _too_deep(limits: Limits) -> ProtocolError:
    return _bad(f"The message is nested deeper than {limits.nesting} levels; send a flatter one.")
