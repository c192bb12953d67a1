"""IP-Adapters and vision towers of the last jobs, and what the towers said of their pictures."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from impasto_protocol.errors import ModelError, RequestError
from numpy.typing import NDArray

from .clip_vision import Seen, VisionTower, load_tower, seen
from .face_align import aligned, arcface_template
from .face_identity import IdentityNetwork, best_face, load_identity
from .ip_adapter import IPAdapterModel, image_tokens, load_ip_adapter
from .jobs import IPUnit, Job, Pixels
from .kit.runtime import Floats, Kit
from .load import Components
from .modelpath import model_name, stamp_of
from .pictures import flattened

__all__ = ["IPAdapters", "LoadedIP"]

TOWER_SIDE = 224
"""Pixels of the face that the tower is shown."""

_PICTURES = 64
"""Pictures whose embeddings are kept: 700 KB each of ViT-H."""


@dataclass(frozen=True, eq=False)
class LoadedIP:
    """A unit with its IP-Adapter and what is read beside the text, as `image_tokens` gives it."""

    unit: IPUnit
    model: IPAdapterModel
    tokens: torch.Tensor
    away: torch.Tensor


class IPAdapters:
    """What was used last: adapters and towers within a budget in bytes, at least the last of each; embeddings of
    pictures on the CPU, so that a picture that is used again needs no tower. For one thread."""

    def __init__(self, budget: int, kit: Kit | None = None) -> None:
        self._budget, self._kit = budget, kit or Kit()
        self._identity: IdentityNetwork | None = None
        self._models: OrderedDict[Hashable, IPAdapterModel] = OrderedDict()
        self._towers: OrderedDict[Hashable, VisionTower] = OrderedDict()
        self._seen: OrderedDict[Hashable, Seen] = OrderedDict()

    def of(self, job: Job, components: Components) -> tuple[LoadedIP, ...]:
        """The units of a job with all that they need, for a checkpoint; a unit without pictures sees the job's.

        Raises ModelError that names the unit, for files that cannot be used, do not fit the checkpoint or each other.
        """
        with torch.inference_mode(False), torch.no_grad():
            return tuple(self._loaded(unit, job, components) for unit in job.ip_adapters)

    def clear(self) -> None:
        """Let go of the networks; embeddings need little and are kept."""
        self._models.clear()
        self._towers.clear()
        self._identity = None

    def _loaded(self, unit: IPUnit, job: Job, components: Components) -> LoadedIP:
        images = unit.images or ((job.image,) if job.image is not None else ())
        assert images, "the service asks for a picture"
        try:
            model = self._model(unit, components)
            look = self._faces if model.sizes.identity else self._look
            pictures = [look(unit, model, components, image) for image in images]
            nothing = look(unit, model, components, None)
        except ModelError as error:
            if unit.name not in error.message:
                error.message = f"{error.message.rstrip('.')} ({unit.name})."
            error.path = f"{unit.path}.model"
            raise
        tokens, away = image_tokens(model, pictures, nothing, unit.combine)
        return LoadedIP(unit, model, tokens, away)

    def _model(self, unit: IPUnit, components: Components) -> IPAdapterModel:
        key = (unit.model, stamp_of(unit.model), components.identity)
        model = self._models.pop(key, None) or load_ip_adapter(unit.model, components)
        self._models[key] = model
        while len(self._models) > 1 and sum(held.size_bytes for held in self._models.values()) > self._budget:
            self._models.popitem(last=False)
        return model

    def _tower(self, path: str, components: Components) -> VisionTower:
        key = (path, stamp_of(path), str(components.device), str(components.dtype))
        tower = self._towers.pop(key, None) or load_tower(path, device=components.device, dtype=components.dtype)
        self._towers[key] = tower
        while len(self._towers) > 1 and sum(held.size_bytes for held in self._towers.values()) > self._budget:
            self._towers.popitem(last=False)
        return tower

    def _look(self, unit: IPUnit, model: IPAdapterModel, components: Components, image: Pixels | None) -> Seen:
        shown = None if image is None else (image.shape, hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        key = (unit.tower, stamp_of(unit.tower), str(components.device), str(components.dtype), unit.resize, shown)
        held = self._seen.pop(key, None)
        if held is None:
            tower = self._tower(unit.tower, components)
            if not model.sizes.fits(tower.sizes):
                raise ModelError(
                    "model.unsupported",
                    f"The IP-Adapter {model.path.name} needs the image encoder {model.sizes.needs}, and "
                    f"{tower.path.name} is {tower.sizes.name}. Put the right one into a models folder.",
                    data={"file": model.path.name, "need": model.sizes.needs, "got": tower.sizes.name},
                )
            found = seen(tower, None if image is None else flattened(image), unit.resize)
            held = Seen(found.embedding.cpu(), found.hidden.cpu())
        self._seen[key] = held
        while len(self._seen) > _PICTURES:
            self._seen.popitem(last=False)
        return held

    def _faces(self, unit: IPUnit, model: IPAdapterModel, components: Components, image: Pixels | None) -> Seen:
        """The same of the largest face in the picture: who it is, and of a FaceID plus what the tower says of it."""
        if image is None:
            hidden = self._look(unit, model, components, None).hidden if model.sizes.width else torch.zeros(1, 0, 0)
            return Seen(torch.zeros(1, model.sizes.identity), hidden)
        picture = flattened(image)
        points = best_face(self._kit, picture)
        if points is None:
            raise RequestError(
                "request.no_face",
                f"There is no face in a picture of {unit.name} that is seen clearly enough; choose one that shows the "
                "face larger and from the front.",
                path=f"{unit.path}.image",
            )
        identity = self._identity_of(unit, picture, points)
        if len(identity) != model.sizes.identity:
            raise ModelError(
                "model.unsupported",
                f"The IP-Adapter {model.path.name} reads {model.sizes.identity} numbers of a face, and "
                f"{model_name(unit.identity)} gives {len(identity)}; put the network that it was trained with into a "
                "models folder.",
                data={"file": model.path.name, "need": model.sizes.identity, "got": len(identity)},
            )
        hidden = torch.zeros(1, 0, 0)
        if model.sizes.width:
            chip = aligned(picture, points, arcface_template(TOWER_SIDE), TOWER_SIDE).pixels
            opaque = np.dstack([chip, np.full(chip.shape[:2], 255, np.uint8)])
            hidden = self._look(unit, model, components, opaque).hidden
        return Seen(torch.from_numpy(identity)[None], hidden)

    def _identity_of(self, unit: IPUnit, picture: Pixels, points: NDArray[np.float64]) -> Floats:
        if self._identity is None or str(self._identity.path) != unit.identity:
            self._identity = load_identity(unit.identity)
        return self._identity(picture, points)
