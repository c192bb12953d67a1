"""Prompts -> embeddings for the cross attention, with attention weights, cached by chunk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import torch

from .load import Components
from .prompt import Chunk, make_chunks, parse_attention

__all__ = ["TextCache", "encode", "encode_pair"]

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


def encode(components: Components, text: str, *, cache: TextCache) -> torch.Tensor:
    """The embedding of a prompt: fp32 [1, 77 * chunks, width] on the components' device.

    Each chunk of 75 tokens is encoded by itself and they are joined along the tokens. Weights are applied as
    AUTOMATIC1111 does by default: the embedding of each token is multiplied by its weight, then the chunk is scaled
    back to the mean it had.
    """
    return _join(components, _chunks(components, text), cache)


def encode_pair(
    components: Components, text: str, negative: str, *, cache: TextCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, negative prompt) as `encode` gives them, of equal length.

    The shorter one is filled up with the chunk of the empty prompt.
    """
    (empty,) = make_chunks((), components.tokenizer.encode, pad=components.family.token_pad)
    one, other = _chunks(components, text), _chunks(components, negative)
    length = max(len(one), len(other))
    one += (empty,) * (length - len(one))
    other += (empty,) * (length - len(other))
    return _join(components, one, cache), _join(components, other, cache)


def _chunks(components: Components, text: str) -> tuple[Chunk, ...]:
    return make_chunks(parse_attention(text), components.tokenizer.encode, pad=components.family.token_pad)


def _join(components: Components, chunks: tuple[Chunk, ...], cache: TextCache) -> torch.Tensor:
    parts = [_weighted(_embedding(components, chunk, cache), chunk) for chunk in chunks]
    return torch.cat(parts)[None].to(components.device)


@torch.no_grad()
def _embedding(components: Components, chunk: Chunk, cache: TextCache) -> torch.Tensor:
    """[77, width] on the CPU in fp32. One chunk at a time: the result must not depend on what the cache holds."""
    held = cache.get(components.identity, chunk.tokens)
    if held is None:
        ids = torch.tensor([chunk.tokens], device=components.device)
        held = components.text_encoder(input_ids=ids).last_hidden_state[0].float().cpu()
        cache.put(components.identity, chunk.tokens, held)
    return held


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
