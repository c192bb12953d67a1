"""Where other programs keep their models: the folders of AUTOMATIC1111, ComfyUI and InvokeAI, used where they lie."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

__all__ = ["a1111_folders", "comfyui_folders", "invokeai_folders"]

log = logging.getLogger("impasto.catalogue")

_A1111 = (
    "models/Stable-diffusion",
    "models/VAE",
    "models/VAE-taesd",
    "models/Lora",
    "models/LyCORIS",
    "models/ControlNet",
    "extensions/sd-webui-controlnet/models",
    "models/ESRGAN",
    "models/RealESRGAN",
    "models/BSRGAN",
    "models/SwinIR",
    "models/ScuNET",
    "models/DAT",
    "models/HAT",
    "embeddings",
)

_COMFYUI = {
    "checkpoints": ("checkpoints",),
    "diffusers": ("diffusers",),
    "unet": ("unet",),
    "diffusion_models": ("diffusion_models", "unet"),
    "clip": ("clip",),
    "text_encoders": ("text_encoders", "clip"),
    "vae": ("vae",),
    "vae_approx": ("vae_approx",),
    "loras": ("loras",),
    "embeddings": ("embeddings",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "upscale_models": ("upscale_models",),
}
"""What ComfyUI calls a kind of models -> its folders under models/."""

MAX_YAML = 1_000_000


def a1111_folders(root: Path) -> tuple[Path, ...]:
    """The model folders of an AUTOMATIC1111 web UI, or of Forge."""
    return tuple(root / part for part in _A1111)


def comfyui_folders(root: Path) -> tuple[Path, ...]:
    """The model folders of a ComfyUI, and those that its extra_model_paths.yaml names."""
    parts = dict.fromkeys(part for folders in _COMFYUI.values() for part in folders)
    own = [root / "models" / part for part in parts]
    return tuple(dict.fromkeys([*own, *_extra_paths(root / "extra_model_paths.yaml")]))


def _extra_paths(file: Path) -> Iterator[Path]:
    """The folders of the kinds above in ComfyUI's file of further ones.

    Its form is a few sections, each with `base_path` and a line a kind, whose folders stand behind the colon or, after
    a `|`, on lines of their own. More of YAML than that is not read; what is not understood is left out and logged.
    """
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            text = opened.read(MAX_YAML)
    except OSError:
        return
    base, key, deep = file.parent, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.split(" #")[0].rstrip() if not line.lstrip().startswith("#") else ""
        indent = len(bare) - len(bare.lstrip())
        if not bare:
            continue
        if not indent:
            base, key = file.parent, ""
        elif key and indent > deep:
            yield base / _path(bare)
        elif found := re.fullmatch(r"\s+([\w-]+)\s*:\s*(.*)", bare):
            name, value = found[1], found[2].strip()
            key, deep = "", indent
            if name == "base_path":
                base = file.parent / _path(value)
            elif name not in _COMFYUI:
                continue
            elif value in ("|", ">", "|-", ">-"):
                key = name
            elif value:
                yield base / _path(value)
        else:
            log.warning("%s line %d is not understood and left out", file, number)


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text.strip().strip("\"'"))).expanduser()


def invokeai_folders(root: Path) -> tuple[Path, ...]:
    """The model folders of an InvokeAI: its own, the one of its older versions that it imported from, and every model
    that its database names and that lies elsewhere."""
    own = root / "models"
    listed = (own / path for path in _invokeai_database(root / "databases" / "invokeai.db"))
    elsewhere = [path for path in listed if not path.is_relative_to(own)]
    return (own, root / "autoimport", *dict.fromkeys(elsewhere))


def _invokeai_database(file: Path) -> list[str]:
    """The paths in the table of models: `models` since version 4, `model_config` in version 3. Read only, and never in
    the way of a running InvokeAI."""
    if not file.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
            for table in ("models", "model_config"):
                if table in tables:
                    return [str(row[0]) for row in database.execute(f"select path from {table}") if row[0]]
    except sqlite3.Error as e:
        log.warning("%s cannot be read, so models that lie elsewhere are missing: %s", file, e)
    return []
