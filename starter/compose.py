"""Training pictures from sprites: a background, one or two things on it, and captions for what is to be seen.

A composed picture is uint8 [128, 128, 3]. What is needed to caption it is a `Scene`, so that one picture
(and its latent, computed once) can be met under many wordings."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image

from starter.data import SIZE, Concept

# name -> hue in turns (None: grey), saturation range, value range
COLOURS = {
    "white": (None, (0, 0.02), (0.95, 1)),
    "grey": (None, (0, 0.04), (0.45, 0.8)),
    "black": (None, (0, 0.05), (0.03, 0.12)),
    "red": (0, (0.65, 0.9), (0.7, 0.95)),
    "orange": (0.075, (0.6, 0.95), (0.85, 1)),
    "yellow": (0.14, (0.5, 0.9), (0.9, 1)),
    "green": (0.34, (0.35, 0.8), (0.5, 0.85)),
    "teal": (0.49, (0.35, 0.8), (0.45, 0.85)),
    "blue": (0.6, (0.4, 0.85), (0.55, 0.95)),
    "purple": (0.75, (0.3, 0.7), (0.5, 0.9)),
    "pink": (0.92, (0.25, 0.55), (0.9, 1)),
    "light blue": (0.55, (0.15, 0.35), (0.9, 1)),
    "beige": (0.1, (0.12, 0.28), (0.88, 0.98)),
    "dark blue": (0.64, (0.5, 0.85), (0.15, 0.4)),
}
NAMES = tuple(COLOURS)
_COLOUR_ODDS = np.array([12, 1.5, 1, 0.8, 0.8, 1, 1, 1, 1.5, 1, 1, 1.5, 1.2, 1])


@dataclass(frozen=True)
class Scene:
    """What a composed picture shows. `second` is -1 for one thing, `colour` an index into NAMES or -1."""

    first: int
    second: int
    style: str
    colour: int
    kind: str  # steady, single, small, pair


def _colour(rng: np.random.Generator, name: str) -> np.ndarray:
    hue, saturation, value = COLOURS[name]
    h = rng.random() if hue is None else (hue + rng.normal(0, 0.012)) % 1
    return np.array(colorsys.hsv_to_rgb(h, rng.uniform(*saturation), rng.uniform(*value)), np.float32)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in 0..1, float32 [128, 128]: a few octaves of enlarged random grids."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for octave, weight in ((3, 1.0), (6, 0.6), (12, 0.4), (30, 0.25)):
        grid = Image.fromarray(rng.random((octave, octave), np.float32))
        total += weight * np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return np.clip((total - total.min()) / (np.ptp(total) + 1e-6), 0, 1)


_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / (SIZE - 1)


def background(rng: np.random.Generator, plain: bool) -> tuple[np.ndarray, int]:
    """float32 [128, 128, 3] in 0..1 and the index of its colour's name (-1 where no one name fits)."""
    index = int(rng.choice(len(NAMES), p=_COLOUR_ODDS / _COLOUR_ODDS.sum()))
    one = _colour(rng, NAMES[index])
    if plain and rng.random() < 0.5:
        return np.broadcast_to(one, (SIZE, SIZE, 3)).copy(), index
    kind = rng.random()
    if plain or kind < 0.25:  # a gradient of one colour
        other = np.clip(one * rng.uniform(0.72, 1.12) + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
        if rng.random() < 0.5:
            mix = _Y if rng.random() < 0.7 else (_X + _Y) / 2
        else:
            mix = np.clip(np.hypot(_X - 0.5, _Y - 0.5) * 1.4, 0, 1)
        return one + (other - one) * mix[..., None], index
    two = _colour(rng, NAMES[int(rng.integers(len(NAMES)))])
    if kind < 0.55:  # sky above ground
        line = rng.uniform(0.45, 0.8)
        mix = np.clip((_Y - line + 0.06 * (_clouds(rng) - 0.5)) * rng.uniform(8, 60), 0, 1)[..., None]
        shade = 1 - 0.25 * np.abs(_Y - line)[..., None]
        return np.clip((one + (two - one) * mix) * shade, 0, 1), -1
    if kind < 0.85:  # photo-like blur with grain
        mix = _clouds(rng)[..., None]
        third = _colour(rng, NAMES[int(rng.integers(len(NAMES)))])
        picture = one + (two - one) * mix + (third - one) * 0.5 * _clouds(rng)[..., None]
        return np.clip(picture + rng.normal(0, rng.uniform(0, 0.05), picture.shape), 0, 1).astype(np.float32), -1
    step = rng.uniform(0.08, 0.25)  # stripes or checks
    angle = rng.uniform(0, np.pi)
    u, v = _X * np.cos(angle) + _Y * np.sin(angle), _Y * np.cos(angle) - _X * np.sin(angle)
    field = np.sin(u / step * 2 * np.pi) * (np.sin(v / step * 2 * np.pi) if rng.random() < 0.5 else 1)
    return one + (two - one) * (np.clip(field * 6 + 0.5, 0, 1) * rng.uniform(0.2, 1))[..., None], -1


def _paste(canvas: np.ndarray, sprite: np.ndarray, side: float, cx: float, cy: float, flip: bool) -> None:
    """Draws a sprite [128, 128, 4] into the canvas with its centre at cx, cy (pixels)."""
    pixels = max(8, round(side))
    premultiplied = sprite.astype(np.float32) / 255
    premultiplied[..., :3] *= premultiplied[..., 3:]
    if flip:
        premultiplied = premultiplied[:, ::-1]
    layers = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(premultiplied[..., i])).resize(
                (pixels, pixels), Image.Resampling.BICUBIC
            )
        )
        for i in range(4)
    ]
    small = np.clip(np.stack(layers, -1), 0, 1)
    x, y = round(cx - pixels / 2), round(cy - pixels / 2)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + pixels, SIZE), min(y + pixels, SIZE)
    if x1 <= x0 or y1 <= y0:
        return
    part = small[y0 - y : y1 - y, x0 - x : x1 - x]
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - part[..., 3:]) + part[..., :3]


