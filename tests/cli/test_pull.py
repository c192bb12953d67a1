"""`impasto models pull` against a hub of our own: whole, cut, gone on with, damaged, refused, on a full disk."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import close_session, constants, file_download
from impasto_protocol.errors import ImpastoError
from impasto_protocol.home import models_folder
from impasto_server.cli import pull, pull_kit
from impasto_server.cli.main import main

from tests.cli.hub import Hub, serving

BYTES = random.Random(7).randbytes(300_000)
SHA = hashlib.sha256(BYTES).hexdigest()
SD15 = replace(pull.entry("sd15"), size=len(BYTES), sha256=SHA)


@pytest.fixture
def hub(monkeypatch: Any) -> Iterator[Hub]:
    for name in ("HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    # What is less than a piece is lost in a cut; the library's pieces are of 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    close_session()
    with serving({f"{SD15.repo}/{SD15.file}": BYTES}) as hub:
        yield hub
    close_session()


def refused(hub: Hub, folder: Path, wanted: pull.Entry = SD15) -> ImpastoError:
    with pytest.raises(ImpastoError) as e:
        pull.fetch(wanted, folder, hub.url)
    assert not (folder / wanted.save_as).exists(), "only a whole and right file has the name"
    return e.value


def part_of(folder: Path) -> Path:
    return folder / f"{SD15.save_as}.part"


def test_the_list_is_whole_and_touches_no_network(capsys: Any) -> None:
    entries = pull.catalogue()
    assert len({e.name for e in entries}) == len({(e.folder, e.save_as) for e in entries}) == len(entries)
    for e in entries:
        assert re.fullmatch(r"[a-z0-9-]+", e.name) and e.licence and re.fullmatch(r"[\w.-]+/[\w.-]+", e.repo)
        assert e.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", e.sha256)
        assert e.size is None or e.size > 1_000_000
        assert Path(e.save_as).name == e.save_as and ".." not in e.folder and not Path(e.folder).is_absolute()
    kinds = {e.kind for e in entries}
    assert kinds == {"checkpoint", "controlnet", "ip_adapter", "image_encoder", "upscaler", "annotator"}
    assert main(["models", "pull", "--list"]) == 0
    told = capsys.readouterr().out
    assert all(e.name in told and e.licence in told for e in entries) and "4.27 GB" in told
    assert main(["models", "pull", "--list", "--json"]) == 0
    names = [e["name"] for e in json.loads(capsys.readouterr().out)]
    assert names == [e.name for e in (*entries, *pull_kit.catalogue())] and len(set(names)) == len(names)


def test_a_file_arrives_whole_and_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "Модели with spaces"
    assert pull.fetch(SD15, folder, hub.url) == (folder / SD15.save_as, True)
    assert (folder / SD15.save_as).read_bytes() == BYTES and list(folder.iterdir()) == [folder / SD15.save_as]
    asked = len(hub.requests)
    assert pull.fetch(SD15, folder, hub.url) == (folder / SD15.save_as, False)
    assert len(hub.requests) == asked


def test_a_cut_connection_is_gone_on_with_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = [100_000, 50_000]
    pull.fetch(SD15, tmp_path, hub.url)
    assert (tmp_path / SD15.save_as).read_bytes() == BYTES
    assert hub.downloads() == ["", "bytes=100000-", "bytes=150000-"]


def test_half_a_download_is_gone_on_with_by_the_next_call(hub: Hub, tmp_path: Path, capsys: Any) -> None:
    hub.cuts = [120_000] + [0] * 10
    error = refused(hub, tmp_path)
    assert error.code == "resource.no_network" and error.retryable and "goes on where it stopped" in error.message
    assert part_of(tmp_path).stat().st_size == 120_000
    hub.cuts = []
    hub.requests.clear()
    pull.fetch(SD15, tmp_path, hub.url)
    assert hub.downloads() == ["bytes=120000-"] and "going on at 0.1 of 0.3 MB" in capsys.readouterr().err
    assert (tmp_path / SD15.save_as).read_bytes() == BYTES and not part_of(tmp_path).exists()


def test_a_hub_that_knows_no_ranges_sends_all_of_it_again(hub: Hub, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(BYTES[:1000])
    hub.ranges = False
    pull.fetch(SD15, tmp_path, hub.url)
    assert (tmp_path / SD15.save_as).read_bytes() == BYTES


@pytest.mark.parametrize("left", [b"something else" * 100, BYTES + b"and more"])
def test_a_part_that_is_not_of_this_file_does_no_harm(hub: Hub, tmp_path: Path, left: bytes) -> None:
    part_of(tmp_path).write_bytes(left)
    if len(left) < len(BYTES):
        assert refused(hub, tmp_path).code == "asset.digest_mismatch"
        assert not part_of(tmp_path).exists()
    assert pull.fetch(SD15, tmp_path, hub.url)[1]
    assert (tmp_path / SD15.save_as).read_bytes() == BYTES


def test_damage_on_the_way_is_seen(hub: Hub, tmp_path: Path) -> None:
    hub.sends = BYTES[:-1] + bytes([BYTES[-1] ^ 1])
    error = refused(hub, tmp_path)
    assert error.code == "asset.digest_mismatch" and SHA in error.message and not part_of(tmp_path).exists()
    # Where we know no checksum, the hub's own serves.
    assert refused(hub, tmp_path, replace(SD15, sha256=None, size=None)).code == "asset.digest_mismatch"


def test_another_file_than_the_known_one_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    for wanted in (replace(SD15, sha256="0" * 64), replace(SD15, size=123)):
        error = refused(hub, tmp_path, wanted)
        assert error.code == "asset.digest_mismatch" and "another file" in error.message
    assert hub.downloads() == []


def test_a_file_without_any_checksum_says_so(hub: Hub, tmp_path: Path, capsys: Any) -> None:
    hub.checksums = False
    pull.fetch(replace(SD15, sha256=None, size=None), tmp_path, hub.url)
    assert "no checksum of it is known" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(500, "resource.no_network"), (403, "resource.no_network")])
def test_a_hub_that_refuses(hub: Hub, tmp_path: Path, status: int, code: str) -> None:
    hub.status = status
    assert refused(hub, tmp_path).code == code


def test_a_file_that_the_hub_no_longer_has(hub: Hub, tmp_path: Path) -> None:
    hub.files.clear()
    error = refused(hub, tmp_path)
    assert error.code == "model.unknown" and SD15.repo in error.message


def test_no_network(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ImpastoError) as e:
        pull.fetch(SD15, tmp_path, "http://127.0.0.1:1")
    assert e.value.code == "resource.no_network" and "HTTPS_PROXY" in e.value.message


def test_a_proxy_of_the_environment_is_used(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.setenv("NO_PROXY", "")
    close_session()
    assert pull.fetch(SD15, tmp_path, "http://hub.invalid")[1], "its name is known to the proxy alone"


def test_another_hub_is_set_by_the_environment(hub: Hub, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path))
    monkeypatch.setattr(pull, "catalogue", lambda: (SD15,))
    assert main(["models", "pull", "sd15", "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert answer["fetched"] and answer["licence"] == SD15.licence and SD15.page in told.err
    assert Path(answer["file"]) == models_folder(tmp_path) / SD15.save_as
    assert main(["models", "pull", "sd15", "--to", str(tmp_path / "elsewhere")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "elsewhere" / SD15.save_as)


def test_a_full_disk_is_seen_before_and_in_the_middle(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(pull.shutil, "disk_usage", lambda path: SimpleNamespace(free=pull.SPARE))
        error = refused(hub, tmp_path)
        assert error.code == "resource.disk_full" and "make room" in error.message and hub.downloads() == []
    if sys.platform == "win32":
        return
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        error = refused(hub, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.code == "resource.disk_full" and "what arrived is kept" in error.message
    kept = part_of(tmp_path).stat().st_size
    assert 0 < kept <= 100_000
    pull.fetch(SD15, tmp_path, hub.url)
    assert (tmp_path / SD15.save_as).read_bytes() == BYTES and hub.downloads()[-1] == f"bytes={kept}-"


def test_a_folder_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImpastoError) as e:
        pull.fetch(SD15, tmp_path / "file" / "models", hub.url)
    assert e.value.code == "resource.home" and str(tmp_path / "file") in e.value.message


def test_a_file_of_the_users_with_that_name_stays(hub: Hub, tmp_path: Path) -> None:
    mine = tmp_path / SD15.save_as
    for content in (b"mine", bytes(len(BYTES))):
        mine.write_bytes(content)
        with pytest.raises(ImpastoError) as e:
            pull.fetch(SD15, tmp_path, hub.url)
        assert e.value.code == "asset.digest_mismatch" and mine.read_bytes() == content


def test_a_hub_that_is_switched_off(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    error = refused(hub, tmp_path)
    assert error.code == "resource.no_network" and "HF_HUB_OFFLINE" in error.message


@pytest.mark.parametrize(("words", "says"), [(["sd1"], "'sd15'"), (["qqqq"], "--list"), ([], "--list")])
def test_names_that_are_not_in_the_list(words: list[str], says: str, capsys: Any) -> None:
    assert main(["models", "pull", *words]) == 2
    assert says in capsys.readouterr().err
