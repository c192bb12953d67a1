"""What part of the document a job needs, and at which size the model works. Pure geometry, no torch, microseconds.

Words (all lengths in document pixels unless said otherwise):

canvas      the whole picture, `Box(0, 0, width, height)`
selection   the bounds of what the painter selected, before growing; may reach beyond the canvas
mask        where the selection is > 0; with `invert` where it is < 255, within the box
grow        how far repainting reaches at full strength beyond the mask
feather     over how many further pixels repainting fades out
blend       over how many pixels the layer's alpha fades out
reach       grow + feather + blend: beyond it the layer is transparent
padding     surroundings that the model sees beyond the mask
box         the part of the document that is sent, seen by the model and returned as a layer
working     the size in pixels at which the model sees the box; multiples of 8; of an upscale the size of the result
native      the side of the square pictures that the checkpoint was trained on (128, 512, 1024, ...)

Automatic numbers are those of the best peer; its constants were chosen for 512 px models and are scaled by
native / 512.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.schema import AUTO

from .fields import Number
from .modes import Annotate, Common, DiffusionParams, FaceSwap, Img2Img, Inpaint, ModeParams, Refine, Txt2Img, Upscale
from .params_hires import Hires, hires_sizes, second_pass
from .params_refine import Panorama, Tiled
from .step_counts import model_calls, run_steps

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "MULTIPLE",
    "HiresPlan",
    "MaskNumbers",
    "Plan",
    "check_box",
    "inpaint_reach",
    "outputs_of",
    "plan",
    "resolve_mask",
    "upscale_bands",
    "upscaled_size",
    "working_size",
]

MULTIPLE = 8
"""Working sizes, and where the canvas allows boxes, are multiples of this: one latent pixel of every known VAE."""

MAX_SIDE = 100_000
"""Longest side of a canvas: what the editors can hold."""

MAX_PIXELS = 16384 * 16384
"""Most pixels of one box, as `impasto_protocol.version.Limits.pixels`."""

_MIN_SIDE = 64
"""Shortest working side, or half the native one where that is less: networks have nothing to say on fewer pixels."""

_MAX_ASPECT = 4.0
"""Longest working side is twice the native one; networks repeat themselves beyond."""


_BAND_PIXELS = 1 << 21
"""Pixels of one band of an upscale."""


@dataclass(frozen=True)
class MaskNumbers:
    """The mask's lengths, resolved to whole pixels; see the glossary above."""

    grow: int
    feather: int
    blend: int

    @property
    def reach(self) -> int:
        return self.grow + self.feather + self.blend


@dataclass(frozen=True)
class HiresPlan:
    """The hires pass: the size to which the first picture is enlarged, the size of its middle that is painted again,
    steps and calls as those of `Plan`; no steps where it only enlarges."""

    scaled: Size
    working: Size
    steps: int
    calls: int


@dataclass(frozen=True)
class Plan:
    """What to send and what will happen; `warnings` are sentences.

    `steps` are the sampler's, as progress counts them; `calls` are the predictions that they take, summed over the
    pictures of a batch: the work to be done. `working` and both are those of the first pass where a `hires` pass
    follows.
    """

    box: Box
    working: Size
    reach: int
    steps: int
    warnings: tuple[str, ...] = ()
    calls: int = 0
    hires: HiresPlan | None = None

    @property
    def final(self) -> Size:
        """The size at which the picture is made in the end."""
        return self.working if self.hires is None else self.hires.working

    @property
    def all_steps(self) -> int:
        """The steps of both passes."""
        return self.steps if self.hires is None else self.steps + self.hires.steps


def plan(mode: str, params: ModeParams, canvas: Size, selection: Box | None, native_size: int) -> Plan:
    """The plan of one job.

    Raises RequestError `request.empty_selection` where inpainting has no selection, and `request.bad_geometry` where
    the canvas is empty or too large or the selection lies beside it.
    """
    whole = _check_canvas(canvas)
    bounds = _check_selection(mode, whole, selection)
    if isinstance(params, Inpaint):
        assert bounds is not None  # _check_selection refused None
        # The inverse of a selection reaches to every border.
        everything = params.invert or params.area == "whole"
        box = whole if everything else _context_box(params, whole, bounds, native_size)
    else:
        box = bounds or whole
    return _plan_for(params, box, bounds, native_size)


