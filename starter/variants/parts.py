"""The things that are trained beside the starter model, each as a `Part`: what of it learns, on what, and what is kept.

All of them see the base as it is unpacked, which stays as it is, so that a difference to it is exact.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderTiny
from torch import nn
from torch.nn import functional as F

from starter import models
from starter.train_vae import gradient_difference
from starter.variants.training import Base, Noised, Part, Tensors, fast
from starter.vocabulary import encode

HINT_WIDTHS = (16, 24, 48, 64)
GREY = 127 / 127.5 - 1
RANK = 8
VECTORS = 4
PLACE = 49405
"""A token that no caption has; what it would say is replaced by the vectors that are learned."""
PREVIEW_WIDTH = 16
MASKS = 3
"""Masks that each picture is met under."""
STEP = {"inpaint": 1.2, "canny": 1.2, "scribble": 1.2}
"""Width of a step of a difference as it is packed, in root mean squares of its row."""


# --- inpainting -----------------------------------------------------------------------------------------------------


def nine_channels(unet: UNet2DConditionModel, shape: models.Shape) -> UNet2DConditionModel:
    """A copy that also reads a mask (1: paint) and the latents of the masked picture; at first unheeded."""
    wide = copy.deepcopy(unet)
    old = unet.conv_in
    wide.conv_in = nn.Conv2d(9, old.out_channels, 3, padding=1)
    with torch.no_grad():
        wide.conv_in.weight.zero_()
        wide.conv_in.weight[:, :4] = old.weight
        wide.conv_in.bias.copy_(old.bias)
    wide.register_to_config(in_channels=9)
    return wide


@torch.no_grad()
def masked_latents(base: Base, rows: torch.Tensor, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks [n, 1, 16, 16], and latents of the pictures under them; each `turn` gives a picture another row's mask."""
    hole = base.gallery.masks[(rows + turn * 7919) % len(base.gallery)][:, None]
    return F.max_pool2d(hole.float(), 8), base.encoded(torch.where(hole, GREY, base.gallery.shown(rows)))


def inpaint(base: Base, size: int, rate: float = 7e-4) -> Part:
    """The whole UNet learns on, with the masked picture beside the noisy one. What is to be painted counts most."""
    device = base.mean.device
    start = {n: p.detach().clone() for n, p in base.net.unet.named_parameters() if not n.startswith("conv_in.weight")}
    unet = nine_channels(base.net.unet, base.shape).to(device).requires_grad_(True).train()
    whole = torch.arange(len(base.gallery), device=device).split(250)
    pairs = [[masked_latents(base, rows, turn) for rows in whole] for turn in range(MASKS)]
    small, known = (torch.stack([torch.cat([p[i] for p in turn]) for turn in pairs]) for i in (0, 1))
    run = fast(lambda x, t, states: unet(x, t, states).sample)

    def loss() -> torch.Tensor:
        rows = base.gallery.rows(size)
        turn = torch.randint(MASKS, rows.shape, device=device)
        hole, seen = small[turn, rows], Noised.of(base.latents(rows), base.table)
        states = base.states(base.gallery.wordings(rows, 0.15)).to(base.dtype)
        said = run(torch.cat([seen.x, hole, known[turn, rows]], 1).to(base.dtype), seen.t, states)
        return seen.loss(said, 0.25 + 0.75 * hole)

    return Part(
        "inpaint",
        dict(unet.named_parameters()),
        loss,
        rate,
        lambda v: {k: t.half() for k, t in v.items()},
        start=start,
        coarse=STEP["inpaint"],
        dtype=base.dtype,
        muon=True,
    )


# --- control --------------------------------------------------------------------------------------------------------


def make_control(shape: models.Shape = models.SHAPE) -> ControlNetModel:
    """Reads hints [n, 3, 128, 128] in 0..1; its shape is the base's."""
    levels = len(shape.unet_channels)
    return ControlNetModel(
        in_channels=4,
        conditioning_channels=3,
        conditioning_embedding_out_channels=HINT_WIDTHS,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        block_out_channels=shape.unet_channels,
        layers_per_block=shape.unet_layers,
        cross_attention_dim=shape.text_width,
        attention_head_dim=shape.unet_heads,
        norm_num_groups=shape.unet_groups,
    )


