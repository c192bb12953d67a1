"""Textual inversion: every format gives the same vectors, and they stand in the prompt where the word does."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from impasto_protocol.errors import ModelError
from impasto_server.engine.embedding_pictures import mixing_numbers
from impasto_server.engine.embeddings import Embedding, Vectors, embedding_of, read_embedding
from impasto_server.engine.identify import ModelInfo, Unknown, identify_file
from impasto_server.engine.prompt import Chunk, Placed, make_chunks, parse_attention
from impasto_server.engine.tokenizer import load_tokenizer
from PIL import Image, PngImagePlugin

from tests.loras import numbers, write_tensors
from tests.tiny import tiny_modules

VECTORS = numbers(3, 32)


def a1111(vectors: torch.Tensor) -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "mine",
        "step": 500,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


def picture(path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def encoded(vectors: torch.Tensor) -> str:
    content = {"string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}, "name": "mine"}
    return base64.b64encode(json.dumps(content).encode()).decode()


def strips(vectors: torch.Tensor, picture: Image.Image) -> Image.Image:
    """The picture between two strips with the embedding, a black column before and behind it, as A1111 draws them."""
    content = {"string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}, "name": "mine"}
    data = np.frombuffer(zlib.compress(json.dumps(content).encode(), 9), np.uint8)
    height = picture.height
    size = -(-len(data) // (3 * height)) * 3 * height
    data = np.resize(data, size)
    state, mixed = 0, []
    for _ in range(size):
        state = (1664525 * state + 1013904223) % 2**32
        mixed.append(state % 255 & 0x0F)
    # Ornament in the upper bits; never black as a whole, as A1111's circles leave no column untouched.
    ornament = np.random.default_rng(0).integers(1, 16, size).astype(np.uint8) << 4
    low, high = (ornament | (half ^ np.array(mixed, np.uint8)) for half in (data & 0x0F, data >> 4))
    parts = [part.reshape(height, -1, 3) for part in (low, high)]
    black = np.zeros((height, 1, 3), np.uint8)
    return Image.fromarray(np.concatenate([parts[0], black, np.asarray(picture), black, parts[1]], 1))


def test_an_embedding_in_the_pixels(tmp_path: Path) -> None:
    drawn = strips(VECTORS, Image.new("RGB", (40, 32), (17, 99, 250)))
    drawn.save(tmp_path / "mine.png")
    assert torch.equal(read_embedding(tmp_path / "mine.png").vectors, VECTORS)
    framed = Image.new("RGB", (drawn.width + 6, drawn.height + 4))
    framed.paste(drawn, (3, 2))
    framed.save(tmp_path / "framed.png")
    assert torch.equal(read_embedding(tmp_path / "framed.png").vectors, VECTORS)
    drawn.resize((drawn.width // 2, drawn.height)).save(tmp_path / "small.png")
    refusal(tmp_path / "small.png")  # scaled: nothing of it is left
    found = identify_file(tmp_path / "mine.png")
    assert isinstance(found, ModelInfo) and found.kind == "embedding" and found.config == {"text": {"hidden_size": 32}}


def test_the_numbers_that_mix_the_pixels() -> None:
    known = [253, 242, 127, 44, 157, 27, 239, 133, 38, 79, 167, 4, 177, 95, 130, 79, 78, 14, 52, 215]
    assert mixing_numbers(20).tolist() == known
    state = 0
    for found in mixing_numbers(1000).tolist():
        state = (1664525 * state + 1013904223) % 2**32
        assert found == state % 255


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_pictures_are_refused(tmp_path: Path, said: bytes, inner: bool) -> None:
    path = tmp_path / "bad.png"
    if inner:
        picture(path, base64.b64encode(said).decode())
    else:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + said)
    refusal(path, "model.corrupt")
    assert isinstance(identify_file(path), Unknown)


def test_pictures_that_unfold_are_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = b"\x89PNG\r\n\x1a\n"
    wide = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    (tmp_path / "wide.png").write_bytes(head + wide)
    refusal(tmp_path / "wide.png", "model.corrupt")
    small = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    bomb = chunk(b"zTXt", b"sd-ti-embedding\0\0" + zlib.compress(b"0" * 50_000_000))
    (tmp_path / "bomb.png").write_bytes(head + small + bomb + chunk(b"IDAT", zlib.compress(b"\0\0")))
    refusal(tmp_path / "bomb.png", "model.corrupt")


@pytest.mark.parametrize(
    "name", ["a1111.pt", "older.pt", "parameter.pt", "a1111.bin", "plain.safetensors", "any.safetensors", "mine.png"]
)
def test_every_format_gives_the_same_vectors(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "older.pt":
        torch.save(a1111(VECTORS), path, _use_new_zipfile_serialization=False)
    elif name == "parameter.pt":
        torch.save(a1111(torch.nn.Parameter(VECTORS.clone())), path)
    elif name.endswith((".pt", ".bin")):
        torch.save(a1111(VECTORS), path)
    elif name == "plain.safetensors":
        write_tensors(path, {"emb_params": VECTORS})
    elif name == "any.safetensors":
        write_tensors(path, {"<mine>": VECTORS})
    else:
        picture(path, encoded(VECTORS))
    got = read_embedding(path)
    assert got.name == path.stem and got.width == 32
    assert torch.equal(got.vectors, VECTORS)
    assert got.digest == embedding_of("other", {"emb_params": VECTORS}).digest


def test_diffusers_learned_embeds(tmp_path: Path) -> None:
    torch.save({"<cat>": VECTORS[0]}, tmp_path / "learned_embeds.bin")
    assert torch.equal(read_embedding(tmp_path / "learned_embeds.bin").vectors, VECTORS[:1])
    torch.save(OrderedDict({"<cat>": VECTORS.half()}), tmp_path / "many.bin")
    got = read_embedding(tmp_path / "many.bin").vectors
    assert got.dtype == torch.float32 and torch.equal(got, VECTORS.half().float())


def refusal(path: Path, code: str = "model.unsupported") -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_embedding(path)
    assert caught.value.code == code and path.stem in caught.value.message
    return caught.value


def test_what_is_no_embedding(tmp_path: Path) -> None:
    refusal(write_tensors(tmp_path / "xl.safetensors", {"clip_l": numbers(2, 768), "clip_g": numbers(3, 1280)}))
    refusal(write_tensors(tmp_path / "two.safetensors", {"a": numbers(2, 32), "b": numbers(2, 32)}))
    refusal(write_tensors(tmp_path / "cube.safetensors", {"emb_params": numbers(2, 3, 32)}))
    refusal(write_tensors(tmp_path / "long.safetensors", {"emb_params": numbers(76, 32)}))
    refusal(write_tensors(tmp_path / "none.safetensors", {"emb_params": torch.zeros(0, 32)}))
    refusal(write_tensors(tmp_path / "nan.safetensors", {"emb_params": torch.full((1, 32), torch.nan)}))
    refusal(write_tensors(tmp_path / "int.safetensors", {"emb_params": torch.ones(1, 32, dtype=torch.int32)}))
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    refusal(tmp_path / "plain.png")
    for text in ("?", base64.b64encode(b"[1]").decode(), base64.b64encode(b'{"string_to_param": 1}').decode()):
        picture(tmp_path / "bad.png", text)
        refusal(tmp_path / "bad.png", "model.corrupt")
    (tmp_path / "noise.png").write_bytes(b"noise")
    refusal(tmp_path / "noise.png", "model.corrupt")
    refusal(tmp_path / "gone.safetensors", "model.unknown")


def made(name: str, *, count: int = 1, width: int = 32, seed: int = 0) -> Embedding:
    return embedding_of(name, {"emb_params": numbers(count, width, seed=seed)})


def test_another_width_names_both_sides() -> None:
    encode = load_tokenizer().encode
    vectors = Vectors([made("good"), made("wide", width=1024)], width=32)
    chunks = make_chunks(parse_attention("a wide good"), encode, embeddings=vectors.names(encode))
    assert vectors.used(make_chunks(parse_attention("good"), encode, embeddings=vectors.names(encode)))
    with pytest.raises(ModelError, match="1024 numbers where the text encoder of this checkpoint has 32") as caught:
        vectors.used(chunks)
    assert caught.value.data == {"model": "wide", "need": 32, "got": 1024}


def test_names_are_found_in_a_prompt() -> None:
    encode = load_tokenizer().encode
    hands, bad = made("Bad-Hands", count=2), made("bad")
    vectors = Vectors([bad, hands, made("BAD", count=3)], width=32)
    chunks = make_chunks(parse_attention("a bad-hands, (Bad:1.2) cat"), encode, embeddings=vectors.names(encode))
    assert chunks[0].embeddings == (Placed("Bad-Hands", 2, 2), Placed("bad", 5, 1))
    assert vectors.used(chunks) == (hands, bad)
    assert vectors.key(chunks[0]) == ((hands.digest, 2), (bad.digest, 5))
    assert bool(vectors) and not Vectors()


@torch.no_grad()
def test_the_vectors_stand_in_their_places() -> None:
    _, _, text = tiny_modules()
    embedding = made("mine", count=2)
    table = text.get_input_embeddings()
    chunk = Chunk((49406, 320, 0, 0, 2368, *[49407] * 72), (1.0,) * 77, (Placed("mine", 2, 2),))
    with Vectors([embedding], width=32).placed(table, chunk):
        got = text(torch.tensor([chunk.tokens])).last_hidden_state
    # The same with a table in which two tokens are the vectors.
    kept = table.weight
    table.weight = torch.nn.Parameter(kept.clone(), requires_grad=False)
    table.weight[1000:1002] = embedding.vectors
    expected = text(torch.tensor([[49406, 320, 1000, 1001, 2368, *[49407] * 72]])).last_hidden_state
    table.weight = kept
    assert torch.equal(got, expected)
    assert not table._forward_hooks
