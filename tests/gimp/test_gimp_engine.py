"""The whole way: a real GIMP, the real server as the plug-in starts it, the real engine in its spawned worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from impasto_protocol.home import launch_file, read_endpoint

from tests.gimp.conftest import Painter, painting
from tests.gimp.gdrive import until
from tests.tiny import write_tiny_checkpoint

pytestmark = pytest.mark.gimp

WIDTH, HEIGHT = 256, 192
X, Y, W, H = 80, 60, 64, 48
STARTER = """#!/usr/bin/python3
# GIMP may be in a root without the server: this stands for the server's command there, and asks for it outside.
import pathlib, sys, time
home = pathlib.Path(sys.argv[1])
(home / "wanted").touch()
while (home / "wanted").exists() or (home / "endpoint.json").exists():
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def real(warm_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Painter]:
    """No server runs at first; the plug-in's launch command brings one with the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("engine")
    home = folder / "impasto"
    (home / "models").mkdir(parents=True)
    home.chmod(0o700)
    write_tiny_checkpoint(home / "models" / "tiny.safetensors")
    starter = home / "starter.py"
    starter.write_text(STARTER)
    command = {"argv": ["/usr/bin/python3", str(starter), str(home)]}
    launch_file(home).write_text(json.dumps(command))
    ended = threading.Event()
    servers: list[subprocess.Popen[bytes]] = []

    def serve_when_wanted() -> None:
        while not ended.wait(0.1):
            if (home / "wanted").exists():
                serve = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
                with open(home / "server.out", "ab") as log:
                    environment = {**os.environ, "IMPASTO_HOME": str(home)}
                    servers.append(subprocess.Popen(serve, env=environment, stdout=log, stderr=log))
                until(lambda: read_endpoint(home) is not None or servers[-1].poll() is not None, 60)
                # The server notes how it is started outside.
                launch_file(home).write_text(json.dumps(command))
                # From now on the endpoint says whether the server is there.
                (home / "wanted").unlink()

    thread = threading.Thread(target=serve_when_wanted)
    thread.start()
    try:
        with painting(warm_home, folder / "gimp", home) as started:
            yield started
    finally:
        ended.set()
        thread.join()
        for server in servers:
            if server.poll() is None:
                server.terminate()
                server.wait(30)
        shutil.rmtree(home / "models", ignore_errors=True)


def test_inpaint_with_a_server_that_the_plug_in_starts(real: Painter) -> None:
    assert read_endpoint(real.home) is None
    x, y, w, h, recipe = real.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
dump("before", seen(image))
made, = layers_of(call("inpaint", image, prompt="a boat", steps=4, seed=7))
dump("after", seen(image))
dump("layer", read(made))
result = [*place(made), bytes(made.get_parasite("impasto-recipe").get_data()).decode()]
""",
        timeout=200,
    )
    assert read_endpoint(real.home) is not None
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[y : y + h, x : x + w] = real.picture("layer", h, w)[..., 3]
    old, new = real.picture("before", HEIGHT, WIDTH), real.picture("after", HEIGHT, WIDTH)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[Y : Y + H, X : X + W] = True
    assert (alpha[inside] == 255).all() and (new[alpha == 0] == old[alpha == 0]).all()
    assert (alpha == 0).mean() > 0.3 and abs(new[inside].astype(int) - old[inside]).mean() > 5
    kept = json.loads(recipe)
    assert kept["seed"] == 7 and kept["params"]["steps"] == 4 and kept["params"]["prompt"] == "a boat"


def test_the_same_recipe_gives_the_same_picture(real: Painter) -> None:
    names, same = real.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
first, = layers_of(call("inpaint", image, prompt="a boat", steps=3))
second, = layers_of(call("again", image, [first]))
result = [tree(image), read(first) == read(second)]
""",
        timeout=120,
    )
    assert len(names) == 3 and same


def test_sketch_upscale_and_a_batch(real: Painter) -> None:
    names, size = real.run(
        f"image = new_image({WIDTH}, {HEIGHT})"
        + """
sketch = new_layer(image, "sketch", 80, 60, 40, 30)
select(image, 32, 20, 128, 96)
made = layers_of(call("sketch", image, [sketch], prompt="an apple", steps=2, batch=2))
answer = call("upscale", image, scale=2.0)
assert answer[0] == "success", answer[2]
larger = answer[1].index(1)
result = [tree(image), [larger.get_width(), larger.get_height()]]
""",
        timeout=120,
    )
    assert len(names) == 4 and names[-2:] == ["sketch", "painting"] and all("an apple" in name for name in names[:2])
    assert size == [2 * WIDTH, 2 * HEIGHT]


def test_a_server_killed_in_the_middle_is_an_error_and_comes_back(real: Painter) -> None:
    jobs = real.home / "history/jobs.log"

    def begun() -> int:
        return jobs.read_text().count('"started"') if jobs.exists() else 0

    count = begun()
    real.run(
        f"image = new_image({WIDTH}, {HEIGHT})\nselect(image, {X}, {Y}, {W}, {H})"
        + """
from gi.repository import GLib
answers = []
GLib.timeout_add(10, lambda: answers.append(call("inpaint", image, prompt="lost", steps=150)) and False)
"""
    )
    until(lambda: begun() > count, 90)
    endpoint = read_endpoint(real.home)
    assert endpoint is not None
    os.kill(endpoint.pid, signal.SIGKILL)
    status, message, names = real.run(
        "def gen():\n    yield (lambda: answers, 60)\n    return [answers[0][0], answers[0][2], tree(image)]", 80
    )
    assert status == "execution-error" and names == ["painting"]
    assert message.endswith(".") and "Traceback" not in message
    names = real.run("layers_of(call('inpaint', image, prompt='found', steps=1))\nresult = tree(image)", 120)
    assert len(names) == 2 and "found" in names[0]
