"""Prompts -> embeddings for the cross attention, with attention weights, cached by chunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch
from impasto_protocol.errors import RequestError

from .conditioning import Conditioning
from .embeddings import NO_VECTORS, Vectors
from .load import Components
from .prompt import Chunk, make_chunks, parse_attention
from .prompt_schedule import Phase, phases
from .prompt_words import Words

__all__ = ["Guidance", "TextCache", "encode", "encode_all", "encode_pair", "guidance"]

MEAN_FLOOR = 0.01
"""Smallest mean of an embedding, in standard deviations, that is restored after weighting."""


class TextCache:
    """The last `size` encoded chunks by text encoder and tokens, on the CPU in fp32; weights are applied later."""

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._held: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, encoder: Hashable, tokens: tuple[int, ...]) -> torch.Tensor | None:
        """The embedding [77, width] of a chunk, or None."""
        key = (encoder, tokens)
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, encoder: Hashable, tokens: tuple[int, ...], embedding: torch.Tensor) -> None:
        """Keep an embedding; the one that was not asked for the longest goes."""
        self._held[encoder, tokens] = embedding
        self._held.move_to_end((encoder, tokens))
        while len(self._held) > self._size:
            self._held.popitem(last=False)

    def __len__(self) -> int:
        return len(self._held)


def encode(
    components: Components, text: str, *, cache: TextCache, clip_skip: int = 1, vectors: Vectors = NO_VECTORS
) -> torch.Tensor:
    """The embedding of a prompt without schedule: fp32 [1, 77 * chunks, width] on the components' device.

    Each chunk of 75 tokens is encoded by itself and they are joined along the tokens. Weights are applied as
    AUTOMATIC1111 does by default: the embedding of each token is multiplied by its weight, then the chunk is scaled
    back to the mean it had. `clip_skip` n takes the output of the last layer but n - 1, with the last norm. `vectors`
    are the embeddings that a text may name. Raises RequestError `request.invalid_param` where the text encoder has
    fewer layers, and ModelError for an embedding of another width.
    """
    return encode_all(components, (text,), cache=cache, clip_skip=clip_skip, vectors=vectors)[text]


def encode_all(
    components: Components,
    texts: Iterable[str],
    *,
    cache: TextCache,
    clip_skip: int = 1,
    vectors: Vectors = NO_VECTORS,
) -> dict[str, torch.Tensor]:
    """Each text as `encode` gives it, all of equal length: the shorter ones are filled up with the empty chunk."""
    encoder = _Encoder(components, cache, clip_skip, vectors)
    chunks = {text: encoder.chunks(text) for text in texts}
    length = max(map(len, chunks.values()), default=1)
    (empty,) = encoder.chunks("")
    return {text: encoder.joined(found + (empty,) * (length - len(found))) for text, found in chunks.items()}


def encode_pair(
    components: Components, text: str, negative: str, *, cache: TextCache, clip_skip: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, negative prompt) as `encode_all` gives them."""
    found = encode_all(components, (text, negative), cache=cache, clip_skip=clip_skip)
    return found[text], found[negative]


@dataclass(frozen=True)
class Guidance:
    """What guides the pictures over the steps. `calls` is the number that the entries' ranges refer to, 0 where
    nothing changes: then they go by no steps at all.
    """

    positive: tuple[Conditioning, ...]
    negative: tuple[Conditioning, ...]
    calls: int


def guidance(
    components: Components,
    words: Words,
    calls: int,
    *,
    cache: TextCache,
    clip_skip: int = 1,
    vectors: Vectors = NO_VECTORS,
    before: int | None = None,
) -> Guidance:
    """The entries of both prompts over `calls` calls of the network; each distinct text is encoded once.

    In a hires pass `before` is the number of calls of the pass before it.
    """
    positive = [(index, part.weight, phases(part.nodes, calls, before)) for index, part in enumerate(words.tree.parts)]
    negative = phases(words.negative, calls, before)
    runs = [*(found for _, _, found in positive), negative]
    texts = dict.fromkeys(phase.text for run in runs for phase in run)
    encoded = encode_all(components, texts, cache=cache, clip_skip=clip_skip, vectors=vectors)

    def entries(run: tuple[Phase, ...], part: int = 0, scale: float = 1.0) -> list[Conditioning]:
        return [
            Conditioning(encoded[p.text], start=p.start / calls, end=p.end / calls, part=part, scale=scale) for p in run
        ]

    return Guidance(
        tuple(entry for index, weight, run in positive for entry in entries(run, index, weight)),
        tuple(entries(negative)),
        calls if any(len(run) > 1 for run in runs) else 0,
    )


@dataclass(frozen=True)
class _Encoder:
    components: Components
    cache: TextCache
    clip_skip: int
    vectors: Vectors

    def chunks(self, text: str) -> tuple[Chunk, ...]:
        tokenizer, pad = self.components.tokenizer, self.components.family.token_pad
        names = self.vectors.names(tokenizer.encode)
        chunks = make_chunks(parse_attention(text), tokenizer.encode, pad=pad, embeddings=names)
        self.vectors.used(chunks)  # they fit, or it says so
        return chunks

    def joined(self, chunks: tuple[Chunk, ...]) -> torch.Tensor:
        parts = [_weighted(self.embedding(chunk), chunk) for chunk in chunks]
        return torch.cat(parts)[None].to(self.components.device)

    @torch.no_grad()
    def embedding(self, chunk: Chunk) -> torch.Tensor:
        """[77, width] on the CPU in fp32. One chunk at a time: the result must not depend on what the cache holds."""
        key = self.components.identity if self.clip_skip == 1 else (self.components.identity, self.clip_skip)
        if chunk.embeddings:
            key = (key, self.vectors.key(chunk))
        held = self.cache.get(key, chunk.tokens)
        if held is None:
            ids = torch.tensor([chunk.tokens], device=self.components.device)
            with self.vectors.placed(self.components.text_encoder.get_input_embeddings(), chunk):
                held = self._output(ids)[0].float().cpu()
            self.cache.put(key, chunk.tokens, held)
        return held

    def _output(self, ids: torch.Tensor) -> torch.Tensor:
        encoder = self.components.text_encoder
        if self.clip_skip == 1:
            last: torch.Tensor = encoder(input_ids=ids).last_hidden_state
            return last
        layers = encoder.config.num_hidden_layers
        if self.clip_skip > layers:
            raise RequestError(
                "request.invalid_param",
                f"Clip skip is {self.clip_skip}, but the text encoder of this checkpoint has {layers} layers; choose "
                f"1 to {layers}.",
                path="params.clip_skip",
            )
        hidden = encoder(input_ids=ids, output_hidden_states=True).hidden_states[-self.clip_skip]
        normed: torch.Tensor = encoder.final_layer_norm(hidden)
        return normed


def _weighted(embedding: torch.Tensor, chunk: Chunk) -> torch.Tensor:
    if all(weight == 1.0 for weight in chunk.weights):
        return embedding
    weighted = embedding * torch.tensor(chunk.weights)[:, None]
    before, after = embedding.mean(), weighted.mean()
    # CLIP's embedding has a mean of a tenth of its deviation. Where it is next to nothing (a small model with a plain
    # last norm) the quotient would be noise, and there is no loudness to give back.
    if abs(before) < MEAN_FLOOR * embedding.std() or after == 0:
        return weighted
    return weighted * (before / after)
