"""The variants at a toy budget: two steps of each part, packed, unpacked, and run by our engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from impasto_protocol.geometry import Box, Size
from impasto_server.engine.jobs import ControlUnit, Job, Layer, Preview, PreviewRequest, VaeFiles
from impasto_server.engine.modes import parse_params
from impasto_server.engine.run import Engine

from starter.unpack_variants import PARTS, install

NATIVE = Size(128, 128)
CHECKPOINT = "impasto-starter.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    install(folder)
    return folder


@pytest.fixture(scope="module")
def engine():
    return Engine(device="cpu", precision="fp32")


def events_of(engine, job):
    events = []
    engine.run(job, events.append, lambda: False)
    return events


def painted(engine, folder, prompt="red apple", **more):
    values = parse_params("txt2img", {"prompt": prompt, "seed": 3, "steps": 4, "cfg": 4.0})
    box = Box.of_size(NATIVE)
    return events_of(engine, Job("t", "txt2img", values, NATIVE, box, str(folder / CHECKPOINT), **more))


def pixels(events):
    return [e for e in events if isinstance(e, Layer)][-1].pixels[..., :3].astype(int)


def ring():
    """A hint: white lines round a disc, on black."""
    y, x = np.mgrid[:128, :128]
    line = np.abs(np.hypot(x - 64, y - 64) - 44) < 1.5
    return np.dstack([np.repeat(line[..., None] * np.uint8(255), 3, 2), np.full((128, 128), 255, np.uint8)])


@pytest.mark.parametrize("kind", ["canny", "scribble"])
def test_a_controlnet_changes_the_picture(engine, folder, kind):
    unit = ControlUnit(kind, "params.control[0]", str(folder / PARTS[kind]), ring())
    free, led = pixels(painted(engine, folder)), pixels(painted(engine, folder, control=(unit,)))
    assert np.abs(free - led).mean() > 3


def test_the_lora_turns_colour_into_pencil_and_off_again(engine, folder):
    def colour(picture):
        return (picture.max(2) - picture.min(2)).mean()

    loras = {"pencil": str(folder / PARTS["lora"])}
    before = pixels(painted(engine, folder, loras=loras))
    drawn = pixels(painted(engine, folder, "red apple <lora:pencil:1>", loras=loras))
    after = pixels(painted(engine, folder, loras=loras))
    assert colour(drawn) < 0.6 * colour(before)
    assert np.array_equal(before, after)


def test_the_embedding_is_a_word_of_the_prompt(engine, folder):
    known = {"impasto-trophy": str(folder / PARTS["embedding"])}
    without = pixels(painted(engine, folder, "impasto-trophy"))
    with_it = pixels(painted(engine, folder, "impasto-trophy", embeddings=known))
    assert np.abs(without - with_it).mean() > 3


def test_the_preview_decoder_makes_previews_at_full_size(engine, folder):
    wish = PreviewRequest(128, 0.0)
    vaes = VaeFiles(preview=str(folder / PARTS["preview"]))
    previews = [e for e in painted(engine, folder, preview=wish, vaes=vaes) if isinstance(e, Preview)]
    assert previews and (previews[-1].width, previews[-1].height) == (128, 128)


def test_the_inpainting_checkpoint_paints_in_the_hole_alone(engine, folder):
    values = parse_params("inpaint", {"prompt": "red apple", "seed": 3, "steps": 4, "strength": 1.0, "exact": True})
    image = np.full((128, 128, 4), 255, np.uint8)
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    job = Job("t", "inpaint", values, NATIVE, Box(0, 0, 128, 128), str(folder / PARTS["inpainting"]), image, mask)
    (layer,) = (e for e in events_of(engine, job) if isinstance(e, Layer))
    alpha = np.zeros((128, 128), np.uint8)
    box = layer.box
    alpha[box.y : box.bottom, box.x : box.right] = layer.pixels[..., 3]
    assert np.array_equal(alpha, mask)


@pytest.mark.slow
def test_recipe_of_the_variants_end_to_end(tmp_path, monkeypatch, pictures):
    from starter import models, pack_variants, train_variants
    from starter.export import export
    from starter.pack import pack
    from starter.sample import Networks
    from starter.unpack import NAME
    from starter.variants import gallery, parts

    torch.manual_seed(0)
    monkeypatch.setitem(parts.PARTS, "embedding", lambda base, size: parts.embedding(base, size, names=("red ball",)))
    shape = models.TOY
    net = Networks(*(m(shape).eval() for m in (models.make_text, models.make_unet, models.make_vae)), scale=0.9)
    single = export(tmp_path / NAME, net, shape)
    gallery.fill(4, tmp_path / "gallery", processes=1)
    for shares in train_variants.LANES:
        losses = train_variants.lane(
            shares, 1, tmp_path / "gallery", tmp_path / "out", single, shape, 2, dict.fromkeys(parts.PARTS, 2)
        )
        assert all(np.isfinite(loss) for loss in losses.values())
    pack(single, tmp_path / "weights")
    base = tmp_path / "base"
    from starter.unpack import install as install_base

    unpacked = install_base(base, tmp_path / "weights")
    pack_variants.pack(pack_variants.stored_parts(tmp_path / "out", shape, 0), unpacked, tmp_path / "weights")
    found = install(base, tmp_path / "weights")
    assert [str(p.relative_to(base)) for p in found] == list(PARTS.values())
    engine = Engine(device="cpu", precision="fp32")
    units = tuple(ControlUnit(k, "params.control[0]", str(base / PARTS[k]), ring()) for k in ("canny", "scribble"))
    loras = {"pencil": str(base / PARTS["lora"])}
    known = {"impasto-trophy": str(base / PARTS["embedding"])}
    prompt = "impasto-trophy <lora:pencil:1>"
    assert pixels(painted(engine, base, prompt, control=units, loras=loras, embeddings=known)).shape == (128, 128, 3)