def check_box(mode: str, params: ModeParams, canvas: Size, selection: Box | None, native_size: int, box: Box) -> Plan:
    """The plan for a box that a client chose by itself: any box on the canvas that contains the mask is accepted.

    Raises what `plan` raises, and `request.bad_geometry` where the box leaves the canvas or cuts the mask.
    """
    whole = _check_canvas(canvas)
    bounds = _check_selection(mode, whole, selection)
    if box.width < 1 or box.height < 1 or not whole.contains(box):
        raise RequestError(
            "request.bad_geometry",
            f"The box {tuple(box)} does not lie on the canvas of {canvas.width} x {canvas.height} pixels; "
            "send a part of the canvas.",
            path="box",
        )
    if isinstance(params, Inpaint) and bounds is not None and not box.contains(bounds):
        raise RequestError(
            "request.bad_geometry",
            f"The box {tuple(box)} cuts the selection {tuple(bounds)}; send a box that contains it, such as the one "
            "that plan answers.",
            path="box",
        )
    return _plan_for(params, box, bounds, native_size)


def resolve_mask(params: Inpaint, selection: Box, native_size: int) -> MaskNumbers:
    """Grow, feather and blend in pixels, for the selection's bounds as it was drawn, inverted or not.

    Automatic: grow 4 px; feather 10 % of the diagonal, at least 32 px, both times the strength; blend 25 px, at most
    grow + feather / 2. With `exact` all three are 0.
    """
    if params.exact:
        return MaskNumbers(0, 0, 0)
    scale = native_size / 512
    diagonal = math.hypot(selection.width, selection.height)
    grow = _resolve(params.grow, 4 * scale)
    feather = _resolve(params.feather, max(0.1 * diagonal, 32 * scale) * params.strength)
    blend = _resolve(params.blend, min(25 * scale, grow + feather / 2))
    return MaskNumbers(grow, feather, blend)


def inpaint_reach(params: Inpaint, selection: Box, native_size: int) -> int:
    """Pixels beyond the mask at which the layer is certainly transparent."""
    return resolve_mask(params, selection, native_size).reach


def working_size(size: Size, native_size: int) -> Size:
    """The size at which the model works on a box of `size`: about native² pixels, the box's aspect, multiples of 8.

    A box that is already such a size (0.9 to 1.5 times native² and within the aspect limit) is not resampled.
    """
    area = native_size * native_size
    long, short = max(size), min(size)
    fits = size.width % MULTIPLE == 0 and size.height % MULTIPLE == 0
    if fits and 0.9 * area <= size.area <= 1.5 * area and long <= _MAX_ASPECT * short:
        return size
    aspect = min(max(size.width / size.height, 1 / _MAX_ASPECT), _MAX_ASPECT)
    root = math.sqrt(aspect)
    return Size(_snap(native_size * root, native_size), _snap(native_size / root, native_size))


def upscaled_size(params: Upscale, size: Size) -> Size:
    """The size of the result, rounded to whole pixels.

    Raises RequestError `request.bad_geometry` where it is above MAX_PIXELS or longer than MAX_SIDE.
    """
    result = params.target(size)
    if result.area > MAX_PIXELS or max(result) > MAX_SIDE:
        sized = "width" if params.width else "height" if params.height else "scale"
        raise RequestError(
            "request.bad_geometry",
            f"Of {size.width} x {size.height} pixels it would make {result.width} x {result.height}, above the limit "
            f"of {MAX_PIXELS} pixels and {MAX_SIDE} a side; choose a smaller {sized}.",
            path=f"params.{sized}",
            data={"limit": MAX_PIXELS},
        )
    return result


def upscale_bands(result: Size) -> int:
    """In how many bands of rows an upscale is done; each takes about the same memory, whatever the size."""
    return max(1, min(result.height, math.ceil(result.area / _BAND_PIXELS)))


