"""The house rules that a machine can hold: layers, exports, what importing may do, what the tree may contain."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("impasto_protocol", "impasto_client", "impasto_server")


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[str]:
    names = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        found = pkgutil.walk_packages(root.__path__, package + ".")
        names += [m.name for m in found if not m.name.endswith("__main__")]
    return names


def test_layers_hold() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_touches_neither_torch_nor_network(package: str) -> None:
    """`import impasto_server` must stay cheap: no torch, no socket, no graphics card."""
    code = (
        "import socket, sys\n"
        "def deny(*a, **k): raise AssertionError('a socket was opened at import')\n"
        "socket.socket.connect = deny; socket.create_connection = deny\n"
        f"import {package}\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["modes", "jobs", "planning", "identify", "checkpoint"])
def test_parts_the_service_needs_before_torch(module: str) -> None:
    code = f"import sys; import impasto_server.engine.{module}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_module_names_its_exports() -> None:
    """`__all__` is there, and every name in it exists."""
    for name in modules():
        module = importlib.import_module(name)
        if getattr(module, "__path__", None) is not None:
            continue
        exported = getattr(module, "__all__", None)
        assert exported is not None, f"{name} has no __all__"
        missing = [x for x in exported if not hasattr(module, x)]
        assert not missing, f"{name}.__all__ names {missing}, which it does not have"


def test_public_functions_have_docstrings() -> None:
    missing = []
    for path in tracked("protocol/*.py", "server/*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            missing.append(f"{path.relative_to(ROOT)}: module")
    assert not missing, missing


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by their names alone: the second would stop the whole run before it begins."""
    names = [path.name for path in tracked("tests/**/test_*.py")]
    assert len(names) > 100 and sorted(names) == sorted(set(names))


def test_no_file_is_over_500_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in tracked("*.py")
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long, long


def test_the_tree_names_no_machine_and_stays_small() -> None:
    """No absolute path of somebody's machine, no package registry's host; at most 60 MB in all."""
    forbidden = re.compile(r"(?<![\w./])/(work|root)/[a-z]|https?://[^ \"')]*(pythonhosted|npmjs|pypi\.org)")
    found, size = [], 0
    for path in tracked():
        size += path.stat().st_size
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".desktop", ".action", ".html", ""):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if forbidden.search(line) and path != Path(__file__):
                    found.append(f"{path.relative_to(ROOT)}:{number}")
    assert not found, found
    assert size < 60_000_000, f"{size} bytes are tracked"


def test_one_module_alone_may_reach_a_hub() -> None:
    """`impasto models pull` says so; everything else has no way there."""
    found = [
        str(path.relative_to(ROOT))
        for path in tracked("protocol/*.py", "server/*.py", "krita_plugin/*.py", "gimp_plugin/*.py")
        if "huggingface_hub" in path.read_text(encoding="utf-8")
    ]
    assert found == ["server/impasto_server/cli/pull.py"]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = "python3 dev.py test"
    assert command in (ROOT / ".ci/run").read_text()
    assert command in (ROOT / "README.md").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)
