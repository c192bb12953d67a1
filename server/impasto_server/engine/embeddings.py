"""Textual inversion: words of a painter's own, each of one or more vectors in place of a token's (arXiv:2208.01618).

A file gives vectors [n, width]. In the tokens of a prompt they stand as placeholders, ids above the vocabulary; the
text encoder's table of tokens gives way to the vectors at these places.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from torch import nn

from .modelfile import open_model
from .modelpath import model_name

__all__ = ["NO_VECTORS", "Embedding", "Vectors", "embedding_of", "read_embedding"]

MAX_VECTORS = 75
"""More do not fit into a chunk of the prompt."""


@dataclass(frozen=True)
class Embedding:
    """A word and its vectors, fp32 [n, width] on the CPU. `digest` tells vectors apart in caches."""

    name: str
    vectors: torch.Tensor
    digest: str

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])


def read_embedding(path: str | Path) -> Embedding:
    """Read an embedding in any of its formats; its word is the file's name without the ending.

    A1111's .pt and .bin (`string_to_param`), safetensors (`emb_params`, or one tensor of any name), diffusers'
    learned_embeds ({"<word>": vector}), and a PNG with the text chunk `sd-ti-embedding`. Raises ModelError:
    `model.unknown`, `model.corrupt`, `model.unsafe`, and `model.unsupported` for what is no embedding, or one for SDXL.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        return embedding_of(path.stem, _from_png(path))
    with open_model(path) as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    return embedding_of(model_name(path), tensors)


def embedding_of(name: str, tensors: Mapping[str, torch.Tensor]) -> Embedding:
    """The embedding of that name from the tensors of its file, or of its part of a LoRA. Raises ModelError."""
    if "clip_l" in tensors and "clip_g" in tensors:
        raise _unsupported(name, "it is for sdxl: it has vectors for two text encoders", need="sd1", got="sdxl")
    found = [value for key, value in tensors.items() if key == "emb_params" or key.startswith("string_to_param.")]
    if not found:
        found = [value for value in tensors.values() if value.is_floating_point()]
    if len(found) != 1:
        raise _unsupported(name, f"{len(found)} tensors are in it where an embedding has one")
    vectors = found[0].detach()
    if vectors.dim() == 1:
        vectors = vectors[None]
    if vectors.dim() != 2 or not vectors.is_floating_point() or 0 in vectors.shape:
        raise _unsupported(name, f"{tuple(vectors.shape)} {vectors.dtype} is not a list of vectors")
    if len(vectors) > MAX_VECTORS:
        raise _unsupported(name, f"it has {len(vectors)} vectors, and a prompt's chunk has {MAX_VECTORS} places")
    vectors = vectors.to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(vectors).all():
        raise _unsupported(name, "some of its numbers are not finite")
    digest = hashlib.blake2b(vectors.numpy().tobytes(), digest_size=16).hexdigest()
    return Embedding(name, vectors, digest)


