"""Packs the single file for the repository: int8 per output channel where it pays, then zstd.

    python -m starter.pack IN.safetensors                 # writes starter/weights/impasto-starter.pack and its .json
    python -m starter.pack IN.safetensors --refinement    # the base stays, what IN changes of it is written beside it

Matrices and convolutions of the UNet, the VAE and the text encoder become int8 with one float32 factor a
row, rows of token vectors that are zero are left out, the rest stays fp16. `unpack` is the exact reverse of
this, so the sums of the packed file and of the result are written beside it.

A refinement holds the differences of the matrices and convolutions that were trained on, a few steps a value, each a
share of the row's root mean square, which zstd brings to two bits; training in view of it (`starter.refine`) makes up
for how coarse that is. What is small is stored whole."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import zstandard

from starter import stfile
from starter.unpack import PACKED, REFINEMENT, WEIGHTS, Arrays, refined, restored, unpacked

SMALLEST = 2048  # values; smaller tensors stay fp16
SPARSE = "token_embedding.weight"
EXACT = ("quant_conv.",)  # the latents' own scale
STEP = 1.0
"""Width of a step of a refinement, in root mean squares of its row."""
MOST = 12
"""The largest number of steps of a difference."""


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


def stepped(value: np.ndarray, step: float, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the same shape, and float32 widths of a step [rows]: `step` root mean squares of the row."""
    rows = value.reshape(len(value), -1)
    width = np.maximum(np.sqrt((rows**2).mean(1)), 1e-8).astype(np.float32) * np.float32(step)
    whole = np.rint(rows / width[:, None]).clip(-most, most).astype(np.int8)
    return whole.reshape(value.shape), width


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


def differences(tensors: Arrays, base: Arrays, step: float = STEP) -> Arrays:
    """What changed as a refinement stores it (see `starter.unpack.refined`). Raises ValueError for tensors that the
    base has not, or has in another shape."""
    if {n: v.shape for n, v in tensors.items()} != {n: v.shape for n, v in base.items()}:
        raise ValueError("a refinement has the tensors of its base, in the same shapes")
    out: Arrays = {}
    for name, value in tensors.items():
        if np.array_equal(value.astype(np.float16), base[name]):
            continue
        if value.ndim > 1 and value.size >= SMALLEST:
            difference = value.astype(np.float32) - base[name].astype(np.float32)
            out[f"{name}|d"], out[f"{name}|s"] = stepped(difference, step)
        else:
            out[name] = value.astype(np.float16)
    return out


def compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(plain)


def sums(data: bytes, result: bytes) -> dict:
    """Bytes and checksums of a packed file and of what comes out of it."""
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "result_bytes": len(result),
        "result_sha256": hashlib.sha256(result).hexdigest(),
    }


def keep(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)


def pack(source: Path, folder: Path = WEIGHTS) -> dict:
    """Packs a single file into `folder`, where no refinement is left; returns what is written into the .json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, metadata = stfile.read(source.read_bytes())
    plain = stfile.encoded(packed(tensors), metadata)
    data = compressed(plain)
    told = {"file": PACKED, **sums(data, stfile.encoded(*restored(plain)))}
    keep(folder / PACKED, data)
    (folder / REFINEMENT).unlink(missing_ok=True)
    (folder / f"{PACKED}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def pack_refinement(source: Path, folder: Path = WEIGHTS, step: float = STEP) -> dict:
    """Packs what a single file (fp16 or float32) changes of the base in `folder`; returns what is written into the
    .json. Raises StarterDamaged where the base is not whole."""
    base, metadata = unpacked(folder, refine=False)
    tensors, _ = stfile.read(source.read_bytes())
    plain = stfile.encoded(differences(tensors, base, step), {})
    data = compressed(plain)
    result = stfile.encoded(refined(base, plain), metadata)
    of_base, told = (folder / PACKED).read_bytes(), sums(data, result)
    told = {
        "file": PACKED,
        **sums(of_base, result),
        "refinement": {"file": REFINEMENT, "step": step, "bytes": told["bytes"], "sha256": told["sha256"]},
    }
    keep(folder / REFINEMENT, data)
    keep(folder / f"{PACKED}.json", (json.dumps(told, indent=1) + "\n").encode())
    return told


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=Path)
    p.add_argument("--folder", type=Path, default=WEIGHTS)
    p.add_argument("--refinement", action="store_true")
    p.add_argument("--step", type=float, default=STEP, help="of a refinement: how coarse it is")
    a = p.parse_args()
    told = pack_refinement(a.source, a.folder, a.step) if a.refinement else pack(a.source, a.folder)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
