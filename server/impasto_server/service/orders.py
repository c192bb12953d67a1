"""From a submit to a job that can run: everything is checked here, before it is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace

import numpy as np
from impasto_protocol.errors import AssetError, ModelError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.images import ImageFormat
from impasto_protocol.messages import InputPicture, Submit
from impasto_protocol.version import Limits

from ..engine.addon_names import lora_names
from ..engine.jobs import ControlUnit, Job, Pixels, PreviewRequest
from ..engine.modes import MODES, Common, Inpaint, ModeParams, Sketch, Upscale, parse_params
from ..engine.params_hires import LATENT_UPSCALERS, Hires
from ..engine.planning import Plan, check_box, plan
from ..engine.prompt_words import WordFiles, WordSources, check_words
from ..engine.wildcards import strip_comments
from .blobs import Held, bytes_of
from .catalogue import Catalogue, Model
from .control_orders import CONTROL_INPUT, control_of, with_pictures
from .pixels import check_bytes, from_wire, mask_from_wire

__all__ = ["OUTPUT_FORMATS", "Order", "check_inputs", "check_order", "plan_for", "resolve_params", "to_engine_job"]

OUTPUT_FORMATS = ("rgba8", "bgra8")


@dataclass(frozen=True)
class Order:
    """A submit that has been checked. `model` is the one that runs: `params.model`, or its inpainting partner."""

    submit: Submit
    params: ModeParams
    model: Model | None
    box: Box
    plan: Plan
    words: WordFiles = field(default_factory=WordFiles)
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hires_model: Model | None = None
    hires_upscaler: Model | None = None
    control: tuple[ControlUnit, ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """The pictures it needs."""
        return tuple(picture.digest for picture in self.submit.inputs.values())


def resolve_params(catalogue: Catalogue, mode: str, values: Mapping[str, object]) -> tuple[ModeParams, Model | None]:
    """Checked parameters and the model that will run, whose hints are the defaults; None for a mode without one.

    `params.model` is the checkpoint that was asked for; inpainting runs its inpainting partner where it has one.
    Raises RequestError and ModelError; a wrong type is told before a wrong name.
    """
    first = parse_params(mode, values)
    if isinstance(first, Upscale):
        return first, catalogue.upscaler(first.upscaler) if first.upscaler else None
    if not isinstance(first, Common):
        return first, None
    model = catalogue.checkpoint(first.model)
    partner = catalogue.partner_of(model) if isinstance(first, Inpaint) and first.use_partner else None
    runs = partner or model
    return parse_params(mode, {**values, "model": model.id}, hints=runs.hints), runs


def plan_for(
    catalogue: Catalogue, mode: str, values: Mapping[str, object], canvas: Size, selection: Box | None
) -> tuple[Plan, Model | None]:
    """What the job would need; see engine.planning.plan for what it raises."""
    params, model = resolve_params(catalogue, mode, values)
    planned = plan(mode, params, canvas, selection, _native(model))
    asked = _partner_of(params, model)
    if asked and model is not None:
        said = f"Inpaints with {model.id}, the inpainting partner of {asked}."
        planned = replace(planned, warnings=(*planned.warnings, said))
    return planned, model


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
    """The whole submit, `check_inputs` done; looks at all pixels of the mask and at the files of `sources`, so run it
    off the event loop.

    `pictures` holds them by digest. Raises RequestError, AssetError, ModelError.
    """
    params, model = resolve_params(catalogue, submit.mode, submit.params)
    words = (sources or WordSources()).gather(params)
    check_words(params, words)
    loras, embeddings = _addons(catalogue, params, model, words)
    control = control_of(catalogue, params, model, submit.inputs)
    for name in submit.inputs.keys() - {"image", "mask", "backdrop"}:
        picture = submit.inputs[name]
        size = len(_held(picture, pictures, f"inputs.{name}"))
        check_bytes(size, picture.width, picture.height, picture.format, f"inputs.{name}")
    files = (words, loras, embeddings, *_of_hires(catalogue, submit.mode, params, model), control)
    image, mask = submit.inputs.get("image"), submit.inputs.get("mask")
    if image is None:
        asked = submit.box if submit.box is not None else Box.of_size(submit.canvas)
        planned = check_box(submit.mode, params, submit.canvas, None, _native(model), asked)
        return Order(submit, params, model, planned.box, planned, *files)
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
    planned = check_box(submit.mode, params, submit.canvas, selection, _native(model), box)
    return Order(submit, params, model, box, planned, *files)


def to_engine_job(order: Order, pictures: Mapping[str, Held]) -> Job:
    """The engine's job: pictures as arrays, nothing left to look up."""
    submit = order.submit
    image, mask, backdrop = (submit.inputs.get(name) for name in ("image", "mask", "backdrop"))
    wish = submit.preview
    return Job(
        id=submit.job,
        mode=submit.mode,
        params=order.params,
        canvas=submit.canvas,
        box=order.box,
        checkpoint=str(order.model.path) if order.model is not None else "",
        partner_of=_partner_of(order.params, order.model),
        image=_pixels(image, pictures, "inputs.image") if image is not None else None,
        mask=_mask(mask, pictures) if mask is not None else None,
        backdrop=_pixels(backdrop, pictures, "inputs.backdrop") if backdrop is not None else None,
        preview=PreviewRequest(wish.max_size, wish.interval_ms / 1000) if wish is not None else None,
        words=order.words,
        loras=order.loras,
        embeddings=order.embeddings,
        hires_checkpoint=str(order.hires_model.path) if order.hires_model is not None else "",
        hires_upscaler=str(order.hires_upscaler.path) if order.hires_upscaler is not None else "",
        control=with_pictures(
            order.control, order.params, lambda name: _pixels(submit.inputs[name], pictures, f"inputs.{name}")
        ),
    )


