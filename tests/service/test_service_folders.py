"""The folders of other programs, used where they lie: what is found in them, what lies beside it, what it is called."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_server.cli.main import main as impasto
from impasto_server.cli.server import launch_command
from impasto_server.service.catalogue import Catalogue, Model
from impasto_server.service.facts import Identify
from impasto_server.service.model_folders import a1111_folders, comfyui_folders, invokeai_folders
from impasto_server.service.server import catalogue_of
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from tests.service.fakes import settings_for
from tests.tiny import tiny_metadata, write_tiny_checkpoint, write_tiny_folder
from tests.upscalers import compact, rrdb, save
from tests.vaes import kl, write_vae


def lora(path: Path, metadata: dict[str, str] | None = None, width: int = 768) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{stem}.lora_down.weight": torch.zeros(2, width), f"{stem}.lora_up.weight": torch.zeros(8, 2)}
    save_file(tensors, str(path), metadata=metadata)
    return path


def embedding(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}}, path)
    return path


def picture(path: Path, width: int = 768) -> Path:
    """An embedding that travels in a picture."""
    said = {"string_to_param": {"*": {"TORCHTENSOR": [[0.5] * width] * 2}}}
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(json.dumps(said).encode()).decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 0, 0)).save(path, pnginfo=info)
    return path


def vae(path: Path) -> Path:
    return write_vae(path, kl())


def scanned(folders: Any) -> dict[str, Model]:
    catalogue = Catalogue(folders, Identify())
    catalogue.scan()
    return {m.id: m for m in catalogue.models}


def test_embeddings_in_pictures(tmp_path: Path) -> None:
    """Only among embeddings; a picture that belongs to another file, or is nothing but a picture, is none."""
    folder = tmp_path / "embeddings" / "styles"
    ink, wide = picture(folder / "ink.png"), picture(folder / "wide.PNG", 1024)
    embedding(folder / "old.pt")
    for name in ("old.png", "ink.preview.png", "photo.png"):
        Image.new("RGB", (8, 8), (0, 90, 0)).save(folder / name)
    picture(folder / "broken.png").write_bytes(ink.read_bytes()[:60])
    picture(tmp_path / "models" / "Stable-diffusion" / "elsewhere.png")
    found = scanned(a1111_folders(tmp_path))
    assert set(found) == {"ink", "wide", "old", "broken"}
    assert {name: (m.facts.kind, m.facts.family) for name, m in found.items() if name != "broken"} == {
        "ink": ("embedding", "sd1"),
        "wide": ("embedding", "sd2"),
        "old": ("embedding", "sd1"),
    }
    assert found["ink"].facts.text_width == 768 and found["wide"].path == wide
    assert {name: Path(m.preview).name for name, m in found.items()} == {
        "ink": "ink.preview.png",
        "wide": "",
        "old": "old.png",
        "broken": "broken.png",
    }
    assert not found["broken"].facts.usable and found["broken"].facts.code == "model.corrupt"


def test_a_picture_that_becomes_an_embedding(tmp_path: Path) -> None:
    path = tmp_path / "embeddings" / "new.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8)).save(path)
    catalogue = Catalogue(a1111_folders(tmp_path), Identify())
    catalogue.scan()
    assert not catalogue.models
    picture(path)
    assert catalogue.scan() and [m.id for m in catalogue.models] == ["new"]


def test_an_a1111_folder(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_tiny_checkpoint(models / "Stable-diffusion" / "sd15" / "dream.safetensors")
    vae(models / "Stable-diffusion" / "sd15" / "dream.vae.safetensors")
    vae(models / "VAE" / "soft.safetensors")
    lora(models / "Lora" / "people" / "ann.safetensors")
    embedding(tmp_path / "embeddings" / "bad-hands.pt")
    save(models / "ESRGAN" / "sharp.pth", rrdb())
    save(models / "DAT" / "quick.pth", compact())
    for name in ("dream.preview.png", "dream.png"):
        (models / "Stable-diffusion" / "sd15" / name).write_bytes(b"")
    (models / "Lora" / "people" / "ann.webp").write_bytes(b"")
    found = scanned(a1111_folders(tmp_path))
    assert {name: m.facts.kind for name, m in found.items()} == {
        "dream": "checkpoint",
        "dream.vae": "vae",
        "soft": "vae",
        "ann": "lora",
        "bad-hands": "embedding",
        "sharp": "upscaler",
        "quick": "upscaler",
    }
    assert Path(found["dream"].preview).name == "dream.preview.png" and found["ann"].preview.endswith("ann.webp")
    assert found["soft"].preview == "" and found["dream"].to_wire()["preview"] is True


def test_a_comfyui_folder_and_its_further_ones(tmp_path: Path) -> None:
    root, other = tmp_path / "comfy", tmp_path / "webui"
    write_tiny_checkpoint(root / "models" / "checkpoints" / "dream.safetensors")
    lora(root / "models" / "loras" / "ann.safetensors")
    save(root / "models" / "upscale_models" / "sharp.pth", rrdb())
    (root / "models" / "insightface").mkdir()
    (root / "models" / "insightface" / "face.pth").write_bytes(b"not ours")
    lora(other / "models" / "Lora" / "bob.safetensors")
    lora(other / "models" / "LyCORIS" / "cy.safetensors")
    embedding(tmp_path / "words" / "word.pt")
    vae(root / "shared vaes" / "soft.safetensors")
    (root / "extra_model_paths.yaml").write_text(
        f"""# written by hand
