"""Textual inversion: words of a painter's own, each of one or more vectors in place of a token's (arXiv:2208.01618).

A file gives vectors [n, width]. A prompt's chunk keeps places for them (`prompt.Placed`); there the text encoder's
table of tokens gives way to the vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from impasto_protocol.errors import ModelError
from torch import nn

from .embedding_pictures import embedding_in
from .modelfile import open_model
from .modelpath import PICTURE, model_name
from .prompt import CHUNK, Chunk, EmbeddingNames

__all__ = ["NO_VECTORS", "Embedding", "Vectors", "embedding_of", "read_embedding"]


@dataclass(frozen=True)
class Embedding:
    """A word and its vectors, fp32 [n, width] on the CPU; `second` those for SDXL's second text encoder, as many.
    `digest` tells vectors apart in caches."""

    name: str
    vectors: torch.Tensor
    digest: str
    second: torch.Tensor | None = None

    @property
    def width(self) -> int:
        """Numbers of a vector, of both text encoders together."""
        return sum(self.widths)

    @property
    def widths(self) -> tuple[int, int]:
        """For each text encoder; 0 for the second one where it has nothing for that."""
        return int(self.vectors.shape[1]), 0 if self.second is None else int(self.second.shape[1])


def read_embedding(path: str | Path) -> Embedding:
    """Read an embedding in any of its formats; its word is the file's name without the ending.

    A1111's .pt and .bin (`string_to_param`), safetensors (`emb_params`, or one tensor of any name), diffusers'
    learned_embeds ({"<word>": vector}), SDXL's (`clip_l` and `clip_g`), and a PNG that carries one
    (`embedding_pictures`). Raises ModelError: `model.unknown`, `model.corrupt`, `model.unsafe`, and `model.unsupported`
    for what is no embedding.
    """
    path = Path(path)
    if path.suffix.lower() == PICTURE:
        held = embedding_in(path)
        if held is None:
            raise _unsupported(path.stem, "this picture has no embedding in its text or its pixels")
        return embedding_of(path.stem, {name: torch.from_numpy(values) for name, values in held.items()})
    with open_model(path) as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    return embedding_of(model_name(path), tensors)


def embedding_of(name: str, tensors: Mapping[str, torch.Tensor]) -> Embedding:
    """The embedding of that name from the tensors of its file, or of its part of a LoRA. Raises ModelError."""
    if "clip_l" in tensors and "clip_g" in tensors:
        first, second = (_vectors(name, tensors[part].detach()) for part in ("clip_l", "clip_g"))
        if len(first) != len(second):
            raise _unsupported(name, f"it has {len(first)} vectors for one text encoder, {len(second)} for the other")
        return Embedding(name, first, _digest(first, second), second)
    found = [value for key, value in tensors.items() if key == "emb_params" or key.startswith("string_to_param.")]
    if not found:
        found = [value for value in tensors.values() if value.is_floating_point()]
    if len(found) != 1:
        raise _unsupported(name, f"{len(found)} tensors are in it where an embedding has one")
    vectors = _vectors(name, found[0].detach())
    return Embedding(name, vectors, _digest(vectors))


def _digest(*vectors: torch.Tensor) -> str:
    held = hashlib.blake2b(digest_size=16)
    for each in vectors:
        held.update(each.numpy().tobytes())
    return held.hexdigest()


def _vectors(name: str, vectors: torch.Tensor) -> torch.Tensor:
    if vectors.dim() == 1:
        vectors = vectors[None]
    if vectors.dim() != 2 or not vectors.is_floating_point() or 0 in vectors.shape:
        raise _unsupported(name, f"{tuple(vectors.shape)} {vectors.dtype} is not a list of vectors")
    if len(vectors) > CHUNK:
        raise _unsupported(name, f"it has {len(vectors)} vectors, and a prompt's chunk has {CHUNK} places")
    vectors = vectors.to("cpu", torch.float32, copy=True).contiguous()
    if not torch.isfinite(vectors).all():
        raise _unsupported(name, "some of its numbers are not finite")
    return vectors


def _unsupported(name: str, reason: str, **data: Any) -> ModelError:
    return ModelError(
        "model.unsupported", f"The embedding {name!r} cannot be used: {reason}.", data={"model": name, **data}
    )


class Vectors:
    """The embeddings that a job's prompts may name, for a text encoder of `width` and a second one of `second_width`, 0
    for none."""

    def __init__(self, embeddings: Iterable[Embedding] = (), *, width: int = 0, second_width: int = 0) -> None:
        """Of two embeddings of one name (in any case of letters) the first counts."""
        self._widths = (width, second_width)
        self.stood: dict[str, None] = {}
        """Names of those that stood in a text that was encoded, in order."""
        self._held: dict[str, Embedding] = {}
        for embedding in embeddings:
            self._held.setdefault(embedding.name.casefold(), embedding)

    def __bool__(self) -> bool:
        return bool(self._held)

    def names(self, encode: Callable[[str], Sequence[int]]) -> EmbeddingNames:
        """What `prompt.make_chunks` finds them by."""
        return EmbeddingNames({held.name: len(held.vectors) for held in self._held.values()}, encode)

    def used(self, chunks: Iterable[Chunk]) -> tuple[Embedding, ...]:
        """Those that stand in the chunks, in order, each once.

        Raises ModelError `model.unsupported` with `need` and `got` for one of another width.
        """
        names = dict.fromkeys(placed.name.casefold() for chunk in chunks for placed in chunk.embeddings)
        found = tuple(self._held[name] for name in names)
        for embedding in found:
            if embedding.widths != self._widths:
                got, need = embedding.width, sum(self._widths)
                raise _unsupported(
                    embedding.name,
                    f"its vectors have {got} numbers where the text encoder of this checkpoint has {need}: it was made "
                    "for another family",
                    need=need,
                    got=got,
                )
            self.stood[embedding.name] = None
        return found

    def key(self, chunk: Chunk) -> tuple[tuple[str, int], ...]:
        """What stands in the chunk beside its tokens, for a cache that outlives these vectors: digests and places."""
        return tuple((self._held[placed.name.casefold()].digest, placed.place) for placed in chunk.embeddings)

    @contextmanager
    def placed(self, table: nn.Module, chunk: Chunk, *, second: bool = False) -> Iterator[None]:
        """Put the vectors of the chunk into what the text encoder's `table` of tokens gives for its ids, [1, 77]; those
        for the second encoder with `second`."""
        if not chunk.embeddings:
            yield
            return

        def put(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            for placed in chunk.embeddings:
                held = self._held[placed.name.casefold()]
                vectors = held.second if second and held.second is not None else held.vectors
                output[0, placed.place : placed.place + placed.count] = vectors.to(output)
            return output

        hook = table.register_forward_hook(put)
        try:
            yield
        finally:
            hook.remove()


NO_VECTORS = Vectors()
