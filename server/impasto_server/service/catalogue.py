"""The models on this machine: folders -> entries that a client chooses by name, never by path.

Files are identified from their headers; what was found is kept in an index by path, size and time, so that a folder of
thousands is read once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from impasto_protocol.errors import ModelError
from impasto_protocol.nearest import nearest
from impasto_protocol.schema import Mode

from ..engine.addon_names import unknown_lora
from ..engine.lora_check import check_lora
from ..engine.modelpath import ONNX, model_name
from ..engine.modes import MODES, describe, needs_checkpoint
from .facts import Facts, index_version
from .file_hashes import FileHashes
from .model_index import Known, load_index, save_index
from .model_walk import walk
from .partners import partners

__all__ = ["EDITS", "NO_CHECKPOINT", "STARTER", "Catalogue", "Model"]

STARTER = "impasto-starter"
"""File stem of the starter model; any other checkpoint goes before it."""

EDITS = "instruct-pix2pix"
"""The variant of checkpoints that change a picture by an instruction."""

NO_CHECKPOINT = "There is no checkpoint yet: run `impasto models starter`, or point --models at a folder with some."


@dataclass(frozen=True)
class Model:
    """One file, or one folder in diffusers' layout: its stable name, where it lies, and what it was found to be.

    `partner` is the id of the inpainting checkpoint that inpaints in place of this one, "" where there is none;
    `preview` is the path of the picture that lies beside it, "" where none does.
    """

    id: str
    path: Path
    facts: Facts
    partner: str = ""
    preview: str = ""

    @property
    def native_size(self) -> int:
        return self.facts.native_size

    @property
    def hints(self) -> Mapping[str, Any]:
        return self.facts.hints

    def to_wire(self) -> dict[str, Any]:
        """The entry of the catalogue: without the path, which is nobody's business."""
        wire = asdict(self.facts)
        for name in ("code", "says_partner", "latents", "text_width"):
            del wire[name]
        return {
            "id": self.id,
            **wire,
            "title": self.facts.title or self.id,
            "partner": self.partner,
            "preview": bool(self.preview),
        }


