"""What it costs to bring pixels out of GIMP and a layer back in: our way, and the way of temporary PNG files.

    python3 dev.py exec -- python benchmarks/gimp_bridge.py [--size 4096] [--repeat 3]

Both ways run in one GIMP 3 without a display, alternating, with the plug-in's own code. Out: the picture as it is seen,
as bytes in the plug-in's process. Back: a new layer with the same pixels in the image. The PNG way is what plug-ins do
that talk in files: save a copy of the image, read the file; write a file, load it as a layer; once with GIMP's own
compression (9), as they mostly do, and once with the quickest (1). What decodes and encodes the file on the other side
is left out, to its advantage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from impasto_server.cli.plugin_gimp import install_gimp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.gimp.gdrive import GimpSession, missing  # noqa: E402

PATIENCE = 1800
"""Seconds for one way there and back: PNG files are slow on a busy machine."""
PREPARE = """
import importlib.util, os, sys, time
from pathlib import Path
from gi.repository import Gegl, Gimp, Gio
program = next(Path(Gimp.directory()).glob("plug-ins/impasto_gimp/impasto_gimp.py"))
spec = importlib.util.spec_from_file_location("impasto_program", str(program))
loader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loader)
loader.load_package()
from impasto_client.document import ResultLayer
from impasto_gimp import document
from impasto_protocol.geometry import Box

def photo(size):
    # Smooth forms with a little grain, as a photograph has them; noise alone would be hard on PNG.
    image = Gimp.Image.new(size, size, Gimp.ImageBaseType.RGB)
    layer = Gimp.Layer.new(image, "photo", size, size, Gimp.ImageType.RGBA_IMAGE, 100, Gimp.LayerMode.NORMAL)
    image.insert_layer(layer, None, 0)
    grain = os.urandom(1 << 20)
    rows = []
    for y in range(size):
        row = bytearray()
        for x in range(0, size, 16):
            base = bytes(((x * 255 // size), (y * 255 // size), ((x + y) * 127 // size), 255))
            row += base * 16
        noise = grain[(y * 977) % (len(grain) - len(row)) :]
        row[0::4] = bytes(min(255, v + (n & 7)) for v, n in zip(row[0::4], noise))
        rows.append(bytes(row))
    data = b"".join(rows)
    buffer = layer.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, size, size), "R'G'B'A u8", data)
    buffer.flush()
    layer.update(0, 0, size, size)
    return image, data

def ours(image, box, data):
    start = time.perf_counter()
    sent = document.read_visible(image, box)
    out = time.perf_counter()
    result = ResultLayer("job", 0, box, data, "rgba8", "back", "inpaint", "soft", 1)
    layer, = document.paste(image, [result], lambda _: b"{}")
    back = time.perf_counter()
    image.remove_layer(layer)
    assert len(sent) == box.width * box.height * 4
    return [out - start, back - out]

def files(image, box, folder, compression):
    out_file, back_file = folder + "/out.png", folder + "/back.png"
    start = time.perf_counter()
    copy = image.duplicate()
    copy.crop(box.width, box.height, box.x, box.y)
    copy.merge_visible_layers(Gimp.MergeType.CLIP_TO_IMAGE)
    export = Gimp.get_pdb().lookup_procedure("file-png-export")
    config = export.create_config()
    config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
    config.set_property("image", copy)
    config.set_property("file", Gio.File.new_for_path(out_file))
    config.set_property("compression", compression)
    assert export.run(config).index(0) == Gimp.PDBStatusType.SUCCESS
    copy.delete()
    sent = Path(out_file).read_bytes()
    out = time.perf_counter()
    Path(back_file).write_bytes(sent)
    layer = Gimp.file_load_layer(Gimp.RunMode.NONINTERACTIVE, image, Gio.File.new_for_path(back_file))
    image.insert_layer(layer, None, 0)
    layer.set_offsets(box.x, box.y)
    back = time.perf_counter()
    image.remove_layer(layer)
    return [out - start, back - out]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if missing():
        print(f"This needs {' '.join(missing())}; see dev.py.", file=sys.stderr)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="impasto-bench-"))
    try:
        for placed in install_gimp(folder):
            shutil.copytree(ROOT / "tests/gimp/plugins/gbridge", placed.parent / "gbridge")
        with GimpSession(folder) as session:
            session.connect()
            session.run(PREPARE)
            session.run(f"image, data = photo({args.size})\nbox = Box(0, 0, {args.size}, {args.size})", PATIENCE)
            times: dict[str, list[list[float]]] = {"ours": [], "PNG 1": [], "PNG 9": []}
            for number in range(args.repeat):
                print(f"round {number + 1} of {args.repeat}", file=sys.stderr)
                times["ours"].append(session.run("result = ours(image, box, data)", PATIENCE))
                for level in (1, 9):
                    code = f"result = files(image, box, {str(folder)!r}, {level})"
                    times[f"PNG {level}"].append(session.run(code, PATIENCE))
            session.run("image.delete()")
            session.quit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in times.items()}
    if args.json:
        print(json.dumps({"size": args.size, "seconds": medians}))
        return 0
    print(f"{args.size} x {args.size}, median of {args.repeat}, seconds")
    own = sum(medians["ours"])
    for way, (out, back) in medians.items():
        print(
            f"  {way:6} out {out:8.3f}   back {back:7.3f}   both {out + back:8.3f}   {(out + back) / own:6.1f} x ours"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
