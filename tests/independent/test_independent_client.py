"""A stranger to the code uses the real server as the specification says; only the engine pretends."""

from __future__ import annotations

import ast
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from wire_client import TERMINAL, Refused, new_job, pair, session

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder of a server that listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        (tmp_path / "tls-port").write_text(str(free.getsockname()[1]))
    path = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "server")]
    server = subprocess.Popen([sys.executable, str(ROOT / "tests/client/serve_service.py"), str(tmp_path), *path])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "endpoint.json").exists():
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield tmp_path
        (tmp_path / "stop").touch()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("name", ["wire_client.py"])
def test_it_imports_nothing_of_the_project(name: str) -> None:
    tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {(a.name if isinstance(n, ast.Import) else str(n.module)).split(".")[0] for n in nodes for a in n.names}
    assert names - set(sys.stdlib_module_names) == {"msgpack", "websockets"}


def png_with(text: str) -> bytes:
    """One grey pixel that says how it was made."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    said = chunk(b"tEXt", b"parameters\0" + text.encode()) if text else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + said
        + chunk(b"IDAT", zlib.compress(b"\0\x80"))
        + chunk(b"IEND", b"")
    )


def test_from_the_hello_to_the_history(home: Path) -> None:
    canvas, selection = [1600, 1200], [400, 300, 500, 400]
    with session(home) as wire:
        # What can the server do?
        catalog = wire.ask("catalog")
        assert catalog["rev"] == wire.welcome["catalog_rev"]
        assert wire.ask("catalog", rev=catalog["rev"])["type"] == "not_modified"
        mode = next(m for m in catalog["modes"] if m["name"] == "inpaint")
        assert mode["available"] and {i["kind"] for i in mode["inputs"]} == {"image", "mask"}
        params = {p["name"]: p["default"] for p in mode["params"] if p["name"] in ("steps", "strength")}
        models = list(wire.pages("models", "models", kind="checkpoint", limit=1))
        assert len(models) == catalog["models_total"] == len(catalog["models"])

        # What does the job need?
        params |= {"steps": 4, "model": models[0]["id"]}
        planned = wire.ask("plan", mode="inpaint", params=params, canvas=canvas, selection=selection)
        x, y, width, height = planned["box"]
        assert x <= 400 and y <= 300 and x + width >= 900 and y + height >= 700
        with pytest.raises(Refused) as wrong:
            wire.ask("plan", mode="inpaint", params={"steps": 0}, canvas=canvas, selection=selection)
        assert wrong.value.code == "request.invalid_param"

        # Any box that contains the selection may be sent: this one takes more chunks than the window.
        x, y, width, height = 200, 100, 1200, 1000
        line = b"".join(bytes((column % 256, 1, 7, 255)) for column in range(width))
        image = b"".join(line[4 * row :] + line[: 4 * row] for row in range(height))
        outside, chosen = bytes(width), bytes(200) + b"\xff" * 500 + bytes(500)
        inside = b"".join(chosen if 300 <= y + row < 700 else outside for row in range(height))
        assert len(image) > wire.limits["chunk"] * wire.limits["window"]
        place = {"width": width, "height": height, "x": x, "y": y}
        inputs = {
            "image": {"digest": wire.upload(image), "format": "rgba8", **place},
            "mask": {"digest": wire.upload(inside), "format": "l8", **place},
        }
        corner = image[:4096]
        assert wire.upload_unnamed(corner) == wire.upload(corner)
        missing = "0" * 32
        assert wire.ask("have", assets=[inputs["image"]["digest"], missing])["missing"] == [missing]

        # One job runs, one waits; the waiting one is cancelled, and so is the running one.
        text = {"prompt": "slow", "steps": 100}
        runs, waits = new_job(), new_job()
        plain = {"mode": "txt2img", "canvas": [64, 64], "params": text, "inputs": {}, "output_format": "rgba8"}
        assert wire.ask("submit", job=runs, **plain)["position"] == 0
        assert wire.event(runs, "started")["seq"] == 2
        assert wire.ask("submit", job=waits, **plain)["position"] == 1
        wire.ask("cancel", job=waits)
        assert wire.event(waits, *TERMINAL)["type"] == "cancelled"
        wire.ask("cancel", job=runs)
        assert wire.event(runs, *TERMINAL)["type"] == "cancelled"

        # The inpaint: slow enough to lose the connection in the middle.
        job = new_job()
        order = {
            "mode": "inpaint",
            "params": {**params, "steps": 20, "prompt": "slow"},
            "canvas": canvas,
            "inputs": inputs,
            "output_format": "rgba8",
            "preview": {"max_size": 128, "interval_ms": 0},
        }
        wire.ask("submit", job=job, **order)
        fraction = wire.event(job, "progress")["fraction"]
        assert 0 < fraction <= 1
        assert wire.event(job, "preview")["image"][:2] == b"\xff\xd8"
        wire.drop()

    with session(home) as wire:
        entry = next(e for e in wire.ask("jobs")["jobs"] if e["job"] == job)
        assert entry["mode"] == "inpaint" and entry["state"] in ("running", "finished")
        wire.ask("attach", job=job, after_seq=2)
        output = wire.event(job, "output")
        assert output["seq"] == 3 and output["placement"] == [x, y, width, height] and output["alpha"] == "soft"
        end = wire.event(job)
        assert end["type"] == "finished" and end["outputs"] == [output["digest"]] and end["seq"] == 4
        pixels = wire.fetch(output["digest"])
        assert len(pixels) == 4 * width * height and pixels[3::4] == inside and pixels[0::4] == image[0::4]
        # The same submit again is the same job.
        assert wire.ask("submit", job=job, **order)["type"] == "accepted"
        with pytest.raises(Refused) as conflict:
            wire.ask("submit", job=job, **plain)
        assert conflict.value.code == "job.conflict"

        # What is kept.
        with session(home) as other:
            kept = list(other.pages("history", "entries", limit=1, info=True))
            assert [(e["job"], e["index"], e["digest"]) for e in kept] == [(job, 0, output["digest"])]
            assert kept[0]["info"] == output["info"] and kept[0]["placement"] == output["placement"]
            other.ask("star", job=job, index=0)
            assert other.ask("history", starred=True)["total"] == 1
            assert other.fetch(kept[0]["digest"]) == pixels
        # The same by files.
        with pytest.raises(Refused) as early:
            wire.ask("room", size=len(image))
        assert early.value.code == "resource.no_spool"
        wire.share()
        assert wire.fetch_file(output["digest"]) == pixels
        by_file = {
            name: {**inputs[name], "digest": wire.hand_over(data)}
            for name, data in (("image", image), ("mask", inside))
        }
        again = new_job()
        wire.ask("submit", job=again, **{**order, "inputs": by_file, "params": {**params, "steps": 2}})
        assert wire.fetch_file(wire.event(again, "output")["digest"]) == pixels
        assert wire.event(again, *TERMINAL)["type"] == "finished"

        # A waiting job hears where it stands.
        first, second, third = new_job(), new_job(), new_job()
        for name in (first, second, third):
            wire.ask("submit", job=name, **plain)
        assert wire.event(third, "queued")["position"] == 2
        wire.ask("cancel", job=first)
        assert wire.event(third, "position")["position"] == 1
        for name in (second, third):
            wire.ask("cancel", job=name)
            wire.event(name, *TERMINAL)
        # An old picture's settings: from its text, from its file, from a large file that was sent before.
        text = "a fox\nSteps: 9, Sampler: Euler a, Seed: 3, Size: 64x72, Tiling: True, Version: v1.10.1"
        told = wire.ask("read_parameters", text=text)
        assert told["type"] == "parameters" and told["mode"] == "txt2img" and told["source"] == "AUTOMATIC1111 v1.10.1"
        assert told["params"].items() >= {"prompt": "a fox", "steps": 9, "sampler": "euler_a", "height": 72}.items()
        assert [(n["kind"], n["key"], n["value"]) for n in told["notes"]] == [("unsupported", "Tiling", "True")]
        assert all(note["message"].endswith(".") for note in told["notes"])
        file = png_with(text)
        for source in ({"data": file}, {"digest": wire.upload(file)}):
            assert wire.ask("read_parameters", **source)["params"] == told["params"]
        with pytest.raises(Refused) as nothing:
            wire.ask("read_parameters", data=png_with(""))
        assert nothing.value.code == "request.no_parameters"
        with pytest.raises(Refused) as unknown:
            wire.ask("dance")
        assert unknown.value.code == "protocol.unknown_type"


@pytest.mark.parametrize("secure", [False, True])
def test_pairing(home: Path, secure: bool) -> None:
    with session(home) as owner:
        opened = owner.ask("pair_open")
        assert opened["seconds"] == 600 and len(opened["addresses"]) == 2
        url = f"{'wss' if secure else 'ws'}://{opened['addresses'][secure]}/"
        typed = f" {opened['code'][:4].lower()}-{opened['code'][4:]} "
        with pytest.raises(Refused) as wrong:
            pair(url, "AAAA-AAAA", "laptop")
        assert wrong.value.code == "auth.wrong_code"
        paired = pair(url, typed, "laptop")
        assert paired["name"] == "laptop" and paired["fingerprint"] == (opened["fingerprint"] if secure else "")
        with pytest.raises(Refused) as again:
            pair(url, typed, "laptop")
        assert again.value.code == "auth.wrong_code"
        with session(home, paired) as wire:
            assert wire.ask("jobs")["jobs"] == [] and ("spool" in wire.welcome) is not secure
            assert wire.fetch(wire.upload(bytes(100))) == bytes(100)
            for request in ("pair_open", "shutdown"):
                with pytest.raises(Refused) as denied:
                    wire.ask(request)
                assert denied.value.code == "auth.denied"
            owner.ask("pair_revoke", name="laptop")
            with pytest.raises(ConnectionClosed) as end:
                wire.event("none")
            assert end.value.rcvd is not None and end.value.rcvd.code == 1008
        with pytest.raises(Refused) as revoked, session(home, paired):
            pass
        assert revoked.value.code == "auth.denied"
