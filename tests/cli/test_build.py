"""What is handed out: built by the one command, installed from the built files, used without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, **more: str) -> str:
    """Run outside the checkout, with nothing of it on the path, and no index to fetch anything from."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(part) for part in command],
        env={**kept, "PIP_NO_INDEX": "1", **more},
        cwd=more.get("IMPASTO_HOME", os.sep),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, ROOT / "tools" / "build.py", folder)
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with Impasto from the wheel; what it depends on is borrowed from the tests' own.

    (`tools/first_start.py` does it with everything fetched; that takes minutes.)
    """
    folder = tmp_path_factory.mktemp("environment with spaces")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    # A line of a .pth file adds the folder alone: the checkout, which is itself added by such a file, stays out.
    (purelib / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def test_the_wheel_holds_what_runs_without_a_network(built: Path) -> None:
    (wheel,) = built.glob("impasto-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(next(n for n in names if re.fullmatch(r"impasto-[^/]*\.dist-info/METADATA", n))).decode()
    for wanted in (
        "starter/weights/impasto-starter.pack",
        "starter/weights/README.md",
        "starter/kit/weights/kit.json",
        "starter/kit/weights/face-mesh.pack",
        "starter/kit/weights/README.md",
        "impasto_krita/impasto_krita.desktop",
        "impasto_gimp/impasto_gimp.py",
        "impasto_client/tasks.py",
    ):
        assert wanted in names, wanted
    assert any(n.startswith("impasto_server/engine/data/") for n in names)
    vendored = [n for n in names if n.startswith("impasto_server/cli/vendored/")]
    assert any(n.endswith("websockets/sync/client.py") for n in vendored)
    assert any("LICENSE" in n or "COPYING" in n for n in vendored), "the packages that travel keep their licences"
    assert not [n for n in names if n.endswith((".pyc", ".so", ".pyd")) or n.startswith(("tests/", "tools/"))]
    assert "Requires-Python: >=3.11" in metadata
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: torch")]
    assert needed == ['Requires-Dist: torch>=2.4; extra == "torch"'], "which build fits is for `impasto setup`"


def test_a_python_that_is_too_old_is_refused(built: Path) -> None:
    old = [p for minor in (8, 9, 10) for p in Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")]
    if not old:
        pytest.skip("there is no Python before 3.11 here")
    (wheel,) = built.glob("*.whl")
    command = [old[-1], "-m", "pip", "install", "--no-index", "--no-deps", "--target", built / "never", wheel]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=built)
    assert done.returncode != 0 and ">=3.11" in done.stderr and not (built / "never").exists()


def test_the_same_sources_give_the_same_wheel(built: Path, tmp_path: Path) -> None:
    run(sys.executable, ROOT / "tools" / "build.py", tmp_path)
    for file in sorted(built.iterdir()):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_from_the_wheel_to_a_picture(python: Path, tmp_path: Path) -> None:
    home = tmp_path / "Ein Ordner für наброски"
    home.mkdir()
    environment = {"IMPASTO_HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    where = run(python, "-c", "import impasto_server; print(impasto_server.__file__)", **environment).strip()
    assert Path(where).is_relative_to(python.parent.parent), "the installed package, not the checkout"
    impasto = python.with_name("impasto")
    run(impasto, "txt2img", "--prompt", "red apple", "--steps", "2", "-o", home / "apple.png", **environment)
    with Image.open(home / "apple.png") as image:
        assert image.size == (128, 128)
        pixels = image.convert("L").getextrema()
        assert isinstance(pixels[0], int) and pixels[0] + 20 < pixels[1], "something was painted"


def test_the_plug_ins_install_from_the_wheel_without_an_index(python: Path, built: Path, tmp_path: Path) -> None:
    environment = {"IMPASTO_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    impasto = python.with_name("impasto")
    for editor in ("krita", "gimp"):
        run(impasto, "plugin", "install", editor, "--home", tmp_path / "painter", **environment)
        run(impasto, "plugin", "build", editor, "-o", tmp_path, **environment)
        name = f"impasto-{editor}.zip"
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()
    plugin = tmp_path / "painter/.config/GIMP/3.0/plug-ins/impasto_gimp"
    assert (plugin / "_vendor/msgpack/__init__.py").exists() and not list(plugin.rglob("*.pyc"))
