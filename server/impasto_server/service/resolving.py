"""Parameters as a client sends them -> everything they name: models, LoRAs, words, variants; checked as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from impasto_protocol.errors import ModelError

from ..engine.addon_names import lora_names
from ..engine.jobs import Cell
from ..engine.modes import Common, FaceSwap, Inpaint, ModeParams, Txt2Img, Upscale, parse_params
from ..engine.params_hires import LATENT_UPSCALERS, Hires
from ..engine.prompt_words import WordFiles, WordSources, check_words
from ..engine.variants import Variant, variants_of
from ..engine.wildcards import strip_comments
from .catalogue import EDITS, Catalogue, Model
from .vae_choice import Vaes, choose_vaes

__all__ = ["Resolved", "path_of", "resolve", "resolve_params"]


@dataclass(frozen=True)
class Resolved:
    """The parameters of one picture (or batch) and what they name. `model` is what runs: a
    checkpoint, an upscaler, a face profile."""

    params: ModeParams
    model: Model | None
    words: WordFiles = field(default_factory=WordFiles)
    loras: Mapping[str, str] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    hires_model: Model | None = None
    hires_upscaler: Model | None = None
    vaes: Vaes = field(default_factory=Vaes)
    variant: Variant | None = None
    second_upscaler: Model | None = None

    @property
    def native_size(self) -> int:
        """The checkpoint's own size; a mode without one does not ask."""
        return self.model.native_size if self.model is not None else 0

    @property
    def partner_of(self) -> str:
        """The checkpoint that was asked for, where the model that runs is its partner; else ""."""
        if not isinstance(self.params, Common) or self.model is None or self.model.id == self.params.model:
            return ""
        return self.params.model

    @property
    def cell(self) -> Cell | None:
        """What the engine's job has of it as a variant."""
        if self.variant is None:
            return None
        return Cell(
            self.variant,
            self.params,
            path_of(self.model),
            self.partner_of,
            self.words,
            self.loras,
            self.embeddings,
            path_of(self.hires_model),
            path_of(self.hires_upscaler),
            self.vaes.files,
        )


def path_of(model: Model | None) -> str:
    """Where it lies; "" for none."""
    return str(model.path) if model is not None else ""


def resolve(
    catalogue: Catalogue, sources: WordSources, mode: str, values: Mapping[str, object]
) -> tuple[Resolved, ...]:
    """Everything that the parameters name: one entry, or one for each variant.

    Touches the disk where prompts name styles or wildcards: keep it off an event loop. Raises RequestError and
    ModelError as the run would, as far as it can be known before.
    """
    variants = variants_of(mode, values)
    if not variants:
        return (_resolved(catalogue, sources, mode, values, None),)
    # What is wrong with the job itself is told before what a variant makes wrong.
    resolve_params(catalogue, mode, {**values, "vary": []})
    return tuple(_resolved(catalogue, sources, mode, variant.params, variant) for variant in variants)


def resolve_params(catalogue: Catalogue, mode: str, values: Mapping[str, object]) -> tuple[ModeParams, Model | None]:
    """Checked parameters and the model that will run, whose hints are the defaults; None for a mode without one.

    `params.model` is the checkpoint that was asked for; inpainting runs its inpainting partner where it has one.
    Raises RequestError and ModelError; a wrong type is told before a wrong name.
    """
    first = parse_params(mode, values)
    if isinstance(first, Upscale):
        return first, catalogue.upscaler(first.upscaler) if first.upscaler else None
    if isinstance(first, FaceSwap):
        return first, catalogue.face(first.profile)
    if not isinstance(first, Common):
        return first, None
    model = catalogue.checkpoint(first.model)
    partner = catalogue.partner_of(model) if isinstance(first, Inpaint) and first.use_partner else None
    runs = partner or model
    if runs.facts.variant == EDITS and isinstance(first, Txt2Img):
        raise ModelError(
            "model.unsupported",
            f"The model {runs.id!r} changes a picture by an instruction and makes none by itself; take image to image, "
            "or another model.",
            path="params.model",
            data={"model": runs.id},
        )
    return parse_params(mode, {**values, "model": model.id}, hints=runs.hints), runs


def _resolved(
    catalogue: Catalogue,
    sources: WordSources,
    mode: str,
    values: Mapping[str, object],
    variant: Variant | None,
) -> Resolved:
    params, model = resolve_params(catalogue, mode, values)
    words = sources.gather(params)
    check_words(params, words)
    loras, embeddings = _addons(catalogue, params, model, words)
    hires = _of_hires(catalogue, params, model)
    vaes = choose_vaes(catalogue, params, model, hires[0])
    second = None
    if isinstance(params, Upscale) and params.second_share > 0 and params.second_upscaler:
        with _told_of("params.second_upscaler"):
            second = catalogue.upscaler(params.second_upscaler)
    return Resolved(params, model, words, loras, embeddings, *hires, vaes, variant, second)


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
    whole = model.facts.kind == "checkpoint" and not params.text_encoder
    loras: dict[str, str] = {}
    for index, use in enumerate(params.lora_uses):
        loras[use.name] = _fitting(catalogue, use.name, model, f"params.loras[{index}].model", whole)
    again = (params.hires_prompt, params.hires_negative_prompt) if isinstance(params, Hires) else ("", "")
    written = [params.prompt, *(style.prompt for style in words.styles.values()), again[0]]
    chosen = [line for lines in words.wildcards.values() for line in lines]
    for text in (*written, *chosen):
        for name in lora_names(strip_comments(text)):
            if "{" in name:  # the name itself is a choice
                loras |= catalogue.loras(family)
                continue
            with suppress(ModelError) if text in chosen else nullcontext():
                loras[name] = _fitting(catalogue, name, model, "params.prompt", whole)
    negative = [params.negative_prompt, *(style.negative_prompt for style in words.styles.values()), again[1]]
    if whole:
        for name in ("prompt", "negative_prompt"):
            text = strip_comments(getattr(params, name))
            if "{" not in text:  # choices may leave it out
                catalogue.check_embeddings(text, model, f"params.{name}")
    regions = [str(entry[side]) for entry in params.regions for side in ("prompt", "negative")]
    if whole:
        for index, entry in enumerate(params.regions):
            for side in ("prompt", "negative"):
                catalogue.check_embeddings(strip_comments(str(entry[side])), model, f"params.regions[{index}].{side}")
    return loras, catalogue.embeddings([*written, *negative, *regions, *chosen])


def _fitting(catalogue: Catalogue, name: str, model: Model, path: str, whole: bool) -> str:
    """The file of a LoRA that fits the model that runs, told now if that is all in one file. Raises ModelError."""
    found = catalogue.lora(name, path, model.facts.family)
    if whole:
        catalogue.check_lora(found, model, path)
    return str(found.path)


def _of_hires(catalogue: Catalogue, params: ModeParams, model: Model | None) -> tuple[Model | None, Model | None]:
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
