"""The rules of identification: names and shapes -> kind, family and variant. No torch here.

Each rule claims one kind of file and gives None for any other; it never misses its own kind and very rarely claims
another's. The facts about other projects' files come from reading their loaders; `tests/engine/test_identify.py`
holds a header for each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .families import Shapes
from .layout import UNET_PREFIX, XL_TEXT_2_PREFIX, XL_TEXT_PREFIX
from .vae_layout import taesd_decoder, vae_prefix
from .vision_shapes import tower_of

__all__ = ["RULES", "Found"]


@dataclass(frozen=True)
class Found:
    """What a rule says of a file; `family` is "" where the names and shapes do not tell."""

    kind: str
    family: str
    variant: str = ""
    layout: str = ""


CHANNELS = {4: "normal", 9: "inpaint", 8: "instruct-pix2pix", 5: "depth", 7: "upscaler"}
CONTEXT = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Width of the text embedding -> family, for add-ons that carry nothing else to tell by."""


def ldm_unet(shapes: Shapes) -> Found | None:
    """UNets in the single-file layout: label embedding -> SDXL, of any size where both text encoders are there; conv
    projections -> SD 1.x; linear ones -> SD 2.x."""
    for prefix in (UNET_PREFIX, ""):
        first = shapes.get(prefix + "input_blocks.0.0.weight")
        if first is None or len(first) != 4 or prefix + "out.2.weight" not in shapes:
            continue
        variant = CHANNELS.get(first[1])
        label = shapes.get(prefix + "label_emb.0.0.weight")
        projections = {
            len(shape) for name, shape in shapes.items() if name.startswith(prefix) and name.endswith("proj_in.weight")
        }
        if label is not None:
            whole = any(name.startswith(XL_TEXT_PREFIX) for name in shapes) and any(
                name.startswith(XL_TEXT_2_PREFIX) for name in shapes
            )
            family = "sdxl" if whole else {2816: "sdxl", 2560: "sdxl-refiner"}.get(label[-1])
        else:
            family = "sd1" if projections == {4} else "sd2" if projections == {2} else None
        if family == "sd1" and variant not in ("normal", "inpaint", "instruct-pix2pix"):
            return None
        if family and variant:
            return Found("checkpoint" if prefix else "unet", family, variant, "ldm")
    return None


def diffusers_unet(shapes: Shapes) -> Found | None:
    """UNets in diffusers' layout."""
    first = shapes.get("conv_in.weight")
    if first is None or "conv_out.weight" not in shapes or "down_blocks.0.resnets.0.conv1.weight" not in shapes:
        return None
    projection = shapes.get("mid_block.attentions.0.proj_in.weight")
    if "add_embedding.linear_1.weight" in shapes:
        family = "sdxl"
    else:
        family = {4: "sd1", 2: "sd2"}.get(len(projection or ()), "")
    variant = CHANNELS.get(first[1])
    return Found("unet", family, variant, "diffusers") if variant else None


def mmdit(shapes: Shapes) -> Found | None:
    """SD 3 and 3.5."""
    for prefix in (UNET_PREFIX, ""):
        if prefix + "joint_blocks.0.context_block.attn.qkv.weight" in shapes:
            newer = any(name.endswith(".attn.ln_q.weight") for name in shapes)
            dual = any(name.endswith(".x_block.attn2.qkv.weight") for name in shapes)
            size = "medium" if dual or not newer else "large"
            return Found("transformer", "sd3.5" if newer else "sd3", size, "ldm")
    return None


def flux(shapes: Shapes) -> Found | None:
    """FLUX.1 and Chroma."""
    for prefix in (UNET_PREFIX, ""):
        if prefix + "double_blocks.0.img_attn.norm.key_norm.scale" not in shapes:
            continue
        if any(name.startswith(prefix + "distilled_guidance_layer.") for name in shapes):
            return Found("transformer", "chroma", "", "ldm")
        if any(name.startswith("controlnet_blocks.") for name in shapes):
            return None
        if prefix + "guidance_in.in_layer.weight" not in shapes:
            return Found("transformer", "flux", "schnell", "ldm")
        variant = {64: "dev", 384: "fill", 128: "control"}.get(shapes.get(prefix + "img_in.weight", (0,))[-1])
        return Found("transformer", "flux", variant, "ldm") if variant else None
    return None


