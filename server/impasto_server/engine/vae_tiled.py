"""A VAE over a picture of any size: layer by layer, each layer in tiles, so that nothing of it depends on the tiles.

What lies between two layers is kept whole on the host (in a mapped file where that is much); the device sees a tile of
it with the pixels that a convolution looks at around it. The statistics of a group norm are those of the whole picture,
gathered while the map that it normalises is written; the attention of the middle block has all its keys, and its
queries by chunks. So the result is that of the module itself up to rounding, and the device's memory that of a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from .memory import free_bytes, placed
from .scratch import mapped_file

__all__ = ["decode_tiled", "encode_tiled", "needs_tiles", "tile_for"]

_LIVE = 5
"""Maps of the widest level that a convolution of the whole has at once: input, norm, activation, result, workspace."""

_SHARE = 0.6
"""Part of the free memory that a whole picture may take."""

MIN_SIDE = 16
"""Smallest side of a tile of a map."""

_HOST_SHARE = 0.5
"""Part of the host's free memory for the maps; what is more goes into a file."""

Check = Callable[[], None]


def _nothing() -> None:
    """No cancel to hear."""


def needs_tiles(vae: Any, height: int, width: int, free: int, batch: int = 1) -> bool:
    """Whether a picture of height x width pixels takes more than `free` bytes allow in one piece."""
    return batch * height * width * _bytes_a_pixel(vae) > free * _SHARE


