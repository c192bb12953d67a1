"""The job that a picture or a text asks for: our own recipe first, then A1111's text; the names that are here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from impasto_protocol.errors import RequestError
from impasto_protocol.nearest import nearest
from impasto_protocol.schema import Param, validate

from ..engine.fields import params_of
from ..engine.infotext import Match, Note, Understood, missing_guides, read_infotext
from ..engine.infotext_text import read_pairs, split_infotext
from ..engine.modelnotes import noted_hashes
from ..engine.modes import MODES
from ..engine.prompt_styles import Style, read_styles
from ..engine.prompt_words import WordSources
from .catalogue import Catalogue, Model
from .file_hashes import FileHashes
from .picture_texts import PictureTexts, picture_texts

__all__ = ["CatalogueNames", "old_hash", "read_parameters"]

_OTHERS = {
    "workflow": "ComfyUI",
    "prompt": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}
"""Keywords of PNG texts -> who writes them, in a form of their own."""

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth")


def read_parameters(source: bytes | str, names: CatalogueNames) -> Understood:
    """What a picture's file, or a text, asks for.

    Raises RequestError `request.no_parameters` where it says nothing that can be read, AssetError `asset.bad_image`
    and `asset.too_large`. Touches the disk: keep it off an event loop.
    """
    found = picture_texts(source) if isinstance(source, bytes) else PictureTexts("text", {"parameters": source})
    read = _read(found, names)
    if found.damaged:
        note = Note("changed", "", "", f"The file is damaged ({found.damaged}); what came before that was read.")
        read = replace(read, notes=(*read.notes, note))
    return read


def _read(found: PictureTexts, names: CatalogueNames) -> Understood:
    texts = found.texts
    text = texts.get("parameters", "").strip()
    notes: tuple[Note, ...] = ()
    recipe = texts.get("impasto") or (text if found.format == "text" and text.startswith("{") else "")
    if recipe:
        try:
            return _read_recipe(_loaded(recipe), names)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            if recipe is text:
                raise RequestError("request.no_parameters", f"The text is JSON, but no recipe of Impasto ({e}).") from e
            notes = (Note("unsupported", "impasto", recipe[:200], f"The recipe cannot be read ({e})."),)
    if text.startswith("Postprocess upscale"):
        return _read_extras(text, names)  # where there is but one place for a text
    # A comment in a picture may be anything; a text that somebody hands in is at least a prompt.
    if text and (found.format == "text" or split_infotext(text).pairs):
        read = read_infotext(text, names)
        extras = tuple(Note("info", key, texts[key], "It was enlarged afterwards.") for key in _EXTRAS if key in texts)
        return replace(read, notes=(*notes, *read.notes, *extras))
    for key in _EXTRAS:
        if texts.get(key, "").strip():
            return _read_extras(texts[key], names)
    raise _nothing(found)


_EXTRAS = ("postprocessing", "extras")
"""Where A1111's Extras say what they did."""


def _nothing(found: PictureTexts) -> RequestError:
    writer = next((who for key, who in _OTHERS.items() if key in found.texts), None)
    if found.texts.get("Software") == "NovelAI":
        writer = "NovelAI"
    if writer is not None:
        return RequestError(
            "request.no_parameters",
            f"The picture was written by {writer}, in a form that is not read; only A1111's text and Impasto's recipes "
            "are.",
            data={"source": writer},
        )
    what = "The text says" if found.format == "text" else f"The {found.format} file says"
    return RequestError("request.no_parameters", f"{what} nothing of how a picture was made.")


def _loaded(text: str) -> Any:
    """JSON without halves of characters (lone surrogates), which could be neither saved nor sent. Raises ValueError."""
    return json.loads(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))


def _read_recipe(recipe: Mapping[str, Any], names: CatalogueNames) -> Understood:
    """Our own recipe, perhaps of another version or another machine. Raises ValueError, KeyError, TypeError."""
    mode, values = recipe["mode"], recipe["params"]
    if mode not in MODES or not isinstance(values, Mapping):
        raise ValueError(f"this version has no mode {str(mode)[:40]!r}")
    schema = {p.name: p for p in params_of(MODES[mode][0])}
    params: dict[str, Any] = {}
    notes = []
    for name, value in values.items():
        said = value if isinstance(value, str) else json.dumps(value)
        if name not in schema:
            notes.append(Note("unknown", str(name), said, "This version has no such parameter."))
            continue
        try:
            params[name] = validate([schema[name]], {name: value})[name]
        except RequestError as e:
            notes.append(Note("unsupported", name, said, e.message))
    for name, param in schema.items():
        params.setdefault(name, param.default)
    for name, param in schema.items():
        if param.items:
            for entry in params[name]:
                _find_models(param.items, entry, names, notes, f"{name}.")
    _find_models(tuple(schema.values()), params, names, notes)
    return Understood(mode, params, (*notes, *missing_guides(params)), "Impasto")


