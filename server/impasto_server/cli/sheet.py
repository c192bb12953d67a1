"""A contact sheet: the variants of a job in one picture, with what each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto_protocol.errors import RequestError

if TYPE_CHECKING:
    from impasto_protocol.messages import Output
    from PIL.Image import Image

__all__ = ["contact_sheet", "write_sheet"]

_CELL = 320
"""Longest side of a picture on the sheet, in pixels."""
_GAP = 12
_TEXT = 15
_COLUMNS = 6
"""Pictures in a row where they stand in no table."""


def write_sheet(path: Path, outputs: Sequence[Output], pictures: Sequence[bytes]) -> None:
    """Write the sheet of all outputs, RGBA bytes each. Raises RequestError `request.bad_file`."""
    from PIL import Image

    images = [
        Image.frombytes("RGBA", (output.width, output.height), data)
        for output, data in zip(outputs, pictures, strict=True)
    ]
    try:
        contact_sheet(images, [output.info for output in outputs]).save(path)
    except (OSError, ValueError) as e:
        raise RequestError("request.bad_file", f"{path} cannot be written ({e}).", path="sheet") from e


def contact_sheet(images: Sequence[Image], infos: Sequence[Mapping[str, Any]]) -> Image:
    """RGB, on white: a table with the values of both axes at its edges, as the recipes' `variant` says; further
    pictures of one place stand beside each other. Without variants in rows, each over its seed."""
    from PIL import Image, ImageDraw, ImageFont

    told = [info.get("variant") or {} for info in infos]
    font = ImageFont.load_default(_TEXT)
    places, across, down, corner = _table(told, infos)
    cell = tuple(min(_CELL, max(side)) for side in zip(*(image.size for image in images), strict=True))
    left = _GAP + max((round(font.getlength(_short(text))) + _GAP for text in down), default=0)
    top = _GAP + (_TEXT + _GAP if across else 0) + (_TEXT + _GAP if corner else 0)
    columns, rows = max(x for x, _ in places) + 1, max(y for _, y in places) + 1
    under = 0 if across else _TEXT + 4
    step = (cell[0] + _GAP, cell[1] + under + _GAP)
    width = max(left + columns * step[0], round(font.getlength(corner)) + 2 * _GAP)
    sheet = Image.new("RGB", (width, top + rows * step[1]), "white")
    draw = ImageDraw.Draw(sheet)
    if corner:
        draw.text((_GAP, _GAP), corner, "black", font)
    per = columns // max(len(across), 1)
    for index, text in enumerate(across):
        draw.text((left + index * per * step[0], top - _TEXT - _GAP), _short(text, cell[0] * per), "black", font)
    for index, text in enumerate(down):
        draw.text((_GAP, top + index * step[1] + (cell[1] - _TEXT) // 2), _short(text), "black", font)
    for image, info, (x, y) in zip(images, infos, places, strict=True):
        small = image.copy()
        small.thumbnail(cell)
        at = (left + x * step[0] + (cell[0] - small.width) // 2, top + y * step[1] + (cell[1] - small.height) // 2)
        sheet.paste(small, at, small)
        if under:
            seed = info.get("params", {}).get("seed", "")
            draw.text((left + x * step[0], top + y * step[1] + cell[1] + 4), f"seed {seed}", "black", font)
    return sheet


def _table(
    told: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]]
) -> tuple[list[tuple[int, int]], list[str], list[str], str]:
    """(column, row) of each picture, the values across and down, and what they are values of."""
    if not all(told):
        return [(i % _COLUMNS, i // _COLUMNS) for i in range(len(told))], [], [], ""
    seen: dict[tuple[int, int], int] = {}
    counts = []
    for each in told:
        place = (int(each["column"]), int(each["row"]))
        counts.append(seen.get(place, 0))
        seen[place] = counts[-1] + 1
    per = max(seen.values())
    places = [(int(t["column"]) * per + n, int(t["row"])) for t, n in zip(told, counts, strict=True)]
    columns, rows = int(told[0]["columns"]), int(told[0]["rows"])
    across, down = [""] * columns, [""] * (rows if len(told[0]["labels"]) > 1 else 0)
    for each in told:
        across[int(each["column"])] = str(each["labels"][0]["value"])
        if down:
            down[int(each["row"])] = str(each["labels"][1]["value"])
    titles = [str(label["param"]) for label in told[0]["labels"]]
    return places, across, down, " across, ".join(titles) + (" down" if len(titles) > 1 else "")


def _short(text: str, width: int = 200) -> str:
    """At most about so many pixels."""
    most = max(8, width // 8)
    return text if len(text) <= most else text[: most - 1] + "…"
