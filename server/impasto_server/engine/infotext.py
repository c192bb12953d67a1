"""A1111's `parameters` text, as old pictures and our own have it, becomes the parameters of a job. No torch here.

Nothing is dropped: every key becomes a parameter or a note. What our own texts say (`infotext_write`) is complete: they
are read back as the parameters that made the picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from impasto_protocol.errors import RequestError
from impasto_protocol.nearest import nearest
from impasto_protocol.schema import AUTO, Param, validate

from .addon_names import lora_names
from .fields import params_of
from .infotext_keys import (
    CONTROLNET,
    KEYS,
    NEUTRAL,
    OURS,
    PREFIXES,
    SYNONYMS,
    TOLD,
    UNSUPPORTED,
    enum_name,
)
from .infotext_text import Infotext, read_pairs, split_infotext
from .modes import MODES, Inpaint
from .params_common import SAMPLERS, SCHEDULES
from .prompt_styles import Style, pull_styles, styles_text
from .sampler_names import SAMPLER_INFO, split_sampler

__all__ = ["MAX_NOTES", "Match", "Names", "Note", "Understood", "missing_guides", "mode_of", "read_infotext"]

_WORDS = ("prompt", "negative_prompt")
_OF_MASKS = ("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding")

MAX_NOTES = 500
"""More than any program writes."""

_MOST_LORAS = 50
"""LoRAs of a prompt that are looked for."""

_HIRES = "Hires "
"""How the keys of a hires pass begin."""


# ---- what was read


@dataclass(frozen=True)
class Note:
    """Something that the text said and that set nothing, or not as it was said.

    `kind`: "unsupported" (known, and nothing here does it), "unknown", "missing" (a file that is not here), "changed"
    (taken otherwise than it was said), "assumed" (not said, taken as A1111 does), "info" (there is nothing to set).
    """

    kind: str
    key: str
    value: str
    message: str


@dataclass(frozen=True)
class Understood:
    """The job that a text asks for: `params` of `mode`, as `parse_params` takes them. `source` is who wrote it."""

    mode: str
    params: Mapping[str, Any]
    notes: tuple[Note, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Match:
    """What a name means here: `id`, or "" and the `nearest` name, "" where none is near."""

    id: str = ""
    nearest: str = ""


class Names(Protocol):
    """What there is on this machine."""

    @property
    def styles(self) -> Mapping[str, Style]: ...

    def find(self, kind: str, name: str, digits: str = "") -> Match:
        """The model of that kind by its name, else by A1111's hash (10 digits, or 8 old ones)."""
        ...


class _AnyName:
    """Takes every name as it is."""

    styles: Mapping[str, Style] = {}

    def find(self, kind: str, name: str, digits: str = "") -> Match:
        return Match(name)


# ---- reading


def read_infotext(text: str, names: Names | None = None) -> Understood:
    """What a text asks for. Any text is one: without parameters it is a prompt.

    Values that A1111 leaves out are set as it takes them, so that a checkpoint's own hints do not change the picture.
    `<lora:...>` stays in the prompt, where it does what it does in A1111; `names` says whether it is there.
    """
    return _Reader(split_infotext(text), names or _AnyName()).understood()


