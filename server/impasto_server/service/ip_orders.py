"""The IP-Adapters of a submit: their files, and the vision tower that belongs to each, found among the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from impasto_protocol.errors import ModelError

from ..engine.jobs import IPUnit
from ..engine.modelfile import header_of
from ..engine.params_guides import IP_PICTURES
from ..engine.vision_shapes import AdapterSizes, adapter_of, tower_of
from .catalogue import Catalogue, Model

__all__ = ["ip_unit", "tower_for"]


def ip_unit(catalogue: Catalogue, model: Model, index: int, entry: Mapping[str, object]) -> IPUnit:
    """The unit of an entry of `ip_adapters`, without its pictures.

    Raises ModelError that names it: an unknown or unfit IP-Adapter, or one whose vision tower is not there.
    """
    name, path = f"IP-Adapter unit {index + 1}", f"params.ip_adapters[{index}]"
    values = {key: value for key, value in entry.items() if key not in (*IP_PICTURES, "mask", "model", "enabled")}
    if not entry["weight"]:
        return IPUnit(name=name, path=path, model="", tower="", **values)  # type: ignore[arg-type]
    found = catalogue.ip_adapter(str(entry["model"]), f"{path}.model", model.facts.family)
    sizes = adapter_of(_shapes(found.path))
    if sizes is None:
        raise ModelError(
            "model.unsupported",
            f"The file of {found.id!r} is no longer an IP-Adapter of a known kind ({name}); choose another.",
            path=f"{path}.model",
        )
    identity = identity_network(catalogue) if sizes.identity else None
    if sizes.identity and identity is None:
        raise ModelError(
            "model.unknown",
            f"The IP-Adapter {found.id!r} of {name} needs the network that tells faces apart, and none of your folders "
            "has it. Put w600k_r50.onnx (of InsightFace's buffalo_l) into a models folder; its licence allows no "
            "commercial use.",
            path=f"{path}.model",
            data={"model": found.id, "need": "w600k_r50.onnx"},
        )
    who = str(identity.path) if identity is not None else ""
    if not sizes.width:
        return IPUnit(name=name, path=path, model=str(found.path), tower="", identity=who, **values)  # type: ignore[arg-type]
    tower = tower_for(catalogue, sizes)
    if tower is None:
        raise ModelError(
            "model.unknown",
            f"The IP-Adapter {found.id!r} of {name} needs its image encoder, CLIP {sizes.needs}, and none of your "
            f"folders has it. Put {_WHERE.get(sizes.needs, 'the file it was published with')} into a models folder.",
            path=f"{path}.model",
            data={"model": found.id, "need": sizes.needs},
        )
    files = {"model": str(found.path), "tower": str(tower.path), "identity": who}
    return IPUnit(name=name, path=path, **files, **values)  # type: ignore[arg-type]


_WHERE = {
    "ViT-H": "models/image_encoder/model.safetensors of h94/IP-Adapter (CLIP-ViT-H-14-laion2B)",
    "ViT-bigG": "sdxl_models/image_encoder/model.safetensors of h94/IP-Adapter (CLIP-ViT-bigG-14-laion2B)",
}


def identity_network(catalogue: Catalogue) -> Model | None:
    """The first network of the catalogue that tells faces apart."""
    known = (model for model in catalogue.models if model.facts.kind == "annotator" and model.facts.usable)
    return next((model for model in known if model.facts.variant == "face-identity"), None)


def tower_for(catalogue: Catalogue, sizes: AdapterSizes) -> Model | None:
    """The first vision tower of the catalogue that fits."""
    for model in catalogue.models:
        if model.facts.kind == "clip-vision" and model.facts.usable:
            tower = tower_of(_shapes(model.path))
            if tower is not None and sizes.fits(tower):
                return model
    return None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry.shape) for name, entry in header_of(path).tensors.items()}
