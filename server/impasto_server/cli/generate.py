"""`impasto txt2img | img2img | sketch | inpaint | upscale`: one job, by a running server or in this process."""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto_protocol.errors import ImpastoError, RequestError, ResourceError
from impasto_protocol.geometry import Box, Size
from impasto_protocol.messages import (
    Cancelled,
    ClientInfo,
    Failed,
    Finished,
    InputPicture,
    Message,
    Output,
    PlanOk,
    Progress,
)

from .. import __version__
from ..engine.intents import INTENTS
from ..engine.modes import MODES, needs_checkpoint
from ..engine.params_guides import IP_PICTURES
from .chain import add_chain_options, links_of
from .options import add_mode_options, given_values
from .params import params_for, read_file, tell_notes
from .server import add_engine_options
from .sheet import write_sheet

if TYPE_CHECKING:
    from impasto_client.client import Client
    from PIL.Image import Image

__all__ = ["add_arguments", "client_info", "run"]

GUIDES = ("control", "references", "ip_adapters", "regions")
"""Lists whose entries name pictures."""
WHOLE = ("references", "ip_adapters")
"""Those of them whose pictures are looked at as a whole."""


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add a verb for each mode."""
    for mode, (_, title, inputs) in MODES.items():
        parser = subparsers.add_parser(mode, help=title)
        names = {i.name for i in inputs}
        if "image" in names:
            parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="the picture")
        if "mask" in names:
            text = "white (or opaque) is repainted; as large as --image"
            parser.add_argument("--mask", type=Path, required=True, metavar="FILE", help=text)
        if mode in INTENTS:
            text = "values to begin with: " + "; ".join(f"{i.name}: {i.description}" for i in INTENTS[mode])
            choices = [intent.name for intent in INTENTS[mode]]
            parser.add_argument("--intent", choices=choices, default=None, help=text.replace("%", "%%"))
        if "backdrop" in names:
            text = "what lies under the sketch with --background document; as large as --image"
            parser.add_argument("--backdrop", type=Path, metavar="FILE", help=text)
        if mode == "upscale":
            text = "instead of --scale; 0 on one side keeps the aspect, with both what lies over is cut off"
            parser.add_argument("--size", type=size_or_side, metavar="WxH", help=text)
        if "image" not in names:
            parser.add_argument("--size", type=_size, metavar="WxH", help="default: the model's own size")
        parser.add_argument(
            "--from",
            dest="from_file",
            metavar="FILE",
            help="take the settings that a picture or a text says; options given here come before them; - is the input",
        )
        parser.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help=f"the finished picture (default: {mode}-SEED.png)"
        )
        parser.add_argument("--layer", type=Path, metavar="FILE", help="the layer that an editor would paste, as PNG")
        if needs_checkpoint(mode):
            text = "settings that belong together: `fast`, where there is an LCM, Hyper-SD or similar LoRA, or its name"
            parser.add_argument("--preset", metavar="NAME", help=text)
            text = "with --vary: all pictures in one, with what each is, as PNG or JPEG"
            parser.add_argument("--sheet", type=Path, metavar="FILE", help=text)
        if mode == "annotate":
            text = "of a pose also the joints, as JSON in OpenPose's keypoint format"
            parser.add_argument("--pose-out", type=Path, metavar="FILE", help=text)
        if mode != "annotate":
            add_chain_options(parser)
        parser.add_argument("--json", action="store_true", help="tell the results as one JSON object")
        parser.add_argument("--in-process", action="store_true", help="do not use a server that is running")
        add_mode_options(parser, mode)
        add_engine_options(parser)


def client_info() -> ClientInfo:
    """How the command line presents itself."""
    return ClientInfo("impasto", __version__, "command line")


def run(args: argparse.Namespace) -> int:
    """Run one job to its end."""
    from .connect import connection

    values = given_values(args)
    for intent in INTENTS.get(args.verb, ()):
        if intent.name == getattr(args, "intent", None):
            values = {**intent.params, **values}
    image, mask, backdrop = _open(args, "image"), _open(args, "mask"), _open(args, "backdrop")
    if image is not None and backdrop is not None and image.size != backdrop.size:
        raise RequestError(
            "request.bad_geometry",
            f"The backdrop has {backdrop.width} x {backdrop.height} pixels and the sketch {image.width} x "
            f"{image.height}; they must be of the same size.",
        )
    if image is not None and mask is not None and image.size != mask.size:
        raise RequestError(
            "request.bad_geometry",
            f"The mask has {mask.width} x {mask.height} pixels and the picture {image.width} x {image.height}; "
            "they must be of the same size.",
        )
    if args.verb == "upscale" and args.size is not None:
        values["width"], values["height"] = args.size
    links = links_of(args)
    hints = _control_pictures(values)
    inbox: queue.SimpleQueue[Message | ImpastoError] = queue.SimpleQueue()
    with connection(args, values, inbox) as client:
        if getattr(args, "from_file", None) is not None:
            values = _from_file(client, args, values)
        if getattr(args, "preset", None):
            values = _with_preset(client, args.preset, values)
        canvas = _canvas(client, args, values, image)
        selection = _bounds(mask)
        plan = client.plan(args.verb, values, canvas, selection)
        for warning in plan.warnings:
            print(f"impasto: {warning}", file=sys.stderr)
        if plan.seconds is not None and plan.seconds >= 1:
            print(f"impasto: about {_duration(plan.seconds)}", file=sys.stderr)
        if image is None and plan.final is not None and plan.final != plan.working:
            # What the hires pass makes, as large as it makes it, from a first pass of the size that was planned.
            canvas = plan.final
            values = {**values, "width": plan.working.width, "height": plan.working.height}
        job = uuid.uuid4().hex
        inputs = _upload(client, {"image": image, "mask": mask, "backdrop": backdrop}, plan)
        inputs |= _upload_hints(client, hints, _whole_ones(values), canvas, plan.box, image is not None)
        client.submit(job, args.verb, values, canvas, inputs, then=links)
        try:
            outputs, end = _follow(inbox, job, keep=bool(links))
        except KeyboardInterrupt:
            client.cancel(job)
            raise
        pictures = [client.fetch(output.digest, output.width * output.height * 4) for output in outputs]
    # An upscaled picture lies on nothing, a hint is to be seen alone, and what follows is the whole picture.
    first = outputs[0].info.get("mode") if outputs else None
    under = None if args.verb in ("upscale", "annotate") else image
    links_done = _links_done(outputs) if links else []
    results = [
        _save(args, under if o.info.get("mode") == first else None, o, data, len(outputs), links_done)
        for o, data in zip(outputs, pictures, strict=True)
    ]
    if getattr(args, "pose_out", None) is not None:
        _write_pose(args.pose_out, outputs[0])
    sheet = getattr(args, "sheet", None)
    if sheet is not None:
        write_sheet(sheet, outputs, pictures)
    if args.json:
        if isinstance(end, ImpastoError):
            told = {"mode": args.verb, "outputs": results, "error": {"code": end.code, "message": end.message}}
        else:
            told = {"mode": args.verb, "outputs": results, "seeds": list(end.seeds), "timings": end.timings}
            told["ran"] = end.ran
        print(json.dumps(told))
    else:
        if sheet is not None:
            print(sheet)
        for result in results:
            print(*(result[key] for key in ("file", "layer") if key in result), sep="\n")
    if isinstance(end, ImpastoError):
        print(
            "impasto: the pictures above were finished before it failed; impasto history --resume", job, file=sys.stderr
        )
        raise end
    return 0


def _links_done(outputs: list[Output]) -> list[int]:
    """Which link of its chain, from 0, each output is of."""
    left = [len(output.info.get("then", ())) for output in outputs]
    return [max(left, default=0) - each for each in left]


def _from_file(client: Client, args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters that `--from` says, those that were given before them; what cannot be taken over is told."""
    read = read_file(args.from_file, client.read_parameters)
    taken, left = params_for(args.verb, read.mode, read.params)
    tell_notes(read.mode, args.verb, left, read.notes)
    size = (taken.get("width", 0), taken.get("height", 0))
    if "width" in taken and all(size) and args.size is None:
        args.size = size
    return {**taken, **given}


