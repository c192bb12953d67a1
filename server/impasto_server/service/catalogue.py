"""The models on this machine: folders -> entries that a client chooses by name, never by path.

Files are identified from their headers; what was found is kept in an index by path, size and time, so that a folder of
thousands is read once.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ImpastoError, ModelError
from impasto_protocol.home import write_private
from impasto_protocol.schema import Mode

from ..engine.addon_names import unknown_lora
from ..engine.modelpath import SUFFIXES, is_model_folder, model_name, stamp_of
from ..engine.modes import describe, needs_checkpoint
from .facts import Facts, index_version
from .partners import partners

__all__ = ["NO_CHECKPOINT", "STARTER", "Catalogue", "Model", "a1111_folders"]

log = logging.getLogger("impasto.catalogue")

STARTER = "impasto-starter"
"""File stem of the starter model; any other checkpoint goes before it."""

NO_CHECKPOINT = "There is no checkpoint yet: run `impasto models starter`, or point --models at a folder with some."

_A1111 = (
    "models/Stable-diffusion",
    "models/VAE",
    "models/Lora",
    "models/LyCORIS",
    "models/ControlNet",
    "models/ESRGAN",
    "models/RealESRGAN",
    "models/BSRGAN",
    "models/SwinIR",
    "models/ScuNET",
    "models/DAT",
    "models/HAT",
    "embeddings",
)


def a1111_folders(root: Path) -> tuple[Path, ...]:
    """The model folders of an AUTOMATIC1111 web UI."""
    return tuple(root / part for part in _A1111)


@dataclass(frozen=True)
class Model:
    """One file, or one folder in diffusers' layout: its stable name, where it lies, and what it was found to be.

    `partner` is the id of the inpainting checkpoint that inpaints in place of this one, "" where there is none.
    """

    id: str
    path: Path
    facts: Facts
    partner: str = ""

    @property
    def native_size(self) -> int:
        return self.facts.native_size

    @property
    def hints(self) -> Mapping[str, Any]:
        return self.facts.hints

    def to_wire(self) -> dict[str, Any]:
        """The entry of the catalogue: without the path, which is nobody's business."""
        wire = asdict(self.facts)
        del wire["code"], wire["says_partner"]
        return {"id": self.id, **wire, "title": self.facts.title or self.id, "partner": self.partner}


@dataclass(frozen=True)
class _Known:
    size: int
    mtime_ns: int
    facts: Facts


