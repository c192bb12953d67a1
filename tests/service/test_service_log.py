"""The log file: what a painter sends when something went wrong."""

from __future__ import annotations

import logging
from pathlib import Path

from impasto_protocol.home import log_file
from impasto_server.service.home import to_log_file


def test_a_name_cannot_write_lines_of_its_own(tmp_path: Path) -> None:
    name = "Krita\n2026-01-01 00:00:00,000 ERROR impasto: forged\x1b[2J\u2028\u202eend"
    log = logging.getLogger("impasto.service.session")
    with to_log_file(tmp_path):
        log.info("%s %s (%s) is connected", name, "1.0", "Malerei für Ölfarben")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("a job failed")
    text = log_file(tmp_path).read_text("utf-8")
    first, second, *traceback = text.splitlines()
    assert r"Krita\n2026-01-01" in first and r"\x1b[2J\u2028\u202eend 1.0 (Malerei für Ölfarben)" in first
    assert second.endswith("a job failed") and traceback[-1] == "ValueError: broken"
