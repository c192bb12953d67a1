"""What the single steps of moving a picture cost: 64 MiB copied in each way, 4 MiB hashed and masked.

    python3 dev.py exec -- python benchmarks/copies.py

Prints medians of the processor time in milliseconds as JSON; they are why the spool's files are used again, and read
and written instead of mapped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge import photograph
from websockets.utils import apply_mask


def copies() -> dict[str, float]:
    """Processor milliseconds by step."""
    large, small = photograph(4096), photograph(1024)
    used = memoryview(bytearray(len(large)))
    used[:] = large

    def processor(step: Callable[[], Any], count: int = 7) -> float:
        taken = []
        for _ in range(count):
            began = time.process_time()
            kept = step()
            taken.append(time.process_time() - began)
            del kept
        return round(1000 * statistics.median(taken), 1)

    def write(path: Path, flags: int) -> None:
        number = os.open(path, os.O_RDWR | flags, 0o600)
        os.write(number, large)
        os.close(number)

    def mapped(path: Path) -> None:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), len(large)) as view:
            view[:] = large

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool"
        new = processor(lambda: write(path, os.O_CREAT | os.O_TRUNC))
        return {
            "64 MiB into used memory": processor(lambda: used.__setitem__(slice(None), large)),
            "64 MiB into new memory": processor(lambda: bytes(large)),
            "64 MiB written into a new file": new,
            "64 MiB written into a used file": processor(lambda: write(path, 0)),
            "64 MiB copied into a mapped used file": processor(lambda: mapped(path)),
            "4 MiB BLAKE2b": processor(lambda: hashlib.blake2b(small, digest_size=16).digest()),
            "4 MiB masked in pure Python": processor(lambda: apply_mask(small, b"mask")),
        }


if __name__ == "__main__":
    print(json.dumps(copies(), indent=1))
    sys.exit(0)