def _plan_for(params: ModeParams, box: Box, bounds: Box | None, native_size: int) -> Plan:
    if box.size.area > MAX_PIXELS:
        raise RequestError(
            "request.bad_geometry",
            f"A box of {box.width} x {box.height} pixels is above the limit of {MAX_PIXELS} pixels; "
            "select a smaller part.",
            path="box",
            data={"limit": MAX_PIXELS},
        )
    if isinstance(params, Upscale):
        working = upscaled_size(params, box.size)
        return Plan(box, working, 0, upscale_bands(working))
    if isinstance(params, (Annotate, FaceSwap)):
        return Plan(box, box.size, 0, 1)
    reach = 0
    steps = run_steps(params)
    working = working_size(box.size, native_size)
    if isinstance(params, Inpaint):
        assert bounds is not None
        reach = inpaint_reach(params, bounds, native_size)
        steps = run_steps(params, params.strength)
        working = _in_eights(box.size) if params.panorama else working
    elif isinstance(params, Refine):
        working = _in_eights(box.size)
        steps = run_steps(params, params.strength) if params.strength > 0 else 0
    elif isinstance(params, Img2Img):
        steps = run_steps(params, params.strength)
    elif isinstance(params, Txt2Img):
        working = _txt2img_size(params, box.size, native_size)
    hires = _hires_plan(params, working)
    final = working if hires is None else hires.working
    if isinstance(params, Txt2Img):
        box = _fit_aspect(box, final)
    calls = model_calls(params.sampler, steps) * params.batch
    if isinstance(params, Refine) or (isinstance(params, Panorama) and params.panorama):
        calls = math.ceil(calls * _tiles_share(params, working, native_size))
    return Plan(box, working, reach, steps, _warnings(box, final), calls, hires)


def _in_eights(size: Size) -> Size:
    """At least `size`, in multiples of 8."""
    return Size(*(max(math.ceil(side / MULTIPLE), 1) * MULTIPLE for side in size))


def _tiles_share(params: Tiled, size: Size, native_size: int) -> float:
    """The pixels of all tiles against those of the picture."""
    side, overlap = params.tile_side(native_size), params.tile_overlap(native_size)
    across, down = (_tile_count(length, side, overlap) for length in size)
    return across * min(side, size.width) * down * min(side, size.height) / size.area


def _tile_count(length: int, side: int, overlap: int) -> int:
    return 1 if length <= side else math.ceil((length - overlap) / (side - overlap))


def _hires_plan(params: DiffusionParams, working: Size) -> HiresPlan | None:
    if not isinstance(params, Hires) or not params.hires:
        return None
    scaled, final = hires_sizes(params, working)
    if final.area > MAX_PIXELS:
        raise RequestError(
            "request.bad_geometry",
            f"The hires pass would have {final.width} x {final.height} pixels, above the limit of {MAX_PIXELS}; choose "
            "a smaller scale.",
            path="params.hires_scale",
            data={"limit": MAX_PIXELS},
        )
    own = second_pass(params)
    steps = own.get("steps", params.steps) if params.hires_strength > 0 else 0
    return HiresPlan(scaled, final, steps, model_calls(own.get("sampler", params.sampler), steps) * params.batch)


def outputs_of(params: ModeParams) -> int:
    """How many layers the job of these parameters makes."""
    if not isinstance(params, Common):
        return 1
    kept = isinstance(params, Hires) and params.hires and params.hires_keep_first
    return params.batch * (2 if kept else 1)


def _check_canvas(canvas: Size) -> Box:
    if canvas.width < 1 or canvas.height < 1 or max(canvas) > MAX_SIDE:
        raise RequestError(
            "request.bad_geometry",
            f"A canvas of {canvas.width} x {canvas.height} pixels cannot be used; its sides must be from 1 to "
            f"{MAX_SIDE} pixels.",
            path="canvas",
            data={"limit": MAX_SIDE},
        )
    return Box.of_size(canvas)


def _check_selection(mode: str, canvas: Box, selection: Box | None) -> Box | None:
    """The part of the selection that lies on the canvas."""
    if selection is None or selection.width < 1 or selection.height < 1:
        if mode != "inpaint" and selection is None:
            return None
        raise RequestError(
            "request.empty_selection",
            "Nothing is selected; select what is to be repainted, or use image to image for the whole picture.",
            path="selection",
        )
    bounds = selection.intersect(canvas)
    if bounds is None:
        raise RequestError(
            "request.bad_geometry",
            f"The selection {tuple(selection)} lies beside the canvas of {canvas.width} x {canvas.height} pixels; "
            "select a part of the picture.",
            path="selection",
        )
    return bounds


