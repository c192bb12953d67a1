"""The scenarios in this interpreter, with the websockets that is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import SCENARIOS


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario(name: str, tmp_path: Path) -> None:
    SCENARIOS[name](tmp_path)