def _find_models(
    schema: Sequence[Param], values: dict[str, Any], names: CatalogueNames, notes: list[Note], prefix: str = ""
) -> None:
    """Bring the models that the values name to their names here, with a note for each that is not."""
    for param in schema:
        said = values.get(param.name)
        if param.choices.get("from") != "models" or not said or said in param.choices.get("also", ()):
            continue
        kind = str(param.choices.get("kind", ""))
        match = names.find(kind, said)
        if not match.id:
            near = f" The nearest is {match.nearest!r}." if match.nearest else ""
            notes.append(Note("missing", prefix + param.name, said, f"There is no such {kind} here.{near}"))
        values[param.name] = match.id or said


def _read_extras(text: str, names: CatalogueNames) -> Understood:
    """What A1111's Extras say, or our own upscaling."""
    params: dict[str, Any] = {}
    notes = []
    pairs, rest = read_pairs(text)
    for key, value in pairs:
        if key == "Postprocess upscale by" and value.replace(".", "", 1).isdecimal() and 1 <= float(value[:9]) <= 8:
            params["scale"] = float(value[:9])
        elif key == "Postprocess upscaler":
            match = names.find("upscaler", value)
            if value in ("None", "Lanczos"):
                params["upscaler"] = ""
            else:
                params["upscaler"] = match.id or value
                if not match.id:
                    near = f" The nearest is {match.nearest!r}." if match.nearest else ""
                    notes.append(Note("missing", key, value, f"There is no such upscaler here.{near}"))
        else:
            notes.append(Note("unsupported", key, value, "There is no setting for it here: A1111's Extras."))
    notes += [Note("unknown", "", piece, "It stands among the parameters and is none.") for piece in rest]
    return Understood("upscale", params, tuple(notes), "")


class CatalogueNames:
    """What a catalogue and the styles' files have by the names that texts use: see engine.infotext.Names."""

    def __init__(self, catalogue: Catalogue, words: WordSources) -> None:
        self._catalogue = catalogue
        self._words = words

    @cached_property
    def styles(self) -> Mapping[str, Style]:
        """Those that can be read; a file that cannot be is told when a style is asked for."""
        try:
            return read_styles(self._words.styles)
        except RequestError:
            return {}

    def find(self, kind: str, name: str, digits: str = "") -> Match:
        """By id, by file name, by a LoRA's alias, upper and lower case being the same; then by A1111's hashes."""
        models = [m for m in self._catalogue.models if m.facts.kind == kind]
        wanted = _plain(name)
        if wanted:
            exact = [m for m in models if m.id == name]
            named = exact or [m for m in models if wanted in (_plain(m.id), _plain(m.path.name))]
            named = named or [m for m in models if m.facts.alias and _plain(m.facts.alias) == wanted]
            if named:
                return Match(named[0].id)
        hashed = next((m for m in models if _has_hash(m, digits, self._catalogue.hashes)), None)
        if hashed is not None:
            return Match(hashed.id)
        near = _nearest(wanted, [m.id for m in models])
        return Match("", near)


def _plain(name: str) -> str:
    """Without folders and ending, in lower case."""
    name = name.replace("\\", "/").rpartition("/")[2].strip()
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name.casefold()


def _nearest(name: str, known: Sequence[str]) -> str:
    by_plain = {_plain(id): id for id in reversed(known)}
    near = nearest(name, by_plain, 0.4) if name else []
    return by_plain[near[0]] if near else ""


_OLD_HASH_AT, _OLD_HASH_BYTES = 0x100000, 0x10000


def _has_hash(model: Model, digits: str, known: FileHashes) -> bool:
    """Whether the file has this hash of A1111's: one that is noted beside it, one that was worked out while nothing
    else was to do, or the old one of 8 digits, over 64 KiB from 1 MiB on."""
    digits = digits.lower()
    if not 8 <= len(digits) <= 64:
        return False
    # The later ones are the first 10 or 12 digits of the sha256.
    if any(whole.startswith(digits) for whole in (*noted_hashes(model.path), *known.of(model.path))):
        return True
    return len(digits) == 8 and model.path.is_file() and old_hash(model.path) == digits


def old_hash(path: Path) -> str:
    """A1111's hash of a checkpoint before 1.0; "" where the file cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(_OLD_HASH_AT)
            return hashlib.sha256(file.read(_OLD_HASH_BYTES)).hexdigest()[:8]
    except OSError:
        return ""
