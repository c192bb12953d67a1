#!/usr/bin/env python3
"""One command for each thing a newcomer or a developer does; sets up what it needs, every time, and reuses it.

    python3 dev.py demo            set up, start a server, inpaint a picture over the real wire, show the results
    python3 dev.py test [ARGS]     set up, then lint, types, layers and all tests (ARGS go to pytest)
    python3 dev.py krita           open Krita with the plug-in in a private profile
    python3 dev.py gimp            the same with GIMP 3
    python3 dev.py build [DIR]     the wheel and both plug-ins as zips, in dist/
    python3 dev.py exec -- CMD     run a command in the project's environment
    python3 dev.py setup           only set up

Standard library only. Everything lands in .venv and build/ beside this file; nothing else of yours is touched, except
that `test` installs Krita, Xvfb and their helpers with apt-get where it may (Debian, root), and where the system has no
GIMP 3 keeps one in your cache folder (tools/gimp_root.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "impasto-setup.json"
BUILD = ROOT / "build"
TORCH = "2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA126_INDEX = "https://download.pytorch.org/whl/cu126"
OLDEST = (3, 11)
EDITOR_PACKAGES = {
    "krita": "krita",
    "Xvfb": "xvfb",
    "xdotool": "xdotool",
    "import": "imagemagick",
    "openbox": "openbox",
}
"""Program -> Debian package that brings it. PyQt for Krita's own Python (python3-pyqt5) goes with krita."""


def say(text: str) -> None:
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> SystemExit:
    return SystemExit(f"dev.py: {text}")


def python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(*command: str | Path, **options: object) -> None:
    """Run and stop with its exit code if it fails."""
    done = subprocess.run([str(c) for c in command], cwd=ROOT, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        raise SystemExit(done.returncode)


# --- the environment ------------------------------------------------------------------------------------------------


def wanted() -> str:
    """What the environment depends on, as one digest: a change of any part makes it anew."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {platform.machine()} {ROOT}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    # An editable installation lists its packages when it is made.
    packages = sorted(str(p.parent.relative_to(ROOT)) for p in ROOT.glob("*/*/__init__.py"))
    digest.update(" ".join(p for p in packages if not p.startswith(".")).encode())
    return digest.hexdigest()


def setup() -> dict[str, object]:
    """Make .venv as pyproject.toml and constraints.txt say; seconds when it is there already."""
    if sys.version_info < OLDEST:
        raise stop(
            f"Impasto needs Python {OLDEST[0]}.{OLDEST[1]} or newer, this is {platform.python_version()}; "
            "run it with a newer one, for example python3.11 dev.py ..."
        )
    if STAMP.is_file() and python().exists():
        stamp: dict[str, object] = json.loads(STAMP.read_text())
        if stamp.get("wanted") == wanted():
            return stamp
    began = time.monotonic()
    if not python().exists():
        make_venv()
    install_torch()
    say("installing Impasto and its tools")
    pip("install", "-c", "constraints.txt", "-e", ".[dev]")
    # spandrel asks for torchvision, which it needs for nothing here, and the one that pip finds rarely fits a torch for
    # the CPU or for old cards: it could not be imported, and diffusers would try to.
    pip("install", "-c", "constraints.txt", "--no-deps", "spandrel", "einops")
    torch = build_of_torch()
    stamp = {"wanted": wanted(), "torch": torch}
    STAMP.write_text(json.dumps(stamp))
    say(f"the environment is ready ({time.monotonic() - began:.0f} s), torch {torch}")
    return stamp


def make_venv() -> None:
    say(f"making a virtual environment with Python {platform.python_version()}")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    package = f"python3.{sys.version_info[1]}-venv" if not may_install() else "python3-venv"
    if not may_install():
        raise stop(f"Python's venv does not work here: {last_line(made)}\nOn Debian: apt-get install {package}")
    install_packages([package])
    run(sys.executable, "-m", "venv", VENV)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def pip(*args: str) -> None:
    run(python(), "-m", "pip", "--disable-pip-version-check", "-q", *args)


def pip_works(*args: str) -> bool:
    command = [str(python()), "-m", "pip", "--disable-pip-version-check", "-q", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


def reachable(url: str) -> bool:
    host = url.split("/")[2]
    try:
        with socket.create_connection((host, 443), timeout=4):
            return True
    except OSError:
        return False


def nvidia_capability() -> float | None:
    """Compute capability of the first NVIDIA card (6.1 = GTX 10xx), or None where no driver answers."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return float(done.stdout.split()[0])
    except (IndexError, ValueError):
        return None


def install_torch() -> None:
    """The build of torch that fits this machine; says which and why."""
    if build_of_torch().split("+")[0] == TORCH:
        return
    capability = nvidia_capability()
    if sys.platform == "darwin" or (os.name == "nt" and capability is None):
        say(f"torch {TORCH}: this platform's standard build")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}")
    elif capability is not None and capability < 7.5:
        say(f"torch {TORCH} for CUDA 12.6: the card (capability {capability}) is not in newer builds")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}", "--extra-index-url", CUDA126_INDEX)
    elif capability is not None:
        say(f"torch {TORCH} with CUDA: an NVIDIA card (capability {capability}) is here")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}")
    elif pip_works("install", "--dry-run", "--no-deps", f"torch=={TORCH}+cpu"):
        say(f"torch {TORCH}+cpu: no NVIDIA card here (the build that pip is set up to find)")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}+cpu")
    elif reachable(CPU_INDEX):
        say(f"torch {TORCH}+cpu from {CPU_INDEX}: no NVIDIA card here")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}+cpu", "--extra-index-url", CPU_INDEX)
    else:
        say(f"torch {TORCH} as the package index has it: its CPU build cannot be reached, this one is larger")
        pip("install", "-c", "constraints.txt", f"torch=={TORCH}")


