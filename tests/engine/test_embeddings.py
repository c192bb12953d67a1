"""Textual inversion: every format gives the same vectors, and they stand in the prompt where the word does."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from impasto_protocol.errors import ModelError
from impasto_server.engine.embeddings import Embedding, Vectors, embedding_of, read_embedding
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
    error = refusal(write_tensors(tmp_path / "xl.safetensors", {"clip_l": numbers(2, 768), "clip_g": numbers(2, 1280)}))
    assert error.data["need"] == "sd1" and error.data["got"] == "sdxl"
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