@dataclass
class _Reader:
    text: Infotext
    names: Names
    params: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def understood(self) -> Understood:
        values = self.text.values
        own = dict(read_pairs(values[OURS])[0]) if OURS in values else {}
        self.mode = mode_of(self.text, own)
        self.schema = {p.name: p for p in params_of(MODES[self.mode][0])}
        self._words()
        last = {key: index for index, (key, _) in enumerate(self.text.pairs)}
        for index, (key, value) in enumerate(self.text.pairs):
            if last[key] != index:
                self._note("unknown", key, value, "It is said twice; the later one was taken.")
                continue
            self._take(key, value, values)
        if "hires" in self.schema and any(key.startswith(_HIRES) for key in values):
            self.params["hires"] = True
        for line in self.text.rest:
            self._note("unknown", "", line, "It stands among the parameters and is none.")
        if _is_own(values):
            self._own(own)
        elif self.text.pairs:
            self._assume()
        if len(self.notes) > MAX_NOTES:
            more = len(self.notes) - MAX_NOTES
            self.notes[MAX_NOTES:] = [Note("unknown", "", f"{more} more", "There are too many to be told one by one.")]
        return Understood(self.mode, self.params, tuple(self.notes), _source(values))

    def _note(self, kind: str, key: str, value: Any, message: str) -> None:
        self.notes.append(Note(kind, key, str(value), message))

    def _set(self, key: str, said: str, param: str, value: Any) -> bool:
        """Set a parameter if it can have that value."""
        try:
            self.params[param] = validate([self.schema[param]], {param: value})[param]
        except RequestError as e:
            self._note("unsupported", key, said, e.message)
            return False
        return True

    def _take(self, key: str, value: str, values: Mapping[str, str]) -> None:
        if key in ("Sampler", "Schedule type", "Size", "Model", "Hires resize", "Seed resize from", OURS):
            self._by_hand(key, value, values)
            return
        if key == "Mask blur" and "blend" in self.schema:
            self._mask_blur(value)
            return
        if key.startswith(CONTROLNET) and "control" in self.schema:
            if not _is_own(values):  # ours stand whole in our own key
                said = "The picture that guided it is not in the file; set it up anew with that picture."
                self._note("missing", key, value, said)
            return
        if NEUTRAL.get(key) == value:
            self._note("info", key, value, "It is so here in any case.")
            return
        key_of = "Hires strength" if key == "Denoising strength" and "strength" not in self.schema else key
        known = KEYS.get(SYNONYMS.get(key_of, key_of))
        if known is not None and known.param in self.schema and (not known.modes or self.mode in known.modes):
            try:
                read = known.read(value)
            except (ValueError, OverflowError) as e:
                self._note("unsupported", key, value, f"The value is not understood ({e}).")
                return
            if self.schema[known.param].choices.get("from") == "models":
                read = self._named(key, read, known.param)
            self._set(key, value, known.param, read)
        elif key in TOLD:
            if key == "Model hash" and "Model" not in values:
                self._model(key, "", value)
            elif key != "Version":
                self._note("info", key, value, f"It says {TOLD[key]}.")
        elif known is not None or key in UNSUPPORTED:
            what = UNSUPPORTED.get(
                SYNONYMS.get(key, key), f"something that {MODES[self.mode][1].lower()} does not have"
            )
            self._note("unsupported", key, value, f"There is no setting for it here: {what}.")
        else:
            whose = next((whose for prefix, whose in PREFIXES.items() if key.startswith(prefix)), None)
            if whose is not None:
                self._note("unsupported", key, value, f"There is no setting for it here: {whose}.")
            else:
                self._note("unknown", key, value, "Nothing is known of it.")

    def _by_hand(self, key: str, value: str, values: Mapping[str, str]) -> None:
        if key == "Sampler" and "sampler" in self.schema:
            found = split_sampler(value, values.get("Schedule type", "")) or split_sampler(value)
            if found is None:
                self._choice(key, value, "sampler", enum_name(value), SAMPLERS)
            else:
                self.params["sampler"] = found[0]
                if found[1] != "automatic":
                    self.params["schedule"] = found[1]
        elif key == "Schedule type" and "schedule" in self.schema:
            if enum_name(value) != "automatic" or "schedule" not in self.params:
                self._choice(key, value, "schedule", enum_name(value), SCHEDULES)
        elif key == "Model" and "model" in self.schema:
            self._model(key, value, values.get("Model hash", ""))
        elif key == "Size" and "width" in self.schema:
            self._size(value)
        elif key == "Hires resize" and "hires_width" in self.schema:
            self._size(value, key, "hires_")
        elif key == "Seed resize from" and "seed_resize_width" in self.schema:
            self._size(value, key, "seed_resize_")
        elif key == "Size":
            self._note("info", key, value, "The size comes from the picture that is worked on.")
        elif key != OURS:
            what = UNSUPPORTED.get(key, f"something that {MODES[self.mode][1].lower()} does not have")
            self._note("unsupported", key, value, f"There is no setting for it here: {what}.")

    def _choice(self, key: str, said: str, param: str, name: str, known: Sequence[str]) -> None:
        if name in known:
            self.params[param] = name
            return
        near = nearest(name, known)
        hint = f"; the nearest is {near[0]}" if near else ""
        self._note("unsupported", key, said, f"There is no {param} of this name here{hint}.")

    def _size(self, value: str, key: str = "Size", prefix: str = "") -> None:
        width, _, height = value.lower().partition("x")
        if not (width.strip().isdecimal() and height.strip().isdecimal()):
            self._note("unsupported", key, value, "It is no size such as 512x768.")
            return
        for name, said in (("width", width), ("height", height)):
            side = int(said.strip()[:9])
            if side % 8:
                side = max(8, round(side / 8) * 8)
                self._note("changed", key, value, f"The {name} must be a multiple of 8; {side} was taken.")
            self._set(key, value, prefix + name, side)

    def _mask_blur(self, value: str) -> None:
        """A1111's blur, a Gaussian of this sigma, ends 2.5 sigma beyond the mask; ours begins at its edge."""
        if not value.isdecimal():
            self._note("unsupported", "Mask blur", value, "It is no number of pixels.")
            return
        blend = int(2.5 * int(value[:6]) + 0.5)
        if self._set("Mask blur", value, "blend", blend):
            self.params |= {"grow": 0.0, "feather": 0.0}
            said = f"grow 0, feather 0, blend {blend}: it reaches as far, and inside of the selection nothing fades."
            self._note("changed", "Mask blur", value, said)

    def _model(self, key: str, name: str, digits: str) -> None:
        if not (name or digits):
            return
        found = self.names.find("checkpoint", name, digits)
        if found.id or name:
            self.params["model"] = found.id or name
        if not found.id:
            near = f" The nearest is {found.nearest!r}." if found.nearest else ""
            self._note("missing", key, name or digits, f"There is no such checkpoint here.{near}")
        elif name and found.id != name:
            self._note("changed", key, name, f"Here it is {found.id!r}.")

    def _named(self, key: str, name: str, param: str) -> str:
        """The id of a model by its name, "name [digits]" in older texts; the name itself where it is not here."""
        choices = self.schema[param].choices
        if not name or name in choices.get("also", ()):
            return name
        bare, _, digits = name.removesuffix("]").rpartition(" [") if name.endswith("]") else (name, "", "")
        found = self.names.find(str(choices.get("kind", "")), bare, digits)
        if not found.id:
            near = f" The nearest is {found.nearest!r}." if found.nearest else ""
            self._note("missing", key, name, f"There is no such {choices.get('kind', 'model')} here.{near}")
        elif found.id != name:
            self._note("changed", key, name, f"Here it is {found.id!r}.")
        return found.id or name

    def _words(self) -> None:
        """The prompts, with styles pulled back out of them."""
        if "prompt" not in self.schema:
            return
        prompt, negative, styles = pull_styles(self.text.prompt, self.text.negative_prompt, self.names.styles)
        for name, value in (("prompt", prompt), ("negative_prompt", negative), ("styles", styles_text(styles))):
            self._set(self.schema[name].title, value, name, value)
        hashes = dict(read_pairs(self.text.values.get("Lora hashes", ""))[0])
        for name in lora_names(self.text.prompt)[:_MOST_LORAS]:
            found = self.names.find("lora", name)
            by_hash = "" if found.id or "{" in name else self.names.find("lora", "", hashes.get(name, "")).id
            if by_hash and "prompt" in self.params:
                self.params["prompt"] = self.params["prompt"].replace(f"<lora:{name}:", f"<lora:{by_hash}:")
                self._note("changed", "Prompt", f"<lora:{name}>", f"Here it is {by_hash!r}.")
            elif "{" not in name and not found.id:
                near = f" The nearest is {found.nearest!r}." if found.nearest else ""
                self._note("missing", "Prompt", f"<lora:{name}>", f"There is no such LoRA here.{near}")

    def _own(self, own: Mapping[str, str]) -> None:
        """What our own text says beyond A1111's keys; all else is at its default."""
        for name, said in own.items():
            if name == "mode":
                continue
            if name not in self.schema:
                self._note("unknown", f"{OURS} {name}", said, "This version has no such parameter.")
                continue
            try:
                self._set(f"{OURS} {name}", said, name, _parsed(self.schema[name], said))
            except ValueError:
                self._note("unsupported", f"{OURS} {name}", said, "The value is not understood.")
        if any(name in own for name in _WORDS) and "styles" in self.schema:
            self.params["styles"] = ""  # they were pulled out of a text that is not the prompt
        for name, param in self.schema.items():
            self.params.setdefault(name, param.default)
        self.notes += missing_guides(self.params)

    def _samplers(self) -> list[str]:
        """Those of the passes."""
        used = (self.params.get(name, "") for name in ("sampler", "hires_sampler"))
        return [name for name in used if name in SAMPLER_INFO]

    def _assume(self) -> None:
        """What A1111 leaves out because it is at its own default."""
        assumed: dict[str, Any] = {"clip_skip": 1, "noise": "philox", "schedule": "automatic"}
        if any(SAMPLER_INFO[used].brownian for used in self._samplers()):
            assumed["sde_noise"] = "tree"
        if issubclass(MODES[self.mode][0], Inpaint):
            assumed |= {"area": "whole", "masked_content": "original", "invert": False}
            assumed |= {"grow": 0.0, "feather": 0.0, "blend": 0.0}  # a mask without blur
            if self.params.get("area") == "masked":
                assumed["padding"] = 32
        told = []
        for name, value in assumed.items():
            if name in self.schema and name not in self.params:
                self.params[name] = value
                if name not in ("clip_skip", "noise", "schedule", "sde_noise", "invert"):
                    told.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
        if told:
            self._note("assumed", "", ", ".join(told), "The text does not say it; A1111 leaves out its own defaults.")


