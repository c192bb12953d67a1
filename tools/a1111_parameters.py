"""Writes docs/a1111-parameters.md: every parameter of A1111's txt2img, img2img, hires and extras, and what is ours.

    python3 dev.py exec -- python tools/a1111_parameters.py

The rows of a1111_parameters.csv hold A1111's side (its API of 1.10; the defaults of API and interface where they
differ) and which of our parameters it is, or why there is none. Names, ranges and defaults of ours come from the modes'
own schema.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from impasto_protocol.schema import Param
from impasto_server.engine.fields import params_of
from impasto_server.engine.modes import MODES

PAGE = Path(__file__).parents[1] / "docs/a1111-parameters.md"
ROWS = Path(__file__).with_suffix(".csv")
"""Written for this table from A1111's documented interface; facts, under this project's licence."""

INTRO = """
# A1111's parameters and ours

Every parameter of AUTOMATIC1111's txt2img, img2img, hires fix and extras, by the names of its API (version 1.10), with
its default (that of the interface after the stroke where it is another one), and what it is here. Our parameters have
the same names on the wire, in the panels and on the command line (`--hires-scale`). Written by
`tools/a1111_parameters.py` from the modes' own schema, and tested against it. How old pictures are read:
[infotext.md](infotext.md).
"""


@dataclass(frozen=True)
class Row:
    """`ours` are "mode.parameter"; without any, `remark` is the reason. One that no mode has yet is told as missing."""

    theirs: str
    default: str
    range: str
    ours: tuple[str, ...] = ()
    remark: str = ""


def sections() -> dict[str, tuple[Row, ...]]:
    """The rows by the title of their section."""
    found: dict[str, tuple[Row, ...]] = {}
    with open(ROWS, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            row = Row(line["theirs"], line["default"], line["range"], tuple(line["ours"].split()), line["remark"])
            found[line["section"]] = (*found.get(line["section"], ()), row)
    return found


def schema() -> dict[str, Param]:
    """Of all modes: "mode.parameter" -> its description."""
    return {f"{mode}.{p.name}": p for mode, (cls, _, _) in MODES.items() for p in params_of(cls)}


def page() -> str:
    """The whole page."""
    known = schema()
    lines = [INTRO.strip()]
    for title, rows in sections().items():
        lines += [
            "",
            f"## {title}",
            "| A1111 | default | range | ours | range | default | |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_line(row, known) for row in rows]
    alone = ", ".join(f"`{name}`" for name in sorted(set(_only_ours(known))))
    lines += ["", "## Only here", f"Without a counterpart in A1111: {alone}."]
    return "\n".join(lines) + "\n"


def _line(row: Row, known: dict[str, Param]) -> str:
    there = [known[name] for name in row.ours if name in known]
    if there:
        names = ", ".join(f"`{p.name}`" for p in there)
        cells = [names, _joined([_range(p) for p in there]), _joined([_default(p) for p in there]), row.remark]
    elif row.ours:
        cells = ["not there yet", "", "", row.remark]
    else:
        cells = ["an input" if row.remark.startswith("the input") else "not taken over", "", "", row.remark]
    return "| " + " | ".join([row.theirs, row.default, row.range, *cells]).replace("<lora", "&lt;lora") + " |"


def _joined(texts: list[str]) -> str:
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def _range(param: Param) -> str:
    if param.enum:
        return f"{len(param.enum)} names" if len(param.enum) > 5 else ", ".join(param.enum)
    if param.choices:
        return "a name"
    if param.type not in ("number", "integer") or param.minimum is None or param.maximum is None:
        return {"boolean": "yes, no", "array": "a list"}.get(param.type, "")
    return f"{_number(param.minimum)} to {_number(param.maximum)}" + (", auto" if param.auto else "")


def _number(value: float) -> str:
    return {2**31: "2³¹", -(2**31): "-2³¹", 2**32 - 1: "2³²-1"}.get(int(value), f"{value:g}")


def _default(param: Param) -> str:
    if param.type == "boolean":
        return "yes" if param.default else "no"
    if isinstance(param.default, (int, float)):
        return f"{param.default:g}"
    return str(param.default) if param.default else ""


def _only_ours(known: dict[str, Param]) -> Iterator[str]:
    named = {name.partition(".")[2] for rows in sections().values() for row in rows for name in row.ours}
    for name in known:
        if name.partition(".")[2] not in named:
            yield name.partition(".")[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
