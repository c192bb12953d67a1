"""Blending, filling, matching and cutting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.geometry import Box
from impasto_server.engine.inpaint import (
    blend_denoise,
    compose_layer,
    fill_masked,
    forget,
    latent_mask,
    mask_at,
    match_colors,
    settled,
)
from impasto_server.engine.masks import layer_alpha
from impasto_server.engine.planning import MaskNumbers
from impasto_server.engine.sampler_names import SAMPLER_INFO
from impasto_server.engine.samplers import SAMPLERS
from impasto_server.engine.schedule import scaled_linear, sigmas

RNG = np.random.default_rng(3)


def photo(height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], axis=-1).astype(np.uint8)


def hole(height=48, width=64):
    mask = np.zeros((height, width), np.float32)
    mask[16:32, 20:44] = 1
    return mask


def test_every_selected_pixel_lies_under_a_repainted_latent():
    denoise = np.zeros((50, 70), np.float32)
    denoise[33, 69] = 1
    assert float(latent_mask(denoise, 8, 8).max()) == 1
    assert float(latent_mask(denoise, 64, 64).max()) == 1  # also where latents are finer than pixels
    assert float(latent_mask(denoise, 8, 8).sum()) == 1


def test_softer_pixels_come_later():
    mask = torch.tensor([0.0, 0.05, 0.25, 0.5, 1.0])
    joins = [[bool(v) for v in mask_at(mask, i, 8)] for i in range(8)]
    first = [next((i for i in range(8) if joins[i][k]), None) for k in range(5)]
    assert first == [None, None, 6, 4, 0]
    for earlier, later in pairwise(joins):
        assert all(b or not a for a, b in zip(earlier, later, strict=True))  # who takes part stays


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 150), st.integers(0, 149))
def test_a_binary_mask_is_itself_at_every_step(steps, index):
    mask = torch.tensor([0.0, 1.0])
    assert torch.equal(mask_at(mask, min(index, steps - 1), steps), mask)


@pytest.mark.parametrize("name", SAMPLERS)
def test_unmasked_latents_come_back(name):
    """Whatever the network says, at the end the original stands outside, and inside it does not."""
    levels = sigmas(scaled_linear(), "karras", name, 6)
    latent, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    mask[..., 4] = 0.5
    info = SAMPLER_INFO[name]
    paint = blend_denoise(lambda x, sigma: torch.full_like(x, 3.0), mask, latent, noise, levels, at_once=info.carries)
    out = SAMPLERS[name][0](paint, latent + noise * levels[0], levels, torch.randn_like, lambda i, d: None)
    # Those that rest at the lowest level leave its noise, of which five standard deviations are never seen.
    left = 5 * float(levels[-2]) if info.rests else 1e-3
    torch.testing.assert_close(out[..., 5:], latent[..., 5:], rtol=1e-4, atol=left)
    torch.testing.assert_close(out[..., :5], torch.full_like(out[..., :5], 3.0), rtol=1e-4, atol=left)
    assert torch.equal(settled(out, mask, latent)[..., 5:], latent[..., 5:])


def test_the_network_sees_the_original_around_the_mask():
    levels = sigmas(scaled_linear(), "karras", "euler", 6)
    latent, noise, seen = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), []
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    denoise = blend_denoise(lambda x, sigma: seen.append(x) or x, mask, latent, noise, levels)
    denoise(torch.zeros(1, 4, 8, 8), levels[2])
    torch.testing.assert_close(seen[0][..., 4:], (latent + levels[2] * noise)[..., 4:])
    assert not seen[0][..., :4].any()


def test_forgetting_takes_the_hole_alone():
    latent, noise = torch.randn(1, 4, 8, 8), torch.randn(3, 4, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4], mask[..., 4], mask[..., 5] = 1, 0.5, 0.4
    nothing, noisy = forget(latent, mask, None), forget(latent, mask, noise)
    assert nothing.shape == (1, 4, 8, 8) and noisy.shape == (3, 4, 8, 8)
    assert not nothing[..., :5].any() and torch.equal(nothing[..., 5:], latent[..., 5:])
    assert torch.equal(noisy[..., :5], noise[..., :5])
    assert torch.equal(noisy[..., 5:], latent[..., 5:].expand(3, -1, -1, -1))


def test_fill_keeps_what_is_known_and_continues_it():
    image, mask = photo(), hole() > 0
    broken = image.copy()
    broken[mask] = (255, 0, 255)
    filled = fill_masked(broken, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    # Nothing of what was masked is left, and a gradient goes on roughly as it was.
    np.testing.assert_array_equal(filled, fill_masked(image, mask))
    assert np.abs(filled[mask].astype(int) - image[mask].astype(int)).mean() < 40


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (33, 17)])
def test_fill_of_odd_sizes(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    mask = np.zeros(shape, bool)
    np.testing.assert_array_equal(fill_masked(image, mask), image)
    assert (fill_masked(image, ~mask) == 128).all()
    if shape != (1, 1):
        mask[0, 0] = True
        np.testing.assert_array_equal(fill_masked(image, mask), image)


def test_match_of_equal_pictures_changes_nothing():
    image = RNG.integers(0, 256, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(match_colors(image, image.copy(), hole()), image)
    # What is repainted does not matter as long as the rim is equal.
    changed = image.copy()
    changed[16:32, 20:44] = 7
    np.testing.assert_array_equal(match_colors(changed, image, hole()), changed)


def test_match_takes_a_cast_away_inside_and_outside():
    image = np.clip(photo(), 30, 225)
    cast = (image.astype(int) + np.array([12, -8, 5])).astype(np.uint8)
    matched = match_colors(cast, image, hole()).astype(int)
    assert np.abs(matched - image).max() <= 1


def test_match_follows_a_cast_that_changes_over_the_picture():
    image = np.full((64, 96, 3), 128, np.uint8)
    cast = (image.astype(int) + np.linspace(-20, 20, 96).astype(int)[None, :, None]).astype(np.uint8)
    matched = match_colors(cast, image, hole(64, 96)).astype(int)
    assert np.abs(matched - 128).mean() < 2.5
    assert np.abs(matched - 128)[16:32, 20:44].mean() < 6


def test_match_within_a_box_is_the_same_there_and_nothing_elsewhere():
    image = photo()
    cast = np.clip(image.astype(int) + RNG.integers(-20, 20, image.shape), 0, 255).astype(np.uint8)
    whole = match_colors(cast, image, hole())
    part = match_colors(cast, image, hole(), Box(10, 5, 40, 30))
    inside = np.zeros((48, 64), bool)
    inside[5:35, 10:50] = True
    np.testing.assert_array_equal(part[inside], whole[inside])
    np.testing.assert_array_equal(part[~inside], cast[~inside])
    assert (part[inside] != cast[inside]).any()


def test_match_without_a_rim_and_with_tiny_pictures():
    image = photo()
    assert match_colors(image, image[::-1].copy(), np.ones((48, 64))) is image
    np.testing.assert_array_equal(
        match_colors(np.full((3, 2, 3), 10, np.uint8), np.full((3, 2, 3), 20, np.uint8), np.zeros((3, 2))), 20
    )


def test_layer_holds_the_results_own_colours():
    selection = np.zeros((48, 64), np.uint8)
    selection[10:20, 30:40] = 255
    numbers = MaskNumbers(1, 4, 2)
    result = RNG.integers(0, 256, (48, 64, 3), np.uint8)
    layer, place = compose_layer(result, Box(100, 200, 64, 48), selection, numbers, False)
    x, y = place.x - 100, place.y - 200
    np.testing.assert_array_equal(layer[..., :3], result[y : y + place.height, x : x + place.width])
    alpha = layer_alpha(selection, numbers, False)
    np.testing.assert_array_equal(layer[..., 3], alpha[y : y + place.height, x : x + place.width])
    assert int(layer[..., 3].astype(int).sum()) == int(alpha.astype(int).sum())
    assert place.contains(Box(130, 210, 10, 10)) and layer.flags.c_contiguous
