"""Folders as transformers writes them: config.json, the weights, and how pictures are to be prepared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError

from ..modelpath import PICKLES

__all__ = ["Folder", "read_folder"]

Norm = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Folder:
    """`weights` lie beside a config.json; `picture` is preprocessor_config.json, empty where there is none."""

    weights: Path
    picture: Mapping[str, Any]

    def load(self, kind: Any, device: torch.device) -> Any:
        """The network, by one of transformers' Auto classes: fp32, ready to run. No code of the folder is run, and
        nothing is fetched. Raises ModelError `model.unsupported`."""
        try:
            module = kind.from_pretrained(
                str(self.weights.parent),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=self.weights.suffix.lower() not in PICKLES,
                dtype=torch.float32,
            )
        except Exception as error:  # its errors have no common class
            told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelError(
                "model.unsupported",
                f"The folder {self.weights.parent.name} cannot be loaded by transformers: {told}",
                data={"file": self.weights.parent.name},
            ) from error
        return module.to(device).eval().requires_grad_(False)

    def norm(self, own: Norm) -> Norm:
        """Mean and deviation that are taken off pictures in 0..1; `own` where the folder does not say."""
        mean, deviation = self.picture.get("image_mean"), self.picture.get("image_std")
        if isinstance(mean, list) and isinstance(deviation, list) and len(mean) == len(deviation) == 3:
            return tuple(map(float, mean)), tuple(map(float, deviation))
        return own


def read_folder(weights: Path) -> Folder:
    """The folder that the weights lie in. Raises ModelError `model.unsupported` where it has no config.json."""
    folder = weights.parent
    if not (folder / "config.json").is_file():
        raise ModelError(
            "model.unsupported",
            f"Beside {weights.name} no config.json says what network it is; copy the whole folder.",
            data={"file": weights.name},
        )
    try:
        told = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        told = {}
    except (OSError, ValueError) as error:
        raise ModelError(
            "model.corrupt",
            f"preprocessor_config.json in {folder.name} cannot be read ({error}); copy the folder again.",
            data={"file": folder.name},
        ) from error
    return Folder(weights, told if isinstance(told, dict) else {})
