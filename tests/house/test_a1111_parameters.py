"""The table of A1111's parameters is what the schema says, and leaves nothing open."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TABLE: dict[str, Any] = runpy.run_path(str(ROOT / "tools/a1111_parameters.py"))
ROWS = [row for rows in TABLE["sections"]().values() for row in rows]


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs/a1111-parameters.md").read_text(encoding="utf-8")
    assert written == TABLE["page"](), "run: python3 dev.py exec -- python tools/a1111_parameters.py"


def test_every_row_is_ours_or_says_why_not() -> None:
    assert [row.theirs for row in ROWS if not row.ours and not row.remark] == []
    assert len({row.theirs for row in ROWS}) >= len(ROWS) - 2, "a strength and a resize mode stand in two sections"


def test_every_parameter_of_old_pictures_is_in_the_table() -> None:
    """What a key of A1111's text sets is a parameter of A1111."""
    from impasto_server.engine.infotext_keys import KEYS

    named = {name.partition(".")[2] for row in ROWS for name in row.ours}
    assert {key.param for key in KEYS.values()} - named == set()