@dataclass
class Catalogue:
    """The entries of some folders, as of the last `scan`. `identify` reads headers; it never raises."""

    folders: Sequence[Path]
    identify: Callable[[Path], Facts]
    index_file: Path | None = None
    models: tuple[Model, ...] = ()
    """In the order of the list: checkpoints that can be used, the starter model last of them, then what else can be
    used, then all others."""
    rev: str = ""
    no_checkpoint: str = NO_CHECKPOINT
    """What is told to who needs a checkpoint while there is none."""
    _index: dict[str, _Known] = field(default_factory=dict)
    _loaded: bool = False

    def scan(self) -> bool:
        """Look at the folders again; tells whether anything changed. Touches the disk: run it off the event loop."""
        if not self._loaded:
            self._index = _load_index(self.index_file)
            self._loaded = True
        found: dict[str, _Known] = {}
        fresh = False
        for path in _files(self.folders):
            try:
                stamp = stamp_of(path)
            except OSError as e:
                log.warning("%s cannot be read: %s", path, e.strerror)
                continue
            known = self._index.get(str(path))
            if known is None or (known.size, known.mtime_ns) != stamp:
                known = _Known(*stamp, self.identify(path))
                fresh = True
            found[str(path)] = known
        changed = fresh or found.keys() != self._index.keys() or not self.rev
        self._index = found
        if changed:
            named = sorted(_name(found), key=_rank)
            pairs = partners({m.id: (m.path, m.facts) for m in named})
            self.models = tuple(dataclasses.replace(m, partner=pairs.get(m.id, "")) for m in named)
            self.rev = _rev(self.models)
            _save_index(self.index_file, found)
        return changed

    def checkpoints(self) -> tuple[Model, ...]:
        """Those that can be used now; the starter model last."""
        return tuple(m for m in self.models if m.facts.kind == "checkpoint" and m.facts.usable)

    def find(self, kind: str | None, search: str) -> list[Model]:
        """The models of `kind` in whose id, title or family all words of `search` occur."""
        words = search.casefold().split()
        fitting = [m for m in self.models if kind is None or m.facts.kind == kind]
        if not words:
            return fitting
        texts = (f"{m.id} {m.facts.title} {m.facts.family}".casefold() for m in fitting)
        return [m for m, text in zip(fitting, texts, strict=True) if all(word in text for word in words)]

    def checkpoint(self, name: str, mode: str) -> Model:
        """The checkpoint of that name; for an empty one the first that suits `mode`.

        Raises ModelError `model.unknown` with the nearest name, or what was found wrong with that file.
        """
        usable = self.checkpoints()
        if not name:
            suited = [m for m in usable if m.facts.variant == "inpaint"] if mode == "inpaint" else []
            suited += [m for m in usable if m.facts.variant != "inpaint"]
            if not suited:
                raise ModelError("model.unknown", self.no_checkpoint, path="params.model")
            # An inpainting checkpoint of the starter does not go before the user's own ordinary one.
            return min(suited, key=lambda m: m.id.startswith(STARTER))
        found = self._named(name)
        if found is not None:
            return _usable(found, "checkpoint", "params.model")
        near = self._nearest(name)
        hint = f" Did you mean {near[0]!r}?" if near else (" `impasto models list` shows all." if usable else "")
        raise ModelError(
            "model.unknown",
            f"There is no model {name[:80]!r}.{hint}" + ("" if usable else f" {self.no_checkpoint}"),
            path="params.model",
            data={"nearest": near},
        )

    def partner_of(self, model: Model) -> Model | None:
        """The inpainting checkpoint that inpaints in place of this one, if there is one that can be used."""
        return self._named(model.partner) if model.partner else None

    def upscaler(self, name: str) -> Model:
        """The upscaler of that name. Raises ModelError as `checkpoint` does."""
        found = self._named(name)
        if found is not None:
            return _usable(found, "upscaler", "params.upscaler")
        near = self._nearest(name, "upscaler")
        hint = f"Did you mean {near[0]!r}?" if near else "Leave it out to take Lanczos."
        raise ModelError(
            "model.unknown",
            f"There is no upscaler {name[:80]!r}. {hint}",
            path="params.upscaler",
            data={"nearest": near},
        )

    def lora(self, name: str, path: str, family: str) -> Model:
        """The LoRA of that name, file or alias, the latter where it means one, for a checkpoint of `family`.

        A checkpoint may have the same name as a LoRA. Raises ModelError as `checkpoint` does; with `need` and `got` for
        one of another family.
        """
        loras = [m for m in self.models if m.facts.kind == "lora"]
        found = next((m for m in loras if m.id == name), None) or next((m for m in loras if m.path.stem == name), None)
        if found is None:
            aliased = [m for m in loras if m.facts.alias == name]
            found = aliased[0] if len(aliased) == 1 else self._named(name)
        if found is None:
            error = unknown_lora(name, [m.id for m in loras])
            error.path = path
            raise error
        if found.facts.kind == "lora" and found.facts.family not in ("", family):
            raise ModelError(
                "model.unsupported",
                f"The LoRA {found.id!r} is for {found.facts.family}, the checkpoint is {family}; choose a LoRA for "
                f"{family}, or a checkpoint of {found.facts.family}.",
                path=path,
                data={"model": found.id, "need": family, "got": found.facts.family},
            )
        return _usable(found, "lora", path)

    def loras(self, family: str) -> dict[str, str]:
        """Name -> path of all LoRAs that may fit a checkpoint of `family`."""
        fitting = (m for m in self.models if m.facts.kind == "lora" and m.facts.usable)
        named = [m for m in fitting if m.facts.family in ("", family)]
        return {m.path.stem: str(m.path) for m in named} | {m.id: str(m.path) for m in named}

    def embeddings(self, texts: Sequence[str]) -> dict[str, str]:
        """Name -> path of the embeddings whose names may stand in the texts, spaces and capitals aside."""
        held = "".join("".join(text.split()) for text in texts).casefold()
        usable = (m for m in self.models if m.facts.kind == "embedding" and m.facts.usable)
        return {m.id: str(m.path) for m in usable if "".join(m.path.stem.split()).casefold() in held}

    def _named(self, name: str) -> Model | None:
        return next((model for model in self.models if model.id == name), None)

    def _nearest(self, name: str, kind: str | None = None) -> list[str]:
        names = [m.id for m in self.models if kind is None or m.facts.kind == kind]
        return difflib.get_close_matches(name, names, 1, 0.4)

    def modes(self) -> tuple[Mode, ...]:
        """What can be asked for, and where it cannot be done now, why."""
        if self.checkpoints():
            return describe()
        return tuple(
            dataclasses.replace(mode, available=False, reason=self.no_checkpoint)
            if needs_checkpoint(mode.name)
            else mode
            for mode in describe()
        )


