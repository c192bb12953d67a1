"""What a painter sets for a job, by mode, and what of it is sent and kept: the state behind both panels' widgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

from impasto_protocol.schema import Intent, Mode, Param

from .enlarging import with_own_params
from .form_model import kind_of
from .intents import intent_of, split, strength_key
from .ways import AUTOMATIC, PROMPTED, family_of
from .wording import describe_model

__all__ = [
    "OWN_FIELDS",
    "STRENGTHS",
    "ModelRow",
    "Wishes",
    "chosen_row",
    "hints_of",
    "model_rows",
    "settings_of",
    "strength_tip",
]

OWN_FIELDS = ("prompt", "negative_prompt", "strength", "model", "seed", "scale")
"""Parameters with a place of their own in a panel; all others go into the generated group."""
STRENGTHS = {"paint": 1.0, "sketch": 0.75, "refine": 0.3}
"""Where the strength begins; each choice (`ways.family_of`) keeps its own."""
SCALE = 2.0


@dataclass(frozen=True)
class ModelRow:
    """One choice of the list of checkpoints: the empty id leaves it to the server."""

    id: str
    title: str
    tip: str
    usable: bool = True


def model_rows(models: Sequence[Mapping[str, Any]]) -> List[ModelRow]:
    """The checkpoints of the catalogue, and after them the files that cannot be used, which say why."""
    usable = [m for m in models if m.get("kind") == "checkpoint" and m.get("usable", True)]
    rows = []
    if len(usable) != 1:
        title = "Automatic" if usable else "No model yet"
        rows.append(ModelRow("", title, "The server takes the model that suits best."))
    for entry in usable + [m for m in models if not m.get("usable", True)]:
        title = str(entry.get("title") or entry["id"])
        rows.append(ModelRow(str(entry["id"]), title, describe_model(entry), bool(entry.get("usable", True))))
    return rows


def chosen_row(rows: Sequence[ModelRow], wanted: str) -> int:
    """Which row to show: the one that is wanted, or the first where it cannot be had."""
    return next((at for at, row in enumerate(rows) if row.id == wanted and row.usable), 0)


def hints_of(models: Sequence[Mapping[str, Any]], id: Optional[str]) -> Mapping[str, Any]:
    """What the checkpoint `id` recommends."""
    entry = next((m for m in models if m["id"] == id), None)
    hints = entry.get("hints") if entry is not None else None
    return hints if isinstance(hints, Mapping) else {}


def settings_of(mode: Mode) -> List[Param]:
    """The parameters that have no place of their own in a panel."""
    return [p for p in with_own_params(mode.name, mode.params) if p.name not in OWN_FIELDS]


def strength_tip(mode: str) -> str:
    """What the strength does, in words."""
    if mode in ("txt2img", "img2img"):
        return "100 % paints a new picture; less keeps more of what the canvas shows."
    replaced = "what is selected" if mode == "inpaint" else "the sketch"
    return f"100 % replaces {replaced}; less keeps more of its forms and colours."


@dataclass
class Wishes:
    """The values of a panel. `strengths` and `more`, what was changed in the generated settings, are kept by choice:
    the ways to paint share them.
    """

    prompt: str = ""
    negative_prompt: str = ""
    scale: float = SCALE
    seed: int = -1
    model: str = ""
    """The checkpoint that is wanted, also where the catalogue does not have it now."""
    strengths: Dict[str, float] = field(default_factory=lambda: dict(STRENGTHS))
    more: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    advanced: bool = False
    """Are the settings for experts shown?"""

    def strength(self, mode: str, intent: Optional[Intent] = None) -> float:
        """Where the strength stands for a mode that is done with this intent."""
        key = strength_key(family_of(mode), intent)
        begins = float(intent.params["strength"]) if intent is not None and "strength" in intent.params else 1.0
        return self.strengths.get(key, begins)

    def settings(self, mode: str, intent: Optional[Intent] = None) -> Dict[str, Any]:
        """What was changed in the generated settings of a mode that is done with this intent."""
        family = family_of(mode)
        own = self.more.get(f"{family}/{intent.name}", {}) if intent is not None else {}
        return {**self.more.get(family, {}), **own}

    def keep_settings(
        self, mode: str, values: Mapping[str, Any], known: Optional[Mode], intent: Optional[Intent]
    ) -> None:
        """Note them: what some intent sets is kept for each by itself."""
        family = family_of(mode)
        if intent is None or known is None:
            self.more[family] = dict(values)
            return
        shared, self.more[f"{family}/{intent.name}"] = split(values, known.intents)
        self.more[family] = shared

    def params(
        self,
        mode: str,
        model: str = "",
        more: Optional[Mapping[str, Any]] = None,
        intent: Optional[Intent] = None,
    ) -> Dict[str, Any]:
        """The parameters as the painter set them; what was left alone stays with the server.

        `model` is the checkpoint that is shown as chosen, `more` what was changed in the mode's generated settings.
        """
        family, more = family_of(mode), more or {}
        if mode == "upscale":
            return {"scale": self.scale, **more}
        if mode not in PROMPTED:
            return dict(more)
        params: Dict[str, Any] = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
        if intent is not None:
            params.update(intent.params)
        if mode != "txt2img" and family in self.strengths:
            params["strength"] = self.strength(mode, intent)
        params.update(seed=self.seed, **more)
        if model:
            params["model"] = model
        return params

    def take(self, mode: str, params: Mapping[str, Any], known: Sequence[Param]) -> None:
        """Take over parameters of a mode, those of a recipe for example; what they do not name goes back to its
        default. `known` describes them.
        """
        family, defaults = family_of(mode), {p.name: p.default for p in known}
        self.prompt = str(params.get("prompt", ""))
        self.negative_prompt = str(params.get("negative_prompt", ""))
        if family in STRENGTHS:
            self.strengths[family] = float(params.get("strength", STRENGTHS[family]))
        self.scale = float(params.get("scale", SCALE))
        self.seed = int(params.get("seed", -1))
        self.model = str(params.get("model", ""))
        lists = {p.name: p for p in known if kind_of(p) == "list"}
        rest = {k: v for k, v in params.items() if k not in OWN_FIELDS and k in defaults}
        rest.update({k: _without_inputs(lists[k], v) for k, v in rest.items() if k in lists})
        self.more[family] = {k: v for k, v in rest.items() if _plain(v) != _plain(defaults[k])}

    def take_for(self, mode: str, params: Mapping[str, Any], known: Optional[Mode]) -> str:
        """As `take`, where `known` describes the mode. The name of the intent that these parameters are of."""
        plain = dict(self.strengths)
        self.take(mode, params, known.params if known is not None else ())
        intent = intent_of(known.intents, params) if known is not None else None
        if intent is None or known is None:
            return AUTOMATIC
        family = family_of(mode)
        changed = {k: v for k, v in self.more[family].items() if k not in intent.params or v != intent.params[k]}
        self.keep_settings(mode, changed, known, intent)
        key = strength_key(family, intent)
        if key != family:
            self.strengths[key], self.strengths[family] = self.strengths[family], plain[family]
        if intent.params or self.more[f"{family}/{intent.name}"]:
            return intent.name
        self.more[f"{family}/{known.intents[0].name}"] = {}
        return AUTOMATIC

    def kept(self) -> Dict[str, Any]:
        """What is kept until another day, as JSON takes it."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "strengths": self.strengths,
            "scale": self.scale,
            "seed": self.seed,
            "model": self.model,
            "more": self.more,
            "advanced": self.advanced,
        }

    @staticmethod
    def restored(kept: Mapping[str, Any]) -> Wishes:
        """What `kept` gave; raises ValueError, TypeError or AttributeError for what it cannot have given."""
        wishes = Wishes(
            prompt=str(kept.get("prompt", "")),
            negative_prompt=str(kept.get("negative_prompt", "")),
            scale=float(kept.get("scale", SCALE)),
            seed=int(kept.get("seed", -1)),
            model=str(kept.get("model", "")),
            advanced=bool(kept.get("advanced", False)),
        )
        wishes.strengths.update({str(mode): float(v) for mode, v in dict(kept.get("strengths", {})).items()})
        wishes.more = {str(mode): dict(values) for mode, values in dict(kept.get("more", {})).items()}
        return wishes


def _without_inputs(p: Param, entries: Any) -> List[Dict[str, Any]]:
    """The entries of a list, without the names of the pictures that another job was sent."""
    taken = [item.name for item in p.items if kind_of(item) == "picture"]
    return [{**entry, **{name: "" for name in taken if name in entry}} for entry in entries]


def _plain(value: Any) -> Any:
    """Lists and tuples alike: a recipe that went through JSON has lists."""
    return list(value) if isinstance(value, (list, tuple)) else value
