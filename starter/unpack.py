"""Unpacks the shipped starter model into a model folder, as an ordinary single-file checkpoint.

`install(folder)` is all that the product needs. It imports numpy and zstandard, no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import zstandard

from starter import stfile

WEIGHTS = Path(__file__).parent / "weights"
PACKED = "impasto-starter.pack"
NAME = "impasto-starter.safetensors"
REPAIR = "impasto models starter --repair"


class StarterDamaged(Exception):
    """The packed starter model is missing or not what it should be. The text names the file and the repair."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"The starter model's file {path} {why}. To repair it run: {REPAIR}")
        self.path = path


def restore(plain: bytes, out: Path) -> None:
    """Writes the fp16 single file from the stored tensors (see `starter.pack.packed`)."""
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
    stfile.write(out, tensors, metadata)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def facts(weights: Path = WEIGHTS) -> dict:
    """What the packed file should be: bytes and sums."""
    path = weights / f"{PACKED}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {k: found[k] for k in ("bytes", "sha256", "result_bytes", "result_sha256")}
    except FileNotFoundError:
        raise StarterDamaged(path, "is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StarterDamaged(path, f"cannot be read ({e})") from None


def install(folder: Path | str, weights: Path = WEIGHTS) -> Path:
    """The path of the unpacked checkpoint in `folder`; unpacks it unless the right file is already there.

    Raises StarterDamaged where the packed file is missing or damaged. The checkpoint appears whole or not at all.
    """
    wanted, out = facts(weights), Path(folder) / NAME
    if out.is_file() and out.stat().st_size == wanted["result_bytes"] and _sum(out) == wanted["result_sha256"]:
        return out
    source = weights / PACKED
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
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=NAME, suffix=".part", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        restore(zstandard.ZstdDecompressor().decompress(data), temporary)
        if _sum(temporary) != wanted["result_sha256"]:
            raise StarterDamaged(source, "did not unpack to the expected checkpoint (its checksum is wrong)")
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out
