"""From a control picture to the hint that a ControlNet reads: fitted to the size of the run, then preprocessed.

A preprocessor sees the picture at the size of the run ("pixel perfect"). What it makes is kept for the next job that
asks for the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.geometry import Size
from impasto_protocol.schema import AUTO
from numpy.typing import NDArray

from .annotators.loaded import WITH_NETWORKS, Annotators
from .fitting import fitted
from .jobs import ControlUnit, Job, Layer, Pixels, Result
from .kit.lines import draw_lines, straight_lines
from .kit.people import segment_person
from .kit.poses import find_pose
from .kit.runtime import Kit
from .modelpath import stamp_of
from .openpose import draw_pose, read_pose
from .params_control import INPAINTS, POSE_PREPROCESSORS, POSES, Annotate
from .pictures import flattened, opaque
from .preprocess import PREPROCESS
from .report import Report

__all__ = ["Hint", "Hints", "annotate", "told_of", "with_hole"]

PERSON = (150, 5, 61)
"""The colour of a person in ADE20K's palette."""


@dataclass(frozen=True, eq=False)
class Hint:
    """`pixels` RGB [h, w, 3]; `hole` [h, w], where an inpainting ControlNet is to paint; `pose` the joints that were
    drawn, as OpenPose's JSON."""

    pixels: Pixels
    hole: NDArray[np.bool_] | None = None
    pose: Mapping[str, Any] | None = None

    @property
    def tensor(self) -> torch.Tensor:
        """float32 [1, 3, h, w] in 0..1; -1 in the hole, which is how ControlNets of the kind inpaint know it."""
        values = torch.tensor(self.pixels).permute(2, 0, 1)[None].float() / 255
        return values if self.hole is None else torch.where(torch.from_numpy(self.hole), -1.0, values)

    @property
    def size_bytes(self) -> int:
        return self.pixels.nbytes + (0 if self.hole is None else self.hole.nbytes)


