"""Walk the whole chain with the starter model from the command line, and write docs/tour.md with what came of it.

    python3 dev.py exec -- python tools/tour.py

Four small variants, one of them enlarged four times and refined in tiles: one job. Every picture, the command and the
seconds of each stage are those of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FIRST = ["txt2img", "--prompt", "a red apple", "--steps", "16", "--seed", "1", "--batch", "4", "-o", "apple.png"]
UPSCALE = ["--then", "upscale", "--scale", "4", "--upscaler", "realesr-animevideov3-x4", "--pick", "0"]
REFINE = ["--then", "refine", "--prompt", "a red apple", "--strength", "0.3", "--steps", "12", "--seed", "1"]
LINKS = [FIRST, UPSCALE, REFINE]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        sys.path.insert(0, str(ROOT))
        from starter.kit.unpack import install as install_upscaler
        from starter.unpack import install

        install(home / "models")
        install_upscaler("realesr-animevideov3-x4", home / "models")
        words = [*FIRST, "--json", *UPSCALE, *REFINE]
        command = [sys.executable, "-m", "impasto_server.cli.main", *words]
        env = {**os.environ, "IMPASTO_HOME": str(home)}
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        told = json.loads(done.stdout)
        small = [Image.open(home / f"apple-1-generate-{n}.png").convert("RGB") for n in range(1, 5)]
        large = [Image.open(home / "apple-2-upscale.png"), Image.open(home / "apple.png")]
        strip = Image.new("RGB", (4 * 128 + 24, 128), "white")
        for index, picture in enumerate(small):
            strip.paste(picture.resize((128, 128)), (index * 136, 0))
        strip.save(DOCS / "images" / "tour-variants.jpg", quality=88)
        pair = Image.new("RGB", (2 * 512 + 8, 512), "white")
        for index, picture in enumerate(large):
            pair.paste(picture.convert("RGB"), (index * 520, 0))
        pair.save(DOCS / "images" / "tour-large.jpg", quality=85)
        (DOCS / "tour.md").write_text(page(told))


def page(told: dict) -> str:  # type: ignore[type-arg]
    timings, last = told["timings"], told["ran"]
    rows = "".join(f"| {stage} | {seconds:.1f} |\n" for stage, seconds in timings.items())
    shown = " \\\n        ".join(" ".join(_quoted(word) for word in link) for link in LINKS)
    return f"""# The whole chain, as one job
Made by `tools/tour.py` with the starter model ([starter.md](starter.md)), which never saw more than 128 x 128 pixels;
with a large checkpoint the same commands make large pictures. Figures are of one run on {last["device_name"]}.

    impasto {shown}

Four variants, of which the first is taken on (`--pick 0`):

![four variants](images/tour-variants.jpg)

Enlarged four times, and refined in tiles at a strength of 30 % ({last["tiling"]} tiles):

![enlarged, and refined](images/tour-large.jpg)

| stage | seconds |
|---|---|
{rows}
Every link's pictures are kept: `apple-1-generate-1.png` to `-4.png`, `apple-2-upscale.png`, `apple.png`, and all of
them in the history. To choose with your own eyes, leave out what follows, and go on by `impasto upscale`. The recipe of
a picture says what was still to be done, so that after a crash, or to paint in between,

    impasto history --resume JOB                      goes on from the last finished picture
    impasto history --resume JOB --image edited.png   the same with a picture that you have painted over

In an editor the same steps are: paint, the result as a layer; upscale, a new document; refine in tiles, a layer in it.
The server takes the whole chain in one `submit` (`then` in [the protocol](../protocol/SPEC.md)). How the tiles work:
[engine.md](engine.md#refine-in-tiles).
"""


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


if __name__ == "__main__":
    main()