def control(base: Base, kind: str, size: int, rate: float = 1.5e-3) -> Part:
    """A ControlNet for "canny" or "scribble": a copy of the base's way down, the base itself frozen."""
    device = base.mean.device
    network = make_control(base.shape).to(device)
    network.load_state_dict(base.net.unet.state_dict(), strict=False)
    network.requires_grad_(True).train()
    start = {n: p.detach().clone() for n, p in network.named_parameters() if not n.startswith("controlnet_")}
    frozen = copy.deepcopy(base.net.unet).to(base.dtype)
    hints = getattr(base.gallery, kind)

    @fast
    def run(x: torch.Tensor, t: torch.Tensor, states: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
        down, middle = network(x, t, states, hint, return_dict=False)
        return frozen(x, t, states, down_block_additional_residuals=down, mid_block_additional_residual=middle).sample

    def loss() -> torch.Tensor:
        rows = base.gallery.rows(size)
        hint = hints[rows][:, None].expand(-1, 3, -1, -1).to(base.dtype)
        seen = Noised.of(base.latents(rows), base.table)
        states = base.states(base.gallery.wordings(rows, 0.3)).to(base.dtype)
        return seen.loss(run(seen.x.to(base.dtype), seen.t, states, hint))

    return Part(
        kind,
        dict(network.named_parameters()),
        loss,
        rate,
        lambda v: {k: t.half() for k, t in v.items()},
        start=start,
        coarse=STEP[kind],
        dtype=base.dtype,
        muon=True,
    )


# --- style ----------------------------------------------------------------------------------------------------------


def pencil(x: torch.Tensor) -> torch.Tensor:
    """Pictures in -1..1 as pencil drawings on warm paper: dark where a place is darker than what is around it."""
    light = (x + 1) / 2
    grey = (light * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    fine, around = blurred(light, 0.8), blurred(1 - light, 3.0)
    # By the darkest colour, so that colours of one lightness have a line between them.
    light = (fine / (1 - around).clamp(min=0.05)).clamp(0, 1).amin(1, keepdim=True) ** 2.4
    light = light * (0.85 + 0.15 * grey)
    paper, lead = x.new_tensor([0.99, 0.97, 0.92]).view(1, 3, 1, 1), x.new_tensor([0.16, 0.15, 0.2]).view(1, 3, 1, 1)
    return (paper * light + lead * (1 - light)) * 2 - 1


def blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Every channel under a Gaussian of that many pixels, its rim continued."""
    half = math.ceil(3 * sigma)
    reach = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    bell = torch.exp(-(reach**2) / (2 * sigma**2))
    bell = (bell / bell.sum()).repeat(x.shape[1], 1)
    x = F.pad(x, (half,) * 4, mode="replicate")
    x = F.conv2d(x, bell[:, None, None, :], groups=x.shape[1])
    return F.conv2d(x, bell[:, None, :, None], groups=x.shape[1])


class Low(nn.Module):
    """A difference of low rank to one frozen layer, added to what it says (Hu et al. 2021; for convolutions LoCon)."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int):
        super().__init__()
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))


