"""Pictures to latents and back.

Encoding takes the mode of the encoder's distribution: the same picture gives the same latent whatever the seed.
A1111 and diffusers sample it instead; pass `noise` for that (the golden tests do). The spread is far below what
a picture shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from impasto_protocol.errors import ModelError

from .memory import free_bytes, placed
from .noise import Noise
from .vae_tiled import decode_tiled, encode_tiled, needs_tiles

__all__ = ["Decoded", "decode", "decode_tiny", "encode", "factor_of", "from_images", "to_images"]


class Decoded(NamedTuple):
    """`images` float32 [batch, 3, height, width] in -1..1, not clipped; `dtype` in which it was decoded at last."""

    images: torch.Tensor
    dtype: torch.dtype


def factor_of(vae: Any) -> int:
    """Pixels by latent pixel, on each side."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def from_images(images: torch.Tensor) -> torch.Tensor:
    """uint8 [batch, height, width, 3] to float32 [batch, 3, height, width] in -1..1."""
    # In two steps, and left in the memory order of pictures: so do the stock pipelines, to the last bit.
    return images.permute(0, 3, 1, 2).float().div_(255).mul_(2).sub_(1)


def to_images(values: torch.Tensor) -> torch.Tensor:
    """float32 [batch, 3, height, width] in -1..1 to uint8 [batch, height, width, 3]; clipped and rounded."""
    return values.clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _unheard() -> None:
    """No cancel to hear."""


def encode(
    vae: Any,
    values: torch.Tensor,
    scaling_factor: float,
    noise: Noise | None = None,
    check: Callable[[], None] = _unheard,
) -> torch.Tensor:
    """[batch, 3, height, width] in -1..1 to scaled latents, float32 [batch, channels, height / 8, width / 8].

    Where memory does not allow the whole it runs in tiles (`vae_tiled`), and `check` is called at each. Where half
    precision overflows, it is done again in float32. Raises ModelError `model.corrupt` where that does too.
    """

    def whole(net: Any, form: Any) -> torch.Tensor:
        parameters: torch.Tensor = net._encode(values.to(*form))
        return parameters

    def tiled(net: Any, form: Any) -> torch.Tensor:
        return encode_tiled(net, values, check=check).to(form[0])

    run = _by_memory(vae, values.shape[-2:], len(values), whole, tiled)
    parameters = _finite(vae, run, "encoding").images
    mean, log_variance = parameters.chunk(2, dim=1)
    if noise is None:
        latent = mean
    else:
        latent = mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise(mean)
    # The VAE answers in channels-last order; left so, the last digits of all that follows would differ.
    return (latent * scaling_factor).contiguous()


def decode(vae: Any, latents: torch.Tensor, scaling_factor: float, check: Callable[[], None] = _unheard) -> Decoded:
    """Scaled latents to pictures; tiles, float32 as a second try and errors as in `encode`. What was made in tiles lies
    on the host."""
    latents = latents / scaling_factor
    factor = factor_of(vae)

    def whole(net: Any, form: Any) -> torch.Tensor:
        images: torch.Tensor = net.decode(latents.to(*form), return_dict=False)[0]
        return images

    def tiled(net: Any, form: Any) -> torch.Tensor:
        return decode_tiled(net, latents, check=check)

    size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
    return _finite(vae, _by_memory(vae, size, len(latents), whole, tiled), "decoding")


_Run = Callable[[Any, Any], torch.Tensor]


def _by_memory(vae: Any, size: tuple[int, ...], batch: int, whole: _Run, tiled: _Run) -> _Run:
    """The picture in one piece where memory allows it, also after all; else in tiles."""
    device, _ = placed(vae)
    if needs_tiles(vae, size[0], size[1], free_bytes(device), batch):
        return tiled

    def run(net: Any, form: Any) -> torch.Tensor:
        try:
            return whole(net, form)
        except (torch.OutOfMemoryError, MemoryError):
            pass
        return tiled(net, form)

    return run


def decode_tiny(decoder: Any, latents: torch.Tensor) -> Decoded:
    """The same by TAESD's decoder, which takes the latents scaled."""
    return _finite(decoder, lambda net, form: net(latents.to(*form)), "decoding")


def _finite(vae: Any, run: Any, doing: str) -> Decoded:
    device, dtype = placed(vae)
    out = run(vae, (device, dtype)).float()
    if _is_finite(out):
        return Decoded(out, dtype)
    if dtype != torch.float32:
        # A copy: the module may be shared, and its weights are mapped from the file.
        out = run(copy.deepcopy(vae).float(), (device, torch.float32)).float()
        if _is_finite(out):
            return Decoded(out, torch.float32)
    raise ModelError(
        "model.corrupt",
        f"The checkpoint gave values that are not numbers while {doing}; choose precision fp32 or another checkpoint.",
    )


def _is_finite(values: torch.Tensor) -> bool:
    # One pass and nothing stored: what is not a number comes through as the least and the greatest.
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())
