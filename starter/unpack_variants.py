"""Unpacks what goes with the starter model into a model folder, each as the ordinary file of its kind.

`install(folder)` is all that the product needs. It imports numpy and zstandard, no torch. What is packed as
a difference is added to the starter model's own tensors, so that one must be there (`starter.unpack.install`).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from starter import stfile
from starter.unpack import WEIGHTS, StarterDamaged, _sum, checked
from starter.unpack import install as install_base

MANIFEST = "variants.json"
PARTS = {
    "inpainting": "impasto-starter-inpainting.safetensors",
    "canny": "ControlNet/impasto-starter-canny.safetensors",
    "scribble": "ControlNet/impasto-starter-scribble.safetensors",
    "lora": "Lora/impasto-starter-pencil.safetensors",
    "embedding": "embeddings/impasto-trophy.safetensors",
    "preview": "VAE-taesd/taesd-impasto-starter.safetensors",
}
"""What it is -> its place in the model folder. Folder names are those of AUTOMATIC1111."""

_FACTS = ("bytes", "sha256", "result_bytes", "result_sha256")
Arrays = dict[str, np.ndarray]


def packed_name(part: str) -> str:
    """The packed file of a part."""
    return f"impasto-starter-{part}.pack"


def restore(plain: bytes, base: Mapping[str, np.ndarray], out: Path) -> None:
    """Writes the file from the stored tensors (see `starter.pack_variants`) and the starter model's.

    Stored are `name`, or `name|q` times `name|s`, or `name|d` times `name|s` to be added to a tensor of the base.
    """
    stored, metadata = stfile.read(plain)
    how = json.loads(metadata.pop("impasto.packed"))
    tensors = {n: base[n] for n in base if n.startswith(tuple(how["copied"]))} if how["copied"] else {}
    for key, value in stored.items():
        name, _, kind = key.partition("|")
        if kind == "s":
            continue
        if kind:
            factor = stored[f"{name}|s"].reshape(-1, *[1] * (value.ndim - 1))
            value = value.astype(np.float32) * factor
            if kind == "d":
                value = value + base[how["added"][name]].astype(np.float32)
            value = value.astype(np.float16)
        tensors[name] = value
    stfile.write(out, tensors, metadata)


def facts(weights: Path = WEIGHTS) -> dict[str, dict]:
    """Part -> bytes and sums of its packed file and of its result. Raises StarterDamaged."""
    path = weights / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {part: {k: found[part][k] for k in _FACTS} for part in PARTS}
    except FileNotFoundError:
        raise StarterDamaged(path, "is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StarterDamaged(path, f"cannot be read ({e})") from None


def install(folder: Path | str, weights: Path = WEIGHTS) -> list[Path]:
    """The paths of the unpacked files below `folder`; unpacks those that are not there already.

    Unpacks the starter model too. Raises StarterDamaged where a packed file is missing or damaged; the other files are
    then there nevertheless. Each file appears whole or not at all.
    """
    folder, wanted, paths = Path(folder), facts(weights), []
    base: Arrays | None = None
    damaged: StarterDamaged | None = None
    for part, place in PARTS.items():
        out = folder / place
        if not _right(out, wanted[part]):
            if base is None:
                base, _ = stfile.read(install_base(folder, weights).read_bytes())
            try:
                _install(part, out, wanted[part], base, weights)
            except StarterDamaged as e:
                damaged = damaged or e
                continue
        paths.append(out)
    if damaged is not None:
        raise damaged
    return paths


def remove(folder: Path | str) -> None:
    """Takes the unpacked files away, so that `install` makes them anew."""
    for place in PARTS.values():
        (Path(folder) / place).unlink(missing_ok=True)


def _right(path: Path, wanted: dict) -> bool:
    return path.is_file() and path.stat().st_size == wanted["result_bytes"] and _sum(path) == wanted["result_sha256"]


def _install(part: str, out: Path, wanted: dict, base: Arrays, weights: Path) -> None:
    source = weights / packed_name(part)
    plain = checked(source, wanted)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=out.name, suffix=".part", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        restore(plain, base, temporary)
        if _sum(temporary) != wanted["result_sha256"]:
            raise StarterDamaged(source, "did not unpack to the expected file (its checksum is wrong)")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
