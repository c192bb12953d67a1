"""ControlNets with a tiny random checkpoint: layouts, what fits, when and how strongly they speak."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_protocol.geometry import Size
from impasto_server.engine.adapters import NetworkCall, RowLabel, Step
from impasto_server.engine.controlnet import ControlAdapter, ControlModel, injection_weights, load_controlnet
from impasto_server.engine.coverage import coverage
from impasto_server.engine.hints import Hints
from impasto_server.engine.identify import identify_file
from impasto_server.engine.jobs import ControlUnit
from impasto_server.engine.kit.runtime import Kit
from impasto_server.engine.load import load_checkpoint
from impasto_server.engine.run import Engine
from impasto_server.engine.t2i import t2i_to_file

from tests.control import thin_control, tiny_controlnet, write_tiny_controlnet
from tests.engine.device import DEVICE
from tests.engine.test_run import image_job, picture, run, run_batch, selection_job, text_job
from tests.tiny import write_tiny_checkpoint


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
def control(folder):
    return str(write_tiny_controlnet(folder / "control.safetensors"))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def unit(model, **more):
    more.setdefault("image", picture(64, 64))
    return ControlUnit("control unit 1", "params.control[0]", model, **more)


# ---- files


@pytest.mark.parametrize(
    "form", [{}, {"prefix": ""}, {"layout": "diffusers"}], ids=["A1111", "without a prefix", "diffusers"]
)
def test_every_layout_gives_the_same_network(components, folder, form):
    path = write_tiny_controlnet(folder / f"form-{len(form)}-{form.get('layout')}.safetensors", **form)
    loaded, wanted = load_controlnet(path, components), tiny_controlnet()
    state = loaded.network.state_dict()
    assert state.keys() == wanted.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in wanted.state_dict().items())
    assert not loaded.pooled and loaded.size_bytes > 0


def test_a_difference_is_added_to_the_checkpoint(components, folder):
    path = write_tiny_controlnet(folder / "difference.safetensors", less=components.unet)
    state = load_controlnet(path, components).network.state_dict()
    for name, value in tiny_controlnet().state_dict().items():
        torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


def test_a_control_lora_is_built_on_the_checkpoint(components, engine, checkpoint, folder):
    path = write_tiny_controlnet(folder / "thin.safetensors", less=components.unet, rank=2)
    info = identify_file(path)
    assert (info.kind, info.variant) == ("controlnet", "control-lora")
    loaded, (wanted, _) = load_controlnet(path, components), thin_control(components.unet, 2)
    assert loaded.told == {"kind": "control-lora"}
    for name, value in wanted.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, atol=1e-6, rtol=0)
    job = text_job(checkpoint, steps=2, seed=3)
    plain, *_ = run(engine, job)
    guided, *_ = run(engine, replace(job, control=(unit(str(path)),)))
    assert (guided.pixels != plain.pixels).any()


def test_a_control_lora_that_is_not_whole_or_has_no_base_is_refused(components, folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(write_tiny_controlnet(folder / "thin whole.safetensors", less=components.unet, rank=2))
    for name, value, said in (
        ("zero_convs.1.0.weight", None, "not a complete control-LoRA: zero_convs.1.0.weight is missing"),
        ("time_embed.0.up", None, "time_embed.0.down"),
        ("time_embed.0.up", torch.zeros(3, 2), "do not give"),
    ):
        changed = {**tensors, name: value} if value is not None else {k: v for k, v in tensors.items() if k != name}
        save_file(changed, folder / "thin part.safetensors")
        with pytest.raises(ModelError) as caught:
            load_controlnet(folder / "thin part.safetensors", components)
        assert caught.value.code == "model.corrupt" and said in caught.value.message
    nine = write_tiny_checkpoint(folder / "nine.safetensors", channels=9, half=False)
    paints = load_checkpoint(nine, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(ModelError, match="further inputs"):
        load_controlnet(folder / "thin whole.safetensors", paints)


@pytest.mark.parametrize("opaque", [False, True], ids=["by alpha", "by brightness"])
def test_a_mask_says_where_a_unit_counts(components, engine, checkpoint, control, opaque):
    mask = np.zeros((64, 64, 4), np.uint8)
    mask[:, :32] = 255
    mask[..., 3] = 255 if opaque else mask[..., 3]
    for pooled in (False, True):
        model = load_controlnet(control, components)
        model = ControlModel(model.network, model.path, pooled=pooled)
        torch.manual_seed(1)
        rows = (RowLabel("uncond", 0, 0), RowLabel("cond", 0, 0))
        call = NetworkCall(torch.randn(2, 4, 8, 8), torch.tensor(500.0), torch.randn(2, 77, 32), rows)
        where = coverage(mask, Size(64, 64), None, (8, 8), "control unit 1", "params.control[0].mask")
        with torch.inference_mode():
            adapter = ControlAdapter(model, unit(""), torch.rand(1, 3, 64, 64), where)
            adapter.prepare(call, Step(0, 10, torch.tensor(3.0), torch.tensor(500.0)))
        assert call.down_residuals[0][1, :, :, :4].any() and not call.down_residuals[0][1, :, :, 4:].any()
        assert call.mid_residual[1, :, :, 0].any() and not call.mid_residual[1, :, :, 1].any()
    job = text_job(checkpoint, steps=2, seed=3)
    plain, *_ = run(engine, job)
    everywhere, *_ = run(engine, replace(job, control=(unit(control),)))
    white = np.full((8, 8, 4), 255, np.uint8)
    same, *_ = run(engine, replace(job, control=(unit(control, mask=white),)))
    np.testing.assert_array_equal(same.pixels, everywhere.pixels)
    half, *_ = run(engine, replace(job, control=(unit(control, mask=mask),)))
    moved = np.abs(half.pixels.astype(int) - plain.pixels).mean((0, 2))
    assert moved[:32].mean() > moved[32:].mean()


def test_one_that_waits_to_save_memory_says_the_same(engine, checkpoint, control):
    job = text_job(checkpoint, steps=2, seed=3)
    one, *_ = run(engine, replace(job, control=(unit(control),)))
    other, *_ = run(engine, replace(job, control=(unit(control, low_memory=True),)))
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_one_for_another_family_is_refused_with_both_sides(components, folder):
    path = write_tiny_controlnet(folder / "wide.safetensors", cross_attention_dim=48)
    with pytest.raises(ModelError) as caught:
        load_controlnet(path, components)
    assert caught.value.code == "model.unsupported"
    assert "width 32" in caught.value.data["need"] and "width 48" in caught.value.data["got"]


def test_another_file_under_that_name_is_refused(components, checkpoint, folder):
    with pytest.raises(ModelError) as caught:
        load_controlnet(checkpoint, components)
    assert caught.value.code == "model.unsupported" and "hint block" in str(caught.value)


def test_a_file_with_a_tensor_missing_is_refused(components, folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(write_tiny_controlnet(folder / "whole.safetensors"))
    del tensors["control_model.middle_block_out.0.bias"]
    save_file(tensors, folder / "part.safetensors")
    with pytest.raises(ModelError, match="not a complete ControlNet: 1 tensors are missing") as caught:
        load_controlnet(folder / "part.safetensors", components)
    assert caught.value.code == "model.corrupt"


def test_the_engine_says_which_unit_it_was(engine, checkpoint, folder):
    path = write_tiny_controlnet(folder / "wide too.safetensors", cross_attention_dim=48)
    with pytest.raises(ModelError) as caught:
        run(engine, replace(text_job(checkpoint, steps=2), control=(unit(str(path)),)))
    assert caught.value.path == "params.control[0].model"


# ---- how strongly it speaks


def test_the_weights_are_those_of_the_formula():
    assert injection_weights(0.8, "balanced", 13) == [0.8] * 13
    soft = injection_weights(2.0, "prompt", 13)
    assert soft[12] == 2.0 and soft[0] == pytest.approx(2 * 0.0994, rel=1e-3)
    assert soft == injection_weights(2.0, "control", 13)


def residuals(model, hint, mode="balanced", fraction=0.0, weight=1.0, **more):
    """Of a batch [negative, positive] at a step of ten."""
    torch.manual_seed(1)
    rows = (RowLabel("uncond", 0, 0), RowLabel("cond", 0, 0))
    call = NetworkCall(torch.randn(2, 4, 8, 8), torch.tensor(500.0), torch.randn(2, 77, 32), rows)
    step = Step(round(fraction * 10), 10, torch.tensor(3.0), torch.tensor(500.0))
    with torch.inference_mode():
        ControlAdapter(model, unit("", mode=mode, weight=weight, **more), hint).prepare(call, step)
    return call


def test_modes_scale_each_injection_and_choose_the_side(components, control):
    model = load_controlnet(control, components)
    hint = Hints(Kit()).of(unit(control), Size(64, 64)).tensor
    plain = residuals(model, hint)
    assert plain.down_residuals is not None and plain.mid_residual is not None
    flat = [*plain.down_residuals, plain.mid_residual]
    for mode in ("prompt", "control"):
        got = residuals(model, hint, mode, weight=0.5)
        for one, whole, factor in zip(
            (*got.down_residuals, got.mid_residual), flat, injection_weights(0.5, mode, len(flat)), strict=True
        ):
            torch.testing.assert_close(one[1], whole[1] * factor)
            # In the mode "control" it is silent on the negative side.
            torch.testing.assert_close(one[0], whole[0] * factor if mode == "prompt" else torch.zeros_like(one[0]))


def test_shuffle_says_the_same_everywhere_and_with_the_prompt_only(components, control):
    model = load_controlnet(control, components)
    pooled = residuals(ControlModel(model.network, model.path, pooled=True), torch.rand(1, 3, 64, 64))
    assert pooled.mid_residual.shape[2:] == (1, 1) and not pooled.mid_residual[0].any() and pooled.mid_residual[1].any()


@pytest.mark.parametrize(
    ("fraction", "speaks"), [(0.0, False), (0.2, True), (0.5, True), (0.6, False)], ids=lambda v: str(v)
)
def test_it_speaks_in_its_part_of_the_steps(components, control, fraction, speaks):
    call = residuals(
        load_controlnet(control, components), torch.rand(1, 3, 64, 64), fraction=fraction, start=0.2, end=0.5
    )
    assert (call.down_residuals is not None) == speaks


# ---- in the engine


def test_control_changes_the_picture_and_nothing_when_it_is_silent(engine, checkpoint, control):
    job = text_job(checkpoint, steps=4, seed=3, prompt="a cat")
    plain, *_ = run(engine, job)
    guided, *_ = run(engine, replace(job, control=(unit(control),)))
    assert (guided.pixels != plain.pixels).any()
    for silent in ({"weight": 0.0}, {"start": 0.9, "end": 1.0}):
        layer, *_ = run(engine, replace(job, control=(unit(control, **silent),)))
        np.testing.assert_array_equal(layer.pixels, plain.pixels)
    again, *_ = run(engine, job)
    np.testing.assert_array_equal(again.pixels, plain.pixels)


def test_two_units_add(engine, checkpoint, control):
    job = text_job(checkpoint, steps=3, seed=3)
    one = unit(control, weight=0.4)
    twice, *_ = run(engine, replace(job, control=(one, one)))
    strong, *_ = run(engine, replace(job, control=(unit(control, weight=0.8),)))
    assert np.abs(twice.pixels.astype(int) - strong.pixels).max() <= 1


def test_every_picture_of_a_batch_is_guided_alike(engine, checkpoint, control):
    units = (unit(control),)
    layers, *_ = run_batch(engine, replace(text_job(checkpoint, steps=3, seed=3, batch=2), control=units))
    alone, *_ = run(engine, replace(text_job(checkpoint, steps=3, seed=4), control=units))
    assert np.abs(layers[1].pixels.astype(int) - alone.pixels).max() <= 1


@pytest.mark.parametrize("channels", [4, 9])
def test_inpainting_is_guided_within_the_mask(engine, folder, control, channels):
    path = str(write_tiny_checkpoint(folder / f"paint{channels}.safetensors", channels=channels, half=False))
    job = selection_job(path)
    plain, *_ = run(engine, job)
    # Without a picture of its own the unit takes the one that is painted over.
    guided, *_ = run(engine, replace(job, control=(unit(control, image=None, preprocessor="canny"),)))
    assert guided.box == plain.box
    np.testing.assert_array_equal(guided.pixels[..., 3], plain.pixels[..., 3])
    assert (guided.pixels[..., :3] != plain.pixels[..., :3]).any()


def test_image_to_image_and_hires_take_the_hint_at_their_size(engine, checkpoint, control):
    layer, *_ = run(engine, replace(image_job(checkpoint), control=(unit(control, image=None),)))
    assert layer.pixels.shape[2] == 4
    big = replace(
        text_job(checkpoint, Size(96, 96), steps=2, seed=3, width=64, height=64, hires=True, hires_scale=1.5),
        control=(unit(control),),
    )
    without, *_ = run(engine, replace(big, control=()))
    with_it, *_ = run(engine, big)
    assert with_it.pixels.shape == without.pixels.shape and (with_it.pixels != without.pixels).any()


# ---- T2I-Adapters


def write_t2i(path, kind, layout, seed=0, widths=(16, 32, 32)):
    """A tiny random one for the tiny checkpoint, with two residual blocks a level."""
    from diffusers import T2IAdapter
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    light = kind == "light_adapter"
    net = T2IAdapter(3, widths[:-1] if light else widths, 2, downscale_factor=8, adapter_type=kind).eval()
    bare = {name.removeprefix("adapter."): value for name, value in net.state_dict().items()}
    if layout == "original":
        save_file({t2i_to_file(name, light=light, blocks=2): value for name, value in bare.items()}, path)
    else:
        save_file(net.state_dict(), path)
    return net


@pytest.mark.parametrize("kind", ["full_adapter", "light_adapter"])
@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_t2i_adapters_of_every_kind_load(components, folder, kind, layout):
    path = folder / f"{kind}-{layout}.safetensors"
    wanted = write_t2i(path, kind, layout)
    info = identify_file(path)
    assert (info.kind, info.family, info.variant) == ("controlnet", "sd1", "t2i")
    loaded = load_controlnet(path, components)
    assert loaded.t2i and loaded.network.state_dict().keys() == wanted.state_dict().keys()
    assert all(torch.equal(loaded.network.state_dict()[name], value) for name, value in wanted.state_dict().items())


def test_a_t2i_adapter_for_another_network_is_refused(components, folder):
    path = folder / "broad.safetensors"
    write_t2i(path, "full_adapter", "original", widths=(24, 48, 48))
    with pytest.raises(ModelError) as caught:
        load_controlnet(path, components)
    assert caught.value.code == "model.unsupported" and caught.value.data["got"] == 24


def test_a_t2i_adapter_guides_beside_a_controlnet(engine, checkpoint, control, folder):
    path = folder / "guide.safetensors"
    write_t2i(path, "full_adapter", "original")
    job = text_job(checkpoint, steps=3, seed=3)
    plain, *_ = run(engine, job)
    guided, *_ = run(engine, replace(job, control=(unit(str(path)),)))
    both, *_ = run(engine, replace(job, control=(unit(str(path)), unit(control))))
    silent, *_ = run(engine, replace(job, control=(unit(str(path), weight=0.0),)))
    assert (guided.pixels != plain.pixels).any() and (both.pixels != guided.pixels).any()
    np.testing.assert_array_equal(silent.pixels, plain.pixels)