def _with_preset(client: Client, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The values with those of a preset; what was given comes before them."""
    from impasto_client.presets import applied, fitting

    catalog = client.catalog()
    assert catalog is not None
    models = {str(model["id"]): model for model in catalog.models if model["kind"] == "checkpoint"}
    model = models.get(str(given.get("model", ""))) or next(iter(models.values()), {})
    fit = fitting(catalog.presets or (), str(model.get("family", "")))
    chosen = [preset for preset in fit if name in ("fast", preset["id"], preset["id"].partition(":")[2])]
    if not chosen:
        known = ", ".join(str(preset["id"]).partition(":")[2] for preset in fit)
        hint = f"known are fast, {known}." if known else "put an LCM, Hyper-SD or similar LoRA beside the models."
        raise RequestError("request.invalid_param", f"There is no preset {name[:60]!r} here; {hint}", path="preset")
    return {**applied(given, chosen[0]), **{key: value for key, value in given.items() if key != "loras"}}


def _follow(
    inbox: queue.SimpleQueue[Message | ImpastoError], job: str, *, keep: bool = False
) -> tuple[list[Output], Finished | ImpastoError]:
    """Outputs and end of the job, its progress on stderr. Raises the error that it failed with; with `keep` gives it,
    where some outputs were finished."""
    outputs: list[Output] = []
    shown = _ProgressLine()
    while True:
        message = inbox.get()
        if isinstance(message, ImpastoError):
            raise message
        if getattr(message, "job", None) != job:
            continue
        if isinstance(message, Progress):
            shown.show(message)
        elif isinstance(message, Output):
            outputs.append(message)
        elif isinstance(message, Finished):
            shown.end()
            return outputs, message
        elif isinstance(message, Failed):
            shown.end()
            if keep and outputs:
                return outputs, message.error.exception()
            raise message.error.exception()
        elif isinstance(message, Cancelled):
            shown.end()
            raise ResourceError("resource.cancelled", "The job was cancelled by the server.", retryable=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class _ProgressLine:
    """One line that is written over on a terminal; elsewhere a line a stage."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""

    def show(self, progress: Progress) -> None:
        text = f"{progress.fraction:4.0%}  {progress.stage} {progress.step}/{progress.steps}"
        if self._terminal:
            print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)
        elif progress.stage != self._stage:
            print(text, file=sys.stderr, flush=True)
        self._stage = progress.stage

    def end(self) -> None:
        if self._terminal and self._stage:
            print(file=sys.stderr)