@dataclass
class Catalogue:
    """The entries of some folders, as of the last `scan`. `identify` reads headers; it never raises."""

    folders: Sequence[Path] | Callable[[], Sequence[Path]]
    """A function is asked at every scan: the databases and lists of other programs change while the server runs."""
    identify: Callable[[Path], Facts]
    index_file: Path | None = None
    kit: Path | None = None
    """The folder of the kit's networks; None where it is not known."""
    hashes: FileHashes = field(default_factory=FileHashes)
    models: tuple[Model, ...] = ()
    """In the order of the list: checkpoints that can be used, the starter model last of them, then what else can be
    used, then all others."""
    rev: str = ""
    no_checkpoint: str = NO_CHECKPOINT
    """What is told to who needs a checkpoint while there is none."""
    _index: dict[str, Known] = field(default_factory=dict)
    _previews: dict[str, str] = field(default_factory=dict)
    _by_id: dict[str, Model] = field(default_factory=dict)
    _fits: dict[tuple[str, str], ModelError | None] = field(default_factory=dict)
    _loaded: bool = False

    def scan(self) -> bool:
        """Look at the folders again; tells whether anything changed. Touches the disk: run it off the event loop."""
        saved = self._loaded
        if not self._loaded:
            self._index = load_index(self.index_file)
            self._loaded = True
        found: dict[str, Known] = {}
        previews: dict[str, str] = {}
        fresh = False
        for file in walk(self.places()):
            if self.kit is not None and file.path.endswith(ONNX) and Path(file.path).parent == self.kit:
                continue  # they are known by their names, not chosen
            known = self._index.get(file.path)
            if known is None or known.size != file.size or known.mtime_ns != file.mtime_ns:
                known = Known(file.size, file.mtime_ns, self.identify(Path(file.path)))
                fresh = True
            found[file.path] = known
            if file.preview:
                previews[file.path] = file.preview
        moved = fresh or found.keys() != self._index.keys()
        changed = moved or previews != self._previews or not self.rev
        self._index, self._previews = found, previews
        if changed:
            named = sorted(_named(found, previews), key=_rank)
            pairs = partners({m.id: (m.path, m.facts) for m in named if m.facts.kind == "checkpoint"})
            models = tuple(dataclasses.replace(m, partner=pairs[m.id]) if m.id in pairs else m for m in named)
            self._by_id = {m.id: m for m in models}
            self._fits = {}
            self.models = models
            self.rev = _rev(found, previews, pairs)
        if moved or (not saved and not found):
            save_index(self.index_file, found)
        return changed

    def places(self) -> Sequence[Path]:
        """The folders that are looked at now."""
        return self.folders() if callable(self.folders) else self.folders

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

    def checkpoint(self, name: str) -> Model:
        """The checkpoint of that name; for an empty one the first ordinary one, which is what a painter paints with:
        its inpainting partner is found from there. Inpainting ones come where there is no other, the starter's last,
        and after all those that need a picture to change.

        Raises ModelError `model.unknown` with the nearest name, or what was found wrong with that file.
        """
        usable = self.checkpoints()
        if not name:
            if not usable:
                raise ModelError("model.unknown", self.no_checkpoint, path="params.model")
            return min(usable, key=_ordinary)
        found = self.named(name)
        if found is not None:
            return _usable(found, ("checkpoint", "unet"), "params.model")
        near = self._nearest(name, "checkpoint")
        hint = f" Did you mean {near[0]!r}?" if near else (" `impasto models list` shows all." if usable else "")
        raise ModelError(
            "model.unknown",
            f"There is no model {name[:80]!r}.{hint}" + ("" if usable else f" {self.no_checkpoint}"),
            path="params.model",
            data={"nearest": near},
        )

    def hash_files(self, busy: Callable[[], bool]) -> None:
        """Work out the hashes that old pictures name files by; see `FileHashes.look`. Small files come first."""
        named = [m for m in self.models if m.facts.kind in ("checkpoint", "unet", "lora", "vae")]
        self.hashes.look(((m.path, m.facts.kind == "lora") for m in sorted(named, key=_size)), busy)

    def partner_of(self, model: Model) -> Model | None:
        """The inpainting checkpoint that inpaints in place of this one, if there is one that can be used."""
        return self.named(model.partner) if model.partner else None

    def upscaler(self, name: str) -> Model:
        """The upscaler of that name. Raises ModelError as `checkpoint` does."""
        found = self.named(name)
        if found is not None:
            return _usable(found, ("upscaler",), "params.upscaler")
        near = self._nearest(name, "upscaler")
        hint = f"Did you mean {near[0]!r}?" if near else "Leave it out to take Lanczos."
        raise ModelError(
            "model.unknown",
            f"There is no upscaler {name[:80]!r}. {hint}",
            path="params.upscaler",
            data={"nearest": near},
        )

    def face(self, name: str) -> Model:
        """The face profile of that name; for an empty one the only one. Raises ModelError as `checkpoint` does."""
        usable = [m for m in self.models if m.facts.kind == "face" and m.facts.usable]
        if not name and len(usable) == 1:
            return usable[0]
        found = self.named(name) or next(
            (m for m in self.models if m.facts.kind == "face" and m.path.stem == name), None
        )
        if name and found is not None:
            return _usable(found, ("face",), "params.profile")
        near = self._nearest(name, "face") if name else []
        wanted = f"There is no face profile {name[:80]!r}." if name else "A face swap needs a face profile."
        hint = f"Did you mean {near[0]!r}?" if near else _faces_hint([m.id for m in usable])
        raise ModelError("model.unknown", f"{wanted} {hint}", path="params.profile", data={"nearest": near})

    def controlnet(self, name: str, path: str, family: str) -> Model:
        """The ControlNet of that name, for a checkpoint of `family`. Raises ModelError as `lora` does."""
        return self._guide(name, path, family, "controlnet", "ControlNet")

    def ip_adapter(self, name: str, path: str, family: str) -> Model:
        """The IP-Adapter of that name, for a checkpoint of `family`. Raises ModelError as `lora` does."""
        return self._guide(name, path, family, "ip-adapter", "IP-Adapter")

    def _guide(self, name: str, path: str, family: str, kind: str, title: str) -> Model:
        known = [m for m in self.models if m.facts.kind == kind]
        found = self.named(name) or next((m for m in known if m.path.stem == name), None)
        if found is None:
            near = self._nearest(name, kind)
            hint = f"Did you mean {near[0]!r}?" if near else "`impasto models list` shows all."
            raise ModelError(
                "model.unknown", f"There is no {title} {name[:80]!r}. {hint}", path=path, data={"nearest": near}
            )
        if found.facts.kind == kind and found.facts.family not in ("", family):
            raise ModelError(
                "model.unsupported",
                f"The {title} {found.id!r} is for {found.facts.family}, the checkpoint is {family}; choose one for "
                f"{family}.",
                path=path,
                data={"model": found.id, "need": family, "got": found.facts.family},
            )
        return _usable(found, (kind,), path)

    def part(self, name: str, kinds: tuple[str, ...], path: str) -> Model:
        """The model of that name, if it is of one of the kinds. Raises ModelError as `checkpoint` does."""
        found = self.named(name)
        if found is not None:
            return _usable(found, kinds, path)
        near = self._nearest(name, kinds[0])
        hint = f"Did you mean {near[0]!r}?" if near else "`impasto models list` shows all."
        raise ModelError(
            "model.unknown",
            f"There is no {kinds[0]} {name[:80]!r}. {hint}",
            path=path,
            data={"nearest": near},
        )

    def vae_beside(self, model: Model) -> Model | None:
        """The VAE that belongs to a checkpoint by its name, NAME.vae.safetensors or NAME.vae.pt: beside it, else in
        another folder."""
        stem = model_name(model.path)
        named = [
            m
            for m in self.models
            if m.facts.kind == "vae"
            and m.facts.usable
            and model_name(m.path) in (f"{stem}.vae", stem)
            and m is not model
        ]
        return min(named, key=lambda m: m.path.parent != model.path.parent, default=None)

    def preview_decoder(self, model: Model) -> Model | None:
        """A TAESD decoder for the latents of a model, where there is one. The starter model's latents are its own: it
        is served by the decoder that came with it alone, and that one serves no other."""
        ours = STARTER in model.path.stem
        decoders = (m for m in self.models if m.facts.variant == "taesd" and m.facts.family == model.facts.family)
        return next((m for m in decoders if (STARTER in m.path.stem) == ours), None)

    def lora(self, name: str, path: str, family: str) -> Model:
        """The LoRA of that name, file or alias, the latter where it means one, for a checkpoint of `family`.

        A checkpoint may have the same name as a LoRA. Raises ModelError as `checkpoint` does; with `need` and `got` for
        one of another family.
        """
        loras = [m for m in self.models if m.facts.kind == "lora"]
        found = next((m for m in loras if m.id == name), None) or next((m for m in loras if m.path.stem == name), None)
        if found is None:
            aliased = [m for m in loras if m.facts.alias == name]
            found = aliased[0] if len(aliased) == 1 else self.named(name)
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
        return _usable(found, ("lora",), path)

    def check_lora(self, lora: Model, model: Model, path: str) -> None:
        """Raise ModelError where the LoRA does not fit the model, by both headers; each pair is looked at once."""
        key = (str(lora.path), str(model.path))
        if key not in self._fits:
            try:
                check_lora(lora.path, model.path, name=lora.id, model=model.id, family=model.facts.family)
                self._fits[key] = None
            except ModelError as e:
                self._fits[key] = e
        error = self._fits[key]
        if error is not None:
            raise ModelError(error.code, error.message, path=path, data=error.data)

    def loras(self, family: str) -> dict[str, str]:
        """Name -> path of all LoRAs that may fit a checkpoint of `family`."""
        fitting = (m for m in self.models if m.facts.kind == "lora" and m.facts.usable)
        named = [m for m in fitting if m.facts.family in ("", family)]
        return {m.path.stem: str(m.path) for m in named} | {m.id: str(m.path) for m in named}

    def check_embeddings(self, text: str, model: Model, path: str) -> None:
        """Raise ModelError `model.unsupported` with `need` and `got` where a word of the text is an embedding of
        another width than the model's text encoder. A name inside a longer word may mean nothing: loading tells it.
        """
        width = model.facts.text_width
        wrong = {
            m.path.stem.casefold(): m
            for m in self.models
            if m.facts.kind == "embedding" and m.facts.usable and width and m.facts.text_width not in (0, width)
        }
        if not wrong:
            return
        for word in _WORD.findall(text.casefold()):
            found = wrong.get(word)
            if found is not None and not any(m.id.casefold() == word for m in self.models if _right(m, width)):
                raise ModelError(
                    "model.unsupported",
                    f"The embedding {found.id!r} has vectors of {found.facts.text_width} numbers, the text encoder of "
                    f"{model.id!r} has {width}: it was made for another family. Take it out of the prompt, or choose "
                    "another checkpoint.",
                    path=path,
                    data={"model": found.id, "need": width, "got": found.facts.text_width},
                )

    def embeddings(self, texts: Sequence[str]) -> dict[str, str]:
        """Name -> path of the embeddings whose names may stand in the texts, spaces and capitals aside."""
        held = "".join("".join(text.split()) for text in texts).casefold()
        usable = (m for m in self.models if m.facts.kind == "embedding" and m.facts.usable)
        return {m.id: str(m.path) for m in usable if "".join(m.path.stem.split()).casefold() in held}

    def named(self, name: str) -> Model | None:
        """The model of that id, whatever it is."""
        return self._by_id.get(name)

    def first(self, limit: int) -> tuple[Model, ...]:
        """At most `limit` models in the order of the list, for who does not ask further: every kind has its share."""
        if len(self.models) <= limit:
            return self.models
        kinds: dict[str, list[Model]] = {}
        for model in self.models:
            kinds.setdefault(model.facts.kind if model.facts.usable else "", []).append(model)
        share = limit // len(kinds)
        chosen = [model for models in kinds.values() for model in models[:share]]
        taken = {model.id for model in chosen}
        chosen += [model for model in self.models if model.id not in taken][: limit - len(chosen)]
        taken = {model.id for model in chosen}
        return tuple(model for model in self.models if model.id in taken)

    def _nearest(self, name: str, kind: str) -> list[str]:
        """In a list: of those that can be used, of that kind if there is one, else of all models."""
        usable = [m.id for m in self.models if m.facts.usable and m.facts.kind == kind]
        return nearest(name, usable, 0.4) or nearest(name, (m.id for m in self.models), 0.4)

    def modes(self) -> tuple[Mode, ...]:
        """What can be asked for, and where it cannot be done now, why."""
        reasons = {} if self.checkpoints() else {m: self.no_checkpoint for m in MODES if needs_checkpoint(m)}
        if not any(m.facts.kind == "face" and m.facts.usable for m in self.models):
            reasons["faceswap"] = f"There is no face profile yet. {_faces_hint([])}"
        return tuple(
            dataclasses.replace(mode, available=False, reason=reasons[mode.name]) if mode.name in reasons else mode
            for mode in describe()
        )


