"""IP-Adapters with a tiny random checkpoint: files, presets, masks, and that a silent one changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError, RequestError
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.clip_vision import load_tower
from impasto_server.engine.coverage import at_tokens, coverage
from impasto_server.engine.identify import identify_file
from impasto_server.engine.ip_adapter import cross_layers, load_ip_adapter
from impasto_server.engine.ip_layers import IP_LAYERS, layer_weights
from impasto_server.engine.jobs import IPUnit
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.run import Engine

from tests.engine.device import DEVICE
from tests.engine.test_run import image_job, picture, run, run_batch, selection_job, text_job
from tests.ip_adapters import write_tiny_ip_adapter, write_tiny_tower
from tests.tiny import tiny_modules, write_tiny_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return str(write_tiny_checkpoint(folder / "tiny.safetensors", half=False))


@pytest.fixture(scope="module")
def components(checkpoint):
    return load_checkpoint(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture(scope="module")
def files(folder):
    unet, _, _ = tiny_modules()
    tower = write_tiny_tower(folder / "tower.safetensors")
    kinds = ("base", "plus", "full-face")
    return {kind: str(write_tiny_ip_adapter(folder / f"{kind}.bin", unet, kind)) for kind in kinds} | {
        "tower": str(tower)
    }


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def unit(files, kind="base", **more):
    more.setdefault("images", (picture(40, 30),))
    return IPUnit("IP-Adapter unit 1", "params.ip_adapters[0]", files[kind], files["tower"], **more)


def left_half(width, height, opaque):
    """A mask by alpha, or by brightness."""
    mask = np.zeros((height, width, 4), np.uint8)
    mask[:, : width // 2] = 255
    if opaque:
        mask[..., 3] = 255
    return mask


# ---- presets


def test_presets_are_those_of_sd1_and_sdxl():
    sides = ["input"] * 6 + ["middle"] + ["output"] * 9
    assert layer_weights("all", sides) == [1.0] * 16
    assert [i for i, w in enumerate(layer_weights("style", sides)) if w] == [0, 1, 2, 3, *range(9, 16)]
    assert {i: w for i, w in enumerate(layer_weights("composition", sides)) if w} == {4: 0.25, 5: 1.0}
    assert [i for i, w in enumerate(layer_weights("strong_style", sides)) if not w] == [4, 5]
    assert layer_weights("weak_output", sides) == [1.0] * 7 + [0.2] * 9
    assert layer_weights("strong_middle", sides) == [0.2] * 6 + [1.0] + [0.2] * 9
    assert layer_weights("ease_in", sides)[0] == 1.0 and layer_weights("ease_out", sides)[0] == 0.05
    xl = ["input"] * 4 + ["middle"] + ["output"] * 6
    assert [i for i, w in enumerate(layer_weights("style", xl)) if w] == [6]
    assert [i for i, w in enumerate(layer_weights("composition", xl)) if w] == [3]
    for preset in IP_LAYERS:
        assert all(0 <= weight <= 1 for weight in layer_weights(preset, ["input", "middle", "output"]))


# ---- masks


@pytest.mark.parametrize("opaque", [False, True], ids=["by alpha", "by brightness"])
def test_a_mask_is_what_is_painted(opaque):
    mask = coverage(left_half(32, 16, opaque), Size(64, 32), None, (4, 8), "region 1", "params.regions[0].mask")
    assert mask.shape == (1, 1, 4, 8)
    torch.testing.assert_close(mask[0, 0], torch.tensor([1.0] * 4 + [0.0] * 4).expand(4, 8))
    part = coverage(left_half(32, 16, opaque), Size(64, 32), Box(16, 8, 32, 16), (2, 4), "region 1", "")
    torch.testing.assert_close(part[0, 0], torch.tensor([1.0, 1, 0, 0]).expand(2, 4))
    torch.testing.assert_close(at_tokens(mask, 8)[:, 0], torch.tensor([1.0, 1, 0, 0, 1, 1, 0, 0]))


def test_an_empty_mask_is_refused_with_whose_it_is():
    with pytest.raises(RequestError) as caught:
        coverage(np.zeros((8, 8, 4), np.uint8), Size(64, 64), None, (8, 8), "region 2", "params.regions[1].mask")
    assert caught.value.code == "request.empty_selection" and caught.value.path == "params.regions[1].mask"
    assert "region 2" in caught.value.message


# ---- files


@pytest.mark.parametrize("kind", ["base", "plus", "full-face"])
def test_every_kind_loads_from_both_endings(components, folder, files, kind):
    unet, _, _ = tiny_modules()
    flat = write_tiny_ip_adapter(folder / f"flat {kind}.safetensors", unet, kind)
    info = identify_file(files[kind])
    assert (info.kind, info.variant) == ("ip-adapter", kind)
    one, other = load_ip_adapter(files[kind], components), load_ip_adapter(flat, components)
    assert one.sizes.kind == kind and list(one.weights) == cross_layers(components.unet) and one.size_bytes > 0
    for name, value in one.projection.state_dict().items():
        assert torch.equal(value, other.projection.state_dict()[name])
    assert identify_file(files["tower"]).kind == "clip-vision"


def test_what_does_not_fit_is_refused_with_both_sides(components, folder, files, checkpoint):
    from diffusers import UNet2DConditionModel

    from tests.tiny import UNET

    wide = UNet2DConditionModel(**{**UNET, "cross_attention_dim": 48})
    path = write_tiny_ip_adapter(folder / "wide.safetensors", wide, "base")
    with pytest.raises(ModelError) as caught:
        load_ip_adapter(path, components)
    assert caught.value.code == "model.unsupported"
    assert "width 32" in caught.value.data["need"] and "width 48" in caught.value.data["got"]
    with pytest.raises(ModelError, match="no IP-Adapter"):
        load_ip_adapter(checkpoint, components)
    with pytest.raises(ModelError, match="no vision tower"):
        load_tower(checkpoint, device=torch.device("cpu"), dtype=torch.float32)


def test_a_file_with_a_tensor_missing_is_refused(components, folder):
    from safetensors.torch import load_file, save_file

    unet, _, _ = tiny_modules()
    tensors = load_file(write_tiny_ip_adapter(folder / "whole.safetensors", unet, "plus"))
    del tensors["image_proj.layers.1.0.to_q.weight"]
    save_file(tensors, folder / "part.safetensors")
    with pytest.raises(ModelError, match=r"not a complete IP-Adapter: image_proj\.layers\.1\.0\.to_q") as caught:
        load_ip_adapter(folder / "part.safetensors", components)
    assert caught.value.code == "model.corrupt"


def test_the_engine_says_which_unit_it_was(engine, checkpoint, files):
    with pytest.raises(ModelError) as caught:
        run(engine, replace(text_job(checkpoint, steps=2), ip_adapters=(unit({**files, "tower": checkpoint}),)))
    assert caught.value.path == "params.ip_adapters[0].model" and "IP-Adapter unit 1" in caught.value.message


# ---- in the engine


@pytest.mark.parametrize("kind", ["base", "plus", "full-face"])
def test_it_changes_the_picture_and_nothing_when_it_is_silent(engine, checkpoint, files, kind):
    job = text_job(checkpoint, steps=4, seed=3, prompt="a cat")
    plain, *_ = run(engine, job)
    guided, *_ = run(engine, replace(job, ip_adapters=(unit(files, kind),)))
    assert (guided.pixels != plain.pixels).any()
    for silent in ({"weight": 0.0}, {"start": 0.9, "end": 1.0}):
        layer, *_ = run(engine, replace(job, ip_adapters=(unit(files, kind, **silent),)))
        np.testing.assert_array_equal(layer.pixels, plain.pixels)
    again, *_ = run(engine, job)
    np.testing.assert_array_equal(again.pixels, plain.pixels)


def test_other_pictures_and_ways_to_join_them_differ(engine, checkpoint, files):
    job = text_job(checkpoint, steps=3, seed=3)
    other = picture(40, 30)[::-1, ::-1].copy()
    two = (picture(40, 30), other)
    seen = {
        name: run(engine, replace(job, ip_adapters=(unit(files, "plus", **fields),)))[0].pixels
        for name, fields in {
            "one": {},
            "other": {"images": (other,)},
            "average": {"images": two},
            "concat": {"images": two, "combine": "concat"},
            "style": {"layers": "style"},
            "half": {"weight": 0.5},
        }.items()
    }
    names = list(seen)
    assert all((seen[a] != seen[b]).any() for i, a in enumerate(names) for b in names[i + 1 :])
    # The mean of the same picture twice is that picture.
    same, *_ = run(engine, replace(job, ip_adapters=(unit(files, "plus", images=(two[0], two[0])),)))
    assert np.abs(same.pixels.astype(int) - seen["one"]).max() <= 1


def test_a_mask_over_all_is_none_and_one_over_half_lies_between(engine, checkpoint, files):
    job = text_job(checkpoint, steps=3, seed=3)
    plain, *_ = run(engine, job)
    everywhere, *_ = run(engine, replace(job, ip_adapters=(unit(files),)))
    white = np.full((10, 10, 4), 255, np.uint8)
    masked, *_ = run(engine, replace(job, ip_adapters=(unit(files, mask=white),)))
    assert np.abs(masked.pixels.astype(int) - everywhere.pixels).max() <= 1
    half, *_ = run(engine, replace(job, ip_adapters=(unit(files, mask=left_half(64, 64, False)),)))
    moved = np.abs(half.pixels.astype(int) - plain.pixels).mean((0, 2))
    assert moved[:32].mean() > moved[32:].mean() > 0  # what is beside it sees it a little


def test_every_picture_of_a_batch_is_guided_alike(engine, checkpoint, files):
    units = (unit(files, "plus"),)
    layers, *_ = run_batch(engine, replace(text_job(checkpoint, steps=3, seed=3, batch=2), ip_adapters=units))
    alone, *_ = run(engine, replace(text_job(checkpoint, steps=3, seed=4), ip_adapters=units))
    assert np.abs(layers[1].pixels.astype(int) - alone.pixels).max() <= 1


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_and_refining_are_guided(engine, folder, files, channels):
    path = str(write_tiny_checkpoint(folder / f"paint{channels}.safetensors", channels=channels, half=False))
    for job in (selection_job(path), image_job(path)):
        plain, *_ = run(engine, job)
        # Without a picture of its own the unit takes the one that is painted over.
        guided, *_ = run(engine, replace(job, ip_adapters=(unit(files, images=()),)))
        assert guided.box == plain.box and (guided.pixels[..., :3] != plain.pixels[..., :3]).any()


def test_the_hires_pass_is_guided_too_with_the_mask_at_its_size(engine, checkpoint, files):
    big = text_job(checkpoint, Size(96, 96), steps=2, seed=3, width=64, height=64, hires=True, hires_scale=1.5)
    without, *_ = run(engine, big)
    guided, *_ = run(engine, replace(big, ip_adapters=(unit(files, mask=left_half(64, 64, True)),)))
    assert guided.pixels.shape == without.pixels.shape and (guided.pixels != without.pixels).any()