def tile_for(vae: Any, free: int) -> int:
    """The side of the tiles, in pixels of the map that is worked on, for `free` bytes of the device."""
    widest = max(vae.config.block_out_channels)
    _, dtype = placed(vae)
    side = math.isqrt(max(free, 0) // 4 // (widest * dtype.itemsize * _LIVE))
    return max(MIN_SIDE, min(side // 16 * 16, 512))


def _bytes_a_pixel(vae: Any) -> int:
    # The finest level gets what the one below hands on: its channels at the full size.
    channels = vae.config.block_out_channels
    _, dtype = placed(vae)
    return int(channels[min(1, len(channels) - 1)] * dtype.itemsize * _LIVE)


def decode_tiled(vae: Any, latents: torch.Tensor, *, side: int | None = None, check: Check = _nothing) -> torch.Tensor:
    """What `vae.decode` gives: [batch, channels, h, w] to float32 [batch, 3, h * 8, w * 8], on the host.

    `side` is that of the tiles (`tile_for`). Raises ResourceError `resource.disk_full` where the maps fit neither in
    memory nor on the disk, and what `check` raises, at every tile.
    """
    room = _Room(vae, side, check)
    return torch.stack([_decoded(room, vae, one) for one in latents])


def encode_tiled(vae: Any, values: torch.Tensor, *, side: int | None = None, check: Check = _nothing) -> torch.Tensor:
    """What `vae._encode` gives: [batch, 3, h, w] to the parameters of the distribution, float32 [batch, 2 * channels,
    h / 8, w / 8], on the host; the rest as in `decode_tiled`."""
    room = _Room(vae, side, check)
    return torch.stack([_encoded(room, vae, one) for one in values])


def _decoded(room: _Room, vae: Any, latent: torch.Tensor) -> torch.Tensor:
    decoder = vae.decoder
    kept = room.of(latent)
    if vae.post_quant_conv is not None:
        kept = room.conv(kept, vae.post_quant_conv)
    kept = _middle(room, decoder.mid_block, room.conv(kept, decoder.conv_in))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            kept = _resnet(room, resnet, kept)
        for upsampler in block.upsamplers or ():
            kept = room.conv(kept, upsampler.conv, before=_doubled, scale=2)
    return _last(room, decoder, kept)


def _encoded(room: _Room, vae: Any, values: torch.Tensor) -> torch.Tensor:
    encoder = vae.encoder
    kept = room.conv(room.of(values), encoder.conv_in)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            kept = _resnet(room, resnet, kept)
        for downsampler in block.downsamplers or ():
            kept = room.halved(kept, downsampler.conv)
    kept = room.of(_last(room, encoder, _middle(room, encoder.mid_block, kept)))
    if vae.quant_conv is not None:
        kept = room.conv(kept, vae.quant_conv)
    return kept.values.float().clone()


def _middle(room: _Room, block: Any, kept: _Map) -> _Map:
    kept = _resnet(room, block.resnets[0], kept)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            kept = room.attend(kept, attention)
        kept = _resnet(room, resnet, kept)
    return kept


def _resnet(room: _Room, resnet: Any, kept: _Map) -> _Map:
    hidden = room.conv(kept, resnet.conv1, norm=resnet.norm1, act=resnet.nonlinearity)
    return room.conv(
        hidden,
        resnet.conv2,
        norm=resnet.norm2,
        act=resnet.nonlinearity,
        added=(kept, resnet.conv_shortcut, resnet.output_scale_factor),
    )


def _last(room: _Room, part: Any, kept: _Map) -> torch.Tensor:
    return room.conv(kept, part.conv_out, norm=part.conv_norm_out, act=part.conv_act).values.float().clone()


def _doubled(tile: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(tile, scale_factor=2.0, mode="nearest")


@dataclass
class _Statistics:
    """Mean and sum of squared differences of the groups of a map, tile by tile (Chan et al., 1979), in float64."""

    count: int = 0
    mean: torch.Tensor | None = None
    squares: torch.Tensor | None = None

    def take(self, tile: torch.Tensor, groups: int) -> None:
        """A part [1, channels, h, w] of the map."""
        values = tile.float().reshape(groups, -1)
        count = values.shape[1]
        # The mean first and in full precision: squares of what is far from 0 lose all that differs.
        mean = values.mean(1, dtype=torch.float32)
        squares = ((values - mean[:, None]) ** 2).sum(1).double().cpu()
        mean = mean.double().cpu()
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        whole = self.count + count
        apart = mean - self.mean
        self.squares = self.squares + squares + apart**2 * (self.count * count / whole)
        self.mean = self.mean + apart * (count / whole)
        self.count = whole

    def numbers(self, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1 / deviation of each group, float32."""
        assert self.mean is not None and self.squares is not None
        return self.mean.float(), (1 / (self.squares / self.count + eps).sqrt()).float()


@dataclass
class _Map:
    """What lies between two layers: [channels, h, w] on the host, and its statistics."""

    values: torch.Tensor
    statistics: _Statistics = field(default_factory=_Statistics)

    @property
    def size(self) -> tuple[int, int]:
        return int(self.values.shape[-2]), int(self.values.shape[-1])


class _Room:
    """Where the maps of one run lie, and the layers that make one from another."""

    def __init__(self, vae: Any, side: int | None, check: Check) -> None:
        self.device, self.dtype = placed(vae)
        self.side = side or tile_for(vae, free_bytes(self.device))
        self.groups = int(vae.config.norm_num_groups)
        self.check = check

    def of(self, values: torch.Tensor) -> _Map:
        """The map that a run begins with."""
        return _Map(values.to("cpu", self.dtype))

    def empty(self, channels: int, height: int, width: int) -> _Map:
        """Room for one, in memory or in a mapped file without a name of its own."""
        size = channels * height * width * self.dtype.itemsize
        if size <= free_bytes(torch.device("cpu")) * _HOST_SHARE:
            return _Map(torch.empty(channels, height, width, dtype=self.dtype))
        file = mapped_file(size, "A picture of this size")
        elements = channels * height * width
        mapped = torch.from_file(str(file), shared=True, size=elements, dtype=self.dtype)
        with suppress(OSError):  # Windows keeps the name of what is mapped
            file.unlink()
        return _Map(mapped.reshape(channels, height, width))

    def conv(
        self,
        kept: _Map,
        layer: Any,
        *,
        norm: Any = None,
        act: Any = None,
        before: Callable[[torch.Tensor], torch.Tensor] | None = None,
        scale: int = 1,
        added: tuple[_Map, Any, float] | None = None,
    ) -> _Map:
        """A convolution that keeps the size, after norm and activation or after `before`, which makes the map `scale`
        times as large; `added` are a map, its own convolution and the divisor of the sum."""
        height, width = kept.size[0] * scale, kept.size[1] * scale
        made = self.empty(layer.out_channels, height, width)
        numbers = None if norm is None else kept.statistics.numbers(norm.eps)
        reach = layer.kernel_size[0] // 2
        for top, bottom, left, right in self._tiles(height, width):
            rows = _around(top, bottom, reach, scale, height)
            columns = _around(left, right, reach, scale, width)
            tile = kept.values[None, :, rows.first : rows.last, columns.first : columns.last].to(self.device)
            if numbers is not None:
                tile = _normed(tile, norm, *numbers)
            if act is not None:
                tile = act(tile)
            if before is not None:
                tile = before(tile)
            tile = tile[..., rows.cut : rows.cut + rows.length, columns.cut : columns.cut + columns.length]
            # The zeros that the layer itself would put around the whole, and only there.
            tile = functional.pad(tile, (columns.low, columns.high, rows.low, rows.high))
            result = functional.conv2d(tile, layer.weight, layer.bias)
            if added is not None:
                other, shortcut, divisor = added
                under = other.values[None, :, top:bottom, left:right].to(self.device)
                result = ((under if shortcut is None else shortcut(under)) + result) / divisor
            self._write(made, result, top, bottom, left, right)
        return made

    def halved(self, kept: _Map, layer: Any) -> _Map:
        """The convolution with a stride of 2 of an encoder: zeros at the right and below."""
        height, width = kept.size
        rows, columns = (height + 1 - 3) // 2 + 1, (width + 1 - 3) // 2 + 1
        made = self.empty(layer.out_channels, rows, columns)
        for top, bottom, left, right in self._tiles(rows, columns):
            last_row, last_column = 2 * bottom + 1, 2 * right + 1
            tile = kept.values[None, :, 2 * top : last_row, 2 * left : last_column].to(self.device)
            tile = functional.pad(tile, (0, max(last_column - width, 0), 0, max(last_row - height, 0)))
            result = functional.conv2d(tile, layer.weight, layer.bias, stride=2)
            self._write(made, result, top, bottom, left, right)
        return made

    def attend(self, kept: _Map, layer: Any) -> _Map:
        """Self-attention over the whole map: all keys and values on the device, the queries by chunks."""
        channels = kept.values.shape[0]
        height, width = kept.size
        made = self.empty(channels, height, width)
        numbers = kept.statistics.numbers(layer.group_norm.eps)
        heads = int(layer.heads)

        def rows_of(first: int, last: int) -> torch.Tensor:
            tile = kept.values[None, :, first:last].to(self.device)
            return _normed(tile, layer.group_norm, *numbers).flatten(2).transpose(1, 2)

        def split(values: torch.Tensor) -> torch.Tensor:
            return values.reshape(*values.shape[:-1], heads, -1).transpose(1, 2)

        # Even bands of rows: a chunk of the queries is one of them.
        step = max(1, min(height, self.side * self.side // width))
        bands = [(first, min(first + step, height)) for first in range(0, height, step)]
        keys = split(torch.cat([layer.to_k(rows_of(*band)) for band in bands], 1))
        values = split(torch.cat([layer.to_v(rows_of(*band)) for band in bands], 1))
        for first, last in bands:
            self.check()
            query = split(layer.to_q(rows_of(first, last)))
            out = functional.scaled_dot_product_attention(query, keys, values)
            out = layer.to_out[0](out.transpose(1, 2).flatten(2).to(self.dtype))
            out = out.transpose(1, 2).reshape(1, channels, last - first, width)
            out = (out + kept.values[None, :, first:last].to(self.device)) / layer.rescale_output_factor
            self._write(made, out, first, last, 0, width)
        return made

    def _write(self, made: _Map, tile: torch.Tensor, top: int, bottom: int, left: int, right: int) -> None:
        if tile.shape[1] % self.groups == 0:
            made.statistics.take(tile, self.groups)
        made.values[:, top:bottom, left:right] = tile[0].to(made.values)

    def _tiles(self, height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
        for top in range(0, height, self.side):
            for left in range(0, width, self.side):
                self.check()
                yield top, min(top + self.side, height), left, min(left + self.side, width)


@dataclass(frozen=True)
class _Around:
    """What a tile needs along an axis: `first` to `last` of the map; of that, made `scale` times as large, `length`
    from `cut` on; and `low` and `high` zeros beyond the whole."""

    first: int
    last: int
    cut: int
    length: int
    low: int
    high: int


def _around(start: int, end: int, reach: int, scale: int, whole: int) -> _Around:
    low, high = max(start - reach, 0), min(end + reach, whole)
    first = low // scale
    return _Around(
        first, -(-high // scale), low - first * scale, high - low, max(reach - start, 0), max(end + reach - whole, 0)
    )


def _normed(tile: torch.Tensor, norm: Any, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """A group norm with the numbers of the whole picture."""
    per = tile.shape[1] // len(mean)
    mean = mean.to(tile.device).repeat_interleave(per)
    factor = scale.to(tile.device).repeat_interleave(per)
    if norm.affine:
        factor = factor * norm.weight.float()
    shift = -mean * factor
    if norm.affine:
        shift = shift + norm.bias.float()
    return (tile.float() * factor[:, None, None] + shift[:, None, None]).to(tile.dtype)
