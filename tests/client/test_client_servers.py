"""An editor goes from its own server to one that it pairs with, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer
from impasto_client.events import CatalogChanged, ConnectionChanged, PreviewReady, ServerChosen
from impasto_client.wording import describe_connection
from impasto_protocol.home import paired_file
from scenarios import Editor, snapshot, wait_until
from threaded import free_port, service


@pytest.fixture
def own(tmp_path: Path) -> Iterator[FakeServer]:
    server = FakeServer(tmp_path / "client").start()
    yield server
    server.stop()


def servers_of(editor: Editor) -> list[str]:
    return [
        f"{e.server} at {e.place}" if e.place else e.server
        for e in editor.events
        if isinstance(e, ConnectionChanged) and e.state == "connected"
    ]


def chosen(editor: Editor, count: int) -> ServerChosen:
    wait_until(lambda: sum(isinstance(e, ServerChosen) for e in editor.events) >= count)
    return [e for e in editor.events if isinstance(e, ServerChosen)][count - 1]


def test_pair_use_it_and_go_back(own: FakeServer, tmp_path: Path) -> None:
    editor = Editor(own.home).connected()
    try:
        with service(tmp_path / "server", tls=True, port=free_port()) as server:
            editor.runner.servers.change(server.outer, "AAAA-AAAA")
            wrong = chosen(editor, 1)
            assert wrong.error is not None and wrong.error.code == "auth.wrong_code"
            editor.runner.servers.change("no address", "AAAA-AAAA")
            assert chosen(editor, 2).error is not None
            assert servers_of(editor) == ["fake 0 (none)"] and not paired_file(own.home).exists()

            # A job of the old server goes on there, and is not taken for one of the new.
            own.gate.clear()
            editor.runner.submit("left", "inpaint", {}, snapshot())
            editor.until(PreviewReady)
            editor.runner.servers.change(server.outer, server.code())
            name = server.outer.split("//")[1]
            assert chosen(editor, 3) == ServerChosen(name)
            left = editor.ended("left")
            assert left.error is not None and "in the history of the old one" in left.error.message
            wait_until(lambda: len(servers_of(editor)) == 2)
            assert servers_of(editor)[1].startswith("impasto ") and servers_of(editor)[1].endswith(f" at {name}")
            editor.until(CatalogChanged, lambda e: e.catalog.rev != "1")
            editor.runner.submit("new", "inpaint", {"steps": 2}, snapshot(64, 64))
            assert editor.ended("new").state == "finished"
            assert editor.runner.servers.known() == (name,)

            editor.runner.servers.change("")
            assert chosen(editor, 4) == ServerChosen("")
            wait_until(lambda: len(servers_of(editor)) == 3)
            assert servers_of(editor)[2] == "fake 0 (none)"
            own.gate.set()
            editor.runner.submit("back", "inpaint", {}, snapshot())
            assert editor.ended("back").state == "finished"
            editor.runner.servers.change(name)
            wait_until(lambda: len(servers_of(editor)) == 4)
            editor.runner.servers.change("elsewhere:1")
            unknown = chosen(editor, 6)
            assert unknown.error is not None and "Pair with it first" in unknown.error.message
            assert not [e for e in editor.events if isinstance(e, ConnectionChanged) and e.state in ("lost", "failed")]
    finally:
        editor.close()


def test_a_painter_without_any_server_can_pair(tmp_path: Path) -> None:
    """In a sandbox there is none to start and none to find."""
    editor = Editor(tmp_path / "client")
    try:
        editor.until(ConnectionChanged, lambda e: e.state == "failed")
        with service(tmp_path / "server") as server:
            editor.runner.servers.change(server.inner, server.code())
            editor.connected()
            assert servers_of(editor)[0].endswith(f" at {server.inner}")
    finally:
        editor.close()


def test_the_line_about_the_server_names_the_place() -> None:
    away = ConnectionChanged("connected", "", "impasto 0.1.0 (cuda)", "192.168.1.20:7867")
    assert describe_connection(away, None) == "Impasto 0.1.0 at 192.168.1.20:7867"
    assert describe_connection(ConnectionChanged("connected", "", "impasto 0.1.0 (cuda)"), None) == "Impasto 0.1.0"
