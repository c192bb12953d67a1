"""A start for the VAE at which it already is a linear down- and up-scaler.

Trained from noise, a VAE on two cores spends most of its time to learn what colour is, because group norms
take away the mean and the scale. Here eight channels ("carriers") run through the network untouched: each
of R, G and B with both signs, for silu(x) - silu(-x) = x, and a large constant with both signs, which makes
the norms' scale nearly constant. Every residual branch starts at zero. The latents begin as eightfold
reduced colours, and all else is learned on top."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import nn

CARRIERS = 8
CONSTANT = 4.0


def _pass(conv: nn.Conv2d, kernel: torch.Tensor) -> None:
    """Makes a convolution hand every carrier on through `kernel` [k, k], and to nothing else."""
    with torch.no_grad():
        conv.weight[:CARRIERS] = 0
        conv.bias[:CARRIERS] = 0
        for i in range(CARRIERS):
            conv.weight[i, i] = kernel


def _load(conv: nn.Conv2d, gain: float) -> None:
    """Makes a first convolution write its first three inputs and the constant into the carriers."""
    middle = conv.kernel_size[0] // 2
    with torch.no_grad():
        conv.weight[:CARRIERS] = 0
        conv.bias[:CARRIERS] = 0
        for i in range(6):
            conv.weight[i, i // 2, middle, middle] = gain * (1 - 2 * (i % 2))
        conv.bias[6], conv.bias[7] = CONSTANT, -CONSTANT


def _read(conv: nn.Conv2d, outputs: int) -> None:
    """Makes a last convolution give the difference of each pair of carriers as its first three outputs."""
    with torch.no_grad():
        conv.weight[:outputs] *= 0.1
        conv.weight[:3] = 0
        conv.bias[:3] = 0
        for i in range(3):
            conv.weight[i, 2 * i, 1, 1], conv.weight[i, 2 * i + 1, 1, 1] = 1, -1


def _quiet(half: nn.Module) -> None:
    """Residual branches start at zero and shortcuts hand the carriers on."""
    for module in half.modules():
        if hasattr(module, "conv_shortcut"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                _pass(module.conv_shortcut, torch.ones(1, 1))
        if hasattr(module, "to_out"):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)


@torch.no_grad()
def _level(norm: nn.GroupNorm, run) -> None:
    """Sets the norm's gain of the carriers so that they leave it as they entered."""
    seen = []
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run()
    hook.remove()
    x = seen[0]
    group = x[:, : x.shape[1] // norm.num_groups]
    norm.weight[:CARRIERS] = group.std((1, 2, 3)).mean()
    norm.bias[:CARRIERS] = group.mean()


@torch.no_grad()
def linear_start(vae: AutoencoderKL, sample: torch.Tensor) -> None:
    """Sets the weights in place. `sample` are pictures [n, 3, h, w] in -1..1 to level the norms with."""
    encoder, decoder = vae.encoder, vae.decoder
    halving, smooth = torch.zeros(3, 3), torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    halving[:2, :2] = 0.25
    for half in (encoder, decoder):
        _quiet(half)
    _load(encoder.conv_in, 1.0)
    for block in encoder.down_blocks:
        for layer in block.downsamplers or ():
            _pass(layer.conv, halving)
    _read(encoder.conv_out, 8)
    vae.quant_conv.weight.copy_(torch.eye(8)[..., None, None])
    vae.quant_conv.bias.zero_()
    vae.quant_conv.bias[4:] = -5.0
    vae.post_quant_conv.weight.copy_(torch.eye(4)[..., None, None])
    vae.post_quant_conv.bias.zero_()
    _load(decoder.conv_in, 1.0)
    for block in decoder.up_blocks:
        for layer in block.upsamplers or ():
            _pass(layer.conv, smooth)
    _read(decoder.conv_out, 3)
    _level(encoder.conv_norm_out, lambda: vae.encode(sample))
    detail = vae.encode(sample).latent_dist.mean[:, 3]
    encoder.conv_out.weight[3] *= 0.7 / detail.std()  # else the fourth latent drowns in its own noise and stays unused
    encoder.conv_out.bias[3] = -detail.mean() * 0.7 / detail.std()
    z = vae.encode(sample).latent_dist.mean
    _level(decoder.conv_norm_out, lambda: vae.decode(z))