def controlnet(shapes: Shapes) -> Found | None:
    """ControlNets in the single-file layout and in diffusers'."""
    for prefix in ("control_model.", ""):
        if prefix + "zero_convs.0.0.weight" in shapes and prefix + "input_hint_block.0.weight" in shapes:
            if prefix + "lora_controlnet" in shapes or "lora_controlnet" in shapes:
                texts = [shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.down")]
                xl = any(name.startswith(prefix + "label_emb.") for name in shapes)
                family = "sdxl" if xl else CONTEXT.get(texts[0], "") if texts else ""
                return Found("controlnet", family, "control-lora", "ldm")
            if prefix + "label_emb.0.0.weight" in shapes:
                return Found("controlnet", "sdxl", "", "ldm")
            projection = shapes.get(prefix + "middle_block.1.proj_in.weight") or shapes.get(
                prefix + "input_blocks.1.1.proj_in.weight", ()
            )
            return Found("controlnet", {4: "sd1", 2: "sd2"}.get(len(projection), ""), "", "ldm")
    if "controlnet_cond_embedding.conv_in.weight" in shapes:
        union = "control_add_embedding.linear_1.bias" in shapes
        if union or "add_embedding.linear_1.weight" in shapes:
            return Found("controlnet", "sdxl", "union" if union else "", "diffusers")
        projection = shapes.get("mid_block.attentions.0.proj_in.weight", ())
        return Found("controlnet", {4: "sd1", 2: "sd2"}.get(len(projection), ""), "", "diffusers")
    return None


def t2i_adapter(shapes: Shapes) -> Found | None:
    """T2I-Adapters, full and light, in the original layout and in diffusers'."""
    for prefix in ("adapter.", ""):
        first = shapes.get(prefix + "conv_in.weight") or shapes.get(prefix + "body.0.in_conv.weight")
        blocks = ("body.0.block1.weight", "body.0.body.0.block1.weight", "body.0.resnets.0.block1.weight")
        if first is None or len(first) != 4 or not any(prefix + name in shapes for name in blocks):
            continue
        # Pixels unshuffled by 8, of one or three channels; SDXL's by 16.
        family = {64: "sd1", 192: "sd1", 256: "sdxl", 768: "sdxl"}.get(first[1], "")
        layout = "diffusers" if prefix + blocks[2] in shapes else "ldm"
        return Found("controlnet", family, "t2i", layout) if family else None
    return None


_LORA = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".hada_w1_a",
    ".lokr_w1",
    ".lokr_w1_a",
    ".oft_blocks",
)
_LYCORIS = (".lokr_w2_a", ".lokr_w2", ".oft_diag", ".diff", ".diff_b", ".w_norm", ".b_norm", ".on_input", ".a1.weight")
"""Ends that say so only below the prefixes of LoRAs."""


def lora(shapes: Shapes) -> Found | None:
    """LoRA and its relatives; the family from the text width that a cross-attention key reads."""
    names = [
        name
        for name in shapes
        if name.endswith(_LORA) or (name.startswith(("lora_", "lycoris_")) and name.endswith(_LYCORIS))
    ]
    if not names or any(name.startswith("ip_adapter.") for name in names):
        return None
    layout = "diffusers" if any(".lora_A." in name or ".lora.down." in name for name in names) else "kohya"
    if any(name.startswith(("lora_unet_double_blocks_", "transformer.single_transformer_blocks.")) for name in names):
        return Found("lora", "flux", "", layout)
    if any(name.startswith("lora_te2_") for name in names):
        return Found("lora", "sdxl", "", layout)
    for name in shapes:
        if "attn2" in name and "to_k" in name and name.endswith(("down.weight", "lora_A.weight", "hada_w1_b")):
            return Found("lora", CONTEXT.get(shapes[name][-1], ""), "", layout)
    return Found("lora", "", "", layout)


