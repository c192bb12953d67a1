"""A reference moves what the starter model paints towards itself: its colours, and how fine its texture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.reference_sheet import Painter, color_of, distance, texture_of


def test_the_measures_tell_colours_and_textures_apart() -> None:
    random = np.random.default_rng(0)
    blue = np.full((128, 128, 3), (30, 60, 200), np.uint8)
    rough = np.clip(blue + random.normal(0, 40, (128, 128, 1)), 0, 255).astype(np.uint8)
    orange = np.full((128, 128, 3), (230, 150, 40), np.uint8)
    assert distance("colour", blue, blue) == 0 and distance("texture", rough, rough) == 0
    assert distance("colour", blue, orange) > 2 * distance("colour", blue, rough)
    assert distance("texture", blue, rough) > 2 * distance("texture", blue, orange)
    assert color_of(blue).shape == (6,) and texture_of(blue).shape == (5,)


@pytest.mark.slow
def test_a_reference_draws_colours_and_texture_to_itself(tmp_path: Path) -> None:
    """A house on violet is painted on the blue of the reference, as smooth as it is."""
    paint = Painter(tmp_path, steps=8)
    reference = paint("full moon face", 3)
    plain, guided = paint("house", 1), paint("house", 1, reference, "both")
    for measure in ("colour", "texture"):
        assert distance(measure, guided, reference) < 0.9 * distance(measure, plain, reference), measure
    # It is still a house of its own, not the reference.
    assert abs(guided.astype(int) - reference).mean() > 0.5 * abs(plain.astype(int) - reference).mean()
