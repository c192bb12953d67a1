"""A VAE in tiles is the VAE in one piece; memory of the device is that of a tile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from impasto_protocol.errors import ResourceError
from impasto_server.engine import scratch, vae_tiled
from impasto_server.engine import vae as vae_
from impasto_server.engine.vae_tiled import decode_tiled, encode_tiled, needs_tiles, tile_for

from tests.golden.tiny import seeded, tiny_vae

CELLS = st.integers(3, 12)


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def shades(values):
    return values.clamp(-1, 1).add(1).mul(127.5)


@settings(max_examples=12, deadline=None)
@given(CELLS, CELLS, st.sampled_from([16, 20, 33]))
def test_decoded_as_in_one_piece(height, width, side):
    vae = tiny_vae()
    latents = torch.randn(2, 4, height, width, generator=seeded(height * 100 + width)) * 3
    with torch.inference_mode():
        whole = vae.decode(latents).sample
        tiled = decode_tiled(vae, latents, side=side)
    assert float((shades(whole) - shades(tiled)).abs().max()) < 0.1  # of 255; 2 are allowed
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=1e-4)


@settings(max_examples=8, deadline=None)
@given(CELLS, CELLS, st.sampled_from([16, 20, 33]))
def test_encoded_as_in_one_piece(height, width, side):
    vae = tiny_vae()
    values = torch.rand(1, 3, height * 8, width * 8, generator=seeded(height)) * 2 - 1
    with torch.inference_mode():
        whole = vae._encode(values)
        tiled = encode_tiled(vae, values, side=side)
    torch.testing.assert_close(tiled, whole, atol=2e-5, rtol=1e-4)


def test_flat_and_extreme_pictures_have_no_seams(vae):
    # Statistics of tiles by themselves would show here first.
    latents = torch.zeros(1, 4, 12, 12)
    latents[..., 6:] = 4
    whole, tiled = vae.decode(latents).sample, decode_tiled(vae, latents, side=16)
    assert float((shades(whole) - shades(tiled)).abs().max()) < 0.1


def test_tiles_come_where_memory_asks_for_them(vae, monkeypatch):
    assert needs_tiles(vae, 1024, 1024, 10 << 20) and not needs_tiles(vae, 64, 64, 1 << 30)
    assert tile_for(vae, 1 << 20) < tile_for(vae, 1 << 30) and tile_for(vae, 0) == vae_tiled.MIN_SIDE
    latents = torch.randn(1, 4, 8, 6, generator=seeded(5))
    whole = vae_.decode(vae, latents, 0.18215).images
    seen = []
    monkeypatch.setattr(vae_, "decode_tiled", lambda *a, **k: seen.append(1) or decode_tiled(*a, **k, side=16))
    monkeypatch.setattr(vae_, "free_bytes", lambda device: 1 << 20)
    torch.testing.assert_close(vae_.decode(vae, latents, 0.18215).images, whole, atol=2e-5, rtol=1e-4)
    assert seen == [1]


def test_out_of_memory_is_done_again_in_tiles(vae, monkeypatch):
    latents = torch.randn(1, 4, 8, 6, generator=seeded(5))
    whole = vae_.decode(vae, latents, 0.18215).images

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(type(vae), "decode", full)
    torch.testing.assert_close(vae_.decode(vae, latents, 0.18215).images, whole, atol=2e-5, rtol=1e-4)


def test_cancelled_within_a_tile(vae):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 5:
            raise KeyError

    with pytest.raises(KeyError):
        decode_tiled(vae, torch.zeros(1, 4, 8, 8), side=16, check=check)
    assert len(calls) == 5


def test_maps_that_do_not_fit_go_into_a_file(vae, monkeypatch):
    latents = torch.randn(1, 4, 6, 6, generator=seeded(5))
    monkeypatch.setattr(vae_tiled, "free_bytes", lambda device: 1000)
    torch.testing.assert_close(decode_tiled(vae, latents, side=16), vae.decode(latents).sample, atol=2e-5, rtol=1e-4)


def test_a_full_disk_is_told(vae, monkeypatch):
    monkeypatch.setattr(vae_tiled, "free_bytes", lambda device: 1000)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ResourceError) as told:
        decode_tiled(vae, torch.zeros(1, 4, 6, 6), side=16)
    assert told.value.code == "resource.disk_full"
