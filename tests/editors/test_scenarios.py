"""The same scenarios in a real Krita and in a real GIMP.

With IMPASTO_WRITE_DOCS=1 what passed becomes the table in docs/editors.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.editors.drivers import Editor
from tests.editors.scenarios import OTHER_EDITOR, SCENARIOS, rectangle

PAGE = Path(__file__).resolve().parents[2] / "docs/editors.md"
HEAD = """# What the plug-ins can do

Generated from the scenarios in `tests/editors`, each of which is run in the real Krita and in the real GIMP: ✓ where it
passed. Do not edit; `IMPASTO_WRITE_DOCS=1 python3 dev.py test tests/editors` writes it anew.

| | Krita | GIMP 3 |
|---|---|---|
"""
EDITORS = [pytest.param("krita", marks=pytest.mark.krita), pytest.param("gimp", marks=pytest.mark.gimp)]
passed: set[tuple[str, str]] = set()
"""(feature, editor) of this run."""


def table(done: set[tuple[str, str]]) -> str:
    lines = []
    for feature in (*(s.feature for s in SCENARIOS.values()), OTHER_EDITOR):
        marks = ["✓" if (feature, editor) in done else "–" for editor in ("krita", "gimp")]
        lines.append(f"| {feature} | {' | '.join(marks)} |\n")
    return HEAD + "".join(lines)


@pytest.mark.parametrize("editor", EDITORS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, editor: str, request: pytest.FixtureRequest) -> None:
    driver: Editor = request.getfixturevalue(editor)
    SCENARIOS[name].run(driver)
    passed.add((SCENARIOS[name].feature, editor))


@pytest.mark.krita
@pytest.mark.gimp
def test_a_result_of_the_other_editor(krita: Editor, gimp: Editor) -> None:
    for maker, taker in ((krita, gimp), (gimp, krita)):
        maker.new()
        maker.select(rectangle())
        words = f"made in {maker.name}"
        maker.start("inpaint", words)
        maker.finish()
        taker.new()
        taker.apply_from_history(f"Impasto: {words}")
        assert taker.layers()[0] == f"Impasto: {words}"
        assert (taker.alpha(f"Impasto: {words}") == rectangle()).all()
        assert (taker.seen()[rectangle() > 0] == maker.seen()[rectangle() > 0]).all()
        passed.add((OTHER_EDITOR, taker.name.lower()))


@pytest.mark.krita
@pytest.mark.gimp
def test_the_table_of_the_docs_is_what_passed() -> None:
    """Last in this file: by now every scenario has run, unless only some were asked for."""
    if os.environ.get("IMPASTO_WRITE_DOCS"):
        PAGE.write_text(table(passed), encoding="utf-8")
    written = PAGE.read_text(encoding="utf-8")
    everything = len(passed) == 2 * (len(SCENARIOS) + 1)
    promised = {(feature, editor) for feature, editor in passed}
    if everything:
        assert written == table(promised)
    for feature, editor in passed:
        line = next((line for line in written.splitlines() if line.startswith(f"| {feature} |")), "")
        assert line.split("|")[2 if editor == "krita" else 3].strip() == "✓", feature
