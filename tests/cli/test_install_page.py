"""docs/install.md: its commands exist as they are written. `tools/first_start.py` runs them, which takes minutes."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from impasto_server.cli.main import parser_for
from impasto_server.cli.torch_builds import KINDS, TORCH

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
LINES = [re.sub(r"\s{2,}#.*$", "", line) for line in re.findall(r"^    (\S.*)$", PAGE, re.MULTILINE)]
OURS = [line for line in LINES if re.match(r"(\S*/)?impasto ", line)]


@pytest.mark.parametrize("line", OURS)
def test_every_command_of_the_page_is_one(line: str) -> None:
    words = shlex.split(line)[1:]
    args = parser_for(words[0]).parse_args(words)
    assert args.verb == words[0]


def test_the_page_names_what_is_chosen() -> None:
    assert all(f"`{kind}`" in PAGE for kind in KINDS) and f"torch {TORCH}" in PAGE
    assert "None of this was run" in PAGE, "what was not tried is named"


def test_the_lines_that_are_run_go_from_nothing_to_a_picture_and_back() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from first_start import commands
    finally:
        sys.path.pop(0)
    lines = commands(PAGE)
    assert lines[0].startswith("sudo apt-get") and lines[-1].startswith("rm -r")
    assert [line for line in lines if "impasto" in line] and all("#" not in line for line in lines)
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None and any(f"impasto-{version[1]}-py3-none-any.whl" in line for line in lines)