a111:
    base_path: {other}   # there
    loras: |
         models/Lora
         models/LyCORIS
    hypernetworks: models/hypernetworks
other:
    custom_nodes: |
         nodes
    vae: "shared vaes"
    embeddings: {tmp_path / "words"}
    *what
"""
    )
    found = scanned(lambda: comfyui_folders(root))
    assert sorted(found) == ["ann", "bob", "cy", "dream", "sharp", "soft", "word"]
    assert not set(comfyui_folders(tmp_path / "nothing")) & set(comfyui_folders(root))


@pytest.mark.parametrize("table", ["models", "model_config"])
def test_an_invokeai_folder_and_its_database(tmp_path: Path, table: str) -> None:
    root = tmp_path / "invokeai"
    write_tiny_folder(root / "models" / "sd-1" / "main" / "dream")
    lora(root / "models" / "0d5a" / "ann.safetensors")
    lora(tmp_path / "mine" / "bob.safetensors")
    (root / "databases").mkdir()
    with closing(sqlite3.connect(root / "databases" / "invokeai.db")) as database:
        database.execute(
            f"create table {table} (id text, path text generated always as (json_extract(config, '$.path')) virtual, "
            "config text not null)"
        )
        for path in ("sd-1/main/dream", "0d5a/ann.safetensors", str(tmp_path / "mine" / "bob.safetensors"), "gone"):
            database.execute(f"insert into {table} (id, config) values (?, ?)", (path, json.dumps({"path": path})))
        database.commit()
    assert sorted(scanned(lambda: invokeai_folders(root))) == ["ann", "bob", "dream"]
    (root / "databases" / "invokeai.db").write_bytes(b"not a database" * 100)
    assert sorted(scanned(lambda: invokeai_folders(root))) == ["ann", "dream"]


def test_files_called_alike_are_called_as_their_folders(tmp_path: Path) -> None:
    for name in ("canny/diffusion_pytorch_model.fp16", "ann/pytorch_lora_weights", "model"):
        lora(tmp_path / f"{name}.safetensors")
    embedding(tmp_path / "cat" / "learned_embeds.bin")
    assert sorted(scanned([tmp_path])) == sorted(["canny", "ann", tmp_path.name, "cat"])


def test_what_people_note_beside_a_file(tmp_path: Path) -> None:
    mine = lora(tmp_path / "mine.safetensors", width=5)
    mine.with_suffix(".json").write_text(
        json.dumps({"activation text": "ann, red hat", "preferred weight": 0.7, "sd version": "SD1", "notes": "mine"})
    )
    site = lora(tmp_path / "site.safetensors", width=1024)
    Path(f"{site.with_suffix('')}.civitai.info").write_text(
        json.dumps({"trainedWords": ["bob", 3, "blue"], "baseModel": "SDXL 1.0"})
    )
    broken = lora(tmp_path / "broken.safetensors")
    broken.with_suffix(".json").write_text("{not json")
    found = scanned([tmp_path])
    facts = found["mine"].facts
    assert (facts.words, facts.strength, facts.family, facts.notes) == (("ann, red hat",), 0.7, "sd1", "mine")
    # What the file itself tells goes before what is noted.
    assert (found["site"].facts.words, found["site"].facts.family) == (("bob", "blue"), "sd2")
    assert found["broken"].facts.usable and found["broken"].facts.words == ()


def test_a_yaml_says_v_prediction(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "v.safetensors", metadata=tiny_metadata(prediction_type=None))
    from impasto_server.engine.identify import ModelInfo, identify_file

    def prediction() -> str:
        found = identify_file(path)
        assert isinstance(found, ModelInfo)
        return found.prediction_type

    assert prediction() == "epsilon"
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert prediction() == "v_prediction"


def test_notes_and_pictures_that_come_or_go_are_noticed(tmp_path: Path) -> None:
    path = lora(tmp_path / "ann.safetensors")
    catalogue = Catalogue([tmp_path], Identify(), tmp_path / "index.json")
    assert catalogue.scan() and not catalogue.scan()
    (tmp_path / "ann.png").write_bytes(b"")
    before = catalogue.rev
    assert catalogue.scan() and catalogue.rev != before and catalogue.models[0].preview
    path.with_suffix(".json").write_text(json.dumps({"activation text": "ann"}))
    os.utime(path.with_suffix(".json"), (1, 1))  # older than the file
    assert catalogue.scan() and catalogue.models[0].facts.words == ("ann",)
    again = Catalogue([tmp_path], Identify(), tmp_path / "index.json")
    assert again.scan() and again.rev == catalogue.rev and again.models == catalogue.models
    path.with_suffix(".json").unlink()
    assert catalogue.scan() and catalogue.models[0].facts.words == ()


def test_many_files_of_one_make_are_told_apart(tmp_path: Path) -> None:
    """What is remembered by the tensors alone must not leak what metadata and sidecars say."""
    write_tiny_checkpoint(tmp_path / "a.safetensors", metadata=tiny_metadata(native_size=64))
    write_tiny_checkpoint(tmp_path / "b.safetensors", metadata=tiny_metadata(native_size=96))
    write_tiny_checkpoint(tmp_path / "c.safetensors", metadata={"modelspec.title": "Ünsaid"})
    for name in ("d", "e"):
        lora(tmp_path / f"{name}.safetensors", {"ss_output_name": name})
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-8])
    found = scanned([tmp_path])
    assert [found[name].native_size for name in "ab"] == [64, 96]
    assert not found["c"].facts.usable and "unet_heads" in found["c"].facts.reason
    assert [found[name].facts.alias for name in "de"] == ["d", "e"]
    assert found["cut"].facts.code == "model.corrupt" and "end of the file is missing" in found["cut"].facts.reason


def test_the_options_of_the_command_line(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_HOME", str(tmp_path / "home"))
    lora(tmp_path / "comfy" / "models" / "loras" / "ann.safetensors")
    lora(tmp_path / "invoke" / "models" / "bob.safetensors")
    words = ["--comfyui", str(tmp_path / "comfy"), "--invokeai", str(tmp_path / "invoke"), "--a1111", "nowhere"]
    assert impasto(["models", "list", *words]) == 0
    listed = capsys.readouterr()
    assert {line.split()[0] for line in listed.out.splitlines() if " kit " not in line} == {"ann", "bob"}
    settings = settings_for(tmp_path, comfyui=(tmp_path / "comfy",), invokeai=(tmp_path / "invoke",))
    command = launch_command(settings)
    assert command[command.index("--comfyui") + 1] == str(tmp_path / "comfy") and "--invokeai" in command
    catalogue = catalogue_of(settings)
    catalogue.scan()
    assert {m.id for m in catalogue.models} == {"ann", "bob"}
