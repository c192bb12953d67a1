"""Styles: pieces of prompts under a name, in AUTOMATIC1111's styles.csv. No torch here."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from impasto_protocol.errors import RequestError
from impasto_protocol.nearest import nearest

__all__ = ["Style", "apply_style", "pull_styles", "read_styles", "style_names", "styles_text", "take_styles"]

SLOT = "{prompt}"


@dataclass(frozen=True)
class Style:
    """What a style adds to the prompt and to the negative prompt; ``{prompt}`` marks where what was there goes."""

    prompt: str = ""
    negative_prompt: str = ""


def style_names(text: str) -> tuple[str, ...]:
    """The names in `text`, separated by commas; one that has a comma itself stands in double quotes."""
    rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    return tuple(name.strip() for row in rows for name in row if name.strip())


def styles_text(names: Sequence[str]) -> str:
    """The text that `style_names` reads as `names`."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(names)
    return out.getvalue()


def apply_style(prompt: str, style: str) -> str:
    """The prompt within the style's slot, else followed by the style after a comma."""
    if SLOT in style:
        return style.replace(SLOT, prompt)
    return ", ".join(part for part in (prompt.strip(), style.strip()) if part)


def pull_styles(prompt: str, negative_prompt: str, styles: Mapping[str, Style]) -> tuple[str, str, tuple[str, ...]]:
    """Both prompts without the styles that are in them, and the names of these: put around the prompts again, in their
    order, they give exactly what was there.
    """
    taken: list[str] = []
    sides = (prompt, negative_prompt)
    while True:
        found = next(((name, left) for name, style in styles.items() if (left := _without(sides, style))), None)
        if found is None or len(taken) == _MOST_STYLES:
            return *sides, tuple(reversed(taken))
        taken.append(found[0])
        sides = found[1]


_MOST_STYLES = 20


def _without(sides: tuple[str, str], style: Style) -> tuple[str, str] | None:
    """Prompt and negative prompt as they were before the style, or None where it is not in them."""
    left = []
    for text, added in zip(sides, (style.prompt, style.negative_prompt), strict=True):
        before, slot, after = added.partition(SLOT)
        if slot:
            inner = text[len(before) : len(text) - len(after)]
        else:
            inner = text.removesuffix(added.strip()).rstrip().removesuffix(",").rstrip() if added.strip() else text
        if apply_style(inner, added) != text or len(inner) > len(text):
            return None
        left.append(inner)
    # One that changes nothing is in every prompt.
    return None if tuple(left) == sides else (left[0], left[1])


def read_styles(files: Iterable[Path]) -> dict[str, Style]:
    """The styles of all files that exist by name; the first file that has a name gives it.

    Columns name, prompt (text in old files) and negative_prompt, UTF-8. Raises RequestError `request.bad_file`.
    """
    styles: dict[str, Style] = {}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as e:
            raise _unreadable(file, str(e)) from e
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
            if not {"name"} <= set(reader.fieldnames or ()) or not {"prompt", "text"} & set(reader.fieldnames or ()):
                raise _unreadable(file, "its first line must be name,prompt,negative_prompt")
            for row in reader:
                if row["name"]:
                    prompt = row.get("prompt") or row.get("text") or ""
                    styles.setdefault(row["name"], Style(prompt, row.get("negative_prompt") or ""))
        except csv.Error as e:
            raise _unreadable(file, str(e)) from e
    return styles


def take_styles(text: str, styles: Mapping[str, Style]) -> dict[str, Style]:
    """Those of `styles` that `text` names. Raises RequestError `request.invalid_param` for an unknown one."""
    taken: dict[str, Style] = {}
    for name in style_names(text):
        if name not in styles:
            near = nearest(name, styles)
            hint = f" Did you mean {near[0]!r}?" if near else " Styles come from styles.csv."
            raise RequestError(
                "request.invalid_param",
                f"There is no style {name[:80]!r}.{hint}",
                path="params.styles",
                data={"nearest": near},
            )
        taken[name] = styles[name]
    return taken


def _unreadable(file: Path, why: str) -> RequestError:
    return RequestError("request.bad_file", f"The styles in {file.name} cannot be read ({why}).", path="params.styles")
