"""Our processor equals diffusers' own without contributions, and serves several of them at once."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from impasto_server.engine.attention import AttentionCall, install

from tests.golden.tiny import seeded, tiny_text, tiny_unet


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


@pytest.fixture(scope="module")
def inputs():
    sample = torch.randn(2, 4, 16, 16, generator=seeded(5))
    return sample, torch.tensor(500.0), torch.cat(tiny_text())


def run(unet, inputs):
    with torch.inference_mode():
        return unet(*inputs, return_dict=False)[0]


class Recorder:
    """Sees every call; changes nothing."""

    def __init__(self):
        self.layers: list[tuple[str, bool]] = []

    def before(self, call: AttentionCall) -> None:
        self.layers.append((call.layer, call.cross))

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        return output


class Masked:
    """Extra keys that a mask hides: no effect."""

    def before(self, call: AttentionCall) -> None:
        extra = torch.randn(call.key.shape, generator=seeded(1))
        call.append(extra, extra, torch.full((), -torch.inf))

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        return output


class Extra(Masked):
    """The same keys in sight."""

    def before(self, call: AttentionCall) -> None:
        extra = torch.randn(call.key.shape, generator=seeded(1))
        call.append(extra, extra)


class Decoupled:
    """A further attention over tokens of its own, as IP-Adapter's, with a weight."""

    def __init__(self, weight: float):
        self.weight = weight

    def before(self, call: AttentionCall) -> None:
        pass

    def after(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        if not call.cross:
            return output
        tokens = call.split_heads(call.module.to_k(torch.ones(output.shape[0], 4, 32)))
        return output + self.weight * torch.nn.functional.scaled_dot_product_attention(call.query, tokens, tokens)


def test_bit_identical_to_diffusers_without_contributions(unet, inputs):
    unet.set_attn_processor(AttnProcessor2_0())
    expected = run(unet, inputs)
    control = install(unet)
    assert torch.equal(run(unet, inputs), expected)
    assert install(unet) is control  # once


def test_a_contribution_that_changes_nothing_is_bit_identical(unet, inputs):
    control = install(unet)
    expected, recorder = run(unet, inputs), Recorder()
    with control.contributing(recorder):
        assert torch.equal(run(unet, inputs), expected)
    assert len(recorder.layers) == len(unet.attn_processors)
    assert {name.rsplit(".", 1)[1]: cross for name, cross in recorder.layers} == {"attn1": False, "attn2": True}
    assert control.contributions == []


def test_hidden_keys_have_no_effect_and_shown_ones_have(unet, inputs):
    control = install(unet)
    expected = run(unet, inputs)
    with control.contributing(Masked()):
        torch.testing.assert_close(run(unet, inputs), expected, rtol=1e-4, atol=1e-5)
    with control.contributing(Extra()):
        assert not torch.allclose(run(unet, inputs), expected, atol=1e-3)
    # A mask after plain extra keys covers them all.
    with control.contributing(Extra()), control.contributing(Masked()):
        assert torch.isfinite(run(unet, inputs)).all()


def test_several_contributions_live_side_by_side(unet, inputs):
    control = install(unet)
    plain = run(unet, inputs)
    with control.contributing(Decoupled(1.0)):
        one = run(unet, inputs)
        with control.contributing(Decoupled(-1.0)):
            both = run(unet, inputs)
    assert not torch.allclose(one, plain, atol=1e-4)
    torch.testing.assert_close(both, plain, rtol=1e-3, atol=1e-4)
    assert torch.equal(run(unet, inputs), plain)


def test_contributions_go_when_a_run_fails(unet):
    control = install(unet)
    with pytest.raises(RuntimeError), control.contributing(Decoupled(1.0)):
        raise RuntimeError
    assert control.contributions == []
