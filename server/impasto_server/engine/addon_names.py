"""Names of LoRAs as prompts and people write them. No torch here: the service checks them before a job is accepted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from impasto_protocol.errors import ModelError
from impasto_protocol.nearest import nearest

from .extra_networks import LORA_KINDS

__all__ = ["lora_names", "unknown_lora"]

_NAMED = re.compile(rf"(?<!\\)<(?:{'|'.join(LORA_KINDS)}):([^:>]*)")


def lora_names(text: str) -> tuple[str, ...]:
    """The LoRAs that a text names anywhere, also in choices that may not be taken."""
    return tuple(dict.fromkeys(name.strip() for name in _NAMED.findall(text) if name.strip()))


def unknown_lora(name: str, known: Sequence[str]) -> ModelError:
    """The error for a LoRA that is not there; it says the nearest of those that are known."""
    near = nearest(name, known, 0.4)
    hint = f"Did you mean {near[0]!r}?" if near else "`impasto models list` shows all."
    return ModelError("model.unknown", f"There is no LoRA {name[:80]!r}. {hint}", data={"nearest": near})