def _open(args: argparse.Namespace, name: str) -> Image | None:
    path: Path | None = getattr(args, name, None)
    return None if path is None else _opened(path, name)


def _opened(path: Path, name: str) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if name != "mask":
                return image.convert("RGBA")
            if "A" in image.getbands() and image.getchannel("A").getextrema() != (255, 255):
                return image.getchannel("A")
            return image.convert("L")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as e:
        raise RequestError("request.bad_file", f"{path} cannot be opened as a picture ({e}).", path=name) from e


def _canvas(client: Client, args: argparse.Namespace, values: dict[str, Any], image: Image | None) -> Size:
    if image is not None:
        return Size(*image.size)
    if args.size is not None:
        values["width"], values["height"] = args.size
        return Size(*args.size)
    name = values.get("model")
    models = [m for m in client.models(search=name) if m["id"] == name] if name else []
    if not models:
        models = [m for m in itertools.islice(client.models("checkpoint"), 1) if m.get("usable")]
    native = int(models[0].get("native_size") or 512) if models else 512
    return Size(native, native)


def _bounds(mask: Image | None) -> Box | None:
    if mask is None:
        return None
    found = mask.getbbox()
    if found is None:
        raise RequestError("request.empty_selection", "The mask selects nothing; paint white where to repaint.")
    left, top, right, bottom = found
    return Box(left, top, right - left, bottom - top)


def _upload(client: Client, pictures: Mapping[str, Image | None], plan: PlanOk) -> dict[str, InputPicture]:
    inputs = {}
    box = plan.box
    for name, picture in pictures.items():
        if picture is not None:
            format = "l8" if name == "mask" else "rgba8"
            data = picture.crop((box.x, box.y, box.right, box.bottom)).tobytes()
            inputs[name] = InputPicture(client.upload(data), box.width, box.height, format, box.x, box.y)
    return inputs


