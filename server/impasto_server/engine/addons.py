"""The small files beside a checkpoint that one job uses: its LoRAs and embeddings, and what a recipe says of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from impasto_protocol.errors import RequestError

from .addon_names import unknown_lora
from .embeddings import Embedding, Vectors, embedding_of, read_embedding
from .extra_networks import LoraUse
from .jobs import Job
from .load import Components
from .lora import lora_hash
from .modelpath import stamp_of
from .modes import Common
from .patch import LoraSource, Patcher
from .prompt_words import Words

__all__ = ["Addons", "UsedLora", "UsedVae", "asked_loras", "named_loras"]

T = TypeVar("T")


@dataclass(frozen=True)
class UsedLora:
    """A LoRA that really ran: the name it was asked for by, its strengths, and A1111's hash of its file."""

    use: LoraUse
    hash: str


@dataclass(frozen=True)
class UsedVae:
    """A VAE that really ran in place of the checkpoint's own: the name of its file, and A1111's hash, "" for none."""

    file: str
    hash: str


def asked_loras(job: Job, words: Sequence[Words], *, hires: bool = False) -> tuple[LoraUse, ...]:
    """What the parameters ask for, then what the prompt does; a network has one set of LoRAs for a whole batch.

    `hires` asks for those of the hires pass.

    Raises RequestError where choices in the prompt give the pictures of a batch different ones.
    """
    first, *others = (((hires and prompts.hires) or prompts).loras for prompts in words)
    if any(other != first for other in others):
        raise RequestError(
            "request.invalid_param",
            "The pictures of this batch would need different LoRAs; make them one by one, or take <lora:...> out of "
            "the choices.",
            path="params.batch",
        )
    return () if not isinstance(job.params, Common) else (*job.params.lora_uses, *first)


def named_loras(job: Job, uses: Sequence[LoraUse]) -> tuple[LoraSource, ...]:
    """Their files. Raises ModelError `model.unknown` with the nearest name for one that the job does not have."""
    for use in uses:
        if use.name not in job.loras:
            raise unknown_lora(use.name, list(job.loras))
    return tuple(LoraSource(job.loras[use.name], use.unet, use.text) for use in uses)


class Addons:
    """Reads embeddings and hashes files, each once as long as the file stays as it is."""

    def __init__(self) -> None:
        self._embeddings: dict[Hashable, Embedding] = {}
        self._hashes: dict[Hashable, str] = {}

    def vectors(self, job: Job, patcher: Patcher, components: Components) -> Vectors:
        """The embeddings that the job's prompts may name: its files, then those inside the LoRAs that are on."""
        files = (self._once(self._embeddings, path, read_embedding) for path in job.embeddings.values())
        bundled = (embedding_of(name, tensors) for name, tensors in patcher.bundled().items())
        second = components.text_encoder_2
        widths = [0 if part is None else part.config.hidden_size for part in (components.text_encoder, second)]
        return Vectors((*files, *bundled), width=widths[0], second_width=widths[1])

    def used_loras(self, job: Job, uses: Sequence[LoraUse]) -> tuple[UsedLora, ...]:
        return tuple(UsedLora(use, self._once(self._hashes, job.loras[use.name], lora_hash)) for use in uses)

    def used_embeddings(self, job: Job, vectors: Vectors) -> dict[str, str]:
        """Name -> A1111's hash, of those that stood in the prompts; "" for one that came with a LoRA."""
        files = {Path(path).stem.casefold(): path for path in job.embeddings.values()}
        found = {}
        for name in vectors.stood:
            path = files.get(name.casefold())
            found[name] = self._once(self._hashes, path, _file_hash) if path is not None else ""
        return found

    def used_vae(self, path: str | Path | None) -> UsedVae | None:
        """The VAE of that path; None for the checkpoint's own."""
        if not path:
            return None
        # A1111 has no name for the VAE inside another checkpoint, and the hash of gigabytes takes seconds.
        whole = os.path.getsize(path) > _HASHED or os.path.isdir(path)
        return UsedVae(Path(path).name, "" if whole else self._once(self._hashes, str(path), _file_hash)[:10])

    def _once(self, held: dict[Hashable, T], path: str, read: Callable[[str], T]) -> T:
        try:
            key: Hashable = (path, *stamp_of(path))
        except OSError:
            return read(path)  # which says what is wrong
        if key not in held:
            held[key] = read(path)
            while len(held) > _KEPT:
                del held[next(iter(held))]
        return held[key]


_KEPT = 500
_HASHED = 1 << 30
"""Bytes of a file at most that is hashed only to be named."""


def _file_hash(path: str) -> str:
    """The 12 digits by which A1111 names an embedding: of the sha256 of its file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