def _rank(model: Model) -> int:
    if not model.facts.usable:
        return 3
    if model.facts.kind != "checkpoint":
        return 2
    return 1 if model.id.startswith(STARTER) else 0


def _usable(model: Model, kind: str, path: str) -> Model:
    """The model, if it is of that kind and can be used; `path` is the parameter that names it."""
    facts = model.facts
    if not facts.usable:
        raise ModelError(facts.code, f"The model {model.id!r} cannot be used: {facts.reason}", path=path)
    if facts.kind != kind:
        raise ModelError(
            "model.unsupported",
            f"The model {model.id!r} is of the kind {facts.kind}, not {kind}; choose another one.",
            path=path,
        )
    return model


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    """Model files and folders, each once, in a stable order; links are followed, but not in circles.

    A folder in diffusers' layout is one model: what lies in its parts is not listed by itself.
    """
    seen: set[str] = set()
    for folder in folders:
        if folder.is_file():  # `--model FILE` on the command line
            yield folder
            continue
        for root, folders_here, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(root)
            if real in seen:
                folders_here.clear()
                continue
            seen.add(real)
            folders_here.sort()
            if is_model_folder(root):
                folders_here.clear()
                yield Path(root)
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    path = Path(root, name)
                    where = os.path.realpath(path)
                    if where not in seen:
                        seen.add(where)
                        yield path


def _name(found: Mapping[str, _Known]) -> tuple[Model, ...]:
    """By their places; where two names are equal the later one says its path by a few digits of a hash."""
    taken: set[str] = set()
    models = []
    for path, known in found.items():
        name = model_name(path)
        if name in taken:
            name = f"{name}~{hashlib.blake2b(path.encode(), digest_size=3).hexdigest()}"
        taken.add(name)
        models.append(Model(name, Path(path), known.facts))
    return tuple(models)


def _rev(models: Iterable[Model]) -> str:
    text = json.dumps([[m.id, str(m.path), asdict(m.facts), m.partner] for m in models], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _load_index(file: Path | None) -> dict[str, _Known]:
    """The index of an earlier run; an old or damaged one is made anew."""
    if file is None or not file.exists():
        return {}
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["version"] != index_version():
            return {}
        return {
            path: _Known(int(entry["size"]), int(entry["mtime_ns"]), Facts(**entry["facts"]))
            for path, entry in raw["files"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        log.warning("the index of models is made anew: %s", e)
        return {}


def _save_index(file: Path | None, found: Mapping[str, _Known]) -> None:
    if file is None:
        return
    text = json.dumps({"version": index_version(), "files": {path: asdict(known) for path, known in found.items()}})
    try:
        write_private(file, text)
    except (OSError, ImpastoError) as e:
        log.warning("the index of models could not be saved: %s", e)
