"""What a job varies: its axes as they are written, and the parameters of each of its pictures. No torch here.

Values are written as in A1111's X/Y plot:

    1, 2, 5          numbers
    1-5              all whole numbers of the range
    1-9 (+2)         in steps, also downwards: 9-1 (-2)
    0.2-0.8 [4]      so many, spread evenly over the range
    euler, heun      names; one that holds a comma in double quotes
    a cat            prompts: one a line
    a dog
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from impasto_protocol.errors import RequestError
from impasto_protocol.schema import Param, validate

from .fields import params_of
from .infotext_keys import enum_name
from .modes import MODES
from .params_vary import MAX_AXES

__all__ = ["MAX_VARIANTS", "SEARCH_REPLACE", "Axis", "Variant", "variants_of"]

MAX_VARIANTS = 100
"""Pictures of one job, a batch counted once."""

SEARCH_REPLACE = "search_replace"
"""The axis that puts each of its values in the place of the first, in the prompts."""

_PROMPTS = ("prompt", "negative_prompt", "hires_prompt", "hires_negative_prompt")
_A1111 = {
    "prompt s/r": SEARCH_REPLACE,
    "cfg scale": "cfg",
    "checkpoint name": "model",
    "denoising": "strength",
    "schedule type": "schedule",
    "var. seed": "variation_seed",
    "var. strength": "variation_strength",
    "hires. steps": "hires_steps",
    "hires upscaler": "hires_upscaler",
    "hires sampler": "hires_sampler",
    "clip skip": "clip_skip",
}
"""What A1111 calls an axis -> our parameter."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?\s*")


@dataclass(frozen=True)
class Axis:
    """A parameter and its values, each with what people read."""

    param: str
    title: str
    values: tuple[tuple[Any, str], ...]


@dataclass(frozen=True)
class Variant:
    """One of the pictures: where it stands in the table, its parameters, and what is particular about it."""

    column: int
    row: int
    columns: int
    rows: int
    params: Mapping[str, Any]
    labels: tuple[tuple[str, str], ...]
    """Title of the parameter and value, of each axis."""
    own_seed: bool

    @property
    def told(self) -> dict[str, Any]:
        """As plain values, for a recipe."""
        labels = [{"param": title, "value": value} for title, value in self.labels]
        return {"column": self.column, "row": self.row, "columns": self.columns, "rows": self.rows, "labels": labels}


def variants_of(mode: str, values: Mapping[str, Any]) -> tuple[Variant, ...]:
    """The pictures that the parameters ask for, row by row; none where `vary` is empty.

    Raises RequestError `request.invalid_param` with the path of the axis that cannot be read.
    """
    if mode not in MODES:
        return ()
    known = {p.name: p for p in params_of(MODES[mode][0])}
    if "vary" not in known or not values.get("vary"):
        return ()
    schema = {name: p for name, p in known.items() if p.type != "array" and name != "batch"}
    entries = validate([known["vary"]], {"vary": values["vary"]})["vary"]
    axes = [_axis(schema, values, entry, f"params.vary[{index}]") for index, entry in enumerate(entries)]
    if len(axes) == MAX_AXES and axes[0].param == axes[1].param:
        raise _wrong("params.vary[1].param", f"Both axes vary {axes[0].title}; choose two parameters.")
    across, down = axes[0], axes[1] if len(axes) > 1 else None
    count = len(across.values) * (len(down.values) if down else 1)
    if count > MAX_VARIANTS:
        raise _wrong("params.vary", f"These are {count} pictures; one job makes at most {MAX_VARIANTS}.")
    base = {name: value for name, value in values.items() if name != "vary"}
    rows = down.values if down else ((None, ""),)
    made = []
    for row, (second, said_second) in enumerate(rows):
        for column, (first, said_first) in enumerate(across.values):
            params = _with(base, across, first)
            labels = [(across.title, said_first)]
            if down:
                params = _with(params, down, second)
                labels.append((down.title, said_second))
            own_seed = any(axis.param == "seed" for axis in axes)
            made.append(Variant(column, row, len(across.values), len(rows), params, tuple(labels), own_seed))
    return tuple(made)


def _axis(schema: Mapping[str, Param], values: Mapping[str, Any], entry: Mapping[str, Any], path: str) -> Axis:
    name = _name(schema, str(entry["param"]), f"{path}.param")
    text, where = str(entry["values"]), f"{path}.values"
    if name == SEARCH_REPLACE:
        words = _csv(text)
        if len(words) < 2:
            raise _wrong(where, "Name the words to be replaced, then what takes their place, with commas between.")
        if not any(words[0] in str(values.get(side, "")) for side in _PROMPTS):
            raise _wrong(where, f"The words {words[0][:60]!r} stand in no prompt; write them as they stand there.")
        return Axis(name, "Prompt S/R", tuple(((words[0], word), word) for word in words))
    param = schema[name]
    found = tuple(_read(param, text, where))
    if not found:
        raise _wrong(where, f"There is no value of {param.title} in it.")
    # Each by itself, so that a wrong one is told with its range.
    checked = [(validate([param], {name: value}, path=where)[name], said) for value, said in found]
    return Axis(name, param.title, tuple(checked))


