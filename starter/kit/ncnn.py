"""Reads ncnn's networks (.param text and .bin weights) of the Real-ESRGAN family into the usual torch names.

RRDBNet (x4plus, x4plus-anime) and SRVGGNetCompact (animevideov3); Wang et al., "Real-ESRGAN", 2021. The files hold fp16
weights, which stay fp16: nothing is lost. Format: ncnn's wiki, "param and model file structure".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAGIC = "7767517"
HALF = 0x01306B47


class NotReadable(Exception):
    """These are no ncnn files, or of another kind of network; the text says what."""


@dataclass
class _Weights:
    data: bytes
    at: int = 0

    def plain(self, count: int) -> np.ndarray:
        if self.at + 4 * count > len(self.data):
            raise NotReadable("the weights end too early")
        values = np.frombuffer(self.data, "<f4", count, self.at)
        self.at += 4 * count
        return values

    def marked(self, count: int) -> np.ndarray:
        """A convolution's: a mark of four bytes, then fp16 (filled up to four bytes) or fp32."""
        mark = int(self.plain(1).view("<u4")[0])
        if mark == 0:
            return self.plain(count)
        if mark != HALF:
            raise NotReadable(f"weights stored as {mark:#x} are not known")
        return self.plain((count + 1) // 2).view("<f2")[:count]


def upscaler(param: str, weights: bytes) -> dict[str, np.ndarray]:
    """The tensors of an upscaler, by the names that the training code uses. Raises NotReadable."""
    lines = param.splitlines()
    if not lines or lines[0].strip() != MAGIC:
        raise NotReadable("this is no text of an ncnn network")
    data, found = _Weights(weights), []
    compact = False
    for line in lines[2:]:
        words = line.split()
        if not words:
            continue
        options = dict(w.split("=", 1) for w in words[4 + int(words[2]) + int(words[3]) :])
        if words[0] == "Convolution":
            out, side, size = int(options["0"]), int(options["1"]), int(options["6"])
            weight = data.marked(size).reshape(out, size // (out * side * side), side, side)
            found.append({"weight": weight, **({"bias": data.plain(out)} if options.get("5") == "1" else {})})
        elif words[0] == "PReLU":
            found.append({"weight": data.plain(int(options["0"]))})
            compact = True
    if data.at != len(weights):
        raise NotReadable(f"{len(weights) - data.at} bytes of weights belong to layers that are not known")
    names = [f"body.{i}" for i in range(len(found))] if compact else _rrdb_names(len(found))
    return {f"{name}.{part}": value for name, layer in zip(names, found, strict=True) for part, value in layer.items()}


def _rrdb_names(convolutions: int) -> list[str]:
    blocks, rest = divmod(convolutions - 6, 15)
    if rest or blocks < 1:
        raise NotReadable(f"{convolutions} convolutions make no RRDBNet")
    inner = [f"body.{b}.rdb{r}.conv{c}" for b in range(blocks) for r in (1, 2, 3) for c in (1, 2, 3, 4, 5)]
    return ["conv_first", *inner, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
