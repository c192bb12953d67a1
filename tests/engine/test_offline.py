"""Nothing of identifying, loading or encoding asks a network, in a fresh interpreter with its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import write_tiny_checkpoint, write_tiny_folder, write_tiny_pickle

SCRIPT = """
import socket, sys
from pathlib import Path

def loopback(address):
    return isinstance(address, (str, bytes)) or address[0] in ("127.0.0.1", "::1", "localhost")

def guarded(original, pick):
    def call(*args, **kwargs):
        if not loopback(pick(args)):
            raise AssertionError(f"network attempt: {args}")
        return original(*args, **kwargs)
    return call

class Guarded(socket.socket):
    def connect(self, address):
        assert loopback(address), f"network attempt: {address}"
        return super().connect(address)
    def connect_ex(self, address):
        assert loopback(address), f"network attempt: {address}"
        return super().connect_ex(address)

socket.socket = Guarded
socket.create_connection = guarded(socket.create_connection, lambda args: args[0])
socket.getaddrinfo = guarded(socket.getaddrinfo, lambda args: (args[0],))
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except AssertionError:
    pass
else:
    raise SystemExit("the guard does not hold")

import torch
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.text import TextCache, encode

for path in sys.argv[1:]:
    components = load_checkpoint(Path(path), device=torch.device("cpu"), dtype=torch.float32)
    embedding = encode(components, "a photo of a cat", cache=TextCache())
    with torch.no_grad():
        components.unet(torch.zeros(1, 4, 8, 8), 10, embedding)
    print("done", tuple(embedding.shape))
"""


def test_loading_and_encoding_ask_no_network(tmp_path: Path) -> None:
    paths = (
        write_tiny_checkpoint(tmp_path / "tiny.safetensors"),
        write_tiny_pickle(tmp_path / "pickle.ckpt"),
        write_tiny_folder(tmp_path / "folder"),
    )
    # Without the switches that turn the hub off, and with an empty cache: there must be nothing to turn off.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HOME": str(tmp_path / "hub")}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, paths)], capture_output=True, text=True, env=env)
    assert ran.stdout.splitlines() == ["done (1, 77, 32)"] * 3, ran.stderr