def ip_adapter(shapes: Shapes) -> Found | None:
    """IP-Adapters with their projection."""
    width = shapes.get("ip_adapter.1.to_k_ip.weight", (0,))[-1]
    if not width:
        return None
    if "image_proj.perceiver_resampler.proj_in.weight" in shapes:
        variant = "faceid-plus"
    elif "image_proj.latents" in shapes:
        variant = "plus"
    elif "image_proj.proj.3.weight" in shapes:
        variant = "full-face"
    elif any(name.endswith(".to_k_lora.down.weight") for name in shapes) or (
        "image_proj.proj.2.weight" in shapes and "image_proj.norm.weight" in shapes
    ):
        variant = "faceid"
    elif "image_proj.proj.weight" in shapes:
        variant = "base"
    else:
        return None
    return Found("ip-adapter", CONTEXT.get(width, ""), variant)


def vae(shapes: Shapes) -> Found | None:
    """Autoencoders by themselves; the scale of their latents depends on a family that shapes do not tell."""
    prefix = vae_prefix(shapes)
    if prefix is None or any(name.startswith(UNET_PREFIX) for name in shapes):
        return None
    shape = shapes[prefix + "decoder.conv_in.weight"]
    if len(shape) != 4:
        return None
    layout = "diffusers" if prefix + "decoder.up_blocks.0.resnets.0.norm1.weight" in shapes else "ldm"
    return Found("vae", "", f"{shape[1]}-channel", layout)


def taesd(shapes: Shapes) -> Found | None:
    """The tiny autoencoder for previews, whole or its decoder alone; its encoder alone is of no use here."""
    prefix = taesd_decoder(shapes)
    if prefix is not None:
        return Found("taesd", "", "decoder", "diffusers" if prefix.startswith("decoder") else "ldm")
    first = shapes.get("0.weight", ())
    if len(first) == 4 and first[1] == 3 and "1.conv.0.weight" in shapes and "14.weight" in shapes:
        return Found("taesd", "", "encoder", "ldm")
    return None


def text_encoder(shapes: Shapes) -> Found | None:
    """CLIP's text encoders by themselves, in the layout of transformers; CLIP-L's width is that of SD 1.x."""
    table = shapes.get("text_model.embeddings.token_embedding.weight", ())
    if len(table) != 2 or "text_model.encoder.layers.0.layer_norm1.weight" not in shapes:
        return None
    if any(name.startswith("vision_model.") for name in shapes):
        return None
    return Found("text-encoder", {768: "sd1"}.get(table[1], ""), "", "transformers")


def embedding(shapes: Shapes) -> Found | None:
    """Textual inversion embeddings."""
    if set(shapes) >= {"clip_l", "clip_g"} and len(shapes) <= 4 and shapes["clip_l"] and shapes["clip_g"]:
        return Found("embedding", "sdxl")
    names = [name for name in shapes if name == "emb_params" or name.startswith("string_to_param.")]
    if not names and len(shapes) == 1:  # diffusers': one vector or a few, called as the word
        names = [name for name, shape in shapes.items() if name.startswith("<") and len(shape) in (1, 2)]
    if len(names) == 1 and shapes[names[0]]:
        return Found("embedding", {768: "sd1", 1024: "sd2"}.get(shapes[names[0]][-1], ""))
    return None