def low_layers(unet: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that a LoRA changes: those of the transformers and the convolutions of the resnets."""
    return {
        name: layer
        for name, layer in unet.named_modules()
        if (isinstance(layer, nn.Linear) and ".transformer_blocks." in name)
        or (isinstance(layer, nn.Conv2d) and name.endswith((".conv1", ".conv2", ".proj_in", ".proj_out")))
    }


def lora(base: Base, size: int, rate: float = 2e-3) -> Part:
    """A LoRA for pencil drawings of whatever is asked."""
    unet = copy.deepcopy(base.net.unet).requires_grad_(False)
    lows = {name: Low(layer, RANK).to(base.mean.device) for name, layer in low_layers(unet).items()}
    for name, low in lows.items():
        unet.get_submodule(name).register_forward_hook(lambda _m, given, said, low=low: said + low(given[0]))
    trained = {f"{n}|{p}": v for n, low in lows.items() for p, v in low.named_parameters()}

    def loss() -> torch.Tensor:
        rows = base.gallery.rows(size)
        seen = Noised.of(base.encoded(pencil(base.gallery.shown(rows))), base.table)
        return seen.loss(unet(seen.x, seen.t, base.states(base.gallery.wordings(rows, 0.15))).sample)

    return Part("lora", trained, loss, rate, kohya)


def kohya(values: Mapping[str, torch.Tensor]) -> Tensors:
    """The names of kohya's files; alpha is the rank, so nothing is scaled."""
    out: Tensors = {}
    for key, value in values.items():
        name, _, part = key.partition("|")
        stem = "lora_unet_" + name.replace(".", "_")
        out[f"{stem}.lora_{part}"] = value.half()
        out[f"{stem}.alpha"] = torch.tensor(float(RANK)).half()
    return out


# --- embedding ------------------------------------------------------------------------------------------------------

CANDIDATES = (
    "snail",
    "gem stone",
    "basketball",
    "hedgehog",
    "candle",
    "top hat",
    "volcano",
    "cupcake",
    "green apple",
    "teddy bear",
    "trophy",
    "snowflake",
    "anchor",
    "bus",
    "blowfish",
    "croissant",
)
"""Things that the base has hardly seen; of those that are learned the best is shipped."""
_FORMS = ("{}", "a {}", "{}", "3d {}", "{}, 3d", "flat {}", "{}, flat", "{} on a white background")


def embedding(base: Base, size: int, rate: float = 1e-2, names: tuple[str, ...] = CANDIDATES) -> Part:
    """Vectors for words of our own, one for each candidate (Gal et al., "An image is worth one word", 2022).

    All of the model is frozen. What is kept is [candidates, vectors, width].
    """
    from starter.data import load

    device = base.mean.device
    concepts, sprites = load()
    table = base.net.text.get_submodule(token_table(base.net.text))
    index = {c.label: i for i, c in enumerate(concepts)}
    begin = []
    for name in names:
        ids = encode([name])[0]
        words = ids[(ids < 49406)].to(device)
        begin.append(table.weight[words].mean(0, keepdim=True).expand(VECTORS, -1))
    scale = table.weight[table.weight.abs().sum(1) > 0].std()
    start = torch.stack(begin)
    learned = nn.Parameter((start + torch.randn_like(start) * 0.3 * scale) / scale)
    pictures = latents_of(base, [index[n] for n in names], sprites)
    forms = [encode([f.format(" ".join(["@"] * VECTORS)) for f in _FORMS])]
    at = int(encode(["@"])[0, 1])
    ids = torch.where(forms[0] == at, PLACE, forms[0]).to(device)
    flat = torch.tensor(["flat" in f for f in _FORMS], device=device)

    def loss() -> torch.Tensor:
        which = torch.randint(len(names), (size,), device=device)
        form = torch.randint(len(_FORMS), (size,), device=device)
        style = flat[form].long()
        pick = torch.randint(pictures.shape[2], (size,), device=device)
        seen = Noised.of(pictures[which, style, pick], base.table)
        states = spoken(base.net.text, ids[form], learned[which] * scale)
        return seen.loss(base.net.unet(seen.x, seen.t, states).sample)

    return Part("embedding", {"vectors": learned}, loss, rate, lambda v: {"vectors": v["vectors"] * scale}, 0.99)


def token_table(text: nn.Module) -> str:
    return next(n for n, m in text.named_modules() if isinstance(m, nn.Embedding) and n.endswith("token_embedding"))


def spoken(text: nn.Module, ids: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """States of ids [n, 77] in which PLACE stands for the vectors [n, VECTORS, width], one after another."""

    def put(_module: nn.Module, _given: tuple, said: torch.Tensor) -> torch.Tensor:
        here = ids == PLACE
        order = (here.long().cumsum(1) - 1).clamp(0, vectors.shape[1] - 1)
        ours = vectors.gather(1, order[..., None].expand(-1, -1, vectors.shape[2]))
        return torch.where(here[..., None], ours, said)

    handle = text.get_submodule(token_table(text)).register_forward_hook(put)
    try:
        return text(ids).last_hidden_state
    finally:
        handle.remove()


@torch.no_grad()
def latents_of(base: Base, concepts: list[int], sprites: Mapping, count: int = 24) -> torch.Tensor:
    """Latents [concepts, styles, count, 4, 16, 16] of composed pictures; a style that is missing is the other one."""
    import numpy as np

    from starter.compose import compose

    rng, found = np.random.default_rng(4), []
    for concept in concepts:
        for style in ("3d", "flat"):
            style = style if (concept, style) in sprites else "3d"
            kinds = rng.choice(["steady", "single"], count)
            drawn = np.stack([compose(rng, sprites, concept, -1, style, str(k))[0] for k in kinds])
            x = torch.from_numpy(drawn).permute(0, 3, 1, 2).to(base.mean.device).float() / 127.5 - 1
            found.append(base.encoded(x))
    return torch.stack(found).view(len(concepts), 2, count, *found[0].shape[1:])


# --- previews -------------------------------------------------------------------------------------------------------


def make_preview() -> DecoderTiny:
    """TAESD's decoder (github.com/madebyollin/taesd), narrower. Reads scaled latents, gives pictures in -1..1."""
    return DecoderTiny(
        in_channels=4,
        out_channels=3,
        num_blocks=(3, 3, 3, 1),
        block_out_channels=(PREVIEW_WIDTH,) * 4,
        upsampling_scaling_factor=2,
        act_fn="relu",
        upsample_fn="nearest",
    )


def preview(base: Base, size: int, rate: float = 2e-3) -> Part:
    """Learns to say what the VAE's decoder would, also of latents that are still a little blurred or noisy."""
    network = make_preview().to(base.mean.device).requires_grad_(True).train()

    def loss() -> torch.Tensor:
        rows = base.gallery.rows(size)
        z, x = base.mean[rows], base.gallery.shown(rows)
        z = z + torch.randn_like(z) * 0.15 * torch.rand(len(z), 1, 1, 1, device=z.device)
        y = network(z)
        return (y - x).abs().mean() + 0.5 * gradient_difference(y, x)

    return Part("preview", dict(network.named_parameters()), loss, rate, lambda v: {k: t.half() for k, t in v.items()})


PARTS: Mapping[str, Callable[..., Part]] = {
    "inpaint": inpaint,
    "canny": lambda base, size, **k: control(base, "canny", size, **k),
    "scribble": lambda base, size, **k: control(base, "scribble", size, **k),
    "lora": lora,
    "embedding": embedding,
    "preview": preview,
}