def missing_guides(params: Mapping[str, Any]) -> list[Note]:
    """A note for each picture that guided a result: it is named in the parameters, and in no file."""
    guides = dict.fromkeys(str(unit.get("image", "")) for unit in params.get("control", ()))
    said = "The picture that guided it is not in the file; send it as this input."
    return [Note("missing", "control", guide, said) for guide in guides if guide]


def mode_of(text: Infotext, own: Mapping[str, str]) -> str:
    """Which kind of job it was."""
    if own.get("mode") in MODES:
        return own["mode"]
    values = text.values
    if any(
        key in values for key in ("Mask blur", "Mask mode", "Masked content", "Inpaint area", "Masked area padding")
    ):
        return "inpaint"
    if "Denoising strength" in values and not any(key.startswith(("Hires ", "First pass")) for key in values):
        return "img2img"
    return "txt2img"


def _is_own(values: Mapping[str, str]) -> bool:
    return values.get("Version") == OURS


def _source(values: Mapping[str, str]) -> str:
    version = values.get("Version", "")
    if _is_own(values):
        return OURS
    if "App" in values:
        return values["App"]
    if version[:2].lower() in ("v0", "v1", "1."):
        return f"AUTOMATIC1111 {version}"
    if version[:1] == "f" and version[1:2].isdigit():
        return f"Forge {version}"
    return version


def _parsed(param: Param, said: str) -> Any:
    """The value of a parameter in our own key. Raises ValueError."""
    if param.enum or (param.auto and said == AUTO):
        return said
    return json.loads(said)