def build_of_torch() -> str:
    """Version of the installed torch with its build ("2.13.0+cpu"), or ""."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    done = subprocess.run([str(python()), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


# --- Debian's packages ----------------------------------------------------------------------------------------------


def may_install() -> bool:
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def install_packages(names: list[str]) -> None:
    say(f"installing {' '.join(names)} with apt-get")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", env=env, stdout=subprocess.DEVNULL)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *names, env=env, stdout=subprocess.DEVNULL)


def missing_editor_packages() -> list[str]:
    missing = [package for program, package in EDITOR_PACKAGES.items() if shutil.which(program) is None]
    if sys.platform == "linux" and not krita_has_pyqt():
        missing.append("python3-pyqt5")
    return missing


def krita_has_pyqt() -> bool:
    """Krita's embedded Python is the system's; without PyQt it loads no plug-in."""
    system = "/usr/bin/python3"
    if not os.path.exists(system):
        return False
    return subprocess.run([system, "-c", "import PyQt5.QtWidgets"], capture_output=True).returncode == 0


def require_editors(args: list[str]) -> list[str]:
    """The editors that the tests named by `args` need and that cannot be had. In CI that is a failure, never a skip."""
    missing = missing_editor_packages()
    if missing and may_install():
        install_packages(missing)
        missing = missing_editor_packages()
    absent = []
    if missing:
        need = " ".join(missing)
        absent.append(("krita", f"the tests in the real Krita need: {need} (Debian: apt-get install {need})"))
    paths = [arg for arg in args if (ROOT / arg.split("::")[0]).exists()]
    if not paths or any("gimp" in path or "editors" in path or path.rstrip("/") == "tests" for path in paths):
        reason = require_gimp()
        if reason:
            absent.append(("gimp", reason))
    for editor, text in absent:
        if os.environ.get("CI"):
            raise stop(text)
        say(f"NOT TESTED in the real {editor.capitalize()}; {text}")
    return [editor for editor, _ in absent]


def require_gimp() -> str:
    """Find GIMP 3, or build a Debian root with it; why there is none, or ""."""
    sys.path.insert(0, str(ROOT / "tools"))
    import gimp_root

    if gimp_root.find() is not None:
        return ""
    if not gimp_root.can_build():
        return "the tests in the real GIMP need GIMP 3, or Debian and the rights of root to build one to test with"
    if shutil.which("mmdebstrap") is None or not os.path.exists(gimp_root.KEYRING):
        install_packages(list(gimp_root.BUILDERS))
    say(f"building {gimp_root.root_folder()}: Debian's GIMP 3, once for this machine (two minutes)")
    gimp_root.build_root()
    return "" if gimp_root.find() is not None else f"GIMP 3 was not found in {gimp_root.root_folder()}"


# --- commands -------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """The project's environment for a child: its programs first, no Python settings of the caller."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    env["PATH"] = f"{python().parent}{os.pathsep}{env.get('PATH', '')}"
    env["VIRTUAL_ENV"] = str(VENV)
    return env


def in_environment(*command: str | Path) -> None:
    run(*command, env=environment())


def test(args: list[str]) -> None:
    setup()
    absent = require_editors(args)
    checks = [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports",),
    ]
    if not args:
        for check in checks:
            say(" ".join(check))
            in_environment(python().parent / check[0], *check[1:])
    if absent:
        args = ["-m", " and ".join(f"not {editor}" for editor in absent), *args]
    in_environment(python(), "-m", "pytest", *args)


def demo(args: list[str]) -> None:
    began = time.monotonic()
    setup()
    ready = time.monotonic() - began
    in_environment(python(), ROOT / "tools" / "demo.py", "--setup-seconds", f"{ready:.1f}", *args)


def krita(args: list[str]) -> None:
    setup()
    in_environment(python(), ROOT / "tools" / "open_krita.py", *args)


def gimp(args: list[str]) -> None:
    setup()
    in_environment(python(), ROOT / "tools" / "open_gimp.py", *args)


def build(args: list[str]) -> None:
    setup()
    in_environment(python(), ROOT / "tools" / "build.py", *args)


def main(argv: list[str]) -> None:
    command, args = (argv[0], argv[1:]) if argv else ("help", [])
    if command == "demo":
        demo(args)
    elif command == "test":
        test(args)
    elif command == "krita":
        krita(args)
    elif command == "gimp":
        gimp(args)
    elif command == "build":
        build(args)
    elif command == "setup":
        setup()
    elif command == "exec":
        setup()
        args = args[1:] if args[:1] == ["--"] else args
        if not args:
            raise stop("exec needs a command: python3 dev.py exec -- CMD")
        in_environment(*args)
    else:
        print(__doc__)
        raise SystemExit(0 if command in ("help", "-h", "--help") else 2)


if __name__ == "__main__":
    main(sys.argv[1:])
