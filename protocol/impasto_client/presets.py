"""Presets of the catalogue: a few settings that are taken at once."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence

from .form_model import FormModel

__all__ = ["PresetChoice", "applied", "family_for", "fitting"]


def fitting(presets: Sequence[Mapping[str, Any]], family: str) -> List[Mapping[str, Any]]:
    """Those for checkpoints of that family."""
    return [preset for preset in presets if preset.get("family") in ("", family)]


def applied(values: Mapping[str, Any], preset: Mapping[str, Any]) -> Dict[str, Any]:
    """`values` with the preset's settings; its LoRAs come to those that are there, one that is there already keeps its
    strength."""
    params = dict(preset.get("params") or {})
    loras = list(values.get("loras") or ())
    there = {entry.get("model") for entry in loras}
    loras += [entry for entry in params.pop("loras", ()) if entry.get("model") not in there]
    return {**values, **params, **({"loras": loras} if loras else {})}


def family_for(models: Sequence[Mapping[str, Any]], chosen: str) -> str:
    """The family of the checkpoint `chosen`; of any ("") that the server may take, where all are of one. Else ""."""
    usable = [m for m in models if m.get("kind") == "checkpoint" and m.get("usable", True)]
    families = {str(m.get("family", "")) for m in usable if not chosen or m["id"] == chosen}
    return families.pop() if len(families) == 1 else ""


class PresetChoice:
    """What a list of presets beside a form offers, and what choosing one does to the form's values."""

    def __init__(self, form: FormModel) -> None:
        self._form = form
        self._offered: List[Mapping[str, Any]] = []

    def offer(self, presets: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]], chosen: str) -> None:
        """Those for the checkpoint `chosen` whose settings the form knows, all of them."""
        known = {p.name for p in self._form.params}
        fit = fitting(presets, family_for(models, chosen))
        self._offered = [preset for preset in fit if preset.get("params") and set(preset["params"]) <= known]

    def titles(self) -> List[str]:
        """The titles of what is offered, in order."""
        return [str(preset.get("title") or preset.get("id", "")) for preset in self._offered]

    def current(self) -> int:
        """The number of the preset whose settings are all there, or -1."""
        return next((at for at, preset in enumerate(self._offered) if self._holds(preset)), -1)

    def choose(self, at: int) -> str:
        """Take preset `at` in place of the one that is there; -1 takes only that back. What it did, as a sentence."""
        before, values = self.current(), self._form.chosen()
        if before == at:
            return ""
        if before >= 0:
            values = _without(values, self._offered[before])
        if at < 0:
            self._form.take(values)
            return f"“{self.titles()[before]}” is taken back."
        preset, settings = self._offered[at], self._form.params
        values = applied(values, preset)
        for p in settings:
            if p.type == "array" and p.name in values:
                blank = {item.name: item.default for item in p.items}
                values[p.name] = [{**blank, **entry} for entry in values[p.name]]
        self._form.take(values)
        named = [p.title for p in settings if p.name in preset["params"]]
        return f"“{self.titles()[at]}” has set: {', '.join(named)}."

    def _holds(self, preset: Mapping[str, Any]) -> bool:
        for name, value in preset["params"].items():
            if name == "loras":
                there = {entry.get("model") for entry in self._form.value(name) or ()}
                if not {entry.get("model") for entry in value} <= there:
                    return False
            elif self._form.value(name) != value:
                return False
        return True


def _without(values: Mapping[str, Any], preset: Mapping[str, Any]) -> Dict[str, Any]:
    params = preset["params"]
    gone = {entry.get("model") for entry in params.get("loras", ())}
    kept = {name: value for name, value in values.items() if name not in params}
    loras = [entry for entry in values.get("loras") or () if entry.get("model") not in gone]
    return {**kept, **({"loras": loras} if loras else {})}
