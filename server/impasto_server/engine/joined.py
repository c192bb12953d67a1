"""A checkpoint put together from several files, read as if it were a single one: a UNet, the text encoder of another, a
VAE of a third. No torch to list it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from impasto_protocol.errors import ModelError

from . import layout
from .checkpoint import Header, TensorInfo
from .families import Misfit, text_prefix
from .folders import read_folder, unet_names
from .modelfile import header_of
from .modelpath import is_model_folder
from .modelspec import Facts, read_facts
from .rules import Found
from .vae_layout import vae_names

__all__ = ["Joined", "Parts", "join"]

_UNETS = (layout.UNET_PREFIX, "")
_TEXT = layout.TEXT_PREFIX + "text_model."


@dataclass(frozen=True)
class Parts:
    """Where the parts of a checkpoint come from: `text` and `vae` are None where they are those of `unet` itself."""

    unet: Path
    text: Path | None = None
    vae: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(path for path in (self.unet, self.text, self.vae) if path is not None))


@dataclass(frozen=True)
class Joined:
    """`header` has the names of the single-file layout, and `sources` say for each in which file it is, and its name
    there. `facts` are those of each part, from the file that it comes from."""

    found: Found
    header: Header
    sources: Mapping[str, tuple[Path, str]]
    facts: Facts


def join(parts: Parts) -> Joined:
    """Read the headers of the parts.

    Raises ModelError as `modelfile.header_of` does, and `model.unsupported` for a file without the part that is wanted.
    """
    opened = {path: _Read.of(path) for path in parts.files}
    unet, text, vae = (opened[path or parts.unet] for path in (parts.unet, parts.text, parts.vae))
    tensors: dict[str, TensorInfo] = {}
    sources: dict[str, tuple[Path, str]] = {}
    for read, names in ((unet, unet.unet()), (text, text.text()), (vae, vae.vae())):
        for single, own in names.items():
            tensors[single] = read.header.tensors[own]
            sources[single] = read.sources.get(own, (read.path, own))
    facts = replace(
        unet.facts,
        text_heads=text.facts.text_heads,
        text_activation=text.facts.text_activation,
        vae_norm_groups=vae.facts.vae_norm_groups,
        vae_scaling_factor=vae.facts.vae_scaling_factor or unet.facts.vae_scaling_factor,
    )
    return Joined(Found("checkpoint", "", "", "ldm"), Header(tensors, unet.header.metadata), sources, facts)


@dataclass(frozen=True)
class _Read:
    path: Path
    header: Header
    sources: Mapping[str, tuple[Path, str]]
    facts: Facts

    @staticmethod
    def of(path: Path) -> _Read:
        folder = read_folder(path) if path.is_dir() and is_model_folder(path) else None
        header = folder.header if folder is not None else header_of(path)
        try:
            facts = read_facts(path, header.metadata)
        except ValueError as error:
            raise ModelError("model.unidentified", f"What {path.name} says about itself is wrong: {error}.") from None
        return _Read(path, header, folder.sources if folder is not None else {}, facts)

    def unet(self) -> dict[str, str]:
        shapes = self.header.shapes
        for prefix in _UNETS:
            if prefix + "input_blocks.0.0.weight" in shapes:
                own = (name for name in shapes if name.startswith(prefix))
                return {layout.UNET_PREFIX + name.removeprefix(prefix): name for name in own}
        if "down_blocks.0.resnets.0.conv1.weight" in shapes:
            to_file = unet_names(shapes)
            try:
                return {layout.UNET_PREFIX + to_file(name): name for name in shapes}
            except KeyError as error:
                raise self._lacks(f"UNet: {error} is none of its tensors") from None
        raise self._lacks("UNet")

    def text(self) -> dict[str, str]:
        shapes = self.header.shapes
        prefix = text_prefix(shapes)
        if prefix is not None:
            return {_TEXT + name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
        if "text_model.embeddings.token_embedding.weight" in shapes:
            own = (name for name in shapes if name.startswith("text_model."))
            return {layout.TEXT_PREFIX + name: name for name in own}
        raise self._lacks("CLIP text encoder")

    def vae(self) -> dict[str, str]:
        try:
            return {layout.VAE_PREFIX + name: own for name, own in vae_names(self.header.shapes).items()}
        except Misfit as error:
            raise self._lacks(f"VAE that can be used: it has {error}") from None

    def _lacks(self, what: str) -> ModelError:
        return ModelError(
            "model.unsupported",
            f"{self.path.name} has no {what}; name another file for it.",
            data={"file": self.path.name},
        )
