"""The docker goes to another server by its address and code, paints there, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors.other_server import OtherServer, other_server
from tests.krita import stub
from tests.krita.conftest import Painter

pytestmark = pytest.mark.krita


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with other_server(stub.launch_command(), tmp_path_factory.mktemp("other") / "home") as started:
        yield started


def test_pair_paint_there_and_come_back(painter: Painter, other: OtherServer) -> None:
    can, message = painter.run(f"""
def gen():
    yield (connected, 30)
    app.action("impasto_other_server").trigger()
    yield (lambda: widget("server").isVisible(), 5)
    can = [widget("server_connect").isEnabled()]
    widget("server_address").setEditText({other.address!r})
    can.append(widget("server_connect").isEnabled())
    widget("server_code").setText("AAAA-AAAA")
    can.append(widget("server_connect").isEnabled())
    press("server_connect")
    yield (lambda: controller().notice is not None, 20)
    yield 0.2
    return [can, widget("message").text()]
""")
    assert can == [False, False, True] and "The code is not right" in message

    line, names = painter.run(f"""
def gen():
    app.action("impasto_other_server").trigger()
    yield 0.3
    widget("server_address").setEditText({other.address!r})
    widget("server_code").setText({other.code().lower()!r})
    press("server_connect")
    yield (lambda: connected() and controller().connection.place == {other.address!r}, 30)
    doc = yield from new_document()
    select(doc, 10, 10, 60, 60)
    prompt("painted elsewhere")
    yield (lambda: widget("inpaint").isEnabled(), 10)
    press("inpaint")
    yield (lambda: "Impasto: painted elsewhere" in layers(doc), 30)
    yield (idle, 10)
    yield 0.2
    return [widget("connection").text(), layers(doc)]
""")
    assert other.address in line and "Impasto: painted elsewhere" in names and other.jobs() == ["finished"]

    line = painter.run("""
def gen():
    app.action("impasto_other_server").trigger()
    yield 0.3
    press("server_own")
    yield (lambda: connected() and controller().connection.place == "", 30)
    yield 0.2
    return widget("connection").text()
""")
    assert other.address not in line
    # Known from now on: no code is needed.
    painter.run(f"""
def gen():
    docker().panel.other_server.trigger()
    yield 0.3
    widget("server_address").setEditText({other.address!r})
    press("server_connect")
    yield (lambda: connected() and controller().connection.place == {other.address!r}, 30)
    docker().panel.other_server.trigger()
    yield 0.3
    press("server_own")
    yield (lambda: connected() and controller().connection.place == "", 30)
""")


def test_the_dialog_can_be_looked_at(painter: Painter, tmp_path: Path) -> None:
    picture = tmp_path / "dialog.png"
    size = painter.run(f"""
def gen():
    docker().panel.other_server.trigger()
    yield 0.3
    dialog = widget("server")
    widget("server_address").setEditText("192.168.1.20:7867")
    widget("server_code").setText("K7QX-M2RD")
    yield 0.2
    dialog.grab().save({str(picture)!r})
    size = [dialog.width(), dialog.height()]
    press("server_cancel")
    yield 0.2
    return size
""")
    assert picture.stat().st_size > 1000 and 200 < size[0] < 700 and 100 < size[1] < 500
