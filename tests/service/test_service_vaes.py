"""Which VAE and which text encoder a job runs with, and what is refused before it is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from impasto_protocol.errors import ModelError
from impasto_server.engine import layout
from impasto_server.engine.infotext import read_infotext
from impasto_server.engine.infotext_write import infotext
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.facts import Identify
from impasto_server.service.resolving import resolve_params
from impasto_server.service.vae_choice import Vaes, choose_vaes
from safetensors.torch import load_file, save_file

from tests.tiny import tiny_metadata, write_tiny_checkpoint
from tests.vaes import kl, tiny_decoder, write_taesd, write_vae


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    root = tmp_path_factory.mktemp("models")
    whole = write_tiny_checkpoint(root / "plain.safetensors")
    write_tiny_checkpoint(root / "dream.safetensors")
    write_vae(root / "dream.vae.pt", kl(seed=1))
    write_vae(root / "VAE" / "dream.vae.safetensors", kl(seed=2))
    write_vae(root / "VAE" / "soft.safetensors", kl(seed=3))
    write_vae(root / "VAE" / "wide.safetensors", kl(latent_channels=16))
    write_taesd(root / "VAE-taesd" / "taesd_decoder.safetensors", tiny_decoder())
    tensors = {n: v for n, v in load_file(whole).items() if n.startswith(layout.UNET_PREFIX)}
    save_file(tensors, str(root / "alone.safetensors"), metadata=tiny_metadata())
    catalogue = Catalogue([root], Identify())
    catalogue.scan()
    return catalogue


def chosen(models: Catalogue, **values: Any) -> Vaes:
    params, model = resolve_params(models, "txt2img", values)
    return choose_vaes(models, params, model)


def names(vaes: Vaes) -> tuple[str, dict[str, str]]:
    vae = vaes.vae.path.relative_to(vaes.vae.path.parents[1]).as_posix() if vaes.vae is not None else ""
    return vae, {name: Path(path).stem for name, path in vaes.parts.items()}


def test_which_vae_runs(models: Catalogue) -> None:
    assert names(chosen(models, model="plain")) == ("", {})
    beside = chosen(models, model="dream").vae
    assert beside is not None and beside.path.name == "dream.vae.pt", "the one in the same folder goes first"
    assert names(chosen(models, model="dream", vae="none")) == ("", {})
    assert names(chosen(models, model="dream", vae="soft")) == ("VAE/soft.safetensors", {})
    lent = chosen(models, model="plain", vae="dream").vae
    assert lent is not None and lent.path.name == "dream.safetensors", "a checkpoint lends its own"
    assert names(chosen(models, model="plain", vae="plain")) == ("", {})
    tiny = chosen(models, model="plain", vae="taesd_decoder").vae
    assert tiny is not None and tiny.facts.variant == "taesd"


def test_previews_take_taesd_where_it_lies(models: Catalogue) -> None:
    preview = chosen(models, model="plain").preview
    assert preview is not None and preview.id == "taesd_decoder"


def test_a_unet_by_itself(models: Catalogue) -> None:
    unet: Any = dict(model="alone")
    assert names(chosen(models, **unet, text_encoder="plain")) == ("", {"text": "plain", "vae": "plain"})
    assert names(chosen(models, **unet, text_encoder="plain", vae="soft")) == ("", {"text": "plain", "vae": "soft"})
    taesd = chosen(models, **unet, text_encoder="plain", vae="taesd_decoder")
    assert names(taesd) == ("VAE-taesd/taesd_decoder.safetensors", {"text": "plain", "vae": "plain"})
    assert names(chosen(models, model="plain", text_encoder="dream")) == ("", {"text": "dream"})
    assert "alone" not in [m.id for m in models.checkpoints()]


@pytest.mark.parametrize(
    ("values", "code", "path", "said"),
    [
        (dict(model="plain", vae="sofd"), "model.unknown", "params.vae", ["'sofd'", "'soft'"]),
        (dict(model="plain", vae="wide"), "model.unsupported", "params.vae", ["16 channels", "4 channels", "'wide'"]),
        (dict(model="plain", vae="alone"), "model.unsupported", "params.vae", ["unet"]),
        (dict(model="alone"), "model.unsupported", "params.text_encoder", ["without text encoder or VAE"]),
        (dict(model="alone", text_encoder="nobody"), "model.unknown", "params.text_encoder", ["'nobody'"]),
        (dict(model="plain", text_encoder="soft"), "model.unsupported", "params.text_encoder", ["vae"]),
    ],
)
def test_what_does_not_fit_is_refused(
    models: Catalogue, values: dict[str, Any], code: str, path: str, said: list[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        chosen(models, **values)
    assert (caught.value.code, caught.value.path) == (code, path)
    assert all(part in caught.value.message for part in said), caught.value.message


def test_a_vae_beside_a_checkpoint_that_does_not_fit_says_how_to_go_on(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "x.safetensors")
    write_vae(tmp_path / "x.vae.safetensors", kl(latent_channels=16))
    catalogue = Catalogue([tmp_path], Identify())
    catalogue.scan()
    with pytest.raises(ModelError, match="vae none takes the checkpoint's own") as caught:
        chosen(catalogue, model="x")
    assert caught.value.data["need"] != caught.value.data["got"]
    assert chosen(catalogue, model="x", vae="none") == Vaes()


@pytest.mark.parametrize("vae", ["", "soft", "none"])
def test_the_infotext_names_the_vae(vae: str) -> None:
    from impasto_protocol.geometry import Size
    from impasto_server.engine.addons import UsedVae
    from impasto_server.engine.modes import Txt2Img

    params = Txt2Img(prompt="a cat", vae=vae, width=64, height=64, seed=1)
    told: Any = dict(seed=1, model="m", working=Size(64, 64), sampler_title="Euler", schedule="karras")
    used = UsedVae("soft.safetensors", "0123456789") if vae != "none" else None
    text = infotext("txt2img", params, **told, vae=used)
    assert ("VAE hash: 0123456789, VAE: soft.safetensors" in text) == (used is not None)
    assert read_infotext(text).params["vae"] == (vae or "soft"), "what really ran is what makes it again"
    assert read_infotext("a\nSteps: 20, Sampler: Euler, VAE: None, Seed: 1").params["vae"] == "none"
