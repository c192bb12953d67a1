"""Prompts -> embeddings for the cross attention, with attention weights, cached by chunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from impasto_protocol.errors import RequestError
from impasto_protocol.geometry import Size

from .conditioning import Conditioning
from .embeddings import NO_VECTORS, Vectors
from .load import Components
from .prompt import Chunk, make_chunks, parse_attention
from .prompt_schedule import Phase, phases
from .prompt_words import Words

__all__ = ["Encoded", "Guidance", "TextCache", "encode", "encode_all", "encode_pair", "guidance"]

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


@dataclass(frozen=True)
class Encoded:
    """A text as networks read it: `tokens` fp32 [1, 77 * chunks, width], and of a family with a second encoder `pooled`
    [1, width], one vector for its first chunk; both on the components' device."""

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None

    @property
    def nothing(self) -> Encoded:
        """Zeros of the same size."""
        return Encoded(torch.zeros_like(self.tokens), None if self.pooled is None else torch.zeros_like(self.pooled))


def encode(
    components: Components, text: str, *, cache: TextCache, clip_skip: int = 1, vectors: Vectors = NO_VECTORS
) -> torch.Tensor:
    """The tokens of `encode_all` for one text."""
    return encode_all(components, (text,), cache=cache, clip_skip=clip_skip, vectors=vectors)[text].tokens


def encode_all(
    components: Components,
    texts: Iterable[str],
    *,
    cache: TextCache,
    clip_skip: int = 1,
    vectors: Vectors = NO_VECTORS,
) -> dict[str, Encoded]:
    """The embedding of each prompt without schedule, all of equal length: the shorter ones are filled up with the empty
    chunk.

    Each chunk of 75 tokens is encoded by itself and they are joined along the tokens. Weights are applied as
    AUTOMATIC1111 does by default: the embedding of each token is multiplied by its weight, then the chunk is scaled
    back to the mean it had. `clip_skip` n takes the output of the last layer but n - 1, with the last norm; where there
    are two encoders, whose tokens are joined along the width, that of the last layer but one for n up to 2, beyond that
    as before, and without the norm. `vectors` are the embeddings that a text may name. Raises RequestError
    `request.invalid_param` where a text encoder has fewer layers, and ModelError for an embedding of another width.
    """
    encoders = _encoders(components, cache, clip_skip, vectors)
    asked, found = tuple(texts), dict[str, Encoded]()
    chunks = [{text: encoder.chunks(text) for text in asked} for encoder in encoders]
    length = max(map(len, chunks[0].values()), default=1)
    filled = [
        {text: own + encoder.chunks("") * (length - len(own)) for text, own in laid.items()}
        for encoder, laid in zip(encoders, chunks, strict=True)
    ]
    for text in chunks[0]:
        parts = [encoder.joined(laid[text]) for encoder, laid in zip(encoders, filled, strict=True)]
        pooled = encoders[-1].pooled(filled[-1][text][0]) if len(encoders) > 1 else None
        found[text] = Encoded(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), pooled)
    return found


