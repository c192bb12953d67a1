"""Packs what `starter.train_variants` made for the repository.

    python -m starter.pack_variants              # state/variants/*.pt -> weights/*.pack and variants.json

What was begun from the base is stored as the difference to it, as a refinement of the base is (`starter.pack`): two
or three bits a value. The rest is int8 with a factor a row, small tensors are fp16.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from starter import models, stfile
from starter.export import HINTS, metadata, unet_name
from starter.pack import SMALLEST, compressed, keep, quantised, stepped, sums
from starter.sources import WORK
from starter.unpack import WEIGHTS, install
from starter.unpack_variants import MANIFEST, PARTS, packed_name, restore
from starter.variants.parts import CANDIDATES, STEP

UNET = "model.diffusion_model."
LICENCE = "MIT (trained on Fluent Emoji, MIT, Microsoft Corporation)"
Arrays = dict[str, np.ndarray]


@dataclass
class Stored:
    """A file as it is to be unpacked: its tensors, what each is a difference to, what is copied, its metadata."""

    tensors: Arrays
    step: float = 0.0
    added: dict[str, str] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def control_name(name: str, levels: int, layers: int) -> str:
    """A diffusers ControlNet key as its name in the single-file layout."""
    stem, _, leaf = name.rpartition(".")
    head, _, rest = stem.partition(".")
    if head == "controlnet_cond_embedding":
        last = 2 * (len(HINT_BLOCKS) + 1)
        place = {"conv_in": 0, "conv_out": last}.get(rest)
        return f"input_hint_block.{2 * (int(rest.split('.')[1]) + 1) if place is None else place}.{leaf}"
    if head == "controlnet_down_blocks":
        return f"zero_convs.{rest}.0.{leaf}"
    return f"middle_block_out.0.{leaf}" if head == "controlnet_mid_block" else unet_name(name, levels, layers)


HINT_BLOCKS = range(6)
"""Convolutions of the hint's block between its ends: one that keeps and one that halves for each of three halvings."""


def _arrays(state: Mapping[str, torch.Tensor]) -> Arrays:
    return {k: v.detach().float().numpy().astype(np.float16) for k, v in state.items()}


def inpainting(state: Mapping[str, torch.Tensor], shape: models.Shape, hints: dict | None = None) -> Stored:
    """An A1111 single file whose text encoder and VAE are the base's."""
    tensors = {UNET + unet_name(k, len(shape.unet_channels), shape.unet_layers): v for k, v in _arrays(state).items()}
    first = UNET + "input_blocks.0.0.weight"
    told = metadata(shape, hints or HINTS)
    told["modelspec.title"] = "Impasto starter inpainting"
    told["modelspec.architecture"] = "stable-diffusion-v1/inpainting"
    added = {n: n for n in tensors if n != first}
    return Stored(tensors, STEP["inpaint"], added, ("cond_stage_model.", "first_stage_model."), told)


def control(kind: str, state: Mapping[str, torch.Tensor], shape: models.Shape, ldm: bool) -> Stored:
    """A ControlNet in the single-file layout (`ldm`) or in diffusers'."""
    levels, layers = len(shape.unet_channels), shape.unet_layers
    tensors, added = {}, {}
    for key, value in _arrays(state).items():
        name = "control_model." + control_name(key, levels, layers) if ldm else key
        tensors[name] = value
        if not key.startswith("controlnet_"):
            added[name] = UNET + unet_name(key, levels, layers)
    told = {
        "modelspec.architecture": "stable-diffusion-v1/controlnet",
        "modelspec.title": f"Impasto starter {kind}",
        "modelspec.license": LICENCE,
    }
    return Stored(tensors, STEP[kind], added, (), told)


def small(title: str, architecture: str, tensors: Arrays, **more: str) -> Stored:
    """A file that owes nothing to the base's tensors."""
    told = {
        "modelspec.architecture": architecture,
        "modelspec.title": title,
        "modelspec.license": LICENCE,
    }
    return Stored(tensors, metadata={**told, **more})


def stored_parts(
    folder: Path, shape: models.Shape = models.SHAPE, thing: int = CANDIDATES.index("trophy")
) -> dict[str, Stored]:
    """All parts from the states in `folder`; `thing` is which of the embeddings is taken."""

    def state(name: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = torch.load(folder / f"{name}.pt", weights_only=True)
        return found

    vectors = state("embedding")["vectors"][thing].float().numpy()
    taesd = {f"{int(k.split('.')[1]) + 1}.{k.split('.', 2)[2]}": v for k, v in _arrays(state("preview")).items()}
    return {
        "inpainting": inpainting(state("inpaint"), shape),
        "canny": control("canny", state("canny"), shape, ldm=True),
        "scribble": control("scribble", state("scribble"), shape, ldm=False),
        "lora": small(
            "Impasto starter pencil",
            "stable-diffusion-v1/lora",
            _arrays(state("lora")),
            ss_output_name="impasto-starter-pencil",
            ss_network_module="networks.lora",
            ss_network_dim="8",
            ss_network_alpha="8",
        ),
        "embedding": small("Impasto starter trophy", "stable-diffusion-v1/textual-inversion", {"emb_params": vectors}),
        "preview": small("Impasto starter preview", "stable-diffusion-v1/vae", taesd),
    }


def packed(part: Stored, base: Mapping[str, np.ndarray]) -> bytes:
    """The tensors as `restore` reads them."""
    out: Arrays = {}
    for name, value in part.tensors.items():
        large = value.ndim > 1 and value.size >= SMALLEST
        if large and name in part.added:
            difference = value.astype(np.float32) - base[part.added[name]].astype(np.float32)
            out[f"{name}|d"], out[f"{name}|s"] = stepped(difference, part.step)
        elif large and value.dtype == np.float16:
            out[f"{name}|q"], out[f"{name}|s"] = quantised(value, 63 if value.size > 2 * SMALLEST else 127)
        else:
            out[name] = value
    added = {n: b for n, b in part.added.items() if f"{n}|d" in out}
    how = json.dumps({"added": added, "copied": list(part.copied)}, sort_keys=True)
    return stfile.encoded(out, {**part.metadata, "impasto.packed": how})


def pack(parts: Mapping[str, Stored], base_file: Path, folder: Path = WEIGHTS) -> dict[str, dict]:
    """Packs all parts into `folder`; returns what is written into its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    base, _ = stfile.read(base_file.read_bytes())
    facts: dict[str, dict] = {}
    for name in PARTS:
        plain = packed(parts[name], base)
        data = compressed(plain)
        result = folder / "result.part"
        restore(plain, base, result)
        facts[name] = sums(data, result.read_bytes())
        result.unlink()
        keep(folder / packed_name(name), data)
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", type=Path, default=WORK / "variants")
    p.add_argument("--folder", type=Path, default=WEIGHTS)
    p.add_argument("--thing", choices=CANDIDATES, default="trophy", help="which embedding is taken")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        base = install(unpacked)
        facts = pack(stored_parts(a.source, thing=CANDIDATES.index(a.thing)), base, a.folder)
    print(json.dumps({k: f["bytes"] for k, f in facts.items()}), sum(f["bytes"] for f in facts.values()) / 1e6, "MB")


if __name__ == "__main__":
    main()
