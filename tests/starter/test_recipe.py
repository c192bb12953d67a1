"""The whole recipe at a toy budget: pictures, two steps of each part, export, pack, unpack, load, draw.

The pictures are drawn here, and the fetched networks (feature space, sentence encoder) are replaced by
random ones, so that no network is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from starter import bank, data, lite0, models, refine, train_text, train_unet, train_vae
from starter.compose import Scene, caption, compose, rare_tags


def test_composed_pictures_and_their_captions(pictures):
    concepts, sprites = pictures
    rng = np.random.default_rng(0)
    for kind in ("single", "small", "pair"):
        for style in data.STYLES:
            picture, scene = compose(rng, sprites, 0, 3 if kind == "pair" else -1, style, kind)
            assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
            for _ in range(20):
                words = caption(rng, concepts, scene, {})
                assert "red ball" in words
                assert ("flat" in words) == (style == "flat")
                assert ("grey cat" in words) == (kind == "pair")


def test_an_alias_stands_for_its_label(pictures):
    concepts, _ = pictures
    rng = np.random.default_rng(0)
    said = {caption(rng, concepts, Scene(2, -1, "3d", -1, "single"), rare_tags(concepts)) for _ in range(200)}
    assert any("thing" in s for s in said) and any("green tree" in s for s in said)


def test_the_concentrated_set_is_well_formed():
    core = data.core_labels()
    assert len(core) > 250
    words = [w for others in core.values() for w in others]
    assert len(words) == len(set(words))


@pytest.mark.slow
def test_recipe_end_to_end(tmp_path, monkeypatch, pictures):
    from starter.evaluate import read_networks
    from starter.export import export
    from starter.pack import pack, pack_refinement
    from starter.resume import resume
    from starter.sample import pictures as draw
    from starter.unpack import install

    torch.manual_seed(0)
    monkeypatch.setattr(lite0, "load", lambda: lite0.Lite0().requires_grad_(False))
    monkeypatch.setattr(train_text, "teach", lambda texts: torch.randn(len(texts), 384) / 384**0.5)
    shape = models.TOY
    assert train_vae.train(0, shape=shape, bank_size=12, size=4, folder=tmp_path, steps=2) > 0
    assert train_vae.train(0, True, shape=shape, bank_size=12, size=4, folder=tmp_path, steps=2) > 0
    train_text.train(0, shape=shape, folder=tmp_path, words=50, captions=40, steps=2)
    bank.fill(2, 8, tmp_path / "bank", tmp_path / "vae.pt", shape)
    for _ in range(2):  # the second run resumes
        loss = train_unet.train(0, shape=shape, folder=tmp_path, size=4, steps=2, sheets=False)
        assert np.isfinite(loss)
    assert torch.load(tmp_path / "unet.pt", weights_only=True)["pictures"] == 16
    net = train_unet.load_networks(tmp_path, shape)
    out = export(tmp_path / "single.safetensors", net, shape)
    again = read_networks(out, shape)
    first, second = (draw(n, ["red ball"], [1], steps=3).int() for n in (net, again))
    assert first.shape == (1, 3, 128, 128)
    assert (first - second).abs().float().mean() < 3  # fp16 and the folded latent scale
    resume(tmp_path / "again", out, 16, shape)  # training goes on from what was exported
    third = draw(train_unet.load_networks(tmp_path / "again", shape), ["red ball"], [1], steps=3)
    assert torch.equal(second, third.int())
    with pytest.raises(FileExistsError, match="move it away"):
        resume(tmp_path / "again", out, 16, shape)
    facts = pack(out, tmp_path / "weights")
    packed = read_networks(install(tmp_path / "models", tmp_path / "weights"), shape)
    assert facts["result_bytes"] == out.stat().st_size
    assert draw(packed, ["red ball"], [1], steps=3).shape == (1, 3, 128, 128)
    losses = refine.train(
        0, shape, tmp_path / "again", tmp_path / "weights", 8, 4, steps=2, coarse_from=0, processes=1, sheets=False
    )
    assert all(np.isfinite(loss) for loss in losses.values())
    again = train_unet.load_networks(tmp_path / "again", shape)
    exact = export(tmp_path / "exact.safetensors", again, shape, exact=True)
    pack_refinement(exact, tmp_path / "weights")
    third = read_networks(install(tmp_path / "models", tmp_path / "weights"), shape)
    moved = third.unet.conv_in.weight - packed.unet.conv_in.weight
    wanted = again.unet.conv_in.weight - packed.unet.conv_in.weight
    assert torch.nn.functional.cosine_similarity(moved.flatten(), wanted.flatten(), dim=0) > 0.8
