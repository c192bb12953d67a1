"""A checkpoint as a folder in diffusers' layout, read as if it were a single file. No torch here.

Such a folder has unet/, vae/ and text_encoder/, each with a config.json and its weights (.safetensors or .bin, whole or
in shards with an index), and scheduler/ and tokenizer/ with facts. Everything comes from the folder; nothing of it is a
name to be looked up anywhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ModelError

from . import layout
from .checkpoint import Header, TensorInfo, read_header, unreadable
from .families import SD1, Shapes
from .modelpath import INDEX
from .modelspec import KEY
from .pickles import pickle_header
from .rules import Found, diffusers_unet
from .vae_layout import diffusers_vae_names

__all__ = ["Folder", "read_folder", "unet_names"]

MAX_JSON = 32 << 20
"""Bytes of a configuration or of an index of shards at most."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[\w-]+))?\.(?P<format>safetensors|bin)"
)
_SHARDED = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<first>[\w-]+))?\.(?P<format>safetensors|bin)"
    r"\.index(?:\.(?P<last>[\w-]+))?\.json"
)


@dataclass(frozen=True)
class Folder:
    """What lies in a folder: `found` by the UNet's structure, and for a family that can be loaded a `header` with the
    names of the single-file layout. `sources` says for each of them in which file it is, and its name there."""

    found: Found
    header: Header
    sources: Mapping[str, tuple[Path, str]]


@dataclass(frozen=True)
class _Part:
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path]

    @property
    def shapes(self) -> Shapes:
        return {name: info.shape for name, info in self.tensors.items()}


def read_folder(path: str | Path) -> Folder:
    """Read the configurations and headers of a folder.

    Raises ModelError: `model.corrupt` (parts missing or damaged), `model.unsupported` (something else than a
    checkpoint with a UNet, or with facts that are not supported), `model.unsafe` (a hostile .bin file).
    """
    path = Path(path)
    index = _json(path, path / INDEX) if (path / INDEX).is_file() else {}
    if not (path / "unet").is_dir():
        kind = str(index.get("_class_name", "it"))[:60]
        if (path / "transformer").is_dir():
            raise _unsupported(path, f"it has a transformer/ in place of a unet/ ({kind})")
        raise _broken(path, "the folder unet/ is missing; copy the whole folder")
    unet = _part(path, "unet")
    found = diffusers_unet(unet.shapes)
    if found is None:
        raise _unsupported(path, "its unet/ has the structure of no known UNet")
    found = Found("checkpoint", found.family, found.variant, "diffusers")
    if found.family != SD1.id:
        return Folder(found, Header({}, {}), {})
    missing = [name for name in ("vae", "text_encoder") if not (path / name).is_dir()]
    if missing:
        raise _broken(path, f"the folder {missing[0]}/ is missing; copy the whole folder")
    vae, text = _part(path, "vae"), _part(path, "text_encoder")
    tensors: dict[str, TensorInfo] = {}
    sources: dict[str, tuple[Path, str]] = {}
    for name, part, prefix, to_file in (
        ("unet", unet, layout.UNET_PREFIX, unet_names(unet.shapes)),
        ("vae", vae, layout.VAE_PREFIX, diffusers_vae_names(vae.shapes)),
        ("text_encoder", text, layout.TEXT_PREFIX, _text_name),
    ):
        for own, info in part.tensors.items():
            if any(left in own for left in layout.LEFT_BEHIND):
                continue
            try:
                single = prefix + to_file(own)
            except KeyError:
                raise _unsupported(path, f"its {name}/ has a tensor that {SD1.title} has not ({own[:80]})") from None
            tensors[single] = info
            sources[single] = (part.files[own], own)
    stated = _facts(path, unet.config, vae.config, text.config)
    return Folder(found, Header(tensors, {KEY: json.dumps(stated)}), sources)


# ---- names


def unet_names(shapes: Shapes) -> Callable[[str], str]:
    """A function from diffusers' names of this UNet to those of the single-file layout."""
    levels = _count(shapes, "down_blocks.{}.resnets.0.conv1.weight")
    layers = _count(shapes, "down_blocks.0.resnets.{}.conv1.weight")
    attention = tuple(f"down_blocks.{i}.attentions.0.proj_in.weight" in shapes for i in range(levels))
    return lambda name: layout.unet_to_file(name, layers_per_block=layers, attention=attention)


def _text_name(name: str) -> str:
    return layout.text_to_file(name, nested=True)


def _count(shapes: Shapes, pattern: str) -> int:
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


# ---- what the configurations say

_UNET_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "num_attention_heads": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
}
_VAE_FIXED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "shift_factor": (None, 0, 0.0),
}
_SCHEDULER_FIXED: Mapping[str, tuple[Any, ...]] = {
    "beta_end": (SD1.beta_end,),
    "beta_schedule": ("scaled_linear",),
    "beta_start": (SD1.beta_start,),
    "num_train_timesteps": (SD1.train_steps,),
    "rescale_betas_zero_snr": (False, None),
    "trained_betas": (None,),
}
"""Settings that change what the network computes -> the values that are supported; one that is not said is so."""


