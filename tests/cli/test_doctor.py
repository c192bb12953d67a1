"""`impasto doctor`: what is bad has its mend, on machines that were not at hand and on this one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.home import endpoint_file, launch_file, models_folder, token_file
from impasto_protocol.version import PROTOCOL, VERSION
from impasto_server.cli import cards, doctor, found_editors, setup, torch_probe
from impasto_server.cli.findings import Finding, of_disk, of_memory, of_torch, page
from impasto_server.cli.found_editors import Where
from impasto_server.cli.main import main
from impasto_server.service.home import write_launch
from impasto_server.service.remembered import write_folders

from tests.cli.test_cards import BROKEN, GTX1060, LSPCI, MISMATCH, RTX4090, machine
from tests.cli.test_setup import VENDORED, nobody, tree

CUDA13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


def torch(version: str = "2.13.0", **more: Any) -> dict[str, Any]:
    return {"version": version, "cuda": None, "rocm": None, "threads": 8, "arch_list": [], "cards": [], **more}


def card(name: str, major: int, minor: int) -> dict[str, Any]:
    return {"name": name, "capability": [major, minor], "free": 5 << 30, "total": 6 << 30}


def worst(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level == "BAD"]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (machine(nvidia_smi=(0, RTX4090)), torch(cuda="13.0", arch_list=CUDA13, cards=[card("RTX 4090", 8, 9)])),
        (machine(nvidia_smi=(0, GTX1060)), torch(cuda="12.6", arch_list=CUDA126, cards=[card("GTX 1060", 6, 1)])),
        (machine(), torch("2.13.0+cpu")),
        (machine("darwin", "arm64"), torch(mps=True)),
        (machine(lspci=(0, LSPCI.splitlines()[0])), torch("2.13.0+cpu")),
    ],
)
def test_a_build_with_code_for_the_card_is_fine(where: cards.Machine, told: dict[str, Any]) -> None:
    assert worst(list(of_torch(where, told))) == []


@pytest.mark.parametrize(
    ("where", "told", "says", "mend"),
    [
        (
            machine(nvidia_smi=(0, GTX1060)),
            torch(cuda="13.0", arch_list=CUDA13, cards=[card("GTX 1060", 6, 1)]),
            "needs code for sm_61, but torch.cuda.get_arch_list() is sm_75",
            "impasto setup torch",
        ),
        (machine(nvidia_smi=(0, RTX4090)), torch("2.13.0+cpu"), "cannot use the card", "impasto setup torch"),
        (machine(nvidia_smi=(9, BROKEN), lspci=(0, LSPCI)), torch("2.13.0+cu126"), "does not answer", "nvidia-driver"),
        (machine(nvidia_smi=(18, MISMATCH), lspci=(0, LSPCI)), torch("2.13.0+cu126"), "mismatch", "restart"),
        (machine(lspci=(0, LSPCI)), torch("2.13.0+cu126"), "finds no card, though its build fits", "nvidia-driver"),
        (machine(), {"error": "torch is not installed", "missing": True}, "not installed", "impasto setup torch"),
        (machine(), {"error": "import torch: OSError: libcudart.so.13"}, "libcudart", "impasto setup torch"),
        (
            machine(nvidia_smi=(0, RTX4090)),
            torch(card_error="CUDA error: out of memory"),
            "cannot use the card: CUDA error",
            "driver",
        ),
    ],
)
def test_what_is_bad_has_its_mend(where: cards.Machine, told: dict[str, Any], says: str, mend: str) -> None:
    bad = worst(list(of_torch(where, told)))
    assert any(says in finding.text and mend in finding.mend for finding in bad), bad


def test_room_on_disk_and_in_memory(tmp_path: Path) -> None:
    assert of_disk(tmp_path, 100 << 20).level == "BAD" and "IMPASTO_HOME" in of_disk(tmp_path, 100 << 20).mend
    assert of_disk(tmp_path, 5 << 30).level == "note" and of_disk(tmp_path, 50 << 30).level == "ok"
    assert [f.level for f in of_memory(4 << 30, 1 << 30)] == ["note"] and list(of_memory(0, 0)) == []
    total, free = doctor.memory()
    assert total > free >= 0


def test_the_page_has_no_name_of_a_user_in_it() -> None:
    text = page([Finding("disk", "BAD", "/home/anna/x is full", "rm -r /home/anna/x/old")], Path("/home/anna"))
    assert "anna" not in text and "~/x" in text and "-> rm" in text


def test_torch_is_asked_in_a_process_that_may_die(monkeypatch: Any) -> None:
    told = torch_probe.probe()
    assert told["version"].startswith("2.") and told["cards"] == [] and told["threads"] > 0

    def dies(*_: Any, **more: Any) -> Any:
        return subprocess.CompletedProcess([], -11, "", "warning\nFatal: driver\n")

    monkeypatch.setattr(torch_probe.subprocess, "run", dies)
    assert torch_probe.probe() == {"error": "torch ended the process (-11): Fatal: driver"}

    def hangs(*_: Any, **more: Any) -> Any:
        raise subprocess.TimeoutExpired([], 1)

    monkeypatch.setattr(torch_probe.subprocess, "run", hangs)
    assert "did not answer" in torch_probe.probe()["error"]


@pytest.fixture
def person(tmp_path: Path, monkeypatch: Any) -> Path:
    """A user with a Krita and a GIMP, a torch for the processor, and nothing else."""
    home = tmp_path / "home"
    tree(home, ".config/GIMP/3.0/", ".config/kritarc")
    monkeypatch.setenv("IMPASTO_HOME", str(home / "impasto"))
    bare = machine()
    monkeypatch.setattr(doctor.cards, "found", lambda: bare)
    monkeypatch.setattr(torch_probe, "probe", lambda: torch("2.13.0+cpu"))
    monkeypatch.setattr("impasto_server.cli.vendor.cache_folder", lambda: VENDORED)
    monkeypatch.setattr(found_editors, "mine", lambda: Where(home, "linux", {}, nobody, home))
    return home


def told(capsys: Any) -> dict[str, dict[str, str]]:
    """Topic -> its worst finding, from --json."""
    code = main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == VERSION and code == (1 if answer["bad"] else 0) and answer["text"]
    order = ("ok", "note", "BAD")
    result: dict[str, dict[str, str]] = {}
    for finding in answer["findings"]:
        if finding["topic"] not in result or order.index(finding["level"]) > order.index(
            result[finding["topic"]]["level"]
        ):
            result[finding["topic"]] = finding
    return result


def test_a_fresh_installation_is_not_bad(person: Path, capsys: Any) -> None:
    found = told(capsys)
    assert not [f for f in found.values() if f["level"] == "BAD"], found
    assert found["faceswap"]["level"] == "note" and "impasto faces build" in found["faceswap"]["text"]
    assert found["krita"]["mend"].startswith("impasto setup plugins") and found["gimp"]["level"] == "note"
    assert found["models"]["level"] == "note" and "upscale" in found["modes"]["text"]


def test_plug_ins_that_are_older_newer_or_switched_off(person: Path, capsys: Any) -> None:
    for editor in found_editors.find(found_editors.mine()):
        setup.place_plug_in(editor)
    found = told(capsys)
    assert found["krita"]["level"] == found["gimp"]["level"] == "ok"
    versions = person / ".local/share/krita/pykrita/impasto_krita/_vendor/impasto_protocol/version.py"
    right = versions.read_text()
    for version, protocol in (("0.0.1", (1, 0)), ("7.0", (7, 0))):
        versions.write_text(f'VERSION = "{version}"\nPROTOCOL: Tuple[int, int] = {protocol}\n')
        krita = told(capsys)["krita"]
        assert krita["level"] == "BAD" and f"plug-in {version}, server {VERSION}" in krita["text"]
        assert krita["mend"].startswith("impasto setup plugins")
    versions.write_text(right)
    kritarc = person / ".config/kritarc"
    kritarc.write_text(kritarc.read_text().replace("=true", "=false"))
    assert "switched off" in told(capsys)["krita"]["text"]
    assert PROTOCOL[0] == 1


def test_a_server_that_does_not_answer(person: Path, capsys: Any) -> None:
    home = person / "impasto"
    home.mkdir()
    write_launch(home, [sys.executable, "-m", "impasto_server.cli.main", "serve"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        record = {"host": "127.0.0.1", "port": port, "pid": 1, "interpreter": sys.executable, "version": VERSION}
        token_file(home).write_text("0123456789abcdef0123")
        token_file(home).chmod(0o600)
        record |= {"token_file": str(token_file(home)), "protocol": list(PROTOCOL)}
        endpoint_file(home).write_text(json.dumps(record))
        found = told(capsys)["server"]
        assert found["level"] == "ok" and f"answers on 127.0.0.1 port {port}" in found["text"]
    found = told(capsys)["server"]
    assert found["level"] == "BAD" and "does not answer" in found["text"] and "impasto stop" in found["mend"]
    token_file(home).chmod(0o644)
    assert "chmod 600" in told(capsys)["folder"]["text"], "a token that others can read, with the mend"


def test_a_launch_record_of_a_python_that_is_gone(person: Path, capsys: Any) -> None:
    home = person / "impasto"
    home.mkdir()
    write_launch(home, [str(person / "gone/python"), "-m", "impasto_server.cli.main", "serve"])
    found = told(capsys)["server"]
    assert found["level"] == "BAD" and "is gone" in found["text"] and found["mend"] == "impasto setup launch"
    assert launch_file(home).exists(), "the doctor changes nothing"


def test_models_and_folders(person: Path, capsys: Any) -> None:
    home = person / "impasto"
    models_folder(home).mkdir(parents=True)
    (models_folder(home) / "half.safetensors").write_bytes(b"no header")
    write_folders(home, {"a1111": (person / "gone away",)})
    found = told(capsys)
    assert "gone away" in found["folder"]["text"] and "--forget" in found["folder"]["mend"]
    assert found["model"]["level"] == "note" and "half.safetensors" in found["model"]["text"]


def test_a_user_folder_that_cannot_be_made(tmp_path: Path, person: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "file" / "below"))
    found = told(capsys)
    assert found["folder"]["level"] == "BAD" and "IMPASTO_HOME" in found["folder"]["text"]
