"""VAEs and TAESD in files of their own, UNets by themselves: told by their headers, loaded, checked against what they
are to fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine import layout
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file
from impasto_server.engine.load import load_checkpoint, open_pristine
from impasto_server.engine.preview import preview_jpeg
from impasto_server.engine.vae import decode_tiny
from impasto_server.engine.vae_files import load_vae, with_vae
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_metadata, tiny_modules, write_tiny_checkpoint, write_tiny_folder
from tests.vaes import kl, tiny_decoder, write_taesd, write_vae

CPU: dict[str, Any] = dict(device=torch.device("cpu"), dtype=torch.float32)


def found_of(path: Path) -> ModelInfo:
    found = identify_file(path)
    assert isinstance(found, ModelInfo), found
    return found


def same(module: Any, other: Any) -> bool:
    mine, theirs = module.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("name", "form", "prefix"),
    [
        ("a.safetensors", "ldm", ""),
        ("b.safetensors", "ldm", "first_stage_model."),
        ("c.vae.pt", "ldm", ""),
        ("d.safetensors", "diffusers", ""),
    ],
)
def test_vaes_of_every_layout(tmp_path: Path, name: str, form: str, prefix: str) -> None:
    module = kl(seed=5)
    path = write_vae(tmp_path / name, module, form, prefix)
    assert (found_of(path).kind, found_of(path).variant) == ("vae", "4-channel")
    loaded = load_vae(path, **CPU)
    assert same(loaded.module, module) and (loaded.latent_channels, loaded.factor) == (4, 8)
    assert not loaded.module.training and loaded.size_bytes > 0


def test_the_vae_of_a_checkpoint_and_of_a_folder(tmp_path: Path) -> None:
    single = write_tiny_checkpoint(tmp_path / "x.safetensors", half=False)
    folder = write_tiny_folder(tmp_path / "folder")
    for path in (single, folder):
        assert same(load_vae(path, **CPU).module, tiny_modules()[1])


def test_a_vae_of_an_unknown_size_must_say_its_groups(tmp_path: Path) -> None:
    found = identify_file(write_vae(tmp_path / "x.safetensors", kl(), facts=None))
    assert isinstance(found, Unknown) and "vae_norm_groups" in found.reason


@pytest.mark.parametrize("prefix", ["", "taesd_decoder.", "decoder."])
def test_taesd_in_every_layout(tmp_path: Path, prefix: str) -> None:
    decoder = tiny_decoder()
    path = write_taesd(tmp_path / "taesd_decoder.safetensors", decoder, prefix)
    assert (found_of(path).kind, found_of(path).family, found_of(path).variant) == ("taesd", "sd1", "decoder")
    loaded = load_vae(path, **CPU)
    assert loaded.tiny and same(loaded.module, decoder)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(decode_tiny(loaded.module, latents).images, decoder(latents))
        small = preview_jpeg(latents, loaded.module, 8, 64, 1)
        smaller = preview_jpeg(latents, loaded.module, 8, 32, 1)
    assert (small.width, small.height, smaller.width) == (64, 64, 32)


def test_the_encoder_of_taesd_and_those_of_other_families_are_named(tmp_path: Path) -> None:
    save_file(
        {
            "0.weight": torch.zeros(64, 3, 3, 3),
            "1.conv.0.weight": torch.zeros(1),
            "14.weight": torch.zeros(4, 64, 3, 3),
        },
        str(tmp_path / "taesd_encoder.safetensors"),
    )
    assert found_of(tmp_path / "taesd_encoder.safetensors").variant == "encoder"
    for name, family in (("taesdxl_decoder", "sdxl"), ("taesd3_decoder", "sd3"), ("decoder", "")):
        assert found_of(write_taesd(tmp_path / f"{name}.safetensors", tiny_decoder())).family == family


def test_another_vae_on_a_checkpoint(tmp_path: Path) -> None:
    components = load_checkpoint(write_tiny_checkpoint(tmp_path / "x.safetensors"), **CPU)
    other = load_vae(write_vae(tmp_path / "other.safetensors", kl(seed=9)), **CPU)
    changed = with_vae(components, other)
    assert changed.vae is other.module and changed.unet is components.unet and components.vae is not other.module
    tiny = with_vae(components, load_vae(write_taesd(tmp_path / "taesd.safetensors", tiny_decoder()), **CPU))
    assert tiny.vae is components.vae and tiny.decoder is not None


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"latent_channels": 16}, "latents of 16 channels at 1/8"),
        (
            {
                "block_out_channels": (8, 8, 16),
                "down_block_types": ("DownEncoderBlock2D",) * 3,
                "up_block_types": ("UpDecoderBlock2D",) * 3,
            },
            "latents of 4 channels at 1/4",
        ),
    ],
)
def test_a_vae_of_another_latent_is_refused(tmp_path: Path, changes: dict[str, Any], got: str) -> None:
    components = load_checkpoint(write_tiny_checkpoint(tmp_path / "x.safetensors"), **CPU)
    other = load_vae(write_vae(tmp_path / "other.safetensors", kl(**changes)), **CPU)
    with pytest.raises(ModelError) as caught:
        with_vae(components, other)
    assert caught.value.data["need"].startswith("latents of 4 channels at 1/8") and caught.value.data["got"] == got
    assert "'other'" in caught.value.message and "'x'" in caught.value.message


# ---- UNets by themselves


def unet_file(path: Path, whole: Path, prefix: str = "") -> Path:
    """The UNet of a checkpoint by itself."""
    tensors = {
        prefix + name.removeprefix(layout.UNET_PREFIX): value
        for name, value in load_file(whole).items()
        if name.startswith(layout.UNET_PREFIX)
    }
    save_file(tensors, str(path), metadata=tiny_metadata())
    return path


@pytest.mark.parametrize("prefix", ["", layout.UNET_PREFIX])
def test_a_unet_with_the_rest_of_other_files(tmp_path: Path, prefix: str) -> None:
    whole = write_tiny_checkpoint(tmp_path / "whole.safetensors", half=False, seed=1)
    lends = write_tiny_checkpoint(tmp_path / "lends.safetensors", half=False, seed=2)
    vae = write_vae(tmp_path / "vae.safetensors", kl(seed=3))
    unet = unet_file(tmp_path / "unet.safetensors", whole, prefix)
    assert (found_of(unet).kind, found_of(unet).variant) == ("unet", "normal")
    with pytest.raises(ModelError, match="a UNet without text encoder or VAE"):
        load_checkpoint(unet, **CPU)
    components = load_checkpoint(unet, **CPU, text=lends, vae=vae)
    assert same(components.unet, tiny_modules(seed=1)[0])
    assert same(components.vae, kl(seed=3)) and same(components.text_encoder, tiny_modules(seed=2)[2])
    with open_pristine(components) as read:
        name = "conv_in.weight"
        assert torch.equal(read("unet", name, True), components.unet.get_parameter(name))
    assert components.identity != load_checkpoint(unet, **CPU, text=lends, vae=lends).identity
    with pytest.raises(ModelError, match="has no CLIP text encoder"):
        load_checkpoint(unet, **CPU, vae=vae)


def test_a_unet_in_diffusers_layout_and_parts_of_a_folder(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "folder")
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    alone = tmp_path / "alone.safetensors"
    save_file(load_file(unet), str(alone), metadata=tiny_metadata())
    components = load_checkpoint(alone, **CPU, text=folder, vae=folder)
    assert same(components.unet, load_checkpoint(folder, **CPU).unet)
