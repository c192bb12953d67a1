"""An installation that has no torch yet: everything that leads to one works, and a job says how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKED = (
    "import sys\n"
    "sys.modules['torch'] = None\n"  # what import finds is that there is none
    "from impasto_server.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


def impasto(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / part) for part in ("protocol", "server", "krita_plugin", "gimp_plugin", "")]
    environ = {**os.environ, "HOME": str(home), "IMPASTO_HOME": str(home / "impasto")}
    environ["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-c", BLOCKED, *words]
    return subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "words",
    [
        ("models", "list"),
        ("models", "starter"),
        ("models", "pull", "--list"),
        ("setup", "--dry-run"),
        ("setup", "folders", "--yes"),
        ("setup", "launch"),
        ("history",),
        ("stop",),
    ],
)
def test_what_leads_to_torch_needs_none(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = impasto(tmp_path, *words)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_a_job_says_how_to_get_torch(tmp_path: Path) -> None:
    done = impasto(tmp_path, "txt2img", "--prompt", "a fox", "-o", "fox.png")
    assert done.returncode == 1 and "impasto setup torch" in done.stderr and "resource.no_torch" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "fox.png").exists()
