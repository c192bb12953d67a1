"""The packages that travel inside the plug-ins: pure Python, one tree for Python 3.8 to 3.13.

An editor's own Python has neither msgpack nor websockets, and nothing may be installed into it. These versions are the
last ones that run on all of 3.8 to 3.13; both are built without their C parts, so that the same folder serves every
platform and interpreter. An installation from a wheel has them with it; from a checkout pip builds them once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from impasto_protocol.errors import ResourceError

__all__ = ["REQUIREMENTS", "SHIPPED", "cache_folder", "packages_name", "vendor"]

REQUIREMENTS = ("websockets==13.1", "msgpack==1.1.0")

SHIPPED = Path(__file__).with_name("vendored")
"""Where a wheel has the built packages (`tools/build.py` puts them there); not there in a checkout."""

_FLAGS = ("--quiet", "--no-deps", "--no-compile", "--no-binary", ":all:", "--disable-pip-version-check")
_COMPILED = (".so", ".pyd", ".dylib", ".dll")
_SOURCES_OF_COMPILED = (".c", ".h", ".pyx", ".pxd")


def cache_folder() -> Path:
    """Where built packages are kept between calls: the user's cache folder of the platform."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "impasto" / "vendor"


def packages_name() -> str:
    """The name of a folder with exactly these packages."""
    return "-".join(REQUIREMENTS).replace("==", "_")


def vendor(target: Path, cache: Path | None = None) -> None:
    """Put the packages into the folder `target`, which is made and must be new or empty.

    They come from the wheel, else are built by pip on the first call and taken from `cache` (default:
    `cache_folder()`) afterwards. Raises
    ResourceError `resource.vendor_failed` with pip's last lines where they cannot be built.
    """
    if target.exists() and any(target.iterdir()):
        raise ResourceError("resource.vendor_failed", f"The folder {target} is not empty; name a new one.")
    shipped = SHIPPED / packages_name()
    kept = shipped if cache is None and shipped.is_dir() else (cache or cache_folder()) / packages_name()
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            built = Path(scratch) / "packages"
            _build(built)
            try:
                # Whole or not at all: a call that is interrupted leaves nothing that looks complete.
                built.rename(kept)
            except OSError:
                if not kept.is_dir():  # else another process was faster, and its tree is the same
                    raise
    # Installing a wheel compiles what it holds; that belongs to this Python alone.
    shutil.copytree(kept, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def _build(folder: Path) -> None:
    environment = {**os.environ, "BUILD_EXTENSION": "no", "MSGPACK_PUREPYTHON": "1"}
    command = [sys.executable, "-m", "pip", "install", "--target", str(folder), *_FLAGS, *REQUIREMENTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise ResourceError(
            "resource.vendor_failed",
            f"pip could not build {' and '.join(REQUIREMENTS)}; it needs a package index or a folder of wheels. "
            f"It said:\n{tail}",
        )
    for path in sorted(folder.rglob("*")):
        if path.suffix in _COMPILED:
            raise ResourceError(
                "resource.vendor_failed", f"{path.name} is compiled code; the packages must be pure Python."
            )
        if path.suffix in _SOURCES_OF_COMPILED:
            path.unlink()
    shutil.rmtree(folder / "bin", ignore_errors=True)
