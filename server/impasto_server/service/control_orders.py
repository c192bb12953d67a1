"""The control units of a submit: their networks, their pictures, and what is wrong with them, before it is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from impasto_protocol.errors import RequestError
from impasto_protocol.messages import InputPicture
from impasto_protocol.schema import AUTO

from ..engine.jobs import ControlUnit, Pixels
from ..engine.modes import Common, DiffusionParams, ModeParams
from .catalogue import Catalogue, Model

__all__ = ["CONTROL_INPUT", "control_of", "with_pictures"]

CONTROL_INPUT = re.compile(r"control_[1-9][0-9]?")
"""Names of the inputs that hold control pictures."""


def control_of(
    catalogue: Catalogue, params: ModeParams, model: Model | None, inputs: Mapping[str, InputPicture]
) -> tuple[ControlUnit, ...]:
    """The units of the job that have a weight, without their pictures.

    Raises RequestError and ModelError that name the unit: a missing picture, an end before the start, a ControlNet that
    is not there or of another family; also RequestError for a control picture that no unit asks for.
    """
    given = {name for name in inputs if CONTROL_INPUT.fullmatch(name)}
    if not isinstance(params, Common) or model is None:
        return ()
    units = []
    for index, entry in enumerate(params.control):
        unit = _unit(catalogue, params, model, index, entry, inputs)
        given.discard(str(entry["image"]))
        if unit.weight:
            units.append(unit)
    if given:
        name = min(given)
        raise RequestError(
            "request.invalid_param",
            f"No control unit asks for the picture {name!r}; name it in `control`, or do not send it.",
            path=f"inputs.{name}",
        )
    return tuple(units)


def with_pictures(
    units: tuple[ControlUnit, ...], params: ModeParams, pixels: Callable[[str], Pixels]
) -> tuple[ControlUnit, ...]:
    """The units with their pictures; `pixels` gives those of an input."""
    if not isinstance(params, Common):
        return ()
    names = {f"params.control[{index}]": str(entry["image"]) for index, entry in enumerate(params.control)}
    held = {name: pixels(name) for name in dict.fromkeys(names[unit.path] for unit in units) if name}
    return tuple(replace(unit, image=held.get(names[unit.path])) for unit in units)


def _unit(
    catalogue: Catalogue,
    params: DiffusionParams,
    model: Model,
    index: int,
    entry: Mapping[str, object],
    inputs: Mapping[str, InputPicture],
) -> ControlUnit:
    values = dict(entry)
    name, path, image = f"control unit {index + 1}", f"params.control[{index}]", str(values.pop("image"))
    found = catalogue.controlnet(str(values.pop("model")), f"{path}.model", model.facts.family)
    if image and (image not in inputs or not CONTROL_INPUT.fullmatch(image)):
        raise RequestError(
            "request.missing_input",
            f"The picture {image[:40]!r} of {name} was not sent; send it as an input control_1 to control_99.",
            path=f"{path}.image",
        )
    if not image and "image" not in inputs:
        raise RequestError(
            "request.missing_input",
            f"The {name} has no picture, and nothing is painted over; choose a picture for it.",
            path=f"{path}.image",
        )
    for end in ("threshold_low", "threshold_high"):
        values[end] = None if values[end] == AUTO else values[end]
    unit = ControlUnit(name=name, path=path, model=str(found.path), **values)  # type: ignore[arg-type]
    if unit.end < unit.start:
        raise RequestError(
            "request.invalid_param",
            f"The {name} ends at {unit.end:g} and starts at {unit.start:g}; the end lies after the start.",
            path=f"{path}.end",
        )
    return unit
