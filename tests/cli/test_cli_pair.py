"""`impasto pair` against a real server: the code, the list, taking back; and the other end of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from impasto_client.connecting import connect_or_start
from impasto_client.paired import read_paired
from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import endpoint_file, log_file, paired_file, read_launch
from impasto_protocol.messages import ClientInfo
from impasto_server.cli.main import main

from tests.client.threaded import free_port
from tests.service.fakes import add_model


class Told(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Impasto = Callable[..., Told]


@pytest.fixture
def impasto(monkeypatch: Any, capsys: Any) -> Impasto:
    """The command line with a folder of its own."""

    def run(home: Path, *words: str) -> Told:
        monkeypatch.setenv("IMPASTO_HOME", str(home))
        code = main(words)
        return Told(code, *capsys.readouterr())

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    add_model(tmp_path / "server")
    return tmp_path / "server"


@pytest.fixture
def server(home: Path) -> Iterator[subprocess.Popen[str]]:
    words = ["serve", "--host", "0.0.0.0", "--port", str(free_port()), "--tls"]
    command = [sys.executable, "-m", "impasto_server.cli.main", *words]
    environment = {**os.environ, "IMPASTO_HOME": str(home)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdout is not None and "listens on 127.0.0.1" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_from_the_code_to_the_end(home: Path, server: subprocess.Popen[str], tmp_path: Path, impasto: Impasto) -> None:
    assert server.stderr is not None
    warning = server.stderr.readline()
    assert warning.startswith("impasto: This server is open to the network: computers that reach every address")
    assert warning.split("impasto: ")[1].strip() in log_file(home).read_text()
    assert (read_launch(home) or [])[3:6] == ["serve", "--host", "0.0.0.0"] and "--tls" in (read_launch(home) or [])

    shown = impasto(home, "pair")
    assert shown.returncode == 0, shown.stderr
    match = re.search(
        r"Code: +([A-Z2-9]{4}-[A-Z2-9]{4}) .*\n.*\nAddress: +\S+:(\d+) +\(another computer\)", shown.stdout
    )
    assert match is not None, shown.stdout
    laptop = tmp_path / "laptop"
    wrong = impasto(laptop, "pair", "--with", f"wss://127.0.0.1:{match[2]}", "AAAA-AAAA")
    assert wrong.returncode == 1 and "auth.wrong_code" in wrong.stderr and "impasto pair" in wrong.stderr
    paired = impasto(laptop, "pair", "--with", f"wss://127.0.0.1:{match[2]}", match[1].lower())
    assert paired.returncode == 0 and f"127.0.0.1:{match[2]}" in paired.stdout, paired.stderr
    connect_or_start(ClientInfo("t", "0"), lambda m: None, lambda e: None, home=laptop).close()

    listed = impasto(home, "pair", "--list").stdout
    assert "paired 20" in listed and "last here 20" in listed and listed.count("\n") == 1
    name = listed.split("    ")[0]
    nobody = impasto(home, "pair", "--revoke", "nobody")
    assert nobody.returncode == 2 and name in nobody.stderr
    assert impasto(home, "pair", "--revoke", name).returncode == 0
    with pytest.raises(ImpastoError, match="pair with it again"):
        connect_or_start(ClientInfo("t", "0"), lambda m: None, lambda e: None, home=laptop)

    assert impasto(laptop, "pair", "--here").returncode == 0 and read_paired(laptop).chosen == ""
    assert impasto(laptop, "pair", "--use", f"127.0.0.1:{match[2]}").returncode == 0
    unknown = impasto(laptop, "pair", "--use", "studio:1")
    assert unknown.returncode == 2 and "Pair with it first" in unknown.stderr
    assert paired_file(laptop).exists()

    # Nobody needs a running server to look or to take back.
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0 and not endpoint_file(home).exists()
    assert "Nobody has been paired" in impasto(home, "pair", "--list").stderr
    assert impasto(home, "pair", "--revoke", name).returncode == 2


def test_without_a_server_it_says_how_to_start_one(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(home))
    assert main(["pair"]) == 1
    assert "impasto serve --host ADDRESS --tls" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--with", "studio"], ["--list", "--here"], ["--revoke"], ["--use"]])
def test_wrong_words_are_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["pair", *words])
    assert e.value.code == 2
