"""Settings generated from the server's description of its parameters, without their widgets.

Only what the painter changed is sent: everything else is left to the server and to the hints of the checkpoint.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Mapping, Sequence, Set, Tuple

from impasto_protocol.errors import RequestError
from impasto_protocol.schema import Param, validate

from .wording import pretty

__all__ = [
    "UNBOUNDED",
    "FormModel",
    "choices_of",
    "entry_params",
    "entry_title",
    "enum_choices",
    "grouped",
    "is_extra",
    "is_whole",
    "kind_of",
    "lacks",
    "must_be_named",
    "new_entry",
    "pictures_for",
    "range_of",
    "step_of",
    "strength_of",
    "strengths_of",
    "takes_model",
]

GROUPS = {
    "hires": "Second pass, larger",
    "sampling": "Sampling",
    "mask": "Mask",
    "size": "Size",
    "sketch": "Sketch",
    "model": "Model",
}
UNBOUNDED = 1_000_000
"""What stands for a range without an end in a number field."""


def takes_model(p: Param) -> bool:
    """Is the value the id of a model of the catalogue?"""
    return p.type == "string" and not p.enum and p.choices.get("from") == "models"


def kind_of(p: Param) -> str:
    """Which kind of widget edits the parameter: "list" (of maps), "model", "picture" (a layer of the document),
    "choice", "check", "slider", "number" (where it has no range, or may be left to the server by "auto") or "text". A
    widget that a newer server names goes by its type.
    """
    if p.type == "array":
        return "list"
    if takes_model(p):
        return "model"
    if p.type == "string" and p.ui.get("widget") == "picture":
        return "picture"
    if p.enum:
        return "choice"
    if p.type == "boolean":
        return "check"
    if p.type in ("number", "integer"):
        return "number" if p.auto or p.minimum is None or p.maximum is None else "slider"
    return "text"


def step_of(p: Param) -> float:
    """The step of a slider or number field."""
    if p.step:
        return p.step
    if kind_of(p) == "slider":
        return 1 if p.type == "integer" else 0.01
    return 1 if is_whole(p) else 0.1


def is_whole(p: Param) -> bool:
    """Does a number field show no decimals?"""
    return p.type == "integer" or p.ui.get("unit") == "px"


def range_of(p: Param) -> Tuple[float, float]:
    """The range of a number field."""
    return (
        -UNBOUNDED if p.minimum is None else p.minimum,
        UNBOUNDED if p.maximum is None else p.maximum,
    )


def grouped(params: Sequence[Param]) -> List[Tuple[str, List[Param]]]:
    """The parameters by group, each with its heading ("" for none), in the order of their first members."""
    groups: Dict[str, List[Param]] = {}
    for p in params:
        groups.setdefault(str(p.ui.get("group", "")), []).append(p)
    return [(GROUPS.get(name, name.capitalize()), members) for name, members in groups.items()]


def choices_of(p: Param, models: Sequence[Mapping[str, Any]]) -> List[Tuple[str, str]]:
    """What a parameter that takes a model offers: (id, title), first the empty choice where there is one."""
    offered = [] if must_be_named(p) else [("", str(p.ui.get("none", "Automatic")))]
    for model in models:
        if model.get("kind") == p.choices.get("kind") and model.get("usable", True):
            offered.append((str(model["id"]), str(model.get("title") or model["id"])))
    also = p.choices.get("also")
    return offered + [(str(name), pretty(str(name))) for name in (also if isinstance(also, (list, tuple)) else ())]


def enum_choices(p: Param) -> List[Tuple[str, str, str]]:
    """What a choice of words offers: (value, title, why it cannot be used now and how to mend it, or empty)."""
    missing, titles = p.ui.get("unavailable"), p.ui.get("titles")
    reasons = missing if isinstance(missing, dict) else {}
    named = titles if isinstance(titles, dict) else {}
    offered = []
    for value in p.enum:
        reason, title = str(reasons.get(value, "")), str(named.get(value, pretty(value)))
        offered.append((value, f"{title} (missing)" if reason else title, reason))
    return offered


def entry_title(p: Param) -> str:
    """What one entry of a list is called: "LoRA" of "LoRAs"."""
    named = p.ui.get("entry")
    return str(named) if named else p.title[:-1] if p.title.endswith("s") else p.title


def entry_params(p: Param) -> List[Param]:
    """The parameters of one entry of a list that have a widget, marked as such."""
    return [dataclasses.replace(i, ui={**i.ui, "in_list": True}) for i in p.items if kind_of(i) != "list"]


def must_be_named(p: Param) -> bool:
    """Has a parameter that takes a model no empty choice? That of a list's entry, unless the server names one."""
    return bool(p.ui.get("in_list")) and not p.default and "none" not in p.ui


