"""Make `server/impasto_server/engine/data/clip_merges.txt.gz` from CLIP's list of byte pairs.

    python3 -m pip download --no-deps open-clip-torch==3.3.0
    unzip open_clip_torch-3.3.0-py3-none-any.whl open_clip/bpe_simple_vocab_16e6.txt.gz
    python3 tools/make_clip_vocabulary.py open_clip/bpe_simple_vocab_16e6.txt.gz

The list holds 262,144 merges, of which CLIP uses the first 48,894; they alone decide the vocabulary of 49,408 tokens
(see engine/text.py), so nothing else is shipped. The output is the same byte for byte on every run.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from pathlib import Path

MERGES = 49_408 - 2 * 256 - 2  # the vocabulary without the bytes (alone and at a word's end) and the two marks
TARGET = Path(__file__).parents[1] / "server/impasto_server/engine/data/clip_merges.txt.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("-o", type=Path, default=TARGET, dest="target")
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges = lines[1 : MERGES + 1]  # the first line names the version
    if "version" not in lines[0] or len(merges) != MERGES or any(len(line.split()) != 2 for line in merges):
        sys.exit(f"{args.source} is not CLIP's list of byte pairs.")
    packed = gzip.compress("\n".join(merges).encode(), compresslevel=9, mtime=0)
    args.target.write_bytes(packed)
    print(f"{args.target}: {len(merges)} merges, {len(packed)} bytes")


if __name__ == "__main__":
    main()
