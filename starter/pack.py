"""Packs the single file for the repository: int8 per output channel where it pays, then zstd.

    python -m starter.pack IN.safetensors        # writes starter/weights/impasto-starter.pack and its .json

Matrices and convolutions of the UNet, the VAE and the text encoder become int8 with one float32 factor a
row, rows of token vectors that are zero are left out, the rest stays fp16. `unpack` is the exact reverse of
this, so the sums of the packed file and of the result are written beside it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import zstandard

from starter import stfile
from starter.unpack import PACKED, WEIGHTS, restore

SMALLEST = 2048  # values; smaller tensors stay fp16
SPARSE = "token_embedding.weight"
EXACT = ("quant_conv.",)  # the latents' own scale


def steps(name: str, size: int) -> int:
    """The largest stored number: 8 bits, 7 for the UNet's large tensors, 6 for word vectors."""
    if name.endswith(SPARSE):
        return 31
    return 63 if size > 50_000 and name.startswith("model.diffusion_model.") else 127


def quantised(value: np.ndarray, most: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the same shape, and float32 factors [rows], rows being the first axis."""
    rows = value.astype(np.float32).reshape(len(value), -1)
    factor = np.maximum(np.abs(rows).max(1), 1e-8) / np.float32(most)
    return np.rint(rows / factor[:, None]).clip(-most, most).astype(np.int8).reshape(value.shape), factor.astype(
        np.float32
    )


def packed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as stored: `name`, or `name|q` with `name|s`, and `name|i` (kept rows) and `name|n` (all rows)."""
    out = {}
    for name, value in tensors.items():
        if name.endswith(SPARSE):
            kept = np.flatnonzero(np.abs(value).max(1) > 0).astype(np.int32)
            out[f"{name}|i"], out[f"{name}|n"] = kept, np.array([len(value)], np.int32)
            value = value[kept]
        if value.ndim > 1 and value.size >= SMALLEST and not any(e in name for e in EXACT):
            out[f"{name}|q"], out[f"{name}|s"] = quantised(value, steps(name, value.size))
        else:
            out[name] = value
    return out


def pack(source: Path, folder: Path = WEIGHTS) -> dict:
    """Packs a single file into `folder`; returns what is written into the .json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, metadata = stfile.read(source.read_bytes())
    plain = folder / "plain.part"
    stfile.write(plain, packed(tensors), metadata)
    data = zstandard.ZstdCompressor(level=19).compress(plain.read_bytes())
    result = folder / "result.part"
    restore(plain.read_bytes(), result)
    facts = {
        "file": PACKED,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "result_bytes": result.stat().st_size,
        "result_sha256": hashlib.sha256(result.read_bytes()).hexdigest(),
    }
    plain.unlink()
    result.unlink()
    temporary = folder / (PACKED + ".part")
    temporary.write_bytes(data)
    temporary.replace(folder / PACKED)
    (folder / f"{PACKED}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=Path)
    p.add_argument("--folder", type=Path, default=WEIGHTS)
    a = p.parse_args()
    print(json.dumps(pack(a.source, a.folder)))


if __name__ == "__main__":
    main()
