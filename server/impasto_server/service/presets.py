"""Presets that the models on this machine make possible: settings that belong together, taken only where asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .catalogue import Model

__all__ = ["presets_of"]

_KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lcm", r"lcm|latent[ _-]?consistency", {"sampler": "lcm", "schedule": "sgm_uniform", "steps": 6, "cfg": 1.5}),
    ("hyper", r"hyper[ _-]?sd\w*", {"sampler": "ddim", "schedule": "sgm_uniform", "steps": 8, "cfg": 1.0}),
    ("tcd", r"tcd", {"sampler": "ddim", "schedule": "sgm_uniform", "steps": 8, "cfg": 1.0}),
    ("lightning", r"lightning", {"sampler": "euler", "schedule": "sgm_uniform", "steps": 4, "cfg": 1.0}),
    ("dmd2", r"dmd2", {"sampler": "lcm", "schedule": "sgm_uniform", "steps": 4, "cfg": 1.0}),
)
"""What a LoRA's name or metadata says that it was distilled by -> the settings that its authors recommend."""

_TITLES = {"lcm": "LCM", "hyper": "Hyper-SD", "tcd": "TCD", "lightning": "Lightning", "dmd2": "DMD2"}
_STEPS = re.compile(r"(?<!\d)(\d{1,2})[ _-]?steps?(?![a-z])", re.IGNORECASE)
_WITH_GUIDANCE = re.compile(r"(?<![a-z])cfg(?![a-z])", re.IGNORECASE)


def presets_of(models: Iterable[Model]) -> tuple[dict[str, Any], ...]:
    """One for each LoRA that makes pictures in a few steps: `id`, `title`, `family` and `params`, plain values.

    It is told by the name of its file, the name that it was trained under, or its title.
    """
    found = []
    for model in models:
        facts = model.facts
        if facts.kind != "lora" or not facts.usable:
            continue
        names = " ".join((model.path.stem, facts.alias, facts.title))
        kind = next((k for k in _KINDS if re.search(rf"(?<![a-z])(?:{k[1]})(?![a-z])", names, re.IGNORECASE)), None)
        if kind is None:
            continue
        name, _, settings = kind
        params = {"loras": [{"model": model.id, "strength": facts.strength or 1.0}], **settings}
        said = _STEPS.search(names)
        if said is not None and 1 <= int(said.group(1)) <= 20:
            params["steps"] = int(said.group(1))
        if name == "hyper" and _WITH_GUIDANCE.search(names):
            params["cfg"] = 5.0  # the kind that keeps the negative prompt
        title = f"Fast: {_TITLES[name]}, {params['steps']} steps"
        found.append({"id": f"fast:{model.id}", "title": title, "family": facts.family, "params": params})
    return tuple(found)
