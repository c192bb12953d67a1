"""The wire and the client on every Python from 3.8 to 3.13 that is here, with the plug-ins' vendored packages."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from impasto_server.cli.vendor import vendor
from threaded import free_port, service

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def interpreters() -> dict[str, str]:
    """Version -> executable: those on PATH, those of pyenv, and this one."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for folder in sorted(Path.home().glob(".pyenv/versions/*")):
        match = re.match(r"(\d+\.\d+)\.\d+$", folder.name)
        if match and (folder / "bin" / "python").exists():
            found[match.group(1)] = str(folder / "bin" / "python")
    for version in VERSIONS:
        on_path = shutil.which(f"python{version}")
        # pyenv puts stubs on PATH that fail for versions that are not switched on.
        if on_path and "shims" not in on_path:
            found.setdefault(version, on_path)
    return {version: found[version] for version in VERSIONS if version in found}


FOUND = interpreters()


@pytest.fixture(scope="session")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vendored") / "packages"
    vendor(folder)
    return folder


def test_vendored_packages_are_pure_python(vendored: Path) -> None:
    assert {p.name for p in vendored.iterdir() if p.suffix != ".dist-info"} == {"msgpack", "websockets"}
    assert not [p for p in vendored.rglob("*") if p.suffix in (".so", ".pyd", ".dll", ".dylib", ".pyc", ".c")]
    assert list(vendored.rglob("LICENSE")) and list(vendored.rglob("COPYING"))


@pytest.mark.parametrize("version", list(FOUND))
def test_wire_and_client_on_python(version: str, vendored: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("on_interpreter.py")
    command = [FOUND[version], "-B", "-I", str(script), str(ROOT / "protocol"), str(vendored.resolve())]
    with service(tmp_path, tls=True, port=free_port()) as server:
        command += [server.outer, server.code()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    ran = json.loads(done.stdout.splitlines()[-1])
    print(f"covered: Python {ran['python']}, {ran['vectors']} vectors, {ran['scenarios']} scenarios")
    assert ran["python"].startswith(version + ".") and ran["scenarios"] > 0


def test_interpreters_were_found(capsys: pytest.CaptureFixture[str]) -> None:
    """At least one; which ones is said, so that a report of a run names them."""
    with capsys.disabled():
        missing = [version for version in VERSIONS if version not in FOUND]
        print(f"\n[interpreters covered: {', '.join(FOUND)}; not here: {', '.join(missing) or 'none'}]")
    assert FOUND
