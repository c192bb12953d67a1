"""What a change of LoRAs costs beside loading the checkpoint again, in one run.

    python3 dev.py exec -- python benchmarks/lora.py [--full] [--rounds 3] [--checkpoint FILE --lora FILE]

Without files a random checkpoint and two random LoRAs are written: of the tiny test model, or with --full of Stable
Diffusion 1.5's own size (2 GB in fp16; the LoRAs of rank 16 on all attention and feed-forward layers of the network
and the text encoder, as kohya's scripts train them). All files are in the page cache when the clock runs. Prints
medians in ms, and each beside a reload, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from impasto_server.engine import layout
from impasto_server.engine.load import Components, load_checkpoint
from impasto_server.engine.memory import choose_device, choose_dtype
from impasto_server.engine.patch import LoraSource, Patcher
from safetensors.torch import save_file
from torch import nn

UNET: dict[str, Any] = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
TEXT: dict[str, Any] = dict(
    vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
VAE: dict[str, Any] = dict(
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)


def write_full(path: Path) -> Path:
    """A checkpoint of the original's shapes, fp16, random."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet, vae, text = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT))
    attention = (True, True, True, False)
    shapes = {}
    for name, value in unet.state_dict().items():
        key = layout.unet_to_file(name, layers_per_block=2, attention=attention)
        shapes[layout.UNET_PREFIX + key] = tuple(value.shape)
    for name, value in vae.state_dict().items():
        shape = (*value.shape, 1, 1) if layout.is_squeezed(name) else tuple(value.shape)
        shapes[layout.VAE_PREFIX + layout.vae_to_file(name, levels=4)] = shape
    for name, value in text.state_dict().items():
        shapes[layout.TEXT_PREFIX + layout.text_to_file(name, nested=True)] = tuple(value.shape)
    # One block of noise over and over: what it says does not matter, and drawing a billion numbers takes long.
    noise = (torch.randn(1 << 22) * 0.02).half()
    tensors = {
        name: noise.repeat(numel(shape) // len(noise) + 1)[: numel(shape)].reshape(shape).clone()
        for name, shape in shapes.items()
    }
    save_file(tensors, str(path))
    return path


def numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def write_lora(path: Path, components: Components, rank: int, seed: int) -> Path:
    """On every linear layer of attention and feed-forward blocks."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for prefix, part in (("lora_unet_", components.unet), ("lora_te_text_model_", components.text_encoder)):
        for name, module in part.named_modules():
            if not isinstance(module, nn.Linear) or not any(word in name for word in ("attn", ".ff.", "mlp")):
                continue
            key = prefix + name.removeprefix("text_model.").replace(".", "_")
            down = torch.randn(rank, module.in_features, generator=generator)
            up = torch.randn(module.out_features, rank, generator=generator)
            tensors[f"{key}.lora_down.weight"] = (down * 0.01).half()
            tensors[f"{key}.lora_up.weight"] = (up * 0.01).half()
            tensors[f"{key}.alpha"] = torch.tensor(float(rank))
    save_file(tensors, str(path))
    return path


def timed(device: torch.device, action: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, the card's queue included, and what the action gives."""
    began = time.perf_counter()
    given = action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - began), given


def measure(checkpoint: Path, loras: list[Path], rounds: int, device: torch.device, dtype: torch.dtype) -> Any:
    def reload() -> Patcher:
        components = load_checkpoint(checkpoint, device=device, dtype=dtype)
        for parameter in components.unet.parameters():
            parameter.sum()  # touch what is only mapped
        return Patcher(components)

    one, other = (str(path) for path in loras)
    wishes: tuple[tuple[str, list[LoraSource]], ...] = (
        ("first LoRA on", [LoraSource(one)]),
        ("same again", [LoraSource(one)]),
        ("other strength on the text", [LoraSource(one, 1.0, 0.5)]),
        ("other strength", [LoraSource(one, 0.7)]),
        ("second LoRA instead", [LoraSource(other)]),
        ("both", [LoraSource(one, 0.5), LoraSource(other, 0.5)]),
        ("off", []),
    )
    spent: dict[str, list[float]] = {}
    replaced: dict[str, int] = {}
    for _ in range(rounds + 1):
        patcher = None  # two checkpoints at once might not fit
        took, patcher = timed(device, reload)
        spent.setdefault("reload", []).append(took)
        for name, wanted in wishes:
            took, _ = timed(device, partial(patcher.apply, wanted))
            spent.setdefault(name, []).append(took)
            replaced[name] = patcher.replaced
    medians = {name: statistics.median(values[1:]) for name, values in spent.items()}
    return {
        name: {
            "ms": round(value, 1),
            "beside a reload": round(value / medians["reload"], 3),
            **({"parameters": replaced[name]} if name in replaced else {}),
        }
        for name, value in medians.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--lora", type=Path, action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    dtype = choose_dtype(device, args.precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = args.checkpoint
        if checkpoint is None and args.full:
            checkpoint = write_full(folder / "full.safetensors")
        elif checkpoint is None:
            sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
            from tests.tiny import write_tiny_checkpoint

            checkpoint = write_tiny_checkpoint(folder / "tiny.safetensors")
        loras = list(args.lora)
        if len(loras) < 2:
            components = load_checkpoint(checkpoint, device=torch.device("cpu"), dtype=torch.float16)
            while len(loras) < 2:
                path = folder / f"{len(loras)}.safetensors"
                loras.append(write_lora(path, components, args.rank, len(loras)))
            del components
        figures = measure(checkpoint, loras[:2], args.rounds, device, dtype)
    told = {"checkpoint": checkpoint.name, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
    print(json.dumps({**told, "threads": torch.get_num_threads(), "rounds": args.rounds, **figures}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
