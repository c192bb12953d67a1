"""The control units and references of a submit: networks, pictures, and what is wrong, before it is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from impasto_protocol.errors import RequestError
from impasto_protocol.messages import InputPicture
from impasto_protocol.schema import AUTO

from ..engine.jobs import ControlUnit, Pixels, ReferenceUnit
from ..engine.modes import Common, ModeParams
from .catalogue import Catalogue, Model
from .preprocessors import annotators_for, check_joints

__all__ = ["CONTROL_INPUT", "control_of", "with_pictures"]

U = TypeVar("U", ControlUnit, ReferenceUnit)

CONTROL_INPUT = re.compile(r"control_[1-9][0-9]?")
"""Names of the inputs that hold control pictures."""


def control_of(
    catalogue: Catalogue, params: ModeParams, model: Model | None, inputs: Mapping[str, InputPicture]
) -> tuple[tuple[ControlUnit, ...], tuple[ReferenceUnit, ...]]:
    """The control units and the references of the job that have a weight, without their pictures.

    Raises RequestError and ModelError that name the unit: a missing picture, an end before the start, a ControlNet that
    is not there or of another family; also RequestError for a picture that none of them asks for.
    """
    given = {name for name in inputs if CONTROL_INPUT.fullmatch(name)}
    if not isinstance(params, Common) or model is None:
        return (), ()
    units = [_unit(catalogue, model, index, entry) for index, entry in enumerate(params.control)]
    references = [_reference(index, entry) for index, entry in enumerate(params.references)]
    guides: tuple[ControlUnit | ReferenceUnit, ...] = (*units, *references)
    for unit, entry in zip(guides, (*params.control, *params.references), strict=True):
        _check(unit, str(entry["image"]), inputs)
        given.discard(str(entry["image"]))
    if given:
        name = min(given)
        raise RequestError(
            "request.invalid_param",
            f"No control unit and no reference asks for the picture {name!r}; name it there, or do not send it.",
            path=f"inputs.{name}",
        )
    return tuple(u for u in units if u.weight), tuple(r for r in references if r.weight)


def with_pictures(units: Sequence[U], params: ModeParams, pixels: Callable[[str], Pixels]) -> tuple[U, ...]:
    """The units with their pictures, where they have some of their own; `pixels` gives those of an input."""
    if not isinstance(params, Common):
        return ()
    names = {f"params.control[{i}]": str(entry["image"]) for i, entry in enumerate(params.control)}
    names |= {f"params.references[{i}]": str(entry["image"]) for i, entry in enumerate(params.references)}
    held = {name: pixels(name) for name in dict.fromkeys(names[unit.path] for unit in units) if name}
    return tuple(replace(unit, image=held.get(names[unit.path])) for unit in units)


def _unit(catalogue: Catalogue, model: Model, index: int, entry: Mapping[str, object]) -> ControlUnit:
    values = {name: value for name, value in entry.items() if name != "image"}
    path = f"params.control[{index}]"
    found = catalogue.controlnet(str(values.pop("model")), f"{path}.model", model.facts.family)
    for end in ("threshold_low", "threshold_high"):
        values[end] = None if values[end] == AUTO else values[end]
    unit = ControlUnit(name=f"control unit {index + 1}", path=path, model=str(found.path), **values)  # type: ignore[arg-type]
    check_joints(unit.preprocessor, unit.pose, unit.name, path)
    return replace(unit, annotators=annotators_for(catalogue, unit.preprocessor, unit.pose, unit.name, path))


def _reference(index: int, entry: Mapping[str, object]) -> ReferenceUnit:
    values = {name: value for name, value in entry.items() if name != "image"}
    return ReferenceUnit(name=f"reference {index + 1}", path=f"params.references[{index}]", **values)  # type: ignore[arg-type]


def _check(unit: ControlUnit | ReferenceUnit, image: str, inputs: Mapping[str, InputPicture]) -> None:
    if image and (image not in inputs or not CONTROL_INPUT.fullmatch(image)):
        raise RequestError(
            "request.missing_input",
            f"The picture {image[:40]!r} of {unit.name} was not sent; send it as an input control_1 to control_99.",
            path=f"{unit.path}.image",
        )
    drawn = isinstance(unit, ControlUnit) and unit.pose
    if not image and "image" not in inputs and not drawn:
        raise RequestError(
            "request.missing_input",
            f"The {unit.name} has no picture, and nothing is painted over; choose a picture for it.",
            path=f"{unit.path}.image",
        )
    if unit.end < unit.start:
        raise RequestError(
            "request.invalid_param",
            f"The {unit.name} ends at {unit.end:g} and starts at {unit.start:g}; the end lies after the start.",
            path=f"{unit.path}.end",
        )
