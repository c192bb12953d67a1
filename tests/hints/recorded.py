"""Networks that are pulled, replayed: what they said when the vectors were recorded, in the order in which they were
asked. So their decoding is tested without 50 MB of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from impasto_server.engine.kit.runtime import Kit

__all__ = ["PULLED", "VECTORS", "RecordingKit", "ReplayedKit"]

VECTORS = Path(__file__).parent / "vectors.npz"
PULLED = ("body-detector", "body-pose", "palm-detector", "hand-pose")

LIKELY = -4.0
"""Below this score, before the sigmoid, an anchor says nothing: its numbers are left out."""


class ReplayedKit(Kit):
    """The kit, in which the pulled networks say what was recorded under `name`; the others are real."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._name, self._count = name, dict.fromkeys(PULLED, 0)
        with np.load(VECTORS) as held:
            self._values = {key: held[key] for key in held.files if key.startswith(f"{name} ")}

    def network(self, name: str):
        return super().network(name) if name not in PULLED else lambda values: self._answer(name)

    def _answer(self, network: str) -> dict[str, np.ndarray]:
        number = self._count[network]
        self._count[network] += 1
        prefix = f"{self._name} {network} {number} "
        found = {key.removeprefix(prefix): v for key, v in self._values.items() if key.startswith(prefix)}
        assert found, f"{network} was asked {number + 1} times, and answered {number} times when it was recorded"
        return {key: value.astype(np.float32) for key, value in _whole(found).items()}


def _whole(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the anchors that were left out."""
    if "kept" not in found:
        return dict(found)
    kept, count = found["kept"], int(found["count"])
    boxes = np.zeros((1, count, found["boxes"].shape[-1]), np.float32)
    scores = np.full((1, count, 1), -100, np.float32)
    boxes[0, kept], scores[0, kept] = found["boxes"], found["scores"]
    return {"boxes": boxes, "scores": scores}


class RecordingKit(Kit):
    """The kit, which notes what the pulled networks say in `said`, with keys as `ReplayedKit` reads them."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.said: dict[str, np.ndarray] = {}
        self._name, self._count = name, dict.fromkeys(PULLED, 0)

    def network(self, name: str):
        real = super().network(name)
        return real if name not in PULLED else lambda values: self._note(name, real(values))

    def _note(self, network: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        prefix = f"{self._name} {network} {self._count[network]} "
        self._count[network] += 1
        if "boxes" in outputs:
            kept = np.flatnonzero(outputs["scores"][0, :, 0] > LIKELY)
            kept_boxes, kept_scores = outputs["boxes"][0, kept], outputs["scores"][0, kept]
            told = {
                "kept": kept,
                "count": np.array(outputs["boxes"].shape[1]),
                "boxes": kept_boxes,
                "scores": kept_scores,
            }
        else:
            told = outputs
        self.said.update({prefix + key: np.asarray(value) for key, value in told.items()})
        return outputs