def _name(schema: Mapping[str, Param], said: str, path: str) -> str:
    """Our name of the parameter, from its name, its title or A1111's name of the axis."""
    plain = said.strip().lower()
    titles = {p.title.lower(): p.name for p in schema.values()}
    name = plain if plain in (*schema, SEARCH_REPLACE) else _A1111.get(plain, titles.get(plain, ""))
    if name in (SEARCH_REPLACE, *schema):
        return name
    known = [*schema, SEARCH_REPLACE]
    near = difflib.get_close_matches(plain, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
    raise RequestError(
        "request.invalid_param",
        f"There is nothing to vary called {said[:60]!r}; {hint}",
        path=path,
        data={"nearest": near},
    )


def _read(param: Param, text: str, path: str) -> Iterator[tuple[Any, str]]:
    """The values that a text names, and what people read of each."""
    if param.type in ("integer", "number"):
        for item in _csv(text):
            for number in _numbers(item, param, path):
                yield number, number if isinstance(number, str) else f"{number:g}"
    elif param.type == "boolean":
        words = {"true": True, "false": False, "on": True, "off": False, "yes": True, "no": False}
        for item in _csv(text):
            if item.lower() not in words:
                raise _wrong(path, f"{param.title} is true or false, not {item[:60]!r}.")
            yield words[item.lower()], "on" if words[item.lower()] else "off"
    elif param.name in _PROMPTS:
        for line in text.splitlines():
            if line.strip():
                yield line.strip(), line.strip()
    else:
        for item in _csv(text, empty=not param.enum):
            value = enum_name(item) if param.enum and item not in param.enum else item
            yield (value if value in param.enum or not param.enum else item), item or str(param.ui.get("none", "none"))


def _numbers(item: str, param: Param, path: str) -> list[Any]:
    if param.auto and item == "auto":
        return [item]
    whole = param.type == "integer"
    if re.fullmatch(_NUMBER, item):
        return [_plain(float(item), whole)]
    match = _RANGE.fullmatch(item)
    if match is None or not all(math.isfinite(float(n)) for n in match.groups()[:3] if n):
        raise _wrong(
            path, f"{item[:60]!r} is neither a number nor a range; write 5, or 1-5, or 1-9 (+2), or 0.2-0.8 [4]."
        )
    start, end = float(match.group(1)), float(match.group(2))
    if match.group(4):
        count = int(match.group(4)[:6])
        if not 1 <= count <= MAX_VARIANTS:
            raise _wrong(path, f"A range has from 1 to {MAX_VARIANTS} values, not {count}.")
        spread = [start + (end - start) * i / max(count - 1, 1) for i in range(count)]
        # As A1111 does, towards 0.
        return [int(value) if whole else _plain(value, whole) for value in spread]
    step = float(match.group(3)) if match.group(3) else math.copysign(1, end - start)
    if step == 0 or (end - start) * step < 0:
        raise _wrong(path, f"{item[:60]!r} never arrives; write the step as (+2), or downwards as (-2).")
    # A hair of slack, so that 0.1 steps arrive.
    count = int((end - start) / step + 1e-9) + 1
    if count > MAX_VARIANTS:
        raise _wrong(path, f"{item[:60]!r} are {count} values; one job makes at most {MAX_VARIANTS} pictures.")
    return [_plain(start + step * i, whole) for i in range(count)]


def _plain(value: float, whole: bool) -> Any:
    """Without the last digits of sums; whole where it is meant to be."""
    value = round(value, 9)
    return int(value) if whole and value.is_integer() else value


def _with(params: Mapping[str, Any], axis: Axis, value: Any) -> dict[str, Any]:
    if axis.param != SEARCH_REPLACE:
        return {**params, axis.param: value}
    old, new = value
    return {**params, **{side: str(params[side]).replace(old, new) for side in _PROMPTS if side in params}}


def _csv(text: str, *, empty: bool = False) -> list[str]:
    """The items between commas; also one a line."""
    # Without what csv.reader calls an error: it ends at nothing but these.
    plain = text.strip().replace("\0", " ").replace("\r", "\n")
    lines: Sequence[Sequence[str]] = list(csv.reader(io.StringIO(plain), skipinitialspace=True))
    return [item.strip() for line in lines for item in line if item.strip() or empty]


def _wrong(path: str, message: str) -> RequestError:
    return RequestError("request.invalid_param", message, path=path)
