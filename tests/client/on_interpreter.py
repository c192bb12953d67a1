"""Run by every interpreter that `test_client_interpreters.py` finds: takes the protocol and the vendored folder.

Checks the byte-level vectors of the wire and plays the scenarios, with DeprecationWarning as an error in our code.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path


def main(protocol: str, vendored: str) -> None:
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
    print(json.dumps({"python": sys.version.split()[0], "vectors": checked, "scenarios": len(SCENARIOS)}))


main(*sys.argv[1:])