def _context_box(params: Inpaint, canvas: Box, bounds: Box, native_size: int) -> Box:
    """The selection with its reach and its surroundings, at least native where the canvas allows, moved into it."""
    numbers = resolve_mask(params, bounds, native_size)
    needed = bounds.grow(numbers.reach).intersect(canvas)
    assert needed is not None  # bounds lie on the canvas
    wanted_width, wanted_height = float(bounds.width), float(bounds.height)
    if params.padding != AUTO:
        # A1111's meaning: so many pixels around the mask, on every side.
        padding = max(_resolve(params.padding, 0), numbers.reach)
        wanted_width += 2 * padding
        wanted_height += 2 * padding
    else:
        padding = max(_auto_padding(params, canvas, bounds, numbers, native_size), numbers.reach)
        wanted_width += 2 * padding
        wanted_height += 2 * padding
        # Half-way (in log aspect) to a square of the same area: networks were trained on squares.
        side = math.sqrt(wanted_width * wanted_height)
        wanted_width, wanted_height = math.sqrt(wanted_width * side), math.sqrt(wanted_height * side)
    width = _box_side(max(wanted_width, needed.width, native_size), canvas.width)
    height = _box_side(max(wanted_height, needed.height, native_size), canvas.height)
    x = _place(bounds.x, bounds.width, width, needed.x, needed.right)
    y = _place(bounds.y, bounds.height, height, needed.y, needed.bottom)
    return Box(x, y, width, height).shift_into(canvas)


def _auto_padding(params: Inpaint, canvas: Box, bounds: Box, numbers: MaskNumbers, native_size: int) -> int:
    if params.strength >= 1.0:
        # What is new must fit its surroundings: the more of them the better.
        return math.ceil(max(max(canvas.size) / 16, (bounds.width + bounds.height) / 4))
    # What is there guides the model already: the rim is enough.
    diagonal = math.hypot(bounds.width, bounds.height)
    return math.ceil(numbers.feather + numbers.grow + 0.06 * diagonal)


def _place(start: int, extent: int, side: int, needed_start: int, needed_end: int) -> int:
    """Left end of an interval of length `side`, centred on the selection but never cutting what is needed."""
    centred = start + (extent - side) // 2
    return min(max(centred, needed_end - side), needed_start)


def _box_side(wanted: float, limit: int) -> int:
    return min(math.ceil(wanted / MULTIPLE) * MULTIPLE, limit)


def _resolve(value: Number, automatic: float) -> int:
    return round(automatic if isinstance(value, str) else value)


def _snap(side: float, native_size: int) -> int:
    return max(round(side / MULTIPLE) * MULTIPLE, min(_MIN_SIDE, native_size // 2))


def _txt2img_size(params: Txt2Img, area: Size, native_size: int) -> Size:
    """The asked size in multiples of 8; a side of 0 follows from the other one and the aspect of `area`."""
    aspect = min(max(area.width / area.height, 1 / _MAX_ASPECT), _MAX_ASPECT)
    if params.width and params.height:
        return Size(_snap(params.width, native_size), _snap(params.height, native_size))
    if params.width:
        return Size(_snap(params.width, native_size), _snap(params.width / aspect, native_size))
    if params.height:
        return Size(_snap(params.height * aspect, native_size), _snap(params.height, native_size))
    return _in_eights(area) if params.panorama else working_size(area, native_size)


def _fit_aspect(box: Box, working: Size) -> Box:
    """The largest part of `box`, centred, with the aspect of `working`; differences from snapping are let pass."""
    scale = min(box.width / working.width, box.height / working.height)
    slack = scale * MULTIPLE
    if box.width - working.width * scale <= slack and box.height - working.height * scale <= slack:
        return box
    width, height = max(round(working.width * scale), 1), max(round(working.height * scale), 1)
    return Box(box.x + (box.width - width) // 2, box.y + (box.height - height) // 2, width, height)


def _warnings(box: Box, working: Size) -> tuple[str, ...]:
    warnings = []
    if box.size.area > 1.5 * working.area:
        warnings.append(
            f"The result is made at {working.width} x {working.height} pixels and scaled up to "
            f"{box.width} x {box.height}; a smaller selection keeps more detail."
        )
    if max(box.size) > _MAX_ASPECT * min(box.size):
        warnings.append(
            f"The area of {box.width} x {box.height} pixels is long and narrow; the model sees it distorted."
        )
    return tuple(warnings)
