"""Line art of photographs (Chan, Durand, Isola, "Learning to generate line drawings that convey geometry and
semantics", 2022) and of anime pictures (the U-Net of Isola et al., "Image-to-image translation with conditional
adversarial networks", 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..jobs import Pixels
from ..modelfile import header_of
from .running import Floats, filled, looked_at

__all__ = ["AnimeLines", "LineDrawing", "anime_lines", "drawn_lines", "load_anime_lines", "load_line_drawing"]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (
            (nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)) for _ in range(2)
        )
        self.conv_block = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = x + self.conv_block(x)
        return added


class LineDrawing(nn.Module):
    """RGB [1, 3, h, w] in 0..1 -> [1, 1, h, w], 1 where the paper is white. Sides in multiples of 4."""

    def __init__(self, width: int = 64, blocks: int = 3) -> None:
        super().__init__()
        norm, relu = nn.InstanceNorm2d, nn.ReLU
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), norm(width), relu())
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for level in (1, 2):
            wide = width * 2**level
            down += [nn.Conv2d(wide // 2, wide, 3, 2, 1), norm(wide), relu()]
            up[:0] = [nn.ConvTranspose2d(wide, wide // 2, 3, 2, 1, 1), norm(wide // 2), relu()]
        self.model1 = nn.Sequential(*down)
        self.model2 = nn.Sequential(*(_Residual(width * 4) for _ in range(blocks)))
        self.model3 = nn.Sequential(*up)
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(5):
            x = getattr(self, f"model{number}")(x)
        return x


class _Level(nn.Module):
    """One level of the U-Net and all below it. Its skip is what the level above gave, after the first activation."""

    def __init__(self, outer: int, inner: int, below: nn.Module | None) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1)]
        if below is not None:
            parts += [nn.InstanceNorm2d(inner), below]
        across = inner if below is None else 2 * inner
        parts += [nn.ReLU(), nn.ConvTranspose2d(across, outer, 4, 2, 1), nn.InstanceNorm2d(outer)]
        self.model = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.model(x)], 1)


class _Top(nn.Module):
    def __init__(self, width: int, below: nn.Module) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(2 * width, 1, 4, 2, 1)
        self.model = nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), below, nn.ReLU(), up, nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = self.model(x)
        return drawn


class AnimeLines(nn.Module):
    """RGB [1, 3, h, w] in -1..1 -> [1, 1, h, w] in -1..1, 1 where the paper is white. Sides in multiples of 256."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        level = _Level(8 * width, 8 * width, None)
        for outer, inner in ((8, 8), (8, 8), (8, 8), (4, 8), (2, 4), (1, 2)):
            level = _Level(outer * width, inner * width, level)
        self.model = _Top(width, level)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drawn: torch.Tensor = self.model(x)
        return drawn


def load_line_drawing(path: str | Path, device: torch.device) -> LineDrawing:
    """The network of sk_model.pth or sk_model2.pth. Raises ModelError as `filled` does."""
    return filled(LineDrawing, path, device, lambda name: name, "line drawing network")


def load_anime_lines(path: str | Path, device: torch.device) -> AnimeLines:
    """The network of netG.pth. Raises ModelError as `filled` does."""
    prefix = "module." if any(name.startswith("module.") for name in header_of(path).tensors) else ""
    return filled(AnimeLines, path, device, lambda name: prefix + name, "anime line network")


def drawn_lines(network: LineDrawing, picture: Pixels) -> NDArray[np.uint8]:
    """Light lines on black, [h, w] 0..255, of RGB [h, w, 3]."""

    def see(shown: Pixels) -> Floats:
        values = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1))).float()[None] / 255
        with torch.inference_mode():
            lines: Floats = network(values.to(_device(network)))[0, 0].cpu().numpy()
        return lines

    return 255 - (looked_at(picture, 64, see) * 255).clip(0, 255).astype(np.uint8)


def anime_lines(network: AnimeLines, picture: Pixels) -> NDArray[np.uint8]:
    """The same of a drawing."""

    def see(shown: Pixels) -> Floats:
        values = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1))).float()[None] / 127.5 - 1
        with torch.inference_mode():
            lines: Floats = network(values.to(_device(network)))[0, 0].cpu().numpy()
        return lines * 127.5 + 127.5

    return 255 - looked_at(picture, 256, see).clip(0, 255).astype(np.uint8)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