def _control_pictures(values: dict[str, Any]) -> dict[str, Image]:
    """The pictures that units name as files, by the names that they get for them."""
    found: dict[str, Image] = {}
    for name in GUIDES:
        for entry in values.get(name, ()):
            for field, file in entry.pop("files", {}).items():
                if file:
                    entry[field] = f"control_{len(found) + 1}"
                    found[entry[field]] = _opened(Path(file), name)
    return found


def _whole_ones(values: Mapping[str, Any]) -> set[str]:
    """The inputs that are looked at as a whole; the others lie where the picture lies."""
    seen = [entry for name in WHOLE for entry in values.get(name, ())]
    return {str(entry[field]) for entry in seen for field in IP_PICTURES if entry.get(field)}


def _upload_hints(
    client: Client, pictures: Mapping[str, Image], whole: set[str], canvas: Size, box: Box, over: bool
) -> dict[str, InputPicture]:
    """A hint or mask as large as the picture lies over it (`over`: there is one): of it goes what lies over the part
    that is painted."""
    inputs = {}
    for name, picture in pictures.items():
        if over and name not in whole and picture.size == tuple(canvas):
            picture = picture.crop((box.x, box.y, box.right, box.bottom))
        inputs[name] = InputPicture(client.upload(picture.tobytes()), picture.width, picture.height, "rgba8")
    return inputs


def _save(
    args: argparse.Namespace, image: Image | None, output: Output, data: bytes, count: int, done: list[int]
) -> dict[str, Any]:
    """Write the files of one result and tell of them. `done` says for all results which link of a chain they are of:
    the last one's have the plain name, those before say their stage."""
    from PIL import Image

    from ..service.metadata import save_options

    layer = Image.frombytes("RGBA", (output.width, output.height), data)
    result: dict[str, Any] = {
        "placement": list(output.placement),
        "name": output.name,
        "seed": output.seed,
        "alpha": output.alpha,
        "stage": output.stage,
        "info": output.info,
    }
    link = done[output.index] if done else 0
    of_link = done.count(link) if done else count
    within = output.index - done.index(link) if done else output.index

    def write(picture: Image.Image, path: Path, *, composite: bool = False) -> str:
        if done and link < max(done):
            path = path.with_stem(f"{path.stem}-{link + 1}-{output.stage}")
        if of_link > 1:
            path = path.with_stem(f"{path.stem}-{within + 1}")
        try:
            picture.save(path, **save_options(path.suffix, output.info, composite=composite))
        except (OSError, ValueError) as e:
            raise RequestError("request.bad_file", f"{path} cannot be written ({e}).", path="output") from e
        return str(path)

    if args.layer is not None:
        result["layer"] = write(layer, args.layer)
    if args.output is not None or args.layer is None:
        target = args.output or Path(f"{args.verb}-{output.seed}.png")
        finished = layer
        if image is not None:
            finished = image.copy()
            finished.alpha_composite(layer, *_corner(output.placement))
        opaque = finished.getchannel("A").getextrema() == (255, 255)
        composite = args.verb in ("inpaint", "faceswap")
        result["file"] = write(finished.convert("RGB") if opaque else finished, target, composite=composite)
    return result


def _write_pose(path: Path, output: Output) -> None:
    pose = output.info.get("pose")
    if pose is None:
        text = (
            "This preprocessor finds no joints; choose openpose_full or another of its kind, or leave out --pose-out."
        )
        raise RequestError("request.invalid_param", text, path="pose_out")
    try:
        path.write_text(json.dumps(pose), encoding="utf-8")
    except OSError as e:
        raise RequestError("request.bad_file", f"{path} cannot be written ({e.strerror}).", path="pose_out") from e


def _corner(placement: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    """Destination and source of a layer that may begin beyond the picture's left or top edge."""
    return (max(placement.x, 0), max(placement.y, 0)), (max(-placement.x, 0), max(-placement.y, 0))


def size_or_side(text: str) -> tuple[int, int]:
    """A size of which one side may be 0."""
    parts = text.lower().split("x")
    if len(parts) == 2 and all(part.strip().isdigit() for part in parts) and any(int(part) for part in parts):
        return int(parts[0]), int(parts[1])
    raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 2048x3072, or 2048x0")


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 512x768")
    return int(parts[0]), int(parts[1])
