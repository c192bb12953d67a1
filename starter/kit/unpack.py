"""Unpacks the kit's networks where they are used, each when it is first needed. Imports zstandard, no torch."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import zstandard

WEIGHTS = Path(__file__).parent / "weights"
TABLE = "kit.json"
REPAIR = "impasto models kit --repair"
_NEEDED = ("file", "kind", "about", "licence", "origin", "result_bytes", "result_sha256")


class KitDamaged(Exception):
    """A packed file of the kit is missing or not what it should be. The text names the file and the repair."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"The kit's file {path} {why}. To repair it run: {REPAIR}")
        self.path = path


class KitReplaced(Exception):
    """Where a file of the kit should be lies another one. The text names it and the repair."""

    def __init__(self, path: Path, name: str, repair: str = REPAIR):
        super().__init__(
            f"{path} is not the kit's {name} (its checksum is another one), so it is not used. Move it elsewhere if it "
            f"is yours, then run: {repair}"
        )
        self.path = path


class KitNotPulled(Exception):
    """A network that does not come along was not fetched yet. The text names the command that does it."""

    def __init__(self, path: Path, name: str):
        super().__init__(f"The network {name} is not there yet; fetch it: {pull_command(name)}")
        self.path = path


def pull_command(name: str) -> str:
    return f"impasto models pull {name}"


def is_packed(entry: dict[str, Any]) -> bool:
    """Whether the network of a table's entry comes along; the others are pulled."""
    return "sha256" in entry


def table(weights: Path = WEIGHTS) -> dict[str, dict[str, Any]]:
    """What is known of each network, by its name, also of those that are pulled. Raises KitDamaged."""
    path = weights / TABLE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: {**entry, **{k: entry[k] for k in _NEEDED}} for name, entry in found.items()}
    except FileNotFoundError:
        raise KitDamaged(path, "is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise KitDamaged(path, f"cannot be read ({e})") from None


def is_right(path: Path, entry: dict[str, Any]) -> bool:
    """Whether the file at `path` is the unpacked network that the table's entry describes."""
    try:
        if path.stat().st_size != entry["result_bytes"]:
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == entry["result_sha256"]
    except OSError:
        return False


def install(name: str, folder: Path | str, weights: Path = WEIGHTS, *, repair: bool = False) -> Path:
    """The path of the unpacked network in `folder`; unpacks it unless it is there already.

    Raises KitDamaged where the packed file is missing or damaged, KitReplaced where another file lies in its place
    and `repair` does not say to overwrite it, KitNotPulled where it does not come along and was not fetched; KeyError
    for an unknown name. The file appears whole or not at all.
    """
    entry = table(weights)[name]
    out = Path(folder) / entry["file"]
    if is_right(out, entry):
        return out
    if not is_packed(entry):
        raise KitReplaced(out, name, pull_command(name)) if out.exists() else KitNotPulled(out, name)
    if out.exists() and not repair:
        raise KitReplaced(out, name)
    write(out, _unpacked(weights / f"{name}.pack", entry))
    return out


def write(out: Path, data: bytes) -> None:
    """The file appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=out.name, suffix=".part", dir=out.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, out)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _unpacked(source: Path, entry: dict[str, Any]) -> bytes:
    try:
        packed = source.read_bytes()
    except FileNotFoundError:
        raise KitDamaged(source, "is missing") from None
    except OSError as e:
        raise KitDamaged(source, f"cannot be read ({e.strerror})") from None
    if len(packed) != entry["bytes"]:
        raise KitDamaged(source, f"has {len(packed)} bytes instead of {entry['bytes']}")
    if hashlib.sha256(packed).hexdigest() != entry["sha256"]:
        raise KitDamaged(source, "is damaged (its checksum is wrong)")
    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=entry["result_bytes"])
    if hashlib.sha256(data).hexdigest() != entry["result_sha256"]:
        raise KitDamaged(source, "did not unpack to the expected network (its checksum is wrong)")
    return data
