"""EfficientNet-Lite0 as a fixed feature space: a perceptual loss, and the ruler of `starter.evaluate`.

The weights come from a package (see `starter.sources`), were trained on photographs by others and are not
shipped."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from starter.sources import fetch

# kernel, stride, expansion, outputs, repeats
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: any odd pixel goes to the right and below."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (k, _), (s, _) = self.kernel_size, self.stride
        h, w = (max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[-2:])
        if h == w and h % 2 == 0:
            return F.conv2d(x, self.weight, self.bias, self.stride, h // 2, 1, self.groups)
        return super().forward(F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv:
    return SameConv(inputs, outputs, kernel, stride, 0, groups=groups, bias=True)


class Block(nn.Module):
    """Inverted bottleneck with batch norms already folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = _conv(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = _conv(wide, wide, kernel, stride, wide)
        self.project = _conv(wide, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self.expand(x)) if self.expand else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.skip else y


class Lite0(nn.Module):
    """Pictures [n, 3, h, w] in -1..1 to a list of feature maps, or to one vector [n, 1280] (`embed`)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, 2)
        blocks, width = [], 32
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            for i in range(repeats):
                blocks.append(Block(width, outputs, kernel, stride if i == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = _conv(width, 1280, 1)
        self.fc = nn.Linear(1280, 1000)

    def maps(self, x: torch.Tensor, last: int = 10) -> list[torch.Tensor]:
        """Feature maps at strides 2, 4, 8 and 16 (16, 24, 40 and 112 channels), up to block `last`."""
        found, x = [], F.relu6(self.stem(x))
        for i, block in enumerate(self.blocks[: last + 1]):
            x = block(x)
            if i in (0, 2, 4, 10):
                found.append(x)
        return found

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x)).mean((2, 3))


def _folded(state: dict, conv: str, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    scale = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + 1e-3)
    return state[f"{conv}.weight"] * scale.view(-1, 1, 1, 1), state[f"{norm}.bias"] - state[
        f"{norm}.running_mean"
    ] * scale


def load() -> Lite0:
    """The frozen network with its package's weights."""
    path = next(fetch("lite0").rglob("efficientnet-lite0-*.pth"))
    state = torch.load(path, map_location="cpu", weights_only=True)
    net = Lite0()
    pairs = [(net.stem, "_conv_stem", "_bn0"), (net.head, "_conv_head", "_bn1")]
    for i, block in enumerate(net.blocks):
        if block.expand:
            pairs.append((block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"))
        pairs.append((block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"))
        pairs.append((block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"))
    for module, conv, norm in pairs:
        weight, bias = _folded(state, conv, norm)
        module.weight.data.copy_(weight)
        module.bias.data.copy_(bias)
    net.fc.weight.data.copy_(state["_fc.weight"])
    net.fc.bias.data.copy_(state["_fc.bias"])
    return net.eval().requires_grad_(False)


def perceptual(net: Lite0, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean distance of unit-length feature vectors at strides 2 to 8, pictures [n, 3, h, w] in -1..1."""
    with torch.no_grad():
        wanted = net.maps(b, last=4)
    total = a.new_zeros(())
    for got, want in zip(net.maps(a, last=4), wanted, strict=True):
        got, want = got.float(), want.float()
        total = total + (F.normalize(got, dim=1) - F.normalize(want, dim=1)).abs().sum(1).mean() / got.shape[1] ** 0.5
    return total
