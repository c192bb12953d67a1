"""Normal maps: of the network of Bae, Budvytis, Cipolla, "Estimating and exploiting the aleatoric uncertainty in
surface normal estimation", 2021 (EfficientNet-B5 of Tan and Le, 2019, and a decoder), and of a depth map.

Colours are those that ControlNet was taught with: red to the left, green up, blue towards us.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..jobs import Pixels
from ..modelfile import header_of
from .running import Floats, filled, looked_at, normalised

__all__ = ["NormalBae", "load_normal_bae", "normals_of_depth", "surface_normals"]

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

B5 = (
    *((3, 1, 1, 24, 3), (3, 2, 6, 40, 5), (5, 2, 6, 64, 5), (3, 2, 6, 128, 7)),
    *((5, 1, 6, 176, 7), (5, 2, 6, 304, 9), (3, 1, 6, 512, 3)),
)
"""Kernel, stride, expansion, channels and repeats of EfficientNet-B5's stages."""

STEM, HEAD = 48, 2048
SKIPS = (24, 40, 64, 176)
"""Channels that the decoder takes from 1/2, 1/4, 1/8 and 1/16 of the size: after these stages."""
_TAKEN = (0, 1, 2, 4)


class _SameConv(nn.Conv2d):
    """Padded as TensorFlow pads: the surplus at the right and below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, right = (max((math.ceil(s / stride) - 1) * stride + kernel - s, 0) for s in x.shape[2:])
        x = functional.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _Norm(nn.Module):
    """Batch normalisation by the statistics of the file."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _Squeeze(nn.Module):
    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = functional.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.conv_expand(means))


class _Block(nn.Module):
    """A depthwise block, expanded before where `expansion` is above 1."""

    def __init__(self, channels: int, kernel: int, stride: int, expansion: int, out: int) -> None:
        super().__init__()
        wide, self.expands = channels * expansion, expansion > 1
        self.adds = stride == 1 and channels == out
        if self.expands:
            self.conv_pw, self.bn1 = nn.Conv2d(channels, wide, 1, bias=False), _Norm(wide)
        self.conv_dw = _SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self.se = _Squeeze(wide, channels // 4)
        if self.expands:
            self.bn2 = _Norm(wide)
            self.conv_pwl, self.bn3 = nn.Conv2d(wide, out, 1, bias=False), _Norm(out)
        else:
            self.bn1 = _Norm(wide)
            self.conv_pw, self.bn2 = nn.Conv2d(wide, out, 1, bias=False), _Norm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = x
        if self.expands:
            x = functional.silu(self.bn1(self.conv_pw(x)))
            x = self.se(functional.silu(self.bn2(self.conv_dw(x))))
            x = self.bn3(self.conv_pwl(x))
        else:
            x = self.se(functional.silu(self.bn1(self.conv_dw(x))))
            x = self.bn2(self.conv_pw(x))
        return x + held if self.adds else x


class _Original(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = _SameConv(3, STEM, 3, 2, bias=False), _Norm(STEM)
        stages, channels = [], STEM
        for kernel, stride, expansion, out, repeats in B5:
            stage = []
            for number in range(repeats):
                stage.append(_Block(channels, kernel, stride if number == 0 else 1, expansion, out))
                channels = out
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, HEAD, 1, bias=False)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.original_model = _Original()

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        model, skips = self.original_model, []
        x = functional.silu(model.bn1(model.conv_stem(x)))
        for number, stage in enumerate(model.blocks):
            x = stage(x)
            if number in _TAKEN:
                skips.append(x)
        return skips, model.conv_head(x)


class _Up(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (channels, out):
            layers += [nn.Conv2d(width, out, 3, padding=1), _Norm(out, 1e-5), nn.LeakyReLU()]
        self._net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        grown = functional.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=True)
        joined: torch.Tensor = self._net(torch.cat([grown, skip], 1))
        return joined


def _refiner(channels: int) -> nn.Sequential:
    """Each pixel by itself: features and the coarser normals become finer ones."""
    layers: list[nn.Module] = []
    for width in (channels + 4, 128, 128):
        layers += [nn.Conv1d(width, 128, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(128, 4, 1))


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv2 = nn.Conv2d(HEAD, HEAD, 1)
        channels = HEAD
        for number, skip in enumerate(reversed(SKIPS), 1):
            setattr(self, f"up{number}", _Up(channels + skip, channels // 2))
            channels //= 2
        self.out_conv_res8 = nn.Conv2d(512, 4, 3, padding=1)
        self.out_conv_res4, self.out_conv_res2, self.out_conv_res1 = _refiner(512), _refiner(256), _refiner(128)

    def forward(self, skips: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        x, features = self.conv2(x), []
        for number, skip in enumerate(reversed(skips), 1):
            x = getattr(self, f"up{number}")(x, skip)
            features.append(x)
        normals = _unit(self.out_conv_res8(features[1]))
        for name, feature in zip(("out_conv_res4", "out_conv_res2", "out_conv_res1"), features[1:], strict=True):
            both = torch.cat([feature, normals], 1)
            both = functional.interpolate(both, scale_factor=2, mode="bilinear", align_corners=True)
            refined = getattr(self, name)(both.flatten(2))
            normals = _unit(refined.unflatten(2, both.shape[2:]))
        return normals


def _unit(values: torch.Tensor) -> torch.Tensor:
    """[n, 4, h, w]: a direction of length 1, and how sure it is."""
    direction, sure = values[:, :3], values[:, 3:]
    length = direction.norm(dim=1, keepdim=True) + 1e-10
    return torch.cat([direction / length, functional.elu(sure) + 1.01], 1)


class NormalBae(nn.Module):
    """RGB [1, 3, h, w], normalised -> [1, 4, h, w]: the normal, and how sure it is. Sides in multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _Encoder(), _Decoder()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normals: torch.Tensor = self.decoder(*self.encoder(x))
        return normals


def load_normal_bae(path: str | Path, device: torch.device) -> NormalBae:
    """The network of scannet.pt. Raises ModelError as `filled` does."""
    names = header_of(path).tensors
    prefix = next((p for p in ("model.module.", "model.", "module.") if f"{p}decoder.conv2.weight" in names), "")
    return filled(NormalBae, path, device, lambda name: prefix + name, "normal map network")


def surface_normals(network: NormalBae, picture: Pixels) -> Pixels:
    """The normal map of RGB [h, w, 3], of its size."""

    def see(shown: Pixels) -> Floats:
        values = normalised(shown, MEAN, DEVIATION).to(network.decoder.conv2.weight.device)
        with torch.inference_mode():
            normals: Floats = network(values)[0, :3].permute(1, 2, 0).cpu().numpy()
        return normals

    return ((looked_at(picture, 64, see) + 1) / 2 * 255).clip(0, 255).astype(np.uint8)


def normals_of_depth(depth: Floats, background: float) -> Pixels:
    """The normal map of a depth map [h, w] in the units of MiDaS, larger towards us: by its slopes (Sobel).

    What is farther than `background` (0..1 of the range) faces us.
    """
    padded = np.pad(depth.astype(np.float32), 1, mode="reflect" if min(depth.shape) > 1 else "edge")
    across, down = padded[:, 2:] - padded[:, :-2], padded[2:] - padded[:-2]
    slope_x = across[:-2] + 2 * across[1:-1] + across[2:]
    slope_y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    near = (depth - depth.min()) / max(float(depth.max() - depth.min()), 1e-6) >= background
    normals = np.stack([slope_x * near, slope_y * near, np.full(depth.shape, 2 * math.pi, np.float32)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.asarray((normals * 127.5 + 127.5).clip(0, 255), np.uint8)