def _faces_hint(names: list[str]) -> str:
    if names:
        return f"Choose one of {', '.join(names)[:300]}."
    return "Make one: impasto faces build NAME PHOTO... --consent TEXT"


_WORD = re.compile(r"[\w.\-]+")


def _right(model: Model, width: int) -> bool:
    return model.facts.kind == "embedding" and model.facts.usable and model.facts.text_width in (0, width)


def _ordinary(model: Model) -> tuple[bool, bool, bool]:
    return model.facts.variant == EDITS, model.id.startswith(STARTER), model.facts.variant == "inpaint"


def _rank(model: Model) -> tuple[int, bool]:
    if not model.facts.usable:
        return 3, False
    if model.facts.kind != "checkpoint":
        return 2, False
    ours = model.id.startswith(STARTER)
    return int(ours), ours and model.facts.variant == "inpaint"


def _usable(model: Model, kinds: tuple[str, ...], path: str) -> Model:
    """The model, if it is of one of the kinds and can be used; `path` is the parameter that names it."""
    facts = model.facts
    if not facts.usable:
        raise ModelError(facts.code, f"The model {model.id!r} cannot be used: {facts.reason}", path=path)
    if facts.kind not in kinds:
        raise ModelError(
            "model.unsupported",
            f"The model {model.id!r} is of the kind {facts.kind}, not {kinds[0]}; choose another one.",
            path=path,
        )
    return model


def _size(model: Model) -> int:
    try:
        return model.path.stat().st_size
    except OSError:
        return 0


def _named(found: Mapping[str, Known], previews: Mapping[str, str]) -> Iterator[Model]:
    """By their places; where two names are equal the later one says its path by a few digits of a hash."""
    taken: set[str] = set()
    for path, known in found.items():
        if known.facts.kind == "picture":
            continue  # it lies among embeddings and is none
        name = model_name(path)
        if name in taken:
            name = f"{name}~{hashlib.blake2b(path.encode(errors='surrogateescape'), digest_size=3).hexdigest()}"
        taken.add(name)
        yield Model(name, Path(path), known.facts, preview=previews.get(path, ""))


def _rev(found: Mapping[str, Known], *more: object) -> str:
    """Another one whenever a model comes, goes or changes, or `more` does."""
    digest = hashlib.blake2b(f"{index_version()} {more!r}".encode(errors="surrogateescape"), digest_size=8)
    rows = (f"{path}\0{known.size}\0{known.mtime_ns}" for path, known in found.items())
    digest.update("\n".join(rows).encode(errors="surrogateescape"))
    return digest.hexdigest()
