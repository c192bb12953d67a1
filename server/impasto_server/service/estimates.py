"""How long a job will take, from those that this server has run. Nothing is guessed before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..engine.modes import Common, ModeParams
from ..engine.planning import Plan
from ..engine.prompt_words import Words, resolve_words
from .resolving import Resolved

__all__ = ["Estimates", "Need", "needs_of", "work_of"]

_NEWEST = 0.5


@dataclass(frozen=True)
class Need:
    """What one picture (or batch) asks for: its checkpoints, what lies on them, and the work of the network."""

    model: str
    loras: tuple[object, ...]
    work: float


def needs_of(settings: Sequence[Resolved], plans: Sequence[Plan]) -> tuple[Need, ...]:
    """One for each of the job's variants; nothing for a job without a model."""
    needs = []
    for each, plan in zip(settings, plans, strict=True):
        if each.model is None:
            continue
        words = None
        loras: tuple[object, ...] = ()
        if isinstance(each.params, Common):
            words = resolve_words(each.params, each.words, max(each.params.seed, 0))
            loras = (*each.params.lora_uses, *words.loras)
        model = each.model.id + (f" {each.hires_model.id}" if each.hires_model is not None else "")
        needs.append(Need(model, loras, work_of(each.params, plan, words)))
    return tuple(needs)


def work_of(params: ModeParams, plan: Plan, words: Words | None) -> float:
    """Predictions with a negative side, by pixels. Coding to and from latents costs about as much as one more."""
    first = _rows(params, words) / 2
    work = (plan.calls * first + 1) * plan.working.area
    if plan.hires is not None:
        again = _rows(params, words.hires or words) / 2 if words is not None else 1.0
        work += (plan.hires.calls * again + 2) * plan.hires.working.area
    return float(work)


def _rows(params: ModeParams, words: Words | None) -> int:
    """Rows of a call for each picture: the parts of the prompt, the regions, and the negative side where it is asked
    for."""
    if words is None or not isinstance(params, Common):
        return 2
    parts = words.tree.parts
    composed = len(parts) > 1 or parts[0].weight != 1.0
    guided = params.cfg != 1.0 or composed
    own = [1 + int(guided and bool(region.own[1])) for region in words.regions]
    return len(parts) + (1 if guided else 0) + sum(own)


class Estimates:
    """Seconds by the work of a checkpoint, and for loading it or other LoRAs where it is not what ran last."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._loads: dict[str, float] = {}
        self._changes: dict[str, float] = {}
        self._last: Need | None = None

    def measured(self, needs: Sequence[Need], seconds: float, load: float = 0.0) -> None:
        """A job took `seconds`, and `load` of loading beside."""
        if not needs:
            return
        first = needs[0]
        if all(need.model == first.model for need in needs):
            _learn(self._rates, first.model, max(seconds, 0.0) / sum(need.work for need in needs))
            if all(need.loras == first.loras for need in needs):
                if self._last is None or self._last.model != first.model:
                    _learn(self._loads, first.model, load)
                elif self._last.loras != first.loras:
                    _learn(self._changes, first.model, load)
        self._last = needs[-1]

    def seconds(self, needs: Sequence[Need]) -> float | None:
        """The estimate, or None where one of the checkpoints has not run yet."""
        if not needs or any(need.model not in self._rates for need in needs):
            return None
        total, last = 0.0, self._last
        for need in needs:
            total += self._rates[need.model] * need.work
            if last is None or last.model != need.model:
                total += self._loads.get(need.model, 0.0)
            elif last.loras != need.loras:
                total += self._changes.get(need.model, 0.0)
            last = need
        return total


def _learn(known: dict[str, float], name: str, value: float) -> None:
    old = known.get(name)
    known[name] = value if old is None else _NEWEST * value + (1 - _NEWEST) * old
