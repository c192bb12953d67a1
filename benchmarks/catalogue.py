"""Ten thousand model files indexed: cold (every header read), warm (all known from the index), and again while the
server runs.

    python3 dev.py exec -- python benchmarks/catalogue.py [--files 10000] [--rounds 5]

The files are written first, in an A1111 web UI's folders: true headers in front of a hole, so that they take little
room on the disk and say the size of the real thing. Most are LoRAs, as in real collections: of 48 makes (rank, parts,
number format) with metadata of their own as kohya's scripts write them. Beside them: checkpoints of Stable Diffusion
1.5 in two formats, embeddings (some of them pickles), VAEs, pictures and notes. Everything is in the page cache when
the clock runs. Prints medians in seconds as JSON, and the aims.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from impasto_server.engine import layout
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.facts import Identify
from impasto_server.service.model_folders import a1111_folders

AIMS = {"cold": 5.0, "warm": 0.3}
BYTES = {"F16": 2, "F32": 4, "BF16": 2}


def write(path: Path, tensors: Mapping[str, tuple[int, ...]], dtype: str, metadata: Mapping[str, str] = {}) -> None:
    """A true safetensors header, and a hole where the numbers would be."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, shape in tensors.items():
        size = BYTES[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (at, at + size)}
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)


def checkpoint_shapes() -> dict[str, tuple[int, ...]]:
    """Stable Diffusion 1.5's."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from lora import TEXT, UNET, VAE
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        parts = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT))
    attention = (True, True, True, False)
    found: dict[str, tuple[int, ...]] = {}
    for name, value in parts[0].state_dict().items():
        key = layout.unet_to_file(name, layers_per_block=2, attention=attention)
        found[layout.UNET_PREFIX + key] = tuple(value.shape)
    for name, value in parts[1].state_dict().items():
        shape = (*value.shape, 1, 1) if layout.is_squeezed(name) else tuple(value.shape)
        found[layout.VAE_PREFIX + layout.vae_to_file(name, levels=4)] = shape
    for name, value in parts[2].state_dict().items():
        found[layout.TEXT_PREFIX + layout.text_to_file(name, nested=True)] = tuple(value.shape)
    return found


def lora_shapes(rank: int, text: bool, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """On attention and feed-forward layers, in kohya's names."""
    found: dict[str, tuple[int, ...]] = {}
    places = [f"down_blocks_{i}_attentions_{j}" for i in range(3) for j in range(2)] + ["mid_block_attentions_0"]
    places += [f"up_blocks_{i}_attentions_{j}" for i in range(1, 4) for j in range(3)]
    layers = [f"attn{a}_to_{p}" for a in (1, 2) for p in ("q", "k", "v", "out_0")] + ["ff_net_0_proj", "ff_net_2"]
    for place in places:
        for layer in layers:
            wide = 768 if layer in ("attn2_to_k", "attn2_to_v") else 640
            stem = f"lora_unet_{place}_transformer_blocks_0_{layer}"
            found[f"{stem}.alpha"] = ()
            found[f"{stem}.{names[0]}.weight"], found[f"{stem}.{names[1]}.weight"] = (rank, wide), (640, rank)
    for index in range(12 if text else 0):
        for layer in ("mlp_fc1", "mlp_fc2", "self_attn_k_proj", "self_attn_out_proj", "self_attn_q_proj"):
            stem = f"lora_te_text_model_encoder_layers_{index}_{layer}"
            found[f"{stem}.alpha"] = ()
            found[f"{stem}.{names[0]}.weight"], found[f"{stem}.{names[1]}.weight"] = (rank, 768), (768, rank)
    return found


def kohya_metadata(random_: random.Random, name: str) -> dict[str, str]:
    """As long as the real ones."""
    tags = {f"tag {random_.randrange(10**6)}": random_.randrange(100) for _ in range(150)}
    plain = {f"ss_{key}": str(random_.random()) for key in ("lr", "unet_lr", "steps", "epoch", "seed", "clip")}
    return {**plain, "ss_output_name": name, "ss_tag_frequency": json.dumps({"10_thing": tags})}


def write_all(root: Path, count: int) -> int:
    import torch

    random_ = random.Random(0)
    whole = checkpoint_shapes()
    vae = {name: shape for name, shape in whole.items() if name.startswith(layout.VAE_PREFIX)}
    makes = [
        (lora_shapes(rank, text, ("lora_down", "lora_up")), dtype)
        for rank in (4, 8, 16, 32, 64, 128, 256, 12)
        for text in (True, False)
        for dtype in ("F16", "F32", "BF16")
    ]
    models = root / "models"
    counts = {"checkpoints": count // 20, "vaes": count // 100, "embeddings": count // 5}
    for n in range(counts["checkpoints"]):
        write(models / "Stable-diffusion" / f"set{n % 9}" / f"model_{n:04d}.safetensors", whole, ("F16", "F32")[n % 2])
    for n in range(counts["vaes"]):
        write(models / "VAE" / f"vae_{n:03d}.safetensors", vae, "F32")
    for n in range(counts["embeddings"]):
        path = root / "embeddings" / f"word_{n:04d}.safetensors"
        if n % 4:
            write(path, {"emb_params": (1 + n % 8, 768)}, "F32")
        else:
            path.parent.mkdir(exist_ok=True)
            torch.save({"string_to_param": {"*": torch.zeros(1 + n % 8, 768)}}, path.with_suffix(".pt"))
    for n in range(count - sum(counts.values())):
        shapes, dtype = random_.choice(makes)
        path = models / "Lora" / f"set{n % 40}" / f"style_{n:05d}.safetensors"
        write(path, shapes, dtype, kohya_metadata(random_, path.stem))
        if n % 3 == 0:
            path.with_suffix(".preview.png").write_bytes(b"")
            path.with_suffix(".json").write_text(json.dumps({"activation text": "thing", "preferred weight": 0.8}))
    return count


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="write the files there, and leave them")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="impasto-catalogue-") as folder:
        root, index = args.keep or Path(folder), Path(folder) / "models.json"
        written = args.files if args.keep and args.keep.exists() else write_all(root, args.files)
        seconds: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": [], "running": []}
        for _ in range(args.rounds):
            index.unlink(missing_ok=True)
            catalogue = Catalogue(a1111_folders(root), Identify(), index)
            seconds["cold"].append(timed(catalogue.scan))
            usable = sum(m.facts.usable for m in catalogue.models)
            assert len(catalogue.models) == written, f"{len(catalogue.models)} of {written} were found"
            again = Catalogue(a1111_folders(root), Identify(), index)
            seconds["warm"].append(timed(again.scan))
            assert again.rev == catalogue.rev
            seconds["running"].append(timed(again.scan))
    clock, processor = (
        {name: round(statistics.median(value[i] for value in values), 3) for name, values in seconds.items()}
        for i in (0, 1)
    )
    met = {name: clock[name] <= aim for name, aim in AIMS.items()}
    told = {"files": written, "usable": usable, "seconds": clock, "processor": processor, "aims": AIMS, "met": met}
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
