"""Results on disk before they are announced, so that a crash loses no finished picture.

A result is first raw RGBA pixels and its recipe (temporary file, fsync, rename); `finish` then makes the PNG with
AUTOMATIC1111's `parameters` text and an XMP note of the digital source type, which replaces the raw file. The names
sort by time (UTC). A starred result has an empty file beside it, and the quota passes it by.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from impasto_protocol.errors import JobError, ResourceError
from impasto_protocol.images import Buffer, digest_of

from ..engine.jobs import Pixels
from .metadata import png_info
from .pixels import from_wire, to_wire

__all__ = ["Entry", "Journal"]

log = logging.getLogger("impasto.journal")

_NAME = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9A-Za-z_-]+-\d+")
_STAMP = 22
"""Characters of the time in a name."""

_COUNT_AFTER = 64
"""Results after which the folder is counted anew: another process may have written there."""

_SETTLED = 2.0
"""Seconds after which a half result is nobody's work in progress (the command line writes to the folder too)."""


@dataclass(frozen=True)
class Entry:
    """One result on disk. `digest` is that of the bytes as announced, in `format`; `box` is [x, y, width, height]."""

    name: str
    job: str
    index: int
    mode: str
    created: float
    width: int
    height: int
    format: str
    digest: str
    box: tuple[int, int, int, int]
    layer: str
    alpha: str
    seed: int
    recipe: Mapping[str, Any]
    stage: str = "generate"


