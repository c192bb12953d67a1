"""A mode's parameters as the named arguments of a PDB procedure.

GIMP asks for the arguments once and keeps the answer, so they come from the description that the plug-in was built
with (`schema.json`); what is allowed is checked against it and, where it is newer, by the server. The procedures
themselves take any number: GIMP would move one that is out of range without a word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping

from gi.repository import GObject
from impasto_client.enlarging import with_own
from impasto_protocol.errors import RequestError
from impasto_protocol.schema import AUTO, Mode, Param, validate

__all__ = ["add_arguments", "built_in_modes", "params_from", "set_params"]

SCHEMA = Path(__file__).with_name("schema.json")
SETTINGS = "settings"
_ANY = 1e15
_AUTOMATIC = -1.0


def built_in_modes() -> Dict[str, Mode]:
    """The modes as they were when the plug-in was built, by name."""
    modes = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return {mode["name"]: with_own(Mode.from_wire(mode)) for mode in modes}


def _arguments(mode: Mode) -> List[Param]:
    return [p for p in mode.params if p.type != "array"]


def _name(p: Param) -> str:
    return p.name.replace("_", "-")


def add_arguments(procedure: Any, mode: Mode) -> None:
    """Give `procedure` an argument for every parameter of `mode`, and `settings` for all that it does not name."""
    flags = GObject.ParamFlags.READWRITE
    for p in _arguments(mode):
        blurb = _blurb(p)
        if p.type == "boolean":
            procedure.add_boolean_argument(_name(p), p.title, blurb, bool(p.default), flags)
        elif p.type == "string":
            procedure.add_string_argument(_name(p), p.title, blurb, str(p.default), flags)
        else:
            default = _AUTOMATIC if p.default == AUTO else float(p.default)
            procedure.add_double_argument(_name(p), p.title, blurb, -_ANY, _ANY, default, flags)
    blurb = "More parameters as a JSON map, sent to the server as they are"
    procedure.add_string_argument(SETTINGS, "Settings", blurb, "", flags)


def _blurb(p: Param) -> str:
    """The description with what is allowed, for the procedure browser."""
    text = p.description or p.title
    if p.enum:
        text += " Values: " + ", ".join(p.enum) + "."
    elif p.type in ("number", "integer") and p.minimum is not None and p.maximum is not None:
        text += f" From {p.minimum:.10g} to {p.maximum:.10g}."
    return text + (" -1 leaves it to the server." if p.auto else "")


def params_from(config: Any, mode: Mode) -> Dict[str, Any]:
    """What the arguments of a call ask for; what has its default is left to the server and to the model's hints.

    Raises RequestError `request.invalid_param` for what is not allowed.
    """
    params: Dict[str, Any] = {}
    for p in _arguments(mode):
        value = config.get_property(_name(p))
        if p.type in ("number", "integer"):
            value = AUTO if p.auto and value == _AUTOMATIC else value
            value = int(value) if p.type == "integer" and value == value and value == int(value) else value
        if value is None:
            value = ""
        if value != p.default:
            params[p.name] = value
    validate(_arguments(mode), params)
    params.update(_settings(config.get_property(SETTINGS)))
    return params


def _settings(text: Any) -> Dict[str, Any]:
    if not text:
        return {}
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise RequestError(
            "request.invalid_param", f"The settings are not JSON ({error}); write them as a map.", path=SETTINGS
        ) from error
    if not isinstance(settings, dict):
        raise RequestError("request.invalid_param", "The settings must be a JSON map.", path=SETTINGS)
    return settings


def set_params(config: Any, mode: Mode, params: Mapping[str, Any]) -> None:
    """Write what the dialog asks for into the arguments, so that GIMP repeats it; the rest goes into `settings`."""
    rest = dict(params)
    for p in _arguments(mode):
        value = rest.pop(p.name, p.default)
        if p.type in ("number", "integer"):
            value = _AUTOMATIC if value == AUTO else float(value)
        config.set_property(_name(p), value)
    config.set_property(SETTINGS, json.dumps(rest) if rest else "")
