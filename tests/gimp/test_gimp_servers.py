"""GIMP goes to another server by its address and code, works there, and comes back; an open panel follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.editors.other_server import OtherServer, other_server
from tests.gimp.conftest import Painter
from tests.gimp.gdrive import until
from tests.gimp.test_gimp_desktop import close, key, opened, window
from tests.krita import stub

pytestmark = pytest.mark.gimp

__all__ = ["key", "window"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with other_server(stub.launch_command(), tmp_path_factory.mktemp("other") / "home") as started:
        yield started


@pytest.fixture(autouse=True)
def own_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """GIMP and its server serve other tests too."""
    yield
    for name in ("painter", "desktop"):
        if name in request.fixturenames:
            (request.getfixturevalue(name).home / "paired.json").unlink(missing_ok=True)


def connect(painter: Painter, **arguments: str) -> tuple[str, str]:
    """Status and error of the procedure as a script calls it."""
    status, error = painter.run(f"answer = call('connect', None, **{arguments!r})\nresult = [answer[0], answer[2]]")
    return status, error


def test_a_script_pairs_works_there_and_comes_back(painter: Painter, other: OtherServer) -> None:
    status, error = connect(painter, address="no address", code="AAAA-AAAA")
    assert status == "calling-error" and "no address of a server" in error
    status, error = connect(painter, address=other.address, code="AAAA-AAAA")
    assert status == "execution-error" and "The code is not right" in error
    status, error = connect(painter, address=other.address)
    assert status == "calling-error" and "Pair with it first" in error
    assert connect(painter, address=other.address, code=other.code().lower())[0] == "success"
    made = painter.run(
        "image = new_image(256, 192)\nselect(image, 60, 40, 64, 48)\n"
        "layers_of(call('inpaint', image, prompt='elsewhere'))\nresult = tree(image)"
    )
    assert made == ["Impasto: elsewhere", "painting"] and other.jobs() == ["finished"]
    assert connect(painter)[0] == "success"
    painter.run("layers_of(call('inpaint', image, prompt='at home'))")
    assert other.jobs() == ["finished"]
    assert connect(painter, address=other.address)[0] == "success", "it is known from now on"


def test_an_open_panel_follows(desktop: Painter, key: Any, other: OtherServer, tmp_path: Path) -> None:
    desktop.run("image = new_image(320, 240)")
    panel = opened(desktop, key)
    place, line = "result = controller().connection.place", "result = widget('connection').get_text()"
    try:
        assert connect(desktop, address=other.address, code=other.code())[0] == "success"
        until(lambda: panel.run(place) == other.address, 30)
        until(lambda: other.address in panel.run(line), 10)
        assert connect(desktop)[0] == "success"
        until(lambda: panel.run(place) == "" and panel.run("result = connected()"), 30)
        assert other.address not in panel.run(line)

        # The same from the panel's own menu.
        can = panel.run(f"""
def gen():
    panel().choose_server()
    yield 0.5
    can = [widget("server_connect").get_sensitive()]
    widget("server_address").get_child().set_text("studio.local")
    can.append(widget("server_connect").get_sensitive())
    widget("server_code").set_text("K7QX-M2RD")
    can.append(widget("server_connect").get_sensitive())
    widget("server_code").set_text("")
    widget("server_address").get_child().set_text({other.address!r})
    can.append(widget("server_connect").get_sensitive())
    return can
""")
        assert can == [False, False, True, True], "one that is known needs no code"
        desktop.gimp.screenshot(tmp_path / "dialog.png")
        panel.run("widget('server_connect').clicked()")
        until(lambda: panel.run(place) == other.address, 30)
        assert "is used from now on" in panel.run("result = widget('message').get_text()")
        panel.run("def gen():\n    panel().choose_server()\n    yield 0.5\n    widget('server_own').clicked()")
        until(lambda: panel.run(place) == "" and panel.run("result = connected()"), 30)
    finally:
        close(panel)
