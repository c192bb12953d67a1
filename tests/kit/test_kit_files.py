"""The kit's files: each is what the table says, is unpacked whole or not at all, and is not mistaken for another."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from impasto_protocol.errors import ModelError, ResourceError
from impasto_server.engine.kit.runtime import Kit, installed, known

from starter.kit import convert, sources, unpack
from starter.kit.unpack import TABLE, WEIGHTS, KitDamaged, KitReplaced, install, table

NAME = "face-short-range"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A copy of the smallest part of the packed kit, to be damaged."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in (f"{NAME}.pack", "person-segmentation.pack", TABLE):
        shutil.copy(WEIGHTS / name, folder / name)
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# ---- what lies in the repository


def test_every_packed_file_is_what_the_table_says(tmp_path: Path) -> None:
    entries = table()
    assert list(entries) == list(convert.NETWORKS)
    entries = {name: entry for name, entry in entries.items() if convert.NETWORKS[name].packed}
    for name, entry in entries.items():
        packed = (WEIGHTS / f"{name}.pack").read_bytes()
        assert (len(packed), hashlib.sha256(packed).hexdigest()) == (entry["bytes"], entry["sha256"])
        path = install(name, tmp_path)
        assert path == tmp_path / entry["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["result_sha256"]
    assert leftovers(tmp_path) == sorted(e["file"] for e in entries.values())
    assert sum(e["bytes"] for e in entries.values()) < 14_000_000


def test_every_network_names_its_licence_origin_and_package() -> None:
    text = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    for name, entry in table().items():
        if not convert.NETWORKS[name].packed:
            continue
        source = sources.SOURCES[convert.NETWORKS[name].source]
        assert entry["licence"] == source.licence and entry["origin"] == source.origin
        assert entry["package_sha256"] == source.sha256 and len(source.sha256) == 64
        assert f"`{name}.pack`" in text and f"{source.name} {source.version}" in text
        assert entry["about"] and entry["paper"]


def test_a_right_file_is_reused_and_needs_no_packed_one(tmp_path: Path, weights: Path) -> None:
    path = install(NAME, tmp_path / "kit", weights)
    stamp = path.stat().st_mtime_ns
    (weights / f"{NAME}.pack").unlink()
    assert install(NAME, tmp_path / "kit", weights).stat().st_mtime_ns == stamp


# ---- what is damaged


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def other_sum(path: Path) -> None:
    beside = path.with_name(TABLE)
    entries = json.loads(beside.read_text())
    entries[NAME]["result_sha256"] = "0" * 64
    beside.write_text(json.dumps(entries))


HARMS: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: p.unlink(), "is missing"),
    (flip, "checksum is wrong"),
    (lambda p: p.write_bytes(p.read_bytes()[:-10]), "bytes instead of"),
    (lambda p: p.write_bytes(b""), "0 bytes instead of"),
    (lambda p: shutil.copy(p.with_name("person-segmentation.pack"), p), "bytes instead of"),
    (lambda p: p.with_name(TABLE).unlink(), "is missing"),
    (lambda p: p.with_name(TABLE).write_text("{"), "cannot be read"),
    (lambda p: p.with_name(TABLE).write_text("[]"), "cannot be read"),
    (lambda p: p.with_name(TABLE).write_text(json.dumps({NAME: {}})), "cannot be read"),
    (other_sum, "did not unpack"),
]


@pytest.mark.parametrize(("harm", "words"), HARMS)
def test_damage_names_the_file_and_the_repair_and_leaves_nothing(
    tmp_path: Path, weights: Path, harm: Callable[[Path], object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(weights / f"{NAME}.pack")
    with pytest.raises(KitDamaged, match=words) as caught:
        install(NAME, tmp_path / "kit", weights)
    assert str(weights) in str(caught.value) and "impasto models kit --repair" in str(caught.value)
    assert leftovers(tmp_path / "kit") == []
    # And the engine says it as a typed error.
    monkeypatch.setattr(unpack, "table", lambda folder=weights: table(folder))
    monkeypatch.setattr(unpack, "install", lambda name, folder, repair: install(name, folder, weights, repair=repair))
    with pytest.raises(ModelError, match=words) as told:
        Kit(tmp_path / "kit").network(NAME)
    assert told.value.code == "model.corrupt" and "impasto models kit --repair" in told.value.message
    assert leftovers(tmp_path / "kit") == []


def test_nothing_half_written_is_left_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack.os, "replace", full)
    with pytest.raises(ResourceError, match="No space left on device") as caught:
        installed(NAME, tmp_path / "kit")
    assert caught.value.code == "resource.disk_full"
    assert leftovers(tmp_path / "kit") == []


# ---- what is another one


def test_another_network_of_the_same_name_is_refused_and_kept(tmp_path: Path) -> None:
    other = install("person-segmentation", tmp_path / "elsewhere")
    path = tmp_path / "kit" / f"{NAME}.onnx"
    path.parent.mkdir()
    shutil.copy(other, path)
    with pytest.raises(ModelError) as caught:
        Kit(path.parent).network(NAME)
    assert caught.value.code == "model.unsupported"
    assert str(path) in caught.value.message and "impasto models kit --repair" in caught.value.message
    assert path.read_bytes() == other.read_bytes(), "what may be the user's is not overwritten"
    with pytest.raises(KitReplaced):
        install(NAME, path.parent)
    assert installed(NAME, path.parent, repair=True) == path
    assert path.read_bytes() != other.read_bytes() and Kit(path.parent).network(NAME)


def test_one_changed_byte_is_another_network(tmp_path: Path) -> None:
    path = install(NAME, tmp_path)
    flip(path)
    with pytest.raises(ModelError, match="checksum is another one"):
        Kit(tmp_path).network(NAME)


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="face-mesh") as caught:
        Kit(tmp_path).network("face-masher")
    assert caught.value.code == "model.unknown" and "face-embedding" in caught.value.data["known"]
    assert leftovers(tmp_path) == []


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime") as caught:
        Kit(tmp_path).network(NAME)
    assert caught.value.code == "model.unsupported"


def test_a_network_is_loaded_once_and_in_the_kits_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    kit = Kit()
    assert not (tmp_path / "home").exists()
    assert kit.network(NAME) is kit.network(NAME)
    assert leftovers(tmp_path / "home" / "kit") == [f"{NAME}.onnx"]


def test_the_table_tells_inputs_and_outputs(tmp_path: Path) -> None:
    import onnxruntime

    for name, entry in known().items():
        if not entry["file"].endswith(".onnx") or "sha256" not in entry:
            continue
        session = onnxruntime.InferenceSession(str(install(name, tmp_path)), providers=["CPUExecutionProvider"])
        assert {v.name: v.shape for v in session.get_inputs()} == entry["inputs"]
        assert {v.name: v.shape for v in session.get_outputs()} == entry["outputs"]
        assert all(v.type == "tensor(float)" for v in (*session.get_inputs(), *session.get_outputs()))


# ---- fetching


def test_a_package_with_another_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:2] == ["npm", "pack"] and command[-1] == "jp.keijiro.mlsd@1.0.0"
        (Path(command[command.index("--pack-destination") + 1]) / "jp.keijiro.mlsd-1.0.0.tgz").write_bytes(b"else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sources.subprocess, "run", fake)
    with pytest.raises(sources.WrongPackage, match="instead of 700e384e"):
        sources.fetch("mlsd", tmp_path)
    assert not (tmp_path / "mlsd" / ".complete").exists()


def test_a_wheel_is_asked_for_by_version_and_platform(tmp_path: Path) -> None:
    command = sources.SOURCES["mediapipe"].command(tmp_path)
    assert "--no-deps" in command and command[-1] == "mediapipe==0.10.21"
    assert command[command.index("--platform") + 1] == "manylinux_2_28_x86_64"


def test_half_precision_of_the_upscaler_is_what_the_package_has(tmp_path: Path) -> None:
    from starter import stfile

    tensors, metadata = stfile.read(install("realesr-animevideov3-x4", tmp_path).read_bytes())
    assert metadata["licence"] == "BSD-3-Clause"
    assert len(tensors) == 53 and sum(t.size for t in tensors.values()) == 621_424
    assert tensors["body.0.weight"].dtype == np.float16 and tensors["body.1.weight"].dtype == np.float32