def encode_pair(
    components: Components, text: str, negative: str, *, cache: TextCache, clip_skip: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, negative prompt), the tokens that `encode_all` gives."""
    found = encode_all(components, (text, negative), cache=cache, clip_skip=clip_skip)
    return found[text].tokens, found[negative].tokens


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
    size: Size | None = None,
) -> Guidance:
    """The entries of both prompts over `calls` calls of the network; each distinct text is encoded once.

    In a hires pass `before` is the number of calls of the pass before it. `size`, in pixels, is what a network that
    reads the sizes of its picture is told, uncropped; for it an empty negative prompt is all zeros, as in A1111.
    """
    positive = [(index, part.weight, phases(part.nodes, calls, before)) for index, part in enumerate(words.tree.parts)]
    negative = phases(words.negative, calls, before)
    runs = [*(found for _, _, found in positive), negative]
    texts = dict.fromkeys(phase.text for run in runs for phase in run)
    encoded = encode_all(components, texts, cache=cache, clip_skip=clip_skip, vectors=vectors)

    def entry(said: Encoded, phase: Phase, part: int = 0, scale: float = 1.0) -> Conditioning:
        added = {}
        if said.pooled is not None:
            assert size is not None, "this network reads the size of its picture"
            told = (size.height, size.width, 0, 0, size.height, size.width)
            added = {"text_embeds": said.pooled, "time_ids": torch.tensor([told], dtype=torch.float32)}
            added["time_ids"] = added["time_ids"].to(said.pooled.device)
        start, end = phase.start / calls, phase.end / calls
        return Conditioning(said.tokens, start=start, end=end, added=added, part=part, scale=scale)

    def away(phase: Phase) -> Conditioning:
        said = encoded[phase.text]
        return entry(said if said.pooled is None or phase.text.strip() else said.nothing, phase)

    return Guidance(
        tuple(entry(encoded[p.text], p, index, weight) for index, weight, run in positive for p in run),
        tuple(away(phase) for phase in negative),
        calls if any(len(run) > 1 for run in runs) else 0,
    )


def _encoders(components: Components, cache: TextCache, clip_skip: int, vectors: Vectors) -> tuple[_Encoder, ...]:
    second = components.family.second_text
    if second is None:
        return (_Encoder(components, components.text_encoder, components.family.token_pad, cache, clip_skip, vectors),)
    skip = max(clip_skip, _NEXT_TO_LAST)
    return (
        _Encoder(components, components.text_encoder, components.family.token_pad, cache, skip, vectors, normed=False),
        _Encoder(components, components.text_encoder_2, second.token_pad, cache, skip, vectors, second=True),
    )


_NEXT_TO_LAST = 2


@dataclass(frozen=True)
class _Encoder:
    """One text encoder. Not `normed`, its output is taken as the layer gives it; the `second` one is never normed."""

    components: Components
    network: Any
    pad: int
    cache: TextCache
    clip_skip: int
    vectors: Vectors
    normed: bool = True
    second: bool = False

    def chunks(self, text: str) -> tuple[Chunk, ...]:
        tokenizer = self.components.tokenizer
        names = self.vectors.names(tokenizer.encode)
        chunks = make_chunks(parse_attention(text), tokenizer.encode, pad=self.pad, embeddings=names)
        self.vectors.used(chunks)  # they fit, or it says so
        return chunks

    def joined(self, chunks: tuple[Chunk, ...]) -> torch.Tensor:
        parts = [_weighted(self.embedding(chunk), chunk) for chunk in chunks]
        return torch.cat(parts)[None].to(self.components.device)

    def embedding(self, chunk: Chunk) -> torch.Tensor:
        """[77, width] on the CPU in fp32. One chunk at a time: the result must not depend on what the cache holds."""
        return self._said(chunk, 0)

    def pooled(self, chunk: Chunk) -> torch.Tensor:
        """[1, width] on the device in fp32: what the second encoder says of the chunk as a whole."""
        return self._said(chunk, 1).to(self.components.device)

    @torch.no_grad()
    def _said(self, chunk: Chunk, which: int) -> torch.Tensor:
        key: Hashable = self.components.identity
        if self.clip_skip != 1:
            key = (key, self.clip_skip)
        if chunk.embeddings:
            key = (key, self.vectors.key(chunk))
        keys = [(key, "second", part) for part in ("tokens", "pooled")] if self.second else [key]
        held = self.cache.get(keys[which], chunk.tokens)
        if held is None:
            ids = torch.tensor([chunk.tokens], device=self.components.device)
            table = self.network.get_input_embeddings()
            with self.vectors.placed(table, chunk, second=self.second):
                outputs = [output.float().cpu() for output in self._outputs(ids)]
            for name, output in zip(keys, outputs, strict=True):
                self.cache.put(name, chunk.tokens, output)
            held = outputs[which]
        return held

    def _outputs(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """The tokens [77, width], and of the second encoder the pooled text [1, width]."""
        if self.clip_skip == 1:
            return [self.network(input_ids=ids).last_hidden_state[0]]
        layers = self.network.config.num_hidden_layers
        if self.clip_skip > layers:
            raise RequestError(
                "request.invalid_param",
                f"Clip skip is {self.clip_skip}, but the text encoder of this checkpoint has {layers} layers; choose "
                f"1 to {layers}.",
                path="params.clip_skip",
            )
        said = self.network(input_ids=ids, output_hidden_states=True)
        hidden = said.hidden_states[-self.clip_skip]
        if self.second:
            return [hidden[0], said.text_embeds]
        return [self.network.final_layer_norm(hidden)[0] if self.normed else hidden[0]]


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