def _addons(
    catalogue: Catalogue, params: ModeParams, model: Model | None, words: WordFiles
) -> tuple[dict[str, str], dict[str, str]]:
    """Paths of the LoRAs that parameters and prompts ask for, and of the embeddings whose names may stand in them.

    Raises ModelError for a LoRA that is not there or does not fit, but for those that only a line of a wildcard names:
    it may never be chosen.
    """
    if not isinstance(params, Common) or model is None:
        return {}, {}
    family = model.facts.family
    loras: dict[str, str] = {}
    for index, use in enumerate(params.lora_uses):
        loras[use.name] = str(catalogue.lora(use.name, f"params.loras[{index}].model", family).path)
    again = (params.hires_prompt, params.hires_negative_prompt) if isinstance(params, Hires) else ("", "")
    written = [params.prompt, *(style.prompt for style in words.styles.values()), again[0]]
    chosen = [line for lines in words.wildcards.values() for line in lines]
    for text in (*written, *chosen):
        for name in lora_names(strip_comments(text)):
            if "{" in name:  # the name itself is a choice
                loras |= catalogue.loras(family)
                continue
            with suppress(ModelError) if text in chosen else nullcontext():
                loras[name] = str(catalogue.lora(name, "params.prompt", family).path)
    negative = [params.negative_prompt, *(style.negative_prompt for style in words.styles.values()), again[1]]
    return loras, catalogue.embeddings([*written, *negative, *chosen])


def _of_hires(
    catalogue: Catalogue, mode: str, params: ModeParams, model: Model | None
) -> tuple[Model | None, Model | None]:
    """The checkpoint and the upscaler of the hires pass, where it has some of its own.

    Raises ModelError for one that is not there, and a checkpoint of another family.
    """
    if not isinstance(params, Hires) or not params.hires or model is None:
        return None, None
    other = upscaler = None
    if params.hires_model:
        with _told_of("params.hires_model"):
            other = catalogue.checkpoint(params.hires_model)
        if other.facts.family != model.facts.family:
            raise ModelError(
                "model.unsupported",
                f"The hires model {other.id!r} is {other.facts.family}, the model {model.id!r} is "
                f"{model.facts.family}; choose one of the same family.",
                path="params.hires_model",
                data={"model": other.id, "need": model.facts.family, "got": other.facts.family},
            )
    if params.hires_upscaler and params.hires_upscaler not in LATENT_UPSCALERS:
        with _told_of("params.hires_upscaler"):
            upscaler = catalogue.upscaler(params.hires_upscaler)
    return other, upscaler


@contextmanager
def _told_of(path: str) -> Iterator[None]:
    """A ModelError of the block is about the parameter `path`."""
    try:
        yield
    except ModelError as e:
        e.path = path
        raise


def _partner_of(params: ModeParams, model: Model | None) -> str:
    """The checkpoint that was asked for, where the model that runs is its partner; else ""."""
    if not isinstance(params, Common) or model is None or model.id == params.model:
        return ""
    return params.model


def _native(model: Model | None) -> int:
    """The checkpoint's own size; a mode without one does not ask."""
    return model.native_size if model is not None else 0


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