def strengths_of(p: Param) -> List[Tuple[str, Dict[str, Any]]]:
    """How strongly an entry of a list may count, in words: (title, values that belong together)."""
    told = p.ui.get("strengths")
    known = {item.name for item in p.items}
    found = []
    for each in told if isinstance(told, (list, tuple)) else ():
        if isinstance(each, Mapping) and isinstance(each.get("values"), Mapping) and set(each["values"]) <= known:
            found.append((str(each.get("title", "")), dict(each["values"])))
    return found


def strength_of(p: Param, entry: Mapping[str, Any]) -> int:
    """Which of `strengths_of` an entry has, or -1 where it has values of its own."""
    for at, (_, values) in enumerate(strengths_of(p)):
        if all(entry.get(name) == value for name, value in values.items()):
            return at
    return -1


def is_extra(item: Param, entry: Mapping[str, Any]) -> bool:
    """Is this field of an entry for experts, and left as it was?"""
    return bool(item.ui.get("advanced")) and entry.get(item.name, item.default) == item.default


def new_entry(p: Param, models: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """An entry as "Add" makes it: the defaults, and for a model that must be named the first one there is."""
    entry = {item.name: item.default for item in p.items}
    for item in entry_params(p):
        if kind_of(item) == "model" and must_be_named(item):
            entry[item.name] = next((id for id, _ in choices_of(item, models)), "")
    return entry


def lacks(p: Param, models: Sequence[Mapping[str, Any]]) -> str:
    """Why no entry can be added to a list: no model for it; empty where one can."""
    for item in entry_params(p):
        if kind_of(item) == "model" and must_be_named(item) and not choices_of(item, models):
            return f"The server has no {item.title} yet; put one into its models folder."
    return ""


def pictures_for(p: Param, layers: Sequence[Tuple[str, str]]) -> List[Tuple[str, str]]:
    """What a parameter that takes a picture offers: (value, title), first the picture that is painted over."""
    return [("", str(p.ui.get("none", "What is painted over"))), *layers]


class FormModel:
    """The values behind a form; `changed` hears what the painter does to them."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.params: List[Param] = []
        self.models: List[Mapping[str, Any]] = []
        self.advanced = False
        """Are the settings for experts wanted too?"""
        self._defaults: Dict[str, Any] = {}
        self._chosen: Dict[str, Any] = {}

    def set_params(self, params: Sequence[Param]) -> bool:
        """Take a description; True where it is another one. What the painter chose is kept where it is still allowed:
        values from another day may not be. What this description does not name may be of another mode, and is kept too.
        """
        if list(params) == self.params:
            return False
        self.params = list(params)
        self._defaults = {p.name: p.default for p in params}
        self._chosen = {name: value for name, value in self._chosen.items() if self._allowed(name, value)}
        return True

    def set_hints(self, hints: Mapping[str, Any]) -> None:
        """Defaults that the chosen checkpoint recommends."""
        self._defaults = {p.name: hints.get(p.name, p.default) for p in self.params}

    def overrides(self) -> Dict[str, Any]:
        """What the painter chose, by parameter name."""
        known = {p.name for p in self.params}
        return {name: value for name, value in self._chosen.items() if name in known}

    def chosen(self) -> Dict[str, Any]:
        """The same with what this description does not name."""
        return dict(self._chosen)

    def set_overrides(self, values: Mapping[str, Any]) -> None:
        """Take what the painter chose at another time."""
        self._chosen = dict(values)

    def reset(self) -> None:
        """Back to the defaults."""
        self._chosen = {}
        self.changed()

    def take(self, values: Mapping[str, Any]) -> None:
        """The painter set several values at once; all others go back to their defaults."""
        self._chosen = {name: value for name, value in values.items() if value != self._defaults.get(name)}
        self.changed()

    def value(self, name: str) -> Any:
        """What is to be shown."""
        return self._chosen.get(name, self._defaults.get(name))

    def shown(self) -> Set[str]:
        """The parameters to show: those for experts where they are wanted or were changed; those of a group that has a
        switch (a yes or no of the group's own name) where that is on.
        """
        switches = {p.name: self.value(p.name) for p in self.params if p.type == "boolean"}
        names: Set[str] = set()
        for p in self.params:
            group = str(p.ui.get("group", ""))
            off = group in switches and p.name != group and not switches[group]
            expert = bool(p.ui.get("advanced")) and kind_of(p) != "list" and not self.advanced
            if not off and (not expert or p.name in self._chosen):
                names.add(p.name)
        return names

    def edited(self, name: str, value: Any) -> None:
        """The painter set a value."""
        if value == self._defaults.get(name):
            self._chosen.pop(name, None)
        else:
            self._chosen[name] = value
        self.changed()

    def _allowed(self, name: str, value: Any) -> bool:
        if all(p.name != name for p in self.params):
            return True
        try:
            validate([p for p in self.params if p.name == name], {name: value})
        except RequestError:
            return False
        return True
