"""What guides a submit beside its prompt: control units, references, IP-Adapters, regions; networks, pictures, and what
is wrong, before it is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from impasto_protocol.errors import RequestError
from impasto_protocol.messages import InputPicture
from impasto_protocol.schema import AUTO

from ..engine.control_union import TYPE_NUMBERS, UNION, type_number
from ..engine.jobs import ControlUnit, IPUnit, Pixels, ReferenceUnit, RegionUnit
from ..engine.modes import Common, ModeParams
from ..engine.params_guides import IP_PICTURES
from .catalogue import Catalogue, Model
from .ip_orders import ip_unit
from .preprocessors import annotators_for, check_joints

__all__ = ["CONTROL_INPUT", "Guides", "guides_of", "with_pictures"]

Unit = ControlUnit | ReferenceUnit | IPUnit | RegionUnit
U = TypeVar("U", ControlUnit, ReferenceUnit, IPUnit, RegionUnit)

CONTROL_INPUT = re.compile(r"control_[1-9][0-9]?")
"""Names of the inputs that hold control pictures."""

PICTURES = (*IP_PICTURES, "mask")
"""The fields of entries that name such inputs."""


@dataclass(frozen=True)
class Guides:
    """The units of a job that have a weight, without their pictures."""

    control: tuple[ControlUnit, ...] = ()
    references: tuple[ReferenceUnit, ...] = ()
    ip_adapters: tuple[IPUnit, ...] = ()
    regions: tuple[RegionUnit, ...] = ()


def guides_of(
    catalogue: Catalogue, params: ModeParams, model: Model | None, inputs: Mapping[str, InputPicture]
) -> Guides:
    """The units of the job that are on and have a weight, without their pictures; of the others nothing is asked.

    Raises RequestError and ModelError that name the unit: a missing picture, an end before the start, a network that is
    not there or of another family, an IP-Adapter without its vision tower, a region without a prompt or a mask; also
    RequestError for a picture that none of them asks for.
    """
    given = {name for name in inputs if CONTROL_INPUT.fullmatch(name)}
    if not isinstance(params, Common) or model is None:
        return Guides()
    control = [_unit(catalogue, model, index, entry) for index, entry in _on(params.control)]
    references = [_reference(index, entry) for index, entry in _on(params.references)]
    adapters = [ip_unit(catalogue, model, index, entry) for index, entry in _on(params.ip_adapters)]
    regions = [_region(index, entry) for index, entry in _on(params.regions)]
    entries = _entries(params)
    given -= {str(entry.get(field, "")) for entry in entries.values() if not entry["enabled"] for field in PICTURES}
    units: tuple[Unit, ...] = (*control, *references, *adapters, *regions)
    for unit in units:
        named = {field: str(entries[unit.path].get(field, "")) for field in PICTURES}
        for field, image in named.items():
            _check_picture(unit, field, image, inputs)
        _check(unit, named, inputs)
        given -= set(named.values())
    if given:
        name = min(given)
        raise RequestError(
            "request.invalid_param",
            f"No control unit, reference, IP-Adapter or region asks for the picture {name!r}; name it there, or do not "
            "send it.",
            path=f"inputs.{name}",
        )
    return Guides(
        tuple(u for u in control if u.weight),
        tuple(r for r in references if r.weight),
        tuple(a for a in adapters if a.weight),
        tuple(r for r in regions if r.weight),
    )


def with_pictures(units: Sequence[U], params: ModeParams, pixels: Callable[[str], Pixels]) -> tuple[U, ...]:
    """The units with their pictures, where they have some of their own; `pixels` gives those of an input."""
    if not isinstance(params, Common):
        return ()
    entries = _entries(params)
    held: dict[str, Pixels] = {}

    def picture(unit: U, field: str) -> Pixels | None:
        name = str(entries[unit.path].get(field, ""))
        if name and name not in held:
            held[name] = pixels(name)
        return held[name] if name else None

    found: list[U] = []
    for unit in units:
        changes: dict[str, Any] = {} if isinstance(unit, ReferenceUnit) else {"mask": picture(unit, "mask")}
        if isinstance(unit, IPUnit):
            images = (picture(unit, field) for field in IP_PICTURES)
            changes["images"] = tuple(image for image in images if image is not None)
        elif not isinstance(unit, RegionUnit):
            changes["image"] = picture(unit, "image")
        found.append(replace(unit, **changes))
    return tuple(found)


def _entries(params: Common) -> dict[str, Mapping[str, Any]]:
    """The entries by the paths of their units."""
    return {
        f"params.{name}[{index}]": entry
        for name in ("control", "references", "ip_adapters", "regions")
        for index, entry in enumerate(getattr(params, name))
    }


def _on(entries: Sequence[Mapping[str, object]]) -> list[tuple[int, Mapping[str, object]]]:
    """The entries that are on, with their places."""
    return [(index, entry) for index, entry in enumerate(entries) if entry["enabled"]]


def _values(entry: Mapping[str, object]) -> dict[str, object]:
    """What a unit has of its entry."""
    return {name: value for name, value in entry.items() if name not in (*PICTURES, "enabled")}


def _unit(catalogue: Catalogue, model: Model, index: int, entry: Mapping[str, object]) -> ControlUnit:
    values = _values(entry)
    path = f"params.control[{index}]"
    found = catalogue.controlnet(str(values.pop("model")), f"{path}.model", model.facts.family)
    for end in ("threshold_low", "threshold_high"):
        values[end] = None if values[end] == AUTO else values[end]
    unit = ControlUnit(name=f"control unit {index + 1}", path=path, model=str(found.path), **values)  # type: ignore[arg-type]
    check_joints(unit.preprocessor, unit.pose, unit.name, path)
    if found.facts.variant == UNION:
        type_number(unit, len(TYPE_NUMBERS))
    return replace(unit, annotators=annotators_for(catalogue, unit.preprocessor, unit.pose, unit.name, path))


def _reference(index: int, entry: Mapping[str, object]) -> ReferenceUnit:
    values = _values(entry)
    return ReferenceUnit(name=f"reference {index + 1}", path=f"params.references[{index}]", **values)  # type: ignore[arg-type]


def _region(index: int, entry: Mapping[str, object]) -> RegionUnit:
    values = _values(entry)
    return RegionUnit(name=f"region {index + 1}", path=f"params.regions[{index}]", **values)  # type: ignore[arg-type]


def _check_picture(unit: Unit, field: str, image: str, inputs: Mapping[str, InputPicture]) -> None:
    if image and (image not in inputs or not CONTROL_INPUT.fullmatch(image)):
        what = "mask" if field == "mask" else "picture"
        raise RequestError(
            "request.missing_input",
            f"The {what} {image[:40]!r} of {unit.name} was not sent; send it as an input control_1 to control_99.",
            path=f"{unit.path}.{field}",
        )


def _check(unit: Unit, named: Mapping[str, str], inputs: Mapping[str, InputPicture]) -> None:
    """What a unit needs, `named` being the inputs that its fields ask for."""
    if isinstance(unit, RegionUnit):
        if not unit.weight:
            return
        if not (unit.prompt.strip() or unit.negative.strip()):
            raise RequestError(
                "request.invalid_param",
                f"The {unit.name} has no prompt; say what to paint there, or take the region away.",
                path=f"{unit.path}.prompt",
            )
        if not named["mask"]:
            raise RequestError(
                "request.missing_input",
                f"The {unit.name} has no mask; choose the layer or group that says where it is.",
                path=f"{unit.path}.mask",
            )
        return
    drawn = isinstance(unit, ControlUnit) and unit.pose
    if not any(named[field] for field in IP_PICTURES) and "image" not in inputs and not drawn:
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