def _facts(path: Path, unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of `modelspec.Facts`, from the configurations; those of the family where they do not say."""
    _check_fixed(path, "unet/config.json", unet, _UNET_FIXED)
    _check_fixed(path, "vae/config.json", vae, _VAE_FIXED)
    heads = unet.get("attention_head_dim", SD1.unet_heads)
    if isinstance(heads, list):
        if len(set(map(str, heads))) != 1:
            raise _unsupported(path, "the levels of its UNet have different numbers of heads")
        heads = heads[0]
    facts = {
        "unet_heads": heads,
        "unet_norm_groups": unet.get("norm_num_groups"),
        "vae_norm_groups": vae.get("norm_num_groups"),
        "vae_scaling_factor": vae.get("scaling_factor"),
        "text_heads": text.get("num_attention_heads"),
        "text_activation": text.get("hidden_act"),
    }
    side, widths = unet.get("sample_size"), vae.get("block_out_channels")
    if type(side) is int and isinstance(widths, list) and 0 < len(widths) < 16:
        facts["native_size"] = side << (len(widths) - 1)
    scheduler = path / "scheduler" / "scheduler_config.json"
    if scheduler.is_file():
        said = _json(path, scheduler)
        _check_fixed(path, "scheduler/scheduler_config.json", said, _SCHEDULER_FIXED)
        facts["prediction_type"] = said.get("prediction_type")
    tokenizer = path / "tokenizer" / "tokenizer_config.json"
    if tokenizer.is_file():
        kind = _json(path, tokenizer).get("tokenizer_class", "CLIPTokenizer")
        if kind not in ("CLIPTokenizer", "CLIPTokenizerFast"):
            raise _unsupported(path, f"its tokenizer is {str(kind)[:60]}, not CLIP's")
    return {name: value for name, value in facts.items() if value is not None}


def _check_fixed(path: Path, name: str, said: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    for key, allowed in fixed.items():
        if key in said and said[key] not in allowed:
            raise _unsupported(path, f"{name} says {key} = {str(said[key])[:60]}")


# ---- files


def _part(path: Path, name: str) -> _Part:
    config = _json(path, path / name / "config.json")
    tensors: dict[str, TensorInfo] = {}
    files: dict[str, Path] = {}
    for file in _weights(path, name):
        header = pickle_header(file) if file.suffix == ".bin" else read_header(file)
        tensors.update(header.tensors)
        files.update(dict.fromkeys(header.tensors, file))
    return _Part(config, tensors, files)


def _weights(path: Path, name: str) -> list[Path]:
    """The files of one set of weights: safetensors before .bin, full precision before variants, one before shards."""
    best: tuple[tuple[bool, str, bool], Path] | None = None
    try:
        files = sorted((path / name).iterdir())
    except OSError as error:
        raise unreadable(path / name, error) from error
    for file in files:
        whole, sharded = _WEIGHTS.fullmatch(file.name), _SHARDED.fullmatch(file.name)
        if whole is not None and not _SHARD.search(file.name):
            rank = (whole["format"] != "safetensors", whole["variant"] or "", False)
        elif sharded is not None:
            rank = (sharded["format"] != "safetensors", sharded["first"] or sharded["last"] or "", True)
        else:
            continue
        if best is None or rank < best[0]:
            best = rank, file
    if best is None:
        raise _broken(path, f"the weights in {name}/ are missing; the download may not have finished")
    if not best[0][2]:
        return [best[1]]
    places = _json(path, best[1]).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _broken(path, f"{name}/{best[1].name} is not an index of shards")
    shards = []
    for shard in sorted({str(place) for place in places.values()}):
        if Path(shard).name != shard or "\\" in shard or Path(shard).suffix not in (".safetensors", ".bin"):
            raise _broken(path, f"{name}/{best[1].name} names a file outside its folder ({shard[:80]!r})")
        if not (path / name / shard).is_file():
            raise _broken(path, f"{name}/{shard[:80]} is missing; the download may not have finished")
        shards.append(path / name / shard)
    return shards


def _json(path: Path, file: Path) -> dict[str, Any]:
    named = file.relative_to(path).as_posix()
    try:
        with open(file, "rb") as opened:
            raw = opened.read(MAX_JSON + 1)
        said = json.loads(raw) if len(raw) <= MAX_JSON else None
    except FileNotFoundError:
        raise _broken(path, f"{named} is missing; copy the whole folder") from None
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"{named} is not valid JSON") from error
    if not isinstance(said, dict):
        raise _broken(path, f"{named} is not a JSON object")
    return said


def _broken(path: Path, reason: str) -> ModelError:
    return ModelError(
        "model.corrupt", f"The folder {path.name} cannot be used: {reason}.", data={"file": path.name, "reason": reason}
    )


def _unsupported(path: Path, reason: str) -> ModelError:
    return ModelError(
        "model.unsupported",
        f"The folder {path.name} cannot be used: {reason}, which Impasto does not support.",
        data={"file": path.name, "reason": reason},
    )
