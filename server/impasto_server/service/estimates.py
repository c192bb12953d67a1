"""How long a job will take, from those that this server has run. Nothing is guessed before the first one."""

from __future__ import annotations

from ..engine.planning import Plan

__all__ = ["Estimates"]

_NEWEST = 0.5


class Estimates:
    """Seconds per network call and pixel, by checkpoint."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def measured(self, model: str, plan: Plan, seconds: float) -> None:
        """A job with this plan took `seconds`, loading not counted."""
        rate = max(seconds, 0.0) / _work(plan)
        old = self._rates.get(model)
        self._rates[model] = rate if old is None else _NEWEST * rate + (1 - _NEWEST) * old

    def seconds(self, model: str, plan: Plan) -> float | None:
        """The estimate, or None where this checkpoint has not run yet."""
        rate = self._rates.get(model)
        return None if rate is None else rate * _work(plan)


def _work(plan: Plan) -> float:
    # What the network is asked, over the whole batch; coding to and from latents costs about as much as one more.
    return float((plan.calls + 1) * plan.working.area)