def _from_png(path: Path) -> dict[str, torch.Tensor]:
    """The embedding in a picture's text: base64 of JSON in which a tensor is {"TORCHTENSOR": nested lists}."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = image.info.get("sd-ti-embedding")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise ModelError(
            "model.corrupt", f"{path.name} cannot be opened as a picture ({error}).", data={"file": path.name}
        ) from error
    if not isinstance(text, str):
        raise _unsupported(path.stem, "this picture has no embedding in its text")
    try:
        content: Any = json.loads(base64.b64decode(text))
        table: Any = content["string_to_param"]
        tensors = {f"string_to_param.{key}": torch.tensor(value["TORCHTENSOR"]) for key, value in table.items()}
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            "model.corrupt", f"The embedding in the picture {path.name} is damaged.", data={"file": path.name}
        ) from error
    return tensors


def _unsupported(name: str, reason: str, **data: Any) -> ModelError:
    return ModelError(
        "model.unsupported", f"The embedding {name!r} cannot be used: {reason}.", data={"model": name, **data}
    )


class Vectors:
    """The embeddings that a job may name, for a text encoder with tokens 0 to `vocabulary` - 1 of `width` numbers."""

    def __init__(self, embeddings: Iterable[Embedding] = (), *, width: int = 0, vocabulary: int = 49408) -> None:
        """Of two embeddings of one name (in any case of letters) the first counts.

        Raises ModelError `model.unsupported` with `need` and `got` for one of another width.
        """
        self._first: dict[str, int] = {}
        self._held: dict[str, Embedding] = {}
        self._vocabulary = vocabulary
        self._rows: list[tuple[Embedding, int]] = []
        for embedding in embeddings:
            if embedding.width != width:
                raise _unsupported(
                    embedding.name,
                    f"its vectors have {embedding.width} numbers where the text encoder of this checkpoint has {width}: "
                    "it was made for another family",
                    need=width,
                    got=embedding.width,
                )
            key = embedding.name.casefold()
            if key not in self._held:
                self._held[key] = embedding
                self._first[key] = vocabulary + len(self._rows)
                self._rows += [(embedding, index) for index in range(len(embedding.vectors))]

    def __bool__(self) -> bool:
        return bool(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(embedding.name for embedding in self._held.values())

    def count(self, name: str) -> int:
        """How many vectors, and so places of the prompt, the embedding of that name takes; 0 where there is none."""
        held = self._held.get(name.casefold())
        return len(held.vectors) if held is not None else 0

    def placeholders(self, name: str) -> tuple[int, ...]:
        """The ids that stand for its vectors, in order."""
        first = self._first.get(name.casefold(), 0)
        return tuple(range(first, first + self.count(name)))

    def replaced(self, tokens: Sequence[int], encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
        """The tokens with placeholders where the tokens of a name stand, the longest name first, as in A1111."""
        if not self._rows:
            return tuple(tokens)
        spelled = sorted(
            ((tuple(encode(name)), name) for name in self.names), key=lambda found: len(found[0]), reverse=True
        )
        out: list[int] = []
        at = 0
        while at < len(tokens):
            for name_tokens, name in spelled:
                if name_tokens and tuple(tokens[at : at + len(name_tokens)]) == name_tokens:
                    out += self.placeholders(name)
                    at += len(name_tokens)
                    break
            else:
                out.append(tokens[at])
                at += 1
        return tuple(out)

    def used(self, tokens: Iterable[int]) -> tuple[Embedding, ...]:
        """The embeddings that have a placeholder among the tokens, in order, each once."""
        found: dict[str, Embedding] = {}
        for token in tokens:
            if token >= self._vocabulary:
                embedding = self._rows[token - self._vocabulary][0]
                found.setdefault(embedding.digest, embedding)
        return tuple(found.values())

    def key(self, tokens: Sequence[int]) -> tuple[Hashable, ...]:
        """The tokens for a cache that outlives these vectors: a placeholder becomes (digest, index)."""
        if not self._rows:
            return tuple(tokens)
        return tuple(
            (self._rows[token - self._vocabulary][0].digest, self._rows[token - self._vocabulary][1])
            if token >= self._vocabulary
            else token
            for token in tokens
        )

    @contextmanager
    def placed(self, table: nn.Module, tokens: Sequence[int]) -> Iterator[list[int]]:
        """Give the ids to run the text encoder with, and put the vectors into what its `table` of tokens gives.

        `table` is the embedding module, which is asked once with [1, len(tokens)] ids.
        """
        places = [(place, token) for place, token in enumerate(tokens) if token >= self._vocabulary]
        ids = [0 if token >= self._vocabulary else token for token in tokens]
        if not places:
            yield ids
            return

        def put(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            for place, token in places:
                embedding, index = self._rows[token - self._vocabulary]
                output[0, place] = embedding.vectors[index].to(output)
            return output

        hook = table.register_forward_hook(put)
        try:
            yield ids
        finally:
            hook.remove()


NO_VECTORS = Vectors()
