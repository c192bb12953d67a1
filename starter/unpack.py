"""Unpacks the shipped starter model into a model folder, as an ordinary single-file checkpoint.

`install(folder)` is all that the product needs. It imports numpy and zstandard, no torch.

The checkpoint is stored in two files: the packed base, and a refinement, which is what later training changed of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zstandard

from starter import stfile

WEIGHTS = Path(__file__).parent / "weights"
PACKED = "impasto-starter.pack"
REFINEMENT = "impasto-starter-refinement.pack"
NAME = "impasto-starter.safetensors"
REPAIR = "impasto models starter --repair"


Arrays = dict[str, np.ndarray]


class StarterDamaged(Exception):
    """The packed starter model is missing or not what it should be. The text names the file and the repair."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"The starter model's file {path} {why}. To repair it run: {REPAIR}")
        self.path = path


def restored(plain: bytes) -> tuple[Arrays, dict[str, str]]:
    """The fp16 tensors and the metadata of the single file from the stored tensors (see `starter.pack.packed`)."""
    stored, metadata = stfile.read(plain)
    tensors = {}
    for key in stored:
        name, _, part = key.partition("|")
        if part in ("", "q"):
            value = stored[key]
            if part == "q":
                factor = stored[f"{name}|s"].reshape(-1, *[1] * (value.ndim - 1))
                value = (value.astype(np.float32) * factor).astype(np.float16)
            if f"{name}|i" in stored:
                whole = np.zeros((int(stored[f"{name}|n"][0]), value.shape[1]), np.float16)
                whole[stored[f"{name}|i"]] = value
                value = whole
            tensors[name] = value
    return tensors, metadata


def refined(base: Mapping[str, np.ndarray], plain: bytes) -> Arrays:
    """The base's tensors, those that a refinement holds changed: `name` takes the place of one, `name|d` times
    `name|s` (a factor a row) is added to it."""
    tensors = dict(base)
    stored, _ = stfile.read(plain)
    for key, value in stored.items():
        name, _, part = key.partition("|")
        if part == "d":
            factor = stored[f"{name}|s"].reshape(-1, *[1] * (value.ndim - 1))
            value = (value.astype(np.float32) * factor + base[name].astype(np.float32)).astype(np.float16)
        if part in ("", "d"):
            tensors[name] = value
    return tensors


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def facts(weights: Path = WEIGHTS) -> dict:
    """What the packed files should be: bytes and sums, those of the refinement under its name where there is one."""
    path = weights / f"{PACKED}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        told = {k: found[k] for k in ("bytes", "sha256", "result_bytes", "result_sha256")}
        if "refinement" in found:
            told["refinement"] = {k: found["refinement"][k] for k in ("bytes", "sha256")}
        return told
    except FileNotFoundError:
        raise StarterDamaged(path, "is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StarterDamaged(path, f"cannot be read ({e})") from None


def checked(source: Path, wanted: Mapping) -> bytes:
    """The decompressed content of a packed file. Raises StarterDamaged where it is missing or not what is wanted."""
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise StarterDamaged(source, "is missing") from None
    except OSError as e:
        raise StarterDamaged(source, f"cannot be read ({e.strerror})") from None
    if len(data) != wanted["bytes"]:
        raise StarterDamaged(source, f"has {len(data)} bytes instead of {wanted['bytes']}")
    if hashlib.sha256(data).hexdigest() != wanted["sha256"]:
        raise StarterDamaged(source, "is damaged (its checksum is wrong)")
    return zstandard.ZstdDecompressor().decompress(data)


def unpacked(weights: Path = WEIGHTS, refine: bool = True) -> tuple[Arrays, dict[str, str]]:
    """Tensors and metadata of the checkpoint; `refine`: with the refinement, where there is one. Raises
    StarterDamaged."""
    wanted = facts(weights)
    tensors, metadata = restored(checked(weights / PACKED, wanted))
    if refine and "refinement" in wanted:
        tensors = refined(tensors, checked(weights / REFINEMENT, wanted["refinement"]))
    return tensors, metadata


def install(folder: Path | str, weights: Path = WEIGHTS) -> Path:
    """The path of the unpacked checkpoint in `folder`; unpacks it unless the right file is already there.

    Raises StarterDamaged where a packed file is missing or damaged. The checkpoint appears whole or not at all.
    """
    wanted, out = facts(weights), Path(folder) / NAME
    if out.is_file() and out.stat().st_size == wanted["result_bytes"] and _sum(out) == wanted["result_sha256"]:
        return out
    tensors, metadata = unpacked(weights)
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=NAME, suffix=".part", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        stfile.write(temporary, tensors, metadata)
        if _sum(temporary) != wanted["result_sha256"]:
            raise StarterDamaged(weights / PACKED, "did not unpack to the expected checkpoint (its checksum is wrong)")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out
