"""Everything that is handed out: the wheel and both plug-ins as zips. The same sources give the same bytes.

    python3 dev.py build [DIR]         default: dist/

The wheel holds what the program needs without any network of its own: the starter model, the data, the sources of the
plug-ins and, built here, the packages that travel inside them. It is built from a copy, so that nothing of an earlier
build gets into it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from impasto_server.cli.plugin import build_krita
from impasto_server.cli.plugin_gimp import build_gimp
from impasto_server.cli.vendor import SHIPPED, packages_name, vendor

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("protocol", "server", "krita_plugin", "gimp_plugin", "starter")
FILES = ("pyproject.toml", "README.md", "LICENSE")
EPOCH = "315532800"
"""1980, the oldest time a zip can hold."""


def build_wheel(target: Path) -> Path:
    """Write the wheel into `target` and return its path."""
    with tempfile.TemporaryDirectory() as scratch:
        source, built = Path(scratch) / "source", Path(scratch) / "built"
        source.mkdir()
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "_vendor", "state", SHIPPED.name)
        for name in FOLDERS:
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        for name in FILES:
            shutil.copy(ROOT / name, source)
        package = Path("server/impasto_server/cli") / SHIPPED.name / packages_name()
        vendor(source / package)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", str(built), str(source)]
        done = subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"build: the wheel could not be built:\n{(done.stderr or done.stdout)[-2000:]}")
        (wheel,) = built.glob("*.whl")
        shutil.copyfile(wheel, target / wheel.name)
        return target / wheel.name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 dev.py build", description="Build the wheel and the plug-ins' zips.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="where they go (default: dist)")
    target = parser.parse_args().folder.absolute()
    target.mkdir(parents=True, exist_ok=True)
    for path in (build_wheel(target), build_krita(target), build_gimp(target)):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
