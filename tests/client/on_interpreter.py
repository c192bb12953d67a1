"""Run by every interpreter that `test_client_interpreters.py` finds: takes the protocol and the vendored folder, and
the address and code of a server to pair with over TLS.

Checks the byte-level vectors of the wire and plays the scenarios, with DeprecationWarning as an error in our code.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path


def main(protocol: str, vendored: str, address: str, code: str) -> None:
    here = Path(__file__).resolve().parent
    sys.path[:0] = [protocol, vendored, str(here), str(here.parent / "protocol")]
    warnings.simplefilter("error")
    import msgpack
    import websockets
    from scenarios import SCENARIOS
    from vectors import check_vectors

    assert str(Path(msgpack.__file__).resolve()).startswith(vendored), msgpack.__file__
    assert str(Path(websockets.__file__).resolve()).startswith(vendored), websockets.__file__
    checked = check_vectors()
    for name, scenario in SCENARIOS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                scenario(Path(folder))
            except AssertionError as error:
                raise AssertionError(name) from error
    pair_over_tls(address, code)
    print(json.dumps({"python": sys.version.split()[0], "vectors": checked, "scenarios": len(SCENARIOS)}))


def pair_over_tls(address: str, code: str) -> None:
    from impasto_client.connecting import connect_or_start
    from impasto_client.pairing import pair
    from impasto_protocol.messages import ClientInfo

    with tempfile.TemporaryDirectory() as folder:
        paired = pair(address, code, name=f"python {sys.version_info[1]}", home=Path(folder))
        assert len(paired.fingerprint) == 64
        client = connect_or_start(ClientInfo("test", "0"), lambda m: None, lambda e: None, home=Path(folder))
        data = os.urandom(3 << 20)
        assert client.fetch(client.upload(data)) == data
        client.close()


main(*sys.argv[1:])
