"""Draws the contact sheets of docs/starter.md from the packed weights.

python -m starter.sheets
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from starter.evaluate import DOCS, read_networks
from starter.sample import grid, pictures
from starter.unpack import install

FIRST = (
    "red apple",
    "happy face",
    "laughing face",
    "cool face",
    "angry face",
    "crying face",
    "ghost",
    "robot",
    "alien",
    "red heart",
    "dog",
    "cat",
    "panda",
    "penguin",
    "owl",
    "fox",
    "lion",
    "tiger",
    "unicorn",
    "elephant",
    "whale",
    "octopus",
    "butterfly",
    "turtle",
    "frog",
    "sunflower",
    "rose",
    "tulip",
    "cactus",
    "mushroom",
    "strawberry",
    "banana",
    "pineapple",
    "watermelon",
    "carrot",
    "pizza",
    "burger",
    "donut",
    "birthday cake",
    "ice cream cone",
    "house",
    "mountain",
    "rocket",
    "car",
    "guitar",
    "sailboat",
    "plane",
    "ufo",
    "rainbow",
    "snowman",
)
SECOND = (
    "flat red apple",
    "flat happy face",
    "flat cat",
    "flat penguin",
    "flat rocket",
    "flat tulip",
    "flat pizza",
    "flat house",
    "flat car",
    "flat red heart",
    "strawberry on a blue background",
    "strawberry on a yellow background",
    "strawberry on a black background",
    "panda on a green background",
    "panda on a pink background",
    "rocket on a dark blue background",
    "rocket on a white background",
    "a small butterfly, 3d",
    "a small car, 3d",
    "a small rose, 3d",
    "red apple and banana",
    "cat and dog",
    "sun and cloud",
    "rocket and moon",
    "flower and bee",
    "flat cat and red heart",
    "flat car and tree",
    "pizza next to burger",
    "red heart and blue heart",
    "star and moon",
)
SEEDS_OF = ("red apple", "cat", "rocket", "sunflower", "happy face")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, help="a single file (default: the packed weights)")
    p.add_argument("--cfg", type=float, default=4.0)
    p.add_argument("--out", type=Path, default=DOCS)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        net = read_networks(a.model or install(folder))
    for name, prompts in (("things", FIRST), ("styles", SECOND)):
        sheet = grid(pictures(net, list(prompts), [1] * len(prompts), cfg=a.cfg), 10)
        sheet.save(a.out / f"starter-{name}.jpg", quality=88)
    rows = [(word, seed) for word in SEEDS_OF for seed in range(10)]
    sheet = grid(pictures(net, [w for w, _ in rows], [s for _, s in rows], cfg=a.cfg), 10)
    sheet.save(a.out / "starter-seeds.jpg", quality=88)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
