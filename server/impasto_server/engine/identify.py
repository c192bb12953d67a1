"""What a model file is, told from its header alone: names, shapes and metadata. No torch here.

The rules are mutually exclusive: one of them matches, or the file is `Unknown` with a reason. A family is told by
structure, not by one width, so that small models are recognised too; nothing is assumed that the file does not say,
unless its widths are exactly the original's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ModelError

from .checkpoint import Header
from .families import (
    SD1,
    SDXL,
    Family,
    Misfit,
    Shapes,
    second_text_config,
    text_config,
    text_prefix,
    unet_config,
    vae_config,
)
from .folders import read_folder
from .layout import UNET_PREFIX, VAE_PREFIX, XL_TEXT_2_PREFIX, XL_TEXT_PREFIX
from .modelfile import header_of
from .modelpath import ONNX, PICTURE, is_model_folder
from .modelspec import Facts, read_facts
from .onnxfiles import is_identity_network, read_onnx
from .rules import RULES, Found
from .vae_layout import vae_names

__all__ = ["Identifier", "ModelInfo", "Unknown", "identify_file", "identify_header"]


@dataclass(frozen=True)
class ModelInfo:
    """What a file is.

    `kind`: checkpoint, unet, text-encoder, lora, controlnet, vae, taesd, embedding, ip-adapter, upscaler, transformer,
    annotator, clip-vision, face. `family`: sd1, sd2, sdxl, ...; "" where the file does not tell. `variant`: normal, ...
    `prediction_type`: epsilon, v_prediction, or "" where undecided. `native_size` in pixels, 0 where unknown. `hints`
    are defaults for the parameters of a job. `config` holds the networks' configurations (unet, vae, text) of what can
    be loaded, else None. `layout`: ldm (single-file), diffusers, or "". `inpaint_partner`: the name of the checkpoint
    that is to inpaint in place of this one; "" for none, None where nothing is said. `alias` is the name that a LoRA
    was trained under.
    """

    kind: str
    family: str
    variant: str = ""
    prediction_type: str = ""
    native_size: int = 0
    vae_scaling_factor: float = 0.0
    title: str = ""
    license: str = ""
    hints: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, dict[str, Any]] | None = None
    layout: str = ""
    inpaint_partner: str | None = None
    alias: str = ""

    @property
    def described(self) -> str:
        """A few words for a sentence: 'a LoRA for sdxl'."""
        name = _KINDS.get(self.kind, f"a {self.kind}")
        if self.kind == "upscaler":
            return f"{name} ({self.family})" if self.family else name
        return f"{name} for {self.family}" if self.family else name


_KINDS = {
    "checkpoint": "a checkpoint",
    "unet": "a UNet without text encoder or VAE",
    "lora": "a LoRA",
    "controlnet": "a ControlNet",
    "vae": "a VAE",
    "taesd": "a TAESD",
    "text-encoder": "a text encoder",
    "embedding": "an embedding",
    "picture": "a picture without an embedding",
    "ip-adapter": "an IP-Adapter",
    "upscaler": "an upscaler",
    "transformer": "a diffusion transformer",
    "annotator": "a network that makes hints of pictures",
    "clip-vision": "a vision tower of CLIP",
    "face": "a face profile",
}


@dataclass(frozen=True)
class Unknown:
    """A file that cannot be used, why, and the code and the data of the error that using it would give."""

    reason: str
    code: str = "model.unidentified"
    data: Mapping[str, Any] = field(default_factory=dict)


def identify_file(path: str | Path) -> ModelInfo | Unknown:
    """Say what the file or the diffusers folder at `path` is. Reads headers, configurations and its sidecars; never
    raises for a bad file."""
    return Identifier()(path)


class Identifier:
    """`identify_file` for many files: what follows from the tensors alone is found once for all that have the same.

    For one thread.
    """

    def __init__(self) -> None:
        self._found: dict[bytes, dict[str, ModelInfo | Unknown]] = {}
        """By the structure of the header and the facts that were stated."""

    def __call__(self, path: str | Path) -> ModelInfo | Unknown:
        """What the file or folder is; never raises for a bad one."""
        path = Path(path)
        try:
            if os.path.isdir(path) and is_model_folder(path):
                return self._folder(path)
            if path.suffix.lower() == ONNX:
                return _onnx(path)
            if path.suffix.lower() == PICTURE:
                return _picture(path)
            return self._identified(path, header_of(path, self._found))
        except ModelError as error:
            return Unknown(error.message, error.code, error.data)

    def _folder(self, path: Path) -> ModelInfo | Unknown:
        folder = read_folder(path)
        if not folder.sources:  # of a family that is not read from folders
            return _plain(folder.found, Facts())
        info = self._identified(path, folder.header)
        return replace(info, layout=folder.found.layout) if isinstance(info, ModelInfo) else info

    def _identified(self, path: Path, header: Header) -> ModelInfo | Unknown:
        try:
            facts = read_facts(path, header.metadata)
        except ValueError as error:
            return Unknown(f"What {path.name} says about itself is wrong: {error}.")
        by_facts = self._found.get(header.structure, {})
        found = by_facts.get(said := repr(facts))
        if found is None:
            if by_facts:
                header = header_of(path)
            found = _by_tensors(header.shapes, facts)
            if header.structure:
                if len(self._found) >= _KEPT:
                    self._found.clear()
                self._found.setdefault(header.structure, {})[said] = found
        if isinstance(found, Unknown) and found.code == "model.unidentified" and _among_upscalers(path):
            # Of the many kinds of upscalers only the common ones have a rule; loading it tells whether it is one.
            return ModelInfo("upscaler", "") if header.structure or header.tensors else found
        if isinstance(found, ModelInfo) and found.kind == "taesd" and not found.family:
            found = replace(found, family=_taesd_family(path.name.lower()))
        return _titled(found, header.metadata)


def _picture(path: Path) -> ModelInfo | Unknown:
    """An embedding that travels in a picture, or the picture that it is."""
    from .embedding_pictures import embedding_in

    held = embedding_in(path)
    if held is None:
        return ModelInfo("picture", "")
    return _by_tensors({name: values.shape for name, values in held.items()}, Facts())


def _onnx(path: Path) -> ModelInfo | Unknown:
    """By inputs and outputs."""
    facts = read_onnx(path)
    given = [shape for shape in facts.inputs.values() if len(shape) == 4]
    if is_identity_network(facts):
        return ModelInfo("annotator", "", "face-identity")
    for shape in facts.outputs.values():
        if given and len(shape) == 3 and shape[1] == 133:
            return ModelInfo("annotator", "", "whole-body")
        if given and len(shape) == 3 and shape[2] == 85:
            return ModelInfo("annotator", "", "people-detector")
    return Unknown(f"No known kind of ONNX network has these outputs ({', '.join(facts.outputs)[:80]}).")


def _taesd_family(name: str) -> str:
    """Nothing but the name of the file tells for which latents it was made."""
    families = {"taesdxl": "sdxl", "taesd3": "sd3", "taef1": "flux", "taesd": "sd1"}
    return next((family for word, family in families.items() if word in name), "")


_KEPT = 2000
"""Structures that are remembered at most."""
_UPSCALER_FOLDERS = ("esrgan", "realesrgan", "bsrgan", "swinir", "scunet", "dat", "hat", "upscale_models", "upscalers")
"""Where painters of AUTOMATIC1111 and ComfyUI keep their upscalers; nothing else belongs there."""


def _among_upscalers(path: Path) -> bool:
    return any(folder.name.lower() in _UPSCALER_FOLDERS for folder in list(path.parents)[:2])


def identify_header(header: Header, facts: Facts) -> ModelInfo | Unknown:
    """The same for a header that has been read."""
    return _titled(_by_tensors(header.shapes, facts), header.metadata)


def _by_tensors(shapes: Shapes, facts: Facts) -> ModelInfo | Unknown:
    """What follows from names, shapes and stated facts; titles come later."""
    matches = [found for rule in RULES if (found := rule(shapes)) is not None]
    if not matches:
        first = next(iter(shapes), "none")
        return Unknown(f"No known kind of model has these {len(shapes)} tensors (the first is {first[:80]!r}).")
    if len(matches) > 1:
        named = ", ".join(f"{found.kind} {found.family}".strip() for found in matches)
        return Unknown(f"It could be several kinds of model: {named}.")
    detail = _DETAILS.get((matches[0].kind, matches[0].family))
    if detail is not None:
        return detail(shapes, facts, matches[0])
    info = _plain(matches[0], facts)
    if info.kind == "embedding" and info.family == SDXL.id:
        widths = {part: {"hidden_size": shapes[name][-1]} for part, name in (("text", "clip_l"), ("text_2", "clip_g"))}
        return replace(info, config=widths)
    if info.kind == "embedding":
        width = next((shape[-1] for shape in shapes.values() if len(shape) in (1, 2)), 0)
        return replace(info, config={"text": {"hidden_size": width}})
    return info


def _titled(found: ModelInfo | Unknown, metadata: Mapping[str, str]) -> ModelInfo | Unknown:
    """With what the metadata call it."""
    if isinstance(found, Unknown):
        return found
    return replace(
        found,
        title=metadata.get("modelspec.title", "")[:200],
        license=metadata.get("modelspec.license", "")[:200],
        alias=metadata.get("ss_output_name", "")[:200] if found.kind == "lora" else "",
    )


def _plain(found: Found, facts: Facts) -> ModelInfo:
    """What can be named but not loaded yet, or needs no facts."""
    return ModelInfo(
        found.kind,
        found.family,
        found.variant,
        prediction_type=facts.prediction_type or "",
        native_size=facts.native_size or 0,
        vae_scaling_factor=facts.vae_scaling_factor or 0.0,
        hints=facts.hints,
        layout=found.layout,
    )


def _sd1(shapes: Shapes, facts: Facts, found: Found) -> ModelInfo | Unknown:
    """A whole SD 1.x checkpoint, with everything that loading needs."""
    if text_prefix(shapes) is None or VAE_PREFIX + "decoder.conv_in.weight" not in shapes:
        return _unet(shapes, facts, Found("unet", found.family, found.variant, found.layout))
    return _whole(SD1, shapes, facts, found, text_prefix(shapes))


def _sdxl(shapes: Shapes, facts: Facts, found: Found) -> ModelInfo | Unknown:
    """A whole SDXL checkpoint with both text encoders and a VAE, that paints or inpaints; others are named only."""
    prefix, second = XL_TEXT_PREFIX + "text_model.", XL_TEXT_2_PREFIX
    whole = prefix + "embeddings.token_embedding.weight" in shapes and any(name.startswith(second) for name in shapes)
    if not whole or VAE_PREFIX + "decoder.conv_in.weight" not in shapes or found.variant not in ("normal", "inpaint"):
        return _plain(found, facts)
    if any(name.startswith(("edm_", "edm_vpred.")) for name in shapes):
        return Unknown("It is an SDXL checkpoint with EDM's noise levels, which Impasto cannot use.")
    if "v_pred" in shapes and facts.prediction_type is None:
        facts = replace(facts, prediction_type="v_prediction")
    return _whole(SDXL, shapes, facts, found, prefix)


def _whole(family: Family, shapes: Shapes, facts: Facts, found: Found, prefix: str | None) -> ModelInfo | Unknown:
    """A checkpoint of a family that can be loaded; its text encoder (the first) begins with `prefix`."""
    second = family.second_text
    try:
        unet = unet_config(shapes, heads=1, norm_groups=1)
        vae = vae_config(shapes, norm_groups=1, scaling_factor=0.0)
        text = text_config(shapes, heads=1, activation="", prefix=prefix)
        text_2 = second_text_config(shapes, heads=1, activation="") if second is not None else {}
        heads = "unet_head_width" if family.unet_head_width else "unet_heads"
        missing = []
        if unet["block_out_channels"] != family.unet_widths:
            missing += [name for name in (heads, "native_size") if getattr(facts, name) is None]
        if vae["block_out_channels"] != family.vae_widths and facts.vae_scaling_factor is None:
            missing.append("vae_scaling_factor")
        if text["hidden_size"] != family.text_width and facts.text_heads is None:
            missing.append("text_heads")
        if second is not None and text_2["hidden_size"] != second.width and facts.text_2_heads is None:
            missing.append("text_2_heads")
        if missing:
            return Unknown(
                f"It has the structure of {family.title} in another size, and its metadata do not say "
                f"{', '.join(missing)} (impasto.config)."
            )
        scaling_factor = facts.vae_scaling_factor or family.vae_scaling_factor
        config = {
            "unet": unet_config(
                shapes,
                heads=facts.unet_heads or family.unet_heads,
                norm_groups=facts.unet_norm_groups or family.unet_norm_groups,
                head_width=(facts.unet_head_width or family.unet_head_width) if family.unet_head_width else 0,
            ),
            "vae": vae_config(
                shapes,
                norm_groups=facts.vae_norm_groups or family.vae_norm_groups,
                scaling_factor=scaling_factor,
            ),
            "text": text_config(
                shapes,
                heads=facts.text_heads or family.text_heads,
                activation=facts.text_activation or family.text_activation,
                prefix=prefix,
            ),
        }
        if second is not None:
            config["text_2"] = second_text_config(
                shapes,
                heads=facts.text_2_heads or second.heads,
                activation=facts.text_2_activation or second.activation,
            )
            _add_sizes(config["unet"], config["text_2"])
        width = text["hidden_size"] + text_2.get("hidden_size", 0)
        if unet["cross_attention_dim"] != width:
            raise Misfit(f"a UNet that reads text of width {unet['cross_attention_dim']} and an encoder of {width}")
        if vae["latent_channels"] != 4 or unet["out_channels"] != 4:
            raise Misfit("latents that are not of 4 channels")
    except Misfit as error:
        return Unknown(f"It looks like {family.title}, but it has {error}.")
    return ModelInfo(
        found.kind,
        found.family,
        found.variant,
        prediction_type=facts.prediction_type or family.prediction_type,
        native_size=facts.native_size or family.native_size,
        vae_scaling_factor=scaling_factor,
        hints=facts.hints,
        config=config,
        layout=found.layout,
        inpaint_partner=facts.inpaint_partner,
    )


_SIZES = 6
"""Numbers that SDXL is told of the picture: its size, the corner of the crop, the size that is wanted."""


def _add_sizes(unet: dict[str, Any], text: dict[str, Any]) -> None:
    """How wide each of the sizes is written, from what the network takes beside the pooled text."""
    width, left = divmod(unet.get("projection_class_embeddings_input_dim", 0) - text["projection_dim"], _SIZES)
    if left or width < 2:
        raise Misfit("a UNet that does not take the pooled text and six sizes")
    unet["addition_time_embed_dim"] = width


def _unet(shapes: Shapes, facts: Facts, found: Found) -> ModelInfo | Unknown:
    """A UNet of SD 1.x by itself; what it is loaded with comes from other files, so its configuration comes then."""
    info = _plain(found, facts)
    text = _context(shapes)
    return replace(
        info,
        native_size=facts.native_size or SD1.native_size,
        prediction_type=facts.prediction_type or SD1.prediction_type,
        config={"unet": {"cross_attention_dim": text, "out_channels": 4}} if text else None,
        inpaint_partner=facts.inpaint_partner,
    )


def _context(shapes: Shapes) -> int:
    """Width of the text that a UNet in either layout reads; 0 where that cannot be told."""
    names = (
        UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    )
    found = next((shapes[name] for name in names if name in shapes), ())
    return found[1] if len(found) == 2 else 0


def _vae(shapes: Shapes, facts: Facts, found: Found) -> ModelInfo | Unknown:
    """A KL autoencoder by itself. Its scale is the checkpoint's affair where it does not say one."""
    try:
        names = vae_names(shapes)
        bare = {name: shapes[own] for name, own in names.items()}
        config = vae_config(bare, norm_groups=1, scaling_factor=facts.vae_scaling_factor or 1.0, prefix="")
        if config["block_out_channels"] != SD1.vae_widths and facts.vae_norm_groups is None:
            return Unknown(
                "It is a VAE of another size than the known ones, and its metadata do not say vae_norm_groups "
                "(impasto.config)."
            )
        groups = facts.vae_norm_groups or SD1.vae_norm_groups
        config = vae_config(bare, norm_groups=groups, scaling_factor=config["scaling_factor"], prefix="")
    except Misfit:
        return _plain(found, facts)  # of a build that cannot be loaded
    return replace(_plain(found, facts), config={"vae": config})


_Detail = Callable[[Shapes, Facts, Found], ModelInfo | Unknown]
_DETAILS: Mapping[tuple[str, str], _Detail] = {
    ("checkpoint", SD1.id): _sd1,
    ("checkpoint", SDXL.id): _sdxl,
    ("unet", SD1.id): _unet,
    ("vae", ""): _vae,
}
