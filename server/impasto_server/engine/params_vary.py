"""The parameter by which one job makes several pictures: one or two others, each with its values. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from impasto_protocol.schema import Param

from .fields import Maps, param

__all__ = ["AXIS", "MAX_AXES", "Varied"]

MAX_AXES = 2

AXIS = (
    Param(
        "param",
        "string",
        "",
        "Parameter",
        "The name of a parameter of this mode, or search_replace for words of the prompts.",
        maximum=100,
    ),
    Param(
        "values",
        "string",
        "",
        "Values",
        "1, 2, 5 or 1-5 or 1-9 (+2) or 1-10 [4] for numbers; names with commas between; prompts one a line.",
        maximum=20_000,
        ui={"widget": "lines"},
    ),
)
"""One entry of `vary`."""


@dataclass(frozen=True, kw_only=True)
class Varied:
    """Several pictures of one job."""

    vary: Maps = param(
        (),
        "Variants",
        "One or two parameters and their values: a picture for each, as they come. The first goes across, the second "
        "down.",
        maximum=MAX_AXES,
        ui={"group": "variants", "advanced": True},
        items=AXIS,
    )