class Hints:
    """Makes hints, and keeps the last ones, at most `budget_bytes` of them, by all that they depend on: another job
    with the same picture makes nothing anew. For one thread."""

    def __init__(
        self, kit: Kit | None = None, device: torch.device | None = None, budget_bytes: int = 64 << 20
    ) -> None:
        self.kit = kit or Kit()
        self.annotators = Annotators(self.kit, device or torch.device("cpu"))
        self._budget = budget_bytes
        self._held: OrderedDict[Hashable, Hint] = OrderedDict()

    def of(self, unit: ControlUnit, size: Size) -> Hint:
        """The hint of a unit at a size.

        What is transparent is black in a finished hint, where black means nothing, and white paper in a picture. Raises
        RequestError `request.empty_selection` for a picture without a visible pixel, `request.invalid_param` for joints
        that cannot be read, and ModelError for a network that is not there or cannot be used: each names the unit.
        """
        key = self._key(unit, size)
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held
        with told_of(unit):
            hint = self._made(unit, size)
        self._held[key] = hint
        while sum(one.size_bytes for one in self._held.values()) > self._budget and len(self._held) > 1:
            self._held.popitem(last=False)
        return hint

    def clear(self) -> None:
        """Let go of the networks; hints need little and are kept."""
        self.annotators.clear()

    def _key(self, unit: ControlUnit, size: Size) -> Hashable:
        image = unit.image
        shown = None if image is None else (image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        files = tuple((file, stamp_of(file)) for file in unit.annotators)
        how = (unit.preprocessor, unit.resize, unit.threshold_low, unit.threshold_high, unit.pose)
        return (shown, tuple(size), how, files)

    def _made(self, unit: ControlUnit, size: Size) -> Hint:
        if unit.pose and unit.preprocessor in POSE_PREPROCESSORS:
            try:
                pose = read_pose(unit.pose)
            except ValueError as error:
                raise RequestError(
                    "request.invalid_param",
                    f"The joints of {unit.name} cannot be read: {error}.",
                    path=f"{unit.path}.pose",
                ) from error
            pose = pose.fitted(size, unit.resize)
            return Hint(draw_pose(pose), pose=pose.to_json())
        picture = unit.image
        assert picture is not None
        if not picture[..., 3].any() and unit.preprocessor not in INPAINTS:
            raise RequestError(
                "request.empty_selection",
                f"The picture of {unit.name} is fully transparent; paint on its layer, or switch the control off.",
                path=unit.path,
            )
        fit = functools.partial(fitted, size=size, resize=unit.resize)
        if unit.preprocessor in INPAINTS:
            return self._with_hole(unit, picture, fit)
        if unit.preprocessor in POSES:
            found = find_pose(self.kit, fit(flattened(picture)), **POSES[unit.preprocessor])
            return Hint(draw_pose(found), pose=found.to_json())
        if unit.preprocessor in OF_THE_KIT:
            return Hint(OF_THE_KIT[unit.preprocessor](self.kit, fit(flattened(picture)), unit))
        if unit.preprocessor in WITH_NETWORKS:
            pixels, joints = WITH_NETWORKS[unit.preprocessor](self.annotators, fit(flattened(picture)), unit)
            return Hint(pixels, pose=joints)
        under = np.zeros((*picture.shape[:2], 3), np.uint8) if unit.preprocessor == "none" else None
        return Hint(PREPROCESS[unit.preprocessor](fit(flattened(picture, under)), unit))

    def _with_hole(self, unit: ControlUnit, picture: Pixels, fit: Callable[[Pixels], Pixels]) -> Hint:
        """What is transparent is to be painted."""
        alpha = fit(np.repeat(picture[..., 3:], 3, 2))[..., 0]
        hole = alpha <= 127
        if not hole.any():
            raise RequestError(
                "request.empty_selection",
                f"The picture of {unit.name} has no transparent place, and nothing is selected: there is nothing to "
                "paint. Erase what is to be painted, or choose another preprocessor.",
                path=unit.path,
            )
        return Hint(np.where(hole[..., None], np.uint8(0), fit(flattened(picture))), hole)


@contextmanager
def told_of(unit: ControlUnit) -> Iterator[None]:
    """An error about a network in the block is about this unit."""
    try:
        yield
    except ModelError as error:
        if unit.name not in error.message:
            error.message = f"{error.message.rstrip('.')} ({unit.name}, preprocessor {unit.preprocessor})."
        error.path = f"{unit.path}.preprocessor"
        raise


def annotate(job: Job, params: Annotate, report: Report, hints: Hints) -> Result:
    """The hint of the job's picture as one layer where the picture lies; emitted through `report`.

    Of a pose the layer's info holds the joints, in pixels of the layer: they may be changed and fed in again.
    """
    low, high = (None if value == AUTO else float(value) for value in (params.threshold_low, params.threshold_high))
    unit = ControlUnit(
        "the picture",
        "params",
        "",
        job.image,
        params.preprocessor,
        threshold_low=low,
        threshold_high=high,
        pose=params.pose,
        annotators=job.annotators,
    )
    with report.stage("annotate"):
        hint = hints.of(unit, job.box.size)
    name = f"{params.preprocessor.replace('_', ' ')} hint"
    info = {"mode": job.mode, "params": dataclasses.asdict(params), "working": [job.box.width, job.box.height]}
    if hint.pose is not None:
        info["pose"] = dict(hint.pose)
    pixels, alpha = opaque(hint.pixels), "opaque"
    if hint.hole is not None:
        pixels[..., 3], alpha = np.where(hint.hole, 0, 255), "soft"
    report.emit(Layer(0, "annotate", name, pixels, job.box, alpha, 0, info))
    on_device = params.preprocessor in WITH_NETWORKS and params.preprocessor not in POSE_PREPROCESSORS
    device = str(hints.annotators.device) if on_device else "cpu"
    ran = {"device": device, "preprocessor": params.preprocessor, **unit.annotators_told}
    return Result((), dict(report.timings), ran)


def with_hole(unit: ControlUnit, mask: NDArray[np.uint8] | None) -> ControlUnit:
    """The unit, its picture transparent where the job's mask [h, w] of the same size selects."""
    if mask is None or unit.image is None or unit.preprocessor not in INPAINTS or unit.image.shape[:2] != mask.shape:
        return unit
    image = unit.image.copy()
    image[..., 3] = np.minimum(image[..., 3], 255 - mask)
    return replace(unit, image=image)


def _lines(kit: Kit, picture: Pixels, unit: ControlUnit) -> Pixels:
    ends, _ = straight_lines(kit, picture, threshold=unit.low(0.1))
    return draw_lines(ends, picture.shape[1], picture.shape[0])


def _person(kit: Kit, picture: Pixels, unit: ControlUnit) -> Pixels:
    """In the colour that ADE20K's palette, and so the segmentation ControlNets, have for a person; the rest black."""
    out = np.zeros_like(picture)
    out[segment_person(kit, picture) > 0.5] = PERSON
    return out


OF_THE_KIT: Mapping[str, Callable[[Kit, Pixels, ControlUnit], Pixels]] = {"mlsd": _lines, "person": _person}
"""The same for networks of the kit. All names together are `params_control.PREPROCESSORS`."""