def compose(
    rng: np.random.Generator, sprites: dict, first: int, second: int, style: str, kind: str
) -> tuple[np.ndarray, Scene]:
    """One picture uint8 [128, 128, 3] of the kind steady, single, small or pair, and what it shows."""
    canvas, colour = background(rng, plain=rng.random() < (0.9 if kind in ("single", "steady") else 0.4))
    canvas = np.ascontiguousarray(canvas, np.float32)
    if kind == "steady":
        _paste(canvas, sprites[first, style], SIZE * 0.86, SIZE / 2, SIZE / 2, False)
    elif kind == "single":
        side = SIZE * rng.uniform(0.78, 0.92)
        _paste(
            canvas,
            sprites[first, style],
            side,
            SIZE / 2 + rng.uniform(-3, 3),
            SIZE / 2 + rng.uniform(-3, 3),
            False,
        )
    elif kind == "small":
        side = SIZE * rng.uniform(0.35, 0.75)
        low, high = side * 0.45, SIZE - side * 0.45
        _paste(
            canvas,
            sprites[first, style],
            side,
            rng.uniform(low, high),
            rng.uniform(low, high),
            rng.random() < 0.3,
        )
    else:
        side = SIZE * rng.uniform(0.46, 0.56)
        wobble = rng.uniform(-8, 8, 4)
        _paste(canvas, sprites[first, style], side, SIZE * 0.27, SIZE * 0.5 + wobble[0], False)
        _paste(canvas, sprites[second, style], side, SIZE * 0.73, SIZE * 0.5 + wobble[1], False)
    return np.clip(canvas * 255 + 0.5, 0, 255).astype(np.uint8), Scene(first, second, style, colour, kind)


_FORMS = {
    "3d": (
        "{x}",
        "{a} {x}",
        "3d {x}",
        "3d {x}",
        "{x}, 3d",
        "a 3d {x}",
        "3d render of {a} {x}",
        "a 3d icon of {a} {x}",
        "{a} {x}, 3d style",
    ),
    "flat": (
        "flat {x}",
        "{x}, flat",
        "a flat {x}",
        "flat drawing of {a} {x}",
        "a flat icon of {a} {x}",
        "{a} {x}, flat style",
    ),
}


def article(words: str) -> str:
    return "an" if words[:1].lower() in "aeiou" else "a"


def name(rng: np.random.Generator, concept: Concept) -> str:
    """A concept's label or one of the other words for it."""
    if concept.aliases and rng.random() < 0.5:
        return concept.aliases[int(rng.integers(len(concept.aliases)))]
    return concept.label


def caption(rng: np.random.Generator, concepts: list[Concept], scene: Scene, rare_tags: dict) -> str:
    """One wording of a scene. A style word is always there for flat; without one the picture is in the 3d style."""
    concept = concepts[scene.first]
    words = name(rng, concept)
    if scene.kind == "pair":
        other = name(rng, concepts[scene.second])
        joint = ("{} and {}", "{} next to {}", "a {} and a {}")[int(rng.integers(3))].format(words, other)
        text = {"3d": (joint, f"{joint}, 3d"), "flat": (f"flat {joint}", f"{joint}, flat")}[scene.style][
            int(rng.integers(2))
        ]
    else:
        tags = rare_tags.get(scene.first, ())
        if tags and rng.random() < 0.12:
            words = tags[int(rng.integers(len(tags)))]
        forms = _FORMS[scene.style]
        text = forms[int(rng.integers(len(forms)))].format(x=words, a=article(words))
        if scene.kind == "small" and rng.random() < 0.75:
            text = f"a small {words}, {'flat' if scene.style == 'flat' else '3d'}"
        elif concept.tags and rng.random() < 0.15:
            text += ", " + ", ".join(rng.permutation(concept.tags)[:2])
    if scene.colour >= 0 and rng.random() < 0.4:
        text += f"{',' if rng.random() < 0.3 else ''} on a {NAMES[scene.colour]} background"
    return text


def rare_tags(concepts: list[Concept]) -> dict[int, tuple[str, ...]]:
    """Tags that say one concept only and are no label of another: they can stand for it in a caption."""
    uses: dict[str, int] = {}
    for concept in concepts:
        for tag in concept.tags:
            uses[tag] = uses.get(tag, 0) + 1
    labels = {c.label for c in concepts} | {a for c in concepts for a in c.aliases}
    return {i: tuple(t for t in c.tags if uses[t] == 1 and t not in labels) for i, c in enumerate(concepts)}
