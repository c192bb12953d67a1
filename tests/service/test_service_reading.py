"""Pictures that say how they were made: every container, both byte orders, our recipe first; damaged files."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from impasto_protocol.errors import AssetError, ImpastoError, RequestError
from impasto_protocol.geometry import Size
from impasto_protocol.messages import Error, Parameters, ReadParameters
from impasto_server.engine.infotext import Match
from impasto_server.engine.infotext_write import infotext
from impasto_server.engine.modes import parse_params
from impasto_server.engine.prompt_words import WordSources
from impasto_server.engine.recipe import upscale_recipe
from impasto_server.service.catalogue import Catalogue
from impasto_server.service.exif_comment import exif_block, exif_comment
from impasto_server.service.facts import Facts
from impasto_server.service.metadata import png_info
from impasto_server.service.picture_texts import MAX_TEXT, picture_texts
from impasto_server.service.reading import CatalogueNames, old_hash, read_parameters
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.service.fakes import add_model, connected, identify, running, settings_for

TEXT = """a red fox, 林, café
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 12, Size: 512x512, Model hash: 0123456789, \
Model: tiny, Version: v1.10.1"""


@pytest.fixture
def names(tmp_path: Path) -> CatalogueNames:
    for name in ("tiny.safetensors", "lora_ink.safetensors", "Dream Shaper.safetensors"):
        add_model(tmp_path, name)
    catalogue = Catalogue((tmp_path / "models",), identify)
    catalogue.scan()
    return CatalogueNames(catalogue, WordSources(styles=(tmp_path / "styles.csv",)))


def saved(format: str, **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(out, format, **more)
    return out.getvalue()


def png(kind: str = "tEXt", key: str = "parameters", text: str = TEXT) -> bytes:
    info = PngInfo()
    if kind == "tEXt":
        info.add(b"tEXt", key.encode("latin-1") + b"\0" + text.encode("latin-1", "replace"))
    elif kind == "zTXt":
        info.add_text(key, text.encode("latin-1", "replace").decode("latin-1"), zip=True)
    else:
        info.add_itxt(key, text, zip=kind == "iTXt zip")
    return saved("PNG", pnginfo=info)


def exif(text: str, order: str, mark: str = "UNICODE\0", coding: str = "") -> bytes:
    """A block in the given order, written as a stranger would."""
    block = Image.Exif()
    block.endian = order
    coding = coding or ("utf-16-be" if order == ">" else "utf-16-le")
    block.get_ifd(0x8769)[0x9286] = mark.encode() + text.encode(coding)
    block[0x0112] = 1
    return block.tobytes()


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt zip"])
def test_png(kind: str, names: CatalogueNames) -> None:
    read = read_parameters(png(kind), names)
    whole = kind.startswith("iTXt")
    assert read.params["prompt"] == ("a red fox, 林, café" if whole else "a red fox, ?, café")
    assert read.params["seed"] == 12 and read.params["model"] == "tiny" and read.source == "AUTOMATIC1111 v1.10.1"


def test_png_in_utf8_against_the_rules(names: CatalogueNames) -> None:
    info = PngInfo()
    info.add(b"tEXt", b"parameters\0" + TEXT.encode())
    assert read_parameters(saved("PNG", pnginfo=info), names).params["prompt"] == "a red fox, 林, café"


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("coding", ["utf-16-be", "utf-16-le", "utf-16"])
def test_exif(format: str, order: str, coding: str, names: CatalogueNames) -> None:
    """UserComment in either order, whatever the order of the block, with and without a mark."""
    read = read_parameters(saved(format, exif=exif(TEXT, order, coding=coding)), names)
    assert read.params["prompt"] == "a red fox, 林, café" and read.params["steps"] == 20


@pytest.mark.parametrize(
    ("mark", "coding"), [("ASCII\0\0\0", "ascii"), ("\0" * 8, "utf-8"), ("JIS\0\0\0\0\0", "shift_jis")]
)
def test_exif_in_other_letters(mark: str, coding: str, names: CatalogueNames) -> None:
    text = TEXT if coding == "utf-8" else TEXT.replace(", 林, café", "")
    read = read_parameters(saved("JPEG", exif=exif(text, "<", mark, coding)), names)
    assert read.params["prompt"] == text.split("\n")[0]


def test_our_own_exif_is_read_by_others_and_by_us() -> None:
    block = exif_block(TEXT)
    assert exif_comment(block) == TEXT
    with Image.open(io.BytesIO(saved("JPEG", exif=b"Exif\0\0" + block))) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0" and comment[8:].decode("utf-16-be") == TEXT


def test_comments(names: CatalogueNames) -> None:
    plain = TEXT.replace(", 林", "")
    for data in (saved("GIF", comment=plain.encode()), saved("JPEG", comment=plain.encode("latin-1"))):
        assert read_parameters(data, names).params["prompt"] == "a red fox, café"
    for data in (saved("GIF", comment=b"made with care"), saved("JPEG", exif=exif("A holiday", "<"))):
        with pytest.raises(RequestError) as nothing:
            read_parameters(data, names)
        assert nothing.value.code == "request.no_parameters"


def test_plain_text(names: CatalogueNames) -> None:
    for source in (TEXT, TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), TEXT.encode("utf-16")):
        assert read_parameters(source, names).params["prompt"] == "a red fox, 林, café"
    assert read_parameters("just a prompt", names).params["prompt"] == "just a prompt"
    for nothing in ("", b"", " \n"):
        with pytest.raises(RequestError, match="says nothing"):
            read_parameters(nothing, names)
    for bytes_ in (b"\x89PNX\xff\xff", b"a\0b", b"\xfe\xff\xd8"):
        with pytest.raises(AssetError) as bad:
            read_parameters(bytes_, names)
        assert bad.value.code == "asset.bad_image"


def test_png_with_exif(names: CatalogueNames) -> None:
    bare = saved("PNG", exif=exif(TEXT, "<"))
    assert read_parameters(bare, names).params["prompt"] == "a red fox, 林, café"
    info = PngInfo()
    info.add_text("parameters", TEXT.replace("a red fox", "a chunk"))
    assert (
        read_parameters(saved("PNG", pnginfo=info, exif=exif(TEXT, ">")), names).params["prompt"].startswith("a chunk")
    )


# ---- our own


def recipe(mode: str = "txt2img", **values: Any) -> dict[str, Any]:
    params = parse_params(mode, {"seed": 5, "prompt": "a recipe", "model": "tiny", "steps": 33, **values})
    text = infotext(
        mode,
        params,
        seed=5,
        model="tiny",
        working=Size(512, 512),
        sampler_title="Euler",
        schedule="karras",  # type: ignore[arg-type]
    )
    return {"mode": mode, "params": vars(params), "parameters": text.replace("a recipe", "a text")}


def test_our_recipe_goes_before_a1111s_text(names: CatalogueNames) -> None:
    made = recipe("sketch", background="document", loras=[{"model": "lora_ink"}])
    read = read_parameters(saved("PNG", pnginfo=png_info(made)), names)
    assert (read.mode, read.params["prompt"], read.params["background"]) == ("sketch", "a recipe", "document")
    assert parse_params(read.mode, read.params) == parse_params("sketch", made["params"]) and not read.notes
    assert read_parameters(json.dumps(made), names) == read
    damaged = PngInfo()
    damaged.add_text("impasto", '{"mode": "sketch"')
    damaged.add_text("parameters", made["parameters"])
    other = read_parameters(saved("PNG", pnginfo=damaged), names)
    assert (
        other.params["prompt"].startswith("a text<lora:") and other.mode == "sketch" and other.notes[0].key == "impasto"
    )


def test_a_recipe_of_another_version_and_machine(names: CatalogueNames) -> None:
    made = recipe(steps=20)
    made["params"] |= {"model": "dream shaper", "later": [1, 2], "steps": 9000}
    read = read_parameters(json.dumps(made), names)
    assert read.params["model"] == "Dream Shaper" and read.params["steps"] == 20
    assert [(note.kind, note.key, note.value) for note in read.notes] == [
        ("unsupported", "steps", "9000"),
        ("unknown", "later", "[1, 2]"),
    ]
    made["params"] |= {"hires_upscaler": "latent", "loras": [{"model": "LORA_INK.safetensors"}, {"model": "oil"}]}
    nested = read_parameters(json.dumps(made), names)
    assert nested.params["hires_upscaler"] == "latent" and nested.params["loras"][0]["model"] == "lora_ink"
    assert [(note.key, note.value) for note in nested.notes if note.kind == "missing"] == [("loras.model", "oil")]
    made["params"]["loras"] = []
    made["params"]["model"] = "tinny"
    (*_, missing) = read_parameters(json.dumps(made), names).notes
    assert missing.kind == "missing" and "'tiny'" in missing.message
    for wrong in ('{"mode": "dance", "params": {}}', '{"params": 3}', "{", '{"mode": "txt2img", "params": []}'):
        with pytest.raises(RequestError) as e:
            read_parameters(wrong, names)
        assert e.value.code == "request.no_parameters"


def test_an_upscale(names: CatalogueNames) -> None:
    made = upscale_recipe(parse_params("upscale", {"scale": 2.5}), Size(20, 20))  # type: ignore[arg-type]
    text = "Postprocess upscale by: 2.5, Postprocess upscaler: Lanczos"
    assert made["postprocessing"] == text
    read = read_parameters(saved("PNG", pnginfo=png_info(made)), names)
    assert (read.mode, read.params) == ("upscale", dataclasses.asdict(parse_params("upscale", {"scale": 2.5})))
    other = read_parameters(png(key="postprocessing", text=text.replace("Lanczos", "R-ESRGAN 4x+")), names)
    assert (other.mode, other.params["upscaler"], other.notes[0].kind) == ("upscale", "R-ESRGAN 4x+", "missing")


# ---- others


@pytest.mark.parametrize(
    ("key", "who"), [("workflow", "ComfyUI"), ("invokeai_metadata", "InvokeAI"), ("fooocus_scheme", "Fooocus")]
)
def test_what_others_write_in_forms_of_their_own(key: str, who: str, names: CatalogueNames) -> None:
    with pytest.raises(RequestError, match=who) as e:
        read_parameters(png(key=key, text="{}"), names)
    assert e.value.code == "request.no_parameters" and e.value.data == {"source": who}


# ---- damaged and hostile


def test_damaged_files(names: CatalogueNames) -> None:
    whole = png()
    cut = read_parameters(whole[: whole.index(b"IDAT") + 8], names)
    assert cut.params["seed"] == 12 and cut.notes[-1].kind == "changed" and "ends early" in cut.notes[-1].message
    changed = bytearray(whole)
    changed[changed.index(b"red fox")] ^= 1
    for data, says in ((whole[:20], "ends early"), (bytes(changed), "is not what was written")):
        with pytest.raises(AssetError, match=says) as e:
            read_parameters(data, names)
        assert e.value.code == "asset.bad_image"


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_that_unpacks_without_end(kind: bytes, names: CatalogueNames) -> None:
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    assert len(bomb) < 100_000
    info = PngInfo()
    info.add(kind, b"parameters\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0") + bomb)
    with pytest.raises(AssetError) as e:
        read_parameters(saved("PNG", pnginfo=info), names)
    assert e.value.code == "asset.too_large" and e.value.data == {"limit": MAX_TEXT}


def test_many_texts_are_bounded_together(names: CatalogueNames) -> None:
    info = PngInfo()
    for index in range(6):
        info.add_text(f"key {index}", "x" * (MAX_TEXT // 4))
    with pytest.raises(AssetError) as e:
        picture_texts(saved("PNG", pnginfo=info))
    assert e.value.code == "asset.too_large"


def test_a_file_of_any_length_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr("impasto_server.service.picture_texts.MAX_FILE", 100)
    with pytest.raises(AssetError) as e:
        picture_texts(bytes(101))
    assert e.value.code == "asset.too_large" and e.value.data == {"limit": 100}


def test_exif_that_points_anywhere() -> None:
    for place, says in ((0, "Exif"), (2**32 - 1, "Exif"), (8, "")):
        block = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">HHHII", 1, 0x8769, 4, 1, place)
        if says:
            with pytest.raises(ValueError, match=says):
                exif_comment(block)
        else:
            assert exif_comment(block) == "", "a directory that names itself is looked at twice, and no more"
    long = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x010E, 2, 2**32 - 1, 26)
    with pytest.raises(ValueError, match="Exif"):
        exif_comment(long)


SAMPLES = [
    png("zTXt"),
    png("iTXt"),
    saved("JPEG", exif=exif(TEXT, "<"), comment=b"x"),
    saved("WEBP", exif=exif(TEXT, ">")),
    saved("GIF", comment=TEXT.encode("latin-1", "replace")),
    saved("AVIF", exif=exif(TEXT, "<")),
]


class Anything:
    styles: dict[str, Any] = {}  # noqa: RUF012

    def find(self, kind: str, name: str, digits: str = "") -> Match:
        return Match(name)


@given(
    st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 4095), st.binary(max_size=4)), max_size=4), st.data()
)
def test_no_bytes_break_the_reader(sample: bytes, changes: list[tuple[int, bytes]], data: st.DataObject) -> None:
    changed = bytearray(sample)
    for at, new in changes:
        changed[at % len(sample) : at % len(sample) + len(new)] = new
    end = data.draw(st.integers(0, len(changed)))
    try:
        read_parameters(bytes(changed[:end]), Anything())  # type: ignore[arg-type]
    except ImpastoError as e:
        assert e.code in ("asset.bad_image", "asset.too_large", "request.no_parameters")


# ---- names


def test_names_of_the_catalogue(names: CatalogueNames, tmp_path: Path) -> None:
    for said in ("tiny", "Tiny", "tiny.safetensors", "sub/folder/tiny.ckpt", "sub\\tiny"):
        assert names.find("checkpoint", said) == Match("tiny"), said
    assert names.find("lora", "lora_ink") == Match("lora_ink") and names.find("lora", "tiny") == Match("", "")
    assert names.find("checkpoint", "dreamshaper") == Match("", "Dream Shaper")
    assert names.find("checkpoint", "") == Match("", "")


def test_a_checkpoint_by_its_old_hash(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    big = folder / "renamed.safetensors"
    with open(big, "wb") as file:
        file.seek(0x100000)
        file.write(b"\7" * 0x20000)
    catalogue = Catalogue((folder,), lambda path: Facts("checkpoint", "sd1"))
    catalogue.scan()
    names = CatalogueNames(catalogue, WordSources())
    assert old_hash(big) == "07dcb6d1", "64 KiB from 1 MiB on"
    assert names.find("checkpoint", "gone", old_hash(big)) == Match("renamed")
    assert names.find("checkpoint", "gone", "00000000") == Match("", "")


def test_over_the_wire(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(settings_for(tmp_path)) as (_, endpoint), connected(endpoint) as peer:
            answer = await peer.ask(ReadParameters, TEXT)
            assert isinstance(answer, Parameters) and answer.params["model"] == "tiny" and answer.mode == "txt2img"
            digest = await peer.put(png())
            for source in ({"data": png()}, {"digest": digest}):
                other = await peer.ask(ReadParameters, **source)
                assert isinstance(other, Parameters) and other.params["seed"] == 12
            for wrong in ({}, {"text": TEXT, "digest": digest}):
                refused = await peer.ask(ReadParameters, **wrong)
                assert isinstance(refused, Error) and refused.code == "request.invalid_param"
            gone = await peer.ask(ReadParameters, digest="0" * 32)
            assert isinstance(gone, Error) and gone.code == "asset.missing"
            # What JSON can hold and the wire cannot.
            half = await peer.ask(ReadParameters, 'x\nSteps: 2, Seed: 1, Odd: "\\ud800 a, b"')
            assert isinstance(half, Parameters) and half.notes[0].value == "? a, b"
            made = {"mode": "txt2img", "params": {"prompt": "\ud800", "seed": float("inf")}}
            recipe = await peer.ask(ReadParameters, json.dumps(made))
            assert isinstance(recipe, Parameters) and recipe.params["prompt"] == "?" and recipe.notes[0].key == "seed"

    asyncio.run(scenario())


def test_a_checkpoint_by_the_hash_that_is_noted_beside_it(names: CatalogueNames, tmp_path: Path) -> None:
    said = {"files": [{"hashes": {"AutoV2": "9ABA26ABDF", "SHA256": "9ABA26ABDF" + "0" * 54, "CRC32": 3}}, 7]}
    (tmp_path / "models/Dream Shaper.civitai.info").write_text(json.dumps(said))
    (tmp_path / "models/tiny.civitai.info").write_text('{"files": {"hashes": 1}}')
    read = read_parameters(TEXT.replace("0123456789", "9aba26abdf").replace("tiny", "renamed"), names)
    assert read.params["model"] == "Dream Shaper" and {note.kind for note in read.notes} == {"changed", "info"}
    assert names.find("checkpoint", "renamed", "9aba").id == "", "too few digits say nothing"
