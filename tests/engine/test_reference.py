"""Reference pictures: what they change, what not, and that it is the formula's arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from impasto_server.engine.attention import install
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.controlnet import ControlAdapter, ControlModel
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.jobs import ControlUnit, ReferenceUnit
from impasto_server.engine.reference import Reference, attention_ranks, block_ranks
from impasto_server.engine.run import Engine

from tests.engine.device import DEVICE
from tests.engine.test_run import picture, run, selection_job, text_job
from tests.golden.tiny import seeded, tiny_text, tiny_unet
from tests.tiny import write_tiny_checkpoint

KINDS = ("attention", "adain", "both")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return str(write_tiny_checkpoint(folder / "tiny.safetensors", half=False))


@pytest.fixture(scope="module")
def engine():
    return Engine(DEVICE, "fp32")


def unit(**more):
    return ReferenceUnit("reference 1", "params.references[0]", **{"image": picture(64, 64), **more})


def denoised(unet, adapters, sequential=False, sigma=3.0):
    """x0 of one step at a level."""
    positive, negative = tiny_text()
    levels = torch.tensor([sigma, 1.0, 0.0])
    denoiser = Denoiser(
        network=unet, prediction="epsilon", positive=(Conditioning(positive),), negative=(Conditioning(negative),),
        cfg=5.0, sigmas=levels, timestep_of=lambda s: torch.tensor(400.0), adapters=tuple(adapters),
        sequential=sequential,
    )  # fmt: skip
    x = torch.randn(1, 4, 16, 16, generator=seeded(1)) * sigma
    with torch.inference_mode(), denoiser.attached():
        return denoiser(x, levels[0])


def reference(seed=2, inpaints=False, **more):
    latent = torch.randn(1, 4, 16, 16, generator=seeded(seed))
    return Reference(unit(**more), latent, torch.randn(1, 4, 16, 16, generator=seeded(7)), inpaints=inpaints)


@pytest.mark.parametrize("kind", KINDS)
def test_it_changes_the_prediction_and_leaves_no_trace(kind):
    unet = tiny_unet()
    plain = denoised(unet, ())
    guided = denoised(unet, (reference(kind=kind),))
    assert not torch.allclose(guided, plain)
    assert torch.equal(denoised(unet, ()), plain)
    assert not install(unet).contributions
    assert not any(module._forward_hooks for module in unet.modules())


@pytest.mark.parametrize("silent", [{"weight": 0.0}, {"start": 0.5}], ids=["no weight", "later"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_one_is_none_to_the_last_bit(kind, silent):
    unet = tiny_unet()
    assert torch.equal(denoised(unet, (reference(kind=kind, **silent),)), denoised(unet, ()))


@pytest.mark.parametrize("kind", KINDS)
def test_row_by_row_is_the_same_as_in_one_batch(kind):
    unet = tiny_unet()
    adapters = [reference(kind=kind), reference(seed=3, kind="attention", fidelity=0.2)]
    together, apart = denoised(unet, adapters), denoised(unet, adapters, sequential=True)
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)


def test_beside_a_controlnet():
    from tests.golden.test_golden_control import controlnet, hint

    unet = tiny_unet()
    with torch.inference_mode():
        net = ControlModel(controlnet(unet, 20), "net")
    control = ControlAdapter(net, ControlUnit("control unit 1", "", "", weight=0.7), hint(30))
    both = denoised(unet, (control, reference()))
    assert not torch.allclose(both, denoised(unet, (control,)), atol=1e-3)
    torch.testing.assert_close(denoised(unet, (control, reference()), sequential=True), both, atol=1e-4, rtol=1e-4)


def test_the_picture_itself_as_reference_changes_no_statistics():
    """AdaIN towards what one is already does nothing."""
    unet = tiny_unet()
    sigma = 3.0
    x = torch.randn(1, 4, 16, 16, generator=seeded(1)) * sigma
    same = Reference(unit(kind="adain", fidelity=0.0), torch.zeros_like(x), x / sigma, inpaints=False)
    torch.testing.assert_close(denoised(unet, (same,)), denoised(unet, ()), atol=1e-4, rtol=1e-4)


def test_with_full_fidelity_the_negative_side_has_nothing_of_it():
    """Then guidance leads away from the plain prediction; without, both sides have the reference."""
    unet = tiny_unet()
    seen = {}

    class Watch:
        """The last adapter, so that it sees what the others have made of it."""

        def attach(self, network):
            return install(network).contributing(self)

        def prepare(self, call, step):
            pass

        def extra_pass(self, call, step):
            return None

        def before(self, call):
            pass

        def after(self, call, output):
            if not call.cross:  # the last call counts: those before look at the reference
                seen[call.layer] = output.clone()
            return output

    def outputs(adapters):
        seen.clear()
        denoised(unet, (*adapters, Watch()))
        return dict(seen)

    plain = outputs(())
    layer = next(iter(plain))
    faithful = outputs((reference(fidelity=1.0),))[layer]
    loose = outputs((reference(fidelity=0.0),))[layer]
    torch.testing.assert_close(faithful[0], plain[layer][0])
    assert not torch.allclose(loose[0], plain[layer][0])
    torch.testing.assert_close(faithful[1], loose[1])


def test_less_weight_reaches_fewer_layers_the_widest_first():
    unet = tiny_unet()
    ranks = attention_ranks(unet)
    widths = {name: unet.get_submodule(name).to_q.in_features for name in ranks}
    ordered = sorted(ranks, key=ranks.get)
    assert [widths[name] for name in ordered] == sorted(widths.values(), reverse=True)
    blocks = block_ranks(unet)
    assert blocks["mid_block"] == 0 and max(blocks.values()) < 1
    assert all(unet.get_submodule(name) is not None for name in blocks)


# ---- in the engine


@pytest.mark.parametrize("channels", [4, 9])
def test_in_every_mode_and_on_inpainting_checkpoints(engine, folder, channels):
    path = str(write_tiny_checkpoint(folder / f"paint{channels}.safetensors", channels=channels, half=False))
    for job in (text_job(path, steps=3), selection_job(path)):
        plain, *_ = run(engine, job)
        guided, result, _ = run(engine, replace(job, references=(unit(kind="both"),)))
        assert (guided.pixels[..., :3] != plain.pixels[..., :3]).any() and guided.box == plain.box
        assert result.ran["references"][0]["kind"] == "both"
        again, *_ = run(engine, job)
        np.testing.assert_array_equal(again.pixels, plain.pixels)
