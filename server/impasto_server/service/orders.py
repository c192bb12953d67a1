"""From a submit to a job that can run: everything is checked here, before it is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from impasto_protocol.errors import AssetError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import ImageFormat
from impasto_protocol.messages import InputPicture, Submit
from impasto_protocol.version import Limits

from ..engine.jobs import Job, Pixels, PreviewRequest
from ..engine.modes import MODES, Annotate, Sketch
from ..engine.planning import Plan, check_box, plan
from ..engine.prompt_words import WordSources
from .blobs import Held, bytes_of
from .catalogue import Catalogue
from .chain_orders import LinkOrder, chain_of, check_chain, job_of
from .control_orders import CONTROL_INPUT, Guides, guides_of, with_pictures
from .pixels import check_bytes, from_wire, mask_from_wire
from .preprocessors import annotators_for, check_joints
from .resolving import Resolved, resolve

__all__ = ["OUTPUT_FORMATS", "Order", "check_inputs", "check_order", "plan_for", "to_engine_job"]

OUTPUT_FORMATS = ("rgba8", "bgra8")


@dataclass(frozen=True)
class Order:
    """A submit that has been checked: `settings` and `plans` of its picture, or of each of its variants."""

    submit: Submit
    settings: tuple[Resolved, ...]
    box: Box
    plans: tuple[Plan, ...]
    guides: Guides = field(default_factory=Guides)
    annotators: tuple[str, ...] = ()
    links: tuple[LinkOrder, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """The pictures it needs."""
        return tuple(picture.digest for picture in self.submit.inputs.values())


def plan_for(
    catalogue: Catalogue,
    mode: str,
    values: Mapping[str, object],
    canvas: Size,
    selection: Box | None,
    sources: WordSources | None = None,
) -> tuple[tuple[Plan, ...], tuple[Resolved, ...]]:
    """What the job would need, for each of its variants; see engine.planning.plan and `resolve` for what it raises.

    Touches the disk where prompts name styles or wildcards.
    """
    settings = resolve(catalogue, sources or WordSources(), mode, values)
    planned = tuple(plan(mode, each.params, canvas, selection, each.native_size) for each in settings)
    first = settings[0]
    if first.partner_of and first.model is not None:
        said = f"Inpaints with {first.model.id}, the inpainting partner of {first.partner_of}."
        planned = (replace(planned[0], warnings=(*planned[0].warnings, said)), *planned[1:])
    return planned, settings


def check_inputs(submit: Submit, limits: Limits) -> None:
    """Names, formats and sizes of the pictures, before their bytes are looked at. Raises RequestError, AssetError."""
    if submit.mode not in MODES:
        return  # resolve_params tells it
    if submit.output_format not in OUTPUT_FORMATS:
        raise RequestError(
            "request.invalid_param",
            f"The output format {submit.output_format[:20]!r} is not known; ask for {' or '.join(OUTPUT_FORMATS)}.",
            path="output_format",
        )
    taken = {i.name: i for i in MODES[submit.mode][2]}
    for name, picture in submit.inputs.items():
        path = f"inputs.{name[:40]}"
        if name not in taken and not ("control_*" in taken and CONTROL_INPUT.fullmatch(name)):
            needs = ", ".join(taken) or "no pictures"
            raise RequestError(
                "request.invalid_param",
                f"The mode {submit.mode} takes no input {name[:40]!r}; it takes {needs}.",
                path=path,
            )
        ImageFormat(picture.width, picture.height, picture.format).check(limits.pixels, path)
    for name, need in taken.items():
        if need.required and name not in submit.inputs:
            raise RequestError(
                "request.missing_input",
                f"The mode {submit.mode} needs the input {name!r} ({need.title}); send it with the job.",
                path=f"inputs.{name}",
            )
    image = submit.inputs.get("image")
    for name in ("mask", "backdrop"):
        other = submit.inputs.get(name)
        if image is not None and other is not None and box_of(other) != box_of(image):
            raise RequestError(
                "request.bad_geometry",
                f"The {name} covers {tuple(box_of(other))} and the picture {tuple(box_of(image))} "
                "[x, y, width, height]; send both for the same box.",
                path=f"inputs.{name}",
            )


def check_order(
    submit: Submit, catalogue: Catalogue, pictures: Mapping[str, Held], sources: WordSources | None = None
) -> Order:
    """The whole submit with the links of its chain; see `_check_first` for what is raised of the first job, and
    `check_chain` for them."""
    order = _check_first(submit, catalogue, pictures, sources)
    if not submit.then:
        return order
    links = check_chain(submit.then, catalogue, sources or WordSources(), order.settings, order.box, order.plans[0])
    return replace(order, links=links)


def _check_first(
    submit: Submit, catalogue: Catalogue, pictures: Mapping[str, Held], sources: WordSources | None
) -> Order:
    """The first job, `check_inputs` done; looks at all pixels of the mask and at the files of `sources`, so run it
    off the event loop.

    `pictures` holds them by digest. Raises RequestError, AssetError, ModelError.
    """
    settings = resolve(catalogue, sources or WordSources(), submit.mode, submit.params)
    params = settings[0].params
    guides = guides_of(catalogue, params, settings[0].model, submit.inputs)
    own: tuple[str, ...] = ()
    if isinstance(params, Annotate):
        check_joints(params.preprocessor, params.pose, "the picture", "params")
        own = annotators_for(catalogue, params.preprocessor, params.pose, "the picture", "params")
    for name in submit.inputs.keys() - {"image", "mask", "backdrop"}:
        picture = submit.inputs[name]
        size = len(_held(picture, pictures, f"inputs.{name}"))
        check_bytes(size, picture.width, picture.height, picture.format, f"inputs.{name}")
    image, mask = submit.inputs.get("image"), submit.inputs.get("mask")
    if image is None:
        asked = submit.box if submit.box is not None else Box.of_size(submit.canvas)
        plans = _plans(submit, settings, None, asked)
        return Order(submit, settings, asked if len(plans) > 1 else plans[0].box, plans, guides, own)
    box = box_of(image)
    if submit.box is not None and submit.box != box:
        raise RequestError(
            "request.bad_geometry",
            f"The box {tuple(submit.box)} is not the one that the picture covers, {tuple(box)}; leave it out.",
            path="box",
        )
    check_bytes(len(_held(image, pictures, "inputs.image")), image.width, image.height, image.format, "inputs.image")
    backdrop = submit.inputs.get("backdrop")
    if backdrop is not None:
        size = len(_held(backdrop, pictures, "inputs.backdrop"))
        check_bytes(size, backdrop.width, backdrop.height, backdrop.format, "inputs.backdrop")
    elif isinstance(params, Sketch) and params.background == "document":
        raise RequestError(
            "request.missing_input",
            "A sketch over the document needs the document as the input 'backdrop'; send it, or take white.",
            path="inputs.backdrop",
        )
    selection = None
    if mask is not None:
        selection = _selected(_mask(mask, pictures), box)
        if selection is None:
            raise RequestError(
                "request.empty_selection",
                "Nothing is selected inside the picture that was sent; select what is to be repainted.",
                path="inputs.mask",
            )
    return Order(submit, settings, box, _plans(submit, settings, selection, box), guides, own)


def _plans(submit: Submit, settings: tuple[Resolved, ...], selection: Box | None, box: Box) -> tuple[Plan, ...]:
    return tuple(
        check_box(submit.mode, each.params, submit.canvas, selection, each.native_size, box) for each in settings
    )


def to_engine_job(order: Order, pictures: Mapping[str, Held]) -> Job:
    """The engine's job: pictures as arrays, nothing left to look up."""
    submit, first = order.submit, order.settings[0]
    image, mask, backdrop = (submit.inputs.get(name) for name in ("image", "mask", "backdrop"))
    wish = submit.preview

    def input_pixels(name: str) -> Pixels:
        return _pixels(submit.inputs[name], pictures, f"inputs.{name}")

    return job_of(
        first,
        id=submit.job,
        mode=submit.mode,
        canvas=submit.canvas,
        box=order.box,
        image=_pixels(image, pictures, "inputs.image") if image is not None else None,
        mask=_mask(mask, pictures) if mask is not None else None,
        backdrop=_pixels(backdrop, pictures, "inputs.backdrop") if backdrop is not None else None,
        preview=PreviewRequest(wish.max_size, wish.interval_ms / 1000) if wish is not None else None,
        cells=tuple(each.cell for each in order.settings if each.cell is not None),
        control=with_pictures(order.guides.control, first.params, input_pixels),
        references=with_pictures(order.guides.references, first.params, input_pixels),
        ip_adapters=with_pictures(order.guides.ip_adapters, first.params, input_pixels),
        regions=with_pictures(order.guides.regions, first.params, input_pixels),
        annotators=order.annotators,
        chain=chain_of(order.links),
    )


def box_of(picture: InputPicture) -> Box:
    return Box(picture.x, picture.y, picture.width, picture.height)


def _held(picture: InputPicture, pictures: Mapping[str, Held], path: str) -> Held:
    if picture.digest not in pictures:
        raise AssetError(
            "asset.missing",
            "The server does not have this picture (any more); send it again.",
            retryable=True,
            path=path,
            data={"digests": [picture.digest]},
        )
    return pictures[picture.digest]


def _pixels(picture: InputPicture, pictures: Mapping[str, Held], path: str) -> Pixels:
    return from_wire(bytes_of(_held(picture, pictures, path)), picture.width, picture.height, picture.format, path)


def _mask(picture: InputPicture, pictures: Mapping[str, Held]) -> Pixels:
    data = bytes_of(_held(picture, pictures, "inputs.mask"))
    return mask_from_wire(data, picture.width, picture.height, picture.format)


def _selected(mask: Pixels, box: Box) -> Box | None:
    """Bounds of what is > 0, in document pixels."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return Box(box.x + x, box.y + y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