def upscaler(shapes: Shapes) -> Found | None:
    """ESRGAN (RRDB, its three spellings) and its compact form; SwinIR, HAT and DAT."""
    if "conv_first.weight" in shapes and "body.0.rdb1.conv1.weight" in shapes:
        return Found("upscaler", "esrgan", "rrdb")
    if "conv_first.weight" in shapes and "RRDB_trunk.0.RDB1.conv1.weight" in shapes:
        return Found("upscaler", "esrgan", "rrdb")
    if "model.0.weight" in shapes and "model.1.sub.0.RDB1.conv1.0.weight" in shapes:
        return Found("upscaler", "esrgan", "rrdb-old")
    if "conv_first.weight" in shapes or "conv_first.1.weight" in shapes:
        if "layers.0.residual_group.overlap_attn.relative_position_bias_table" in shapes:
            return Found("upscaler", "hat")
        if "layers.0.residual_group.blocks.0.attn.relative_position_bias_table" in shapes:
            return Found("upscaler", "swinir")
        if "before_RG.1.weight" in shapes and "layers.0.blocks.0.attn.qkv.weight" in shapes:
            return Found("upscaler", "dat")
    weights = {name for name in shapes if name.startswith("body.")}
    first = shapes.get("body.0.weight", ())
    if weights and len(weights) == len(shapes) and len(first) == 4 and "body.1.weight" in shapes:
        return Found("upscaler", "esrgan", "compact")
    return None


def face(shapes: Shapes) -> Found | None:
    """Face profiles: ours with photographs, and FaceSwapLab's, which are an embedding of ArcFace's size."""
    if len(shapes.get("photo.0.pixels", ())) == 3 and shapes.get("photo.0.mesh") == (468, 3):
        return Found("face", "", "photographs")
    if shapes.get("embedding") in ((512,), (1, 512)) and "gender" in shapes and "age" in shapes:
        return Found("face", "", "faceswaplab")
    return None


def clip_vision(shapes: Shapes) -> Found | None:
    """CLIP's vision towers, which IP-Adapters look through; `variant` says which. Also whole CLIP models."""
    tower = tower_of(shapes)
    return None if tower is None else Found("clip-vision", "", tower.name, "transformers")


def annotator(shapes: Shapes) -> Found | None:
    """Networks that make hints of pictures; `variant` says which."""
    if "block1.convs.0.weight" in shapes and "block5.projection.weight" in shapes:
        return Found("annotator", "", "hed")
    if any(f"{prefix}encoder.original_model.conv_stem.weight" in shapes for prefix in ("model.module.", "model.", "")):
        return Found("annotator", "", "normal_bae")
    if "model0.1.weight" in shapes and "model2.0.conv_block.1.weight" in shapes:
        return Found("annotator", "", "lineart")
    if any(f"{prefix}model.model.1.model.3.model.3.model.3.model.1.weight" in shapes for prefix in ("module.", "")):
        return Found("annotator", "", "lineart_anime")
    if "pretrained.model.patch_embed.backbone.stem.conv.weight" in shapes and "scratch.layer1_rn.weight" in shapes:
        return Found("annotator", "", "depth_midas")
    if "pretrained.cls_token" in shapes and "depth_head.projects.0.weight" in shapes:
        return Found("annotator", "", "depth_anything")
    if any(name.startswith("neck.fusion_stage.layers.0.") for name in shapes) and any(
        name in shapes for name in ("head.head.0.weight", "head.conv1.weight")
    ):
        kind = "depth_midas" if any(name.startswith("dpt.") for name in shapes) else "depth_anything"
        return Found("annotator", "", kind, "transformers")
    if _segments(shapes):
        return Found("annotator", "", "segmentation", "transformers")
    return None


def _segments(shapes: Shapes) -> bool:
    """Semantic segmentation in transformers' names: UperNet, SegFormer, and the three with queries."""
    marks = (
        ("decode_head.psp_modules.0.1.conv.weight",),
        ("decode_head.classifier.weight", "decode_head.linear_fuse.weight"),
        ("model.pixel_level_module.decoder.mask_projection.weight",),
        ("class_predictor.weight", "model.transformer_module.queries_embedder.weight"),
        ("model.transformer_module.decoder.class_embed.weight",),
    )
    return any(all(name in shapes for name in mark) for mark in marks)


RULES: tuple[Callable[[Shapes], Found | None], ...] = (
    ldm_unet,
    diffusers_unet,
    mmdit,
    flux,
    controlnet,
    t2i_adapter,
    lora,
    ip_adapter,
    vae,
    taesd,
    text_encoder,
    embedding,
    upscaler,
    face,
    clip_vision,
    annotator,
)
