"""`impasto serve` as a process of its own: records, one instance, jobs of the command line through it, stop."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from impasto_protocol.home import endpoint_file, launch_file, log_file, read_endpoint, read_launch, token_file
from PIL import Image

from tests.tiny import write_tiny_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    write_tiny_checkpoint(folder / "models" / "tiny.safetensors")
    return folder


def environment(home: Path) -> dict[str, str]:
    paths = [str(ROOT / part) for part in ("protocol", "server", "")]
    return {**os.environ, "IMPASTO_HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}


def impasto(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "impasto_server.cli.main", *words]
    return subprocess.run(command, env=environment(home), cwd=home, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "impasto_server.cli.main", "serve", "--precision", "fp32"]
    process = subprocess.Popen(command, env=environment(home), cwd=home, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b"listens on 127.0.0.1" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    found = []
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat_file.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat_file.parent.name))
    return found


def test_records_while_it_runs(home: Path, server: subprocess.Popen[bytes]) -> None:
    record = read_endpoint(home)
    assert record is not None and record.pid == server.pid and record.host == "127.0.0.1" and record.port > 0
    assert record.interpreter == sys.executable and record.token_file == str(token_file(home))
    for file in (endpoint_file(home), token_file(home), launch_file(home)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_launch(home) == [sys.executable, "-m", "impasto_server.cli.main", "serve", "--precision", "fp32"]
    assert token_file(home).read_text() not in log_file(home).read_text()


def test_a_second_one_says_that_there_is_one(home: Path, server: subprocess.Popen[bytes]) -> None:
    done = impasto(home, "serve")
    assert done.returncode == 1 and str(server.pid) in done.stderr and "resource.already_running" in done.stderr
    assert read_endpoint(home) is not None, "the record of the first one stays"


def test_a_job_through_it(home: Path, server: subprocess.Popen[bytes]) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (100, 140, 3), np.uint8)).save(home / "in.png")
    mask = np.zeros((100, 140), np.uint8)
    mask[40:60, 50:80] = 255
    Image.fromarray(mask).save(home / "mask.png")
    words = ["--image", "in.png", "--mask", "mask.png", "--prompt", "a fox", "--steps", "2", "-o", "out.png", "--json"]
    done = impasto(home, "inpaint", *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["outputs"][0]["file"] == "out.png" and told["ran"]
    before, after = (np.asarray(Image.open(home / name)) for name in ("in.png", "out.png"))
    assert not np.array_equal(before[45:55, 55:75], after[45:55, 55:75])
    assert np.array_equal(before[:5], after[:5])
    assert "command line" in log_file(home).read_text(), "the running server did it"


def test_killed_it_leaves_no_worker_and_starts_again(home: Path, server: subprocess.Popen[bytes]) -> None:
    workers = children(server.pid)
    assert workers
    server.send_signal(signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "the worker outlived its server"
        time.sleep(0.1)
    # The stale record and lock hinder nobody; stopping removes the record.
    from impasto_client.launch import find_or_start

    command = read_launch(home)
    assert command is not None
    started = subprocess.Popen(command, env=environment(home), cwd=home, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while (record := read_endpoint(home)) is None or record.pid != started.pid:
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        assert find_or_start(home=home, start=False).pid == started.pid
        done = impasto(home, "stop")
        assert done.returncode == 0 and "stopped" in done.stdout, done.stderr
        assert started.wait(10) == 0
        assert not endpoint_file(home).exists()
    finally:
        started.kill()
        started.wait()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
