"""What a job brings, checked against its box: pictures of the right size, a mask that selects something."""

from __future__ import annotations

from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Box

from .jobs import Job
from .masks import bounds_of
from .modes import Inpaint, Sketch
from .planning import Plan, check_box, plan

__all__ = ["mask_bounds", "planned_for"]


def planned_for(job: Job, native_size: int) -> Plan:
    """The plan for the box that was sent, with the inputs checked against it.

    Raises RequestError `request.missing_input`, `request.bad_geometry`, `request.empty_selection`.
    """
    if job.mode == "txt2img":
        return plan(job.mode, job.params, job.canvas, job.box, native_size)
    over_document = isinstance(job.params, Sketch) and job.params.background == "document"
    for name, pixels, depth, needed in (
        ("image", job.image, (4,), True),
        ("mask", job.mask, (), job.mode == "inpaint"),
        ("backdrop", job.backdrop, (4,), over_document),
    ):
        if not needed:
            continue
        if pixels is None:
            raise RequestError(
                "request.missing_input", f"The mode {job.mode} needs the input {name}; send it.", path=name
            )
        expected = (job.box.height, job.box.width, *depth)
        if pixels.shape != expected:
            raise RequestError(
                "request.bad_geometry",
                f"The input {name} has the shape {pixels.shape} where the box asks for {expected}; "
                "send exactly the box.",
                path=name,
            )
    selection = mask_bounds(job) if job.mode == "inpaint" else job.box
    if isinstance(job.params, Inpaint) and job.params.invert and job.mask is not None and (job.mask == 255).all():
        raise RequestError(
            "request.empty_selection",
            "Everything is selected, so the inverted selection is empty; select what is to be kept.",
            path="mask",
        )
    return check_box(job.mode, job.params, job.canvas, selection, native_size, job.box)


def mask_bounds(job: Job) -> Box:
    """The bounds of what was selected, before any inversion, in document pixels."""
    bounds = None if job.mask is None else bounds_of(job.mask)
    if bounds is None:
        raise RequestError(
            "request.empty_selection",
            "Nothing is selected inside the picture that was sent; select what is to be repainted.",
            path="mask",
        )
    return Box(job.box.x + bounds.x, job.box.y + bounds.y, bounds.width, bounds.height)