class Journal:
    """The history folder. Calls touch the disk: run them off the event loop; they may come from several threads."""

    def __init__(self, folder: Path, quota: int) -> None:
        self.folder = folder
        self.quota = quota
        self._swap = threading.Lock()
        """Held while a raw file gives way to its PNG, and while a picture is read."""
        self._index: dict[str, Entry | None] = {}
        """The recipes that were read, None for damaged ones; a recipe's file never changes."""
        self._look = threading.Lock()
        self._last = ""
        """The latest time in a name, as it sorts; "" before the first look."""
        self._bytes, self._uncounted = 0, _COUNT_AFTER
        """The size of the folder as far as it is known, and results since it was counted."""

    def write(
        self,
        *,
        job: str,
        index: int,
        mode: str,
        pixels: Pixels,
        format: str,
        digest: str,
        box: tuple[int, int, int, int],
        layer: str,
        alpha: str,
        seed: int,
        recipe: Mapping[str, Any],
        stage: str = "generate",
    ) -> Entry:
        """Keep RGBA `pixels` [height, width, 4]; on return they survive a crash.

        Raises ResourceError `resource.disk_full`.
        """
        now = time.time()
        safe = re.sub(r"[^0-9A-Za-z_-]", "_", job)[:32]
        name = f"{self._stamp(now)}-{safe}-{index}"
        entry = Entry(
            name=name,
            job=job,
            index=index,
            mode=mode,
            created=now,
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=format,
            digest=digest,
            box=box,
            layer=layer,
            alpha=alpha,
            seed=seed,
            recipe=recipe,
            stage=stage,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The recipe comes last: without it there is no entry, so a crash between the two leaves no half result.
            _write(self.folder / f"{name}.rgba", np.ascontiguousarray(pixels).data.cast("B"))
            _write(self.folder / f"{name}.json", json.dumps(asdict(entry), default=str).encode())
        except OSError as e:
            with contextlib.suppress(OSError):
                (self.folder / f"{name}.rgba").unlink(missing_ok=True)
            raise ResourceError(
                "resource.disk_full",
                f"The result could not be saved in {self.folder} ({e.strerror}); free some space and try again.",
                retryable=True,
            ) from e
        return entry

    def finish(self, entry: Entry) -> None:
        """Replace the raw file by the PNG, then keep to the quota."""
        from PIL import Image

        raw = self.folder / f"{entry.name}.rgba"
        if not raw.exists():
            return  # the quota was faster
        pixels = np.frombuffer(raw.read_bytes(), np.uint8).reshape(entry.height, entry.width, 4)
        temporary = raw.with_suffix(".png.tmp")
        try:
            with open(temporary, "wb") as file:
                Image.fromarray(pixels, "RGBA").save(file, "PNG", pnginfo=png_info(entry.recipe), compress_level=4)
                file.flush()
                os.fsync(file.fileno())
            with self._swap:
                os.replace(temporary, raw.with_suffix(".png"))
                raw.unlink()
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._bytes += sum((self.folder / f"{entry.name}{suffix}").stat().st_size for suffix in (".png", ".json"))
        self._uncounted += 1
        if self._bytes > self.quota or self._uncounted >= _COUNT_AFTER:
            self.keep_to_quota()

    def entries(self) -> Iterator[Entry]:
        """All results, newest first; a damaged recipe is skipped and logged once."""
        return iter(self._listed())

    def starred(self) -> frozenset[str]:
        """The names of those with a star."""
        return frozenset(path.stem for path in self.folder.glob("*.star"))

    def entry(self, job: str, index: int) -> Entry:
        """That result. Raises JobError `job.unknown`."""
        entry = next((e for e in self._listed() if e.job == job and e.index == index), None)
        if entry is None:
            raise JobError(
                "job.unknown",
                f"The history has no result {index} of this job (any more); ask for the history again.",
                data={"job": job},
            )
        return entry

    def star(self, job: str, index: int, on: bool) -> None:
        """Give a result a star, or take it. Raises JobError `job.unknown`, ResourceError `resource.disk_full`."""
        entry = self.entry(job, index)
        path = self.folder / f"{entry.name}.star"
        try:
            if on:
                path.touch()
            else:
                path.unlink(missing_ok=True)
        except OSError as e:
            raise ResourceError(
                "resource.disk_full", f"The star could not be saved in {self.folder} ({e.strerror}).", retryable=True
            ) from e

    def recover(self) -> list[Entry]:
        """Clear away what a crash left half done; the results whose PNG is still to be made, oldest first."""
        if not self.folder.is_dir():
            return []
        settled = time.time() - _SETTLED
        for path in self.folder.glob("*.tmp"):
            if _NAME.fullmatch(path.name.split(".")[0]) and path.stat().st_mtime < settled:
                log.warning("the half-written %s is dropped", path.name)
                path.unlink(missing_ok=True)
        for path in (*self.folder.glob("*.rgba"), *self.folder.glob("*.png"), *self.folder.glob("*.star")):
            alone = _NAME.fullmatch(path.stem) and not path.with_suffix(".json").exists()
            if alone and path.stat().st_mtime < settled:
                log.warning("%s is dropped, it has no recipe: the result was never announced", path.name)
                path.unlink(missing_ok=True)
        unfinished = []
        for entry in reversed(self._listed()):
            raw, png = (self.folder / f"{entry.name}{suffix}" for suffix in (".rgba", ".png"))
            if png.exists():
                raw.unlink(missing_ok=True)
            elif raw.exists():
                unfinished.append(entry)
            else:
                log.warning("the recipe of %s is dropped, its picture is gone", entry.name)
                raw.with_suffix(".json").unlink(missing_ok=True)
        return unfinished

    def path(self, entry: Entry) -> Path | None:
        """The picture's file: the PNG, or the raw pixels while that is not made yet; None where it is gone."""
        for suffix in (".png", ".rgba"):
            path = self.folder / f"{entry.name}{suffix}"
            if path.exists():
                return path
        return None

    def read(self, digest: str) -> bytes | None:
        """The bytes that were announced under `digest`, or None where the history no longer has them."""
        for entry in self._listed():
            if entry.digest == digest:
                with self._swap:
                    data = self._announced(entry)
                if data is not None and digest_of(data) == digest:
                    return data
        return None

    def _listed(self) -> list[Entry]:
        """The results in the folder now, newest first; only what is new is read."""
        with self._look:
            names = {path.stem for path in self.folder.glob("*.json")}
            for name in self._index.keys() - names:
                del self._index[name]
            for name in names - self._index.keys():
                self._index[name] = _read_entry(self.folder / f"{name}.json")
            found = [entry for entry in self._index.values() if entry is not None]
        return sorted(found, key=lambda entry: entry.name, reverse=True)

    def _stamp(self, now: float) -> str:
        """The time as it sorts; later than all before, also where the clock was set back."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{int(now * 1e6) % 1_000_000:06d}"
        last = self._last or max((e.name[:_STAMP] for e in self._listed() if _NAME.fullmatch(e.name)), default="")
        if stamp <= last:
            digits = f"{int(last.replace('-', '')) + 1:020d}"
            stamp = f"{digits[:8]}-{digits[8:14]}-{digits[14:]}"
        self._last = stamp
        return stamp

    def _announced(self, entry: Entry) -> bytes | None:
        from PIL import Image

        path = self.path(entry)
        try:
            if path is None:
                return None
            if path.suffix == ".png":
                with Image.open(path) as image:
                    rgba = np.asarray(image.convert("RGBA"))
            else:
                rgba = from_wire(path.read_bytes(), entry.width, entry.height, "rgba8")
        except (OSError, ValueError) as e:
            log.warning("the result %s cannot be read: %s", entry.name, e)
            return None
        return to_wire(rgba, entry.format)

    def keep_to_quota(self) -> None:
        """Remove the oldest results without a star until the folder is within its quota; the newest always stays."""
        sizes: dict[str, int] = {}
        for path in self.folder.iterdir():
            if path.suffix in (".png", ".rgba", ".json"):
                sizes[path.stem] = sizes.get(path.stem, 0) + path.stat().st_size
        starred = self.starred()
        self._bytes, self._uncounted = sum(sizes.values()), 0
        for name in sorted(sizes)[:-1]:
            if self._bytes <= self.quota:
                return
            if name in starred:
                continue
            # The recipe goes first: without it the rest is no entry.
            for suffix in (".json", ".png", ".rgba"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)
            self._bytes -= sizes[name]


def _read_entry(path: Path) -> Entry | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["box"] = tuple(raw["box"])
        return Entry(**raw)
    except (OSError, ValueError, TypeError, KeyError) as e:
        log.warning("the recipe %s cannot be read and is left out: %s", path.name, e)
        return None


def _write(path: Path, data: Buffer) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
