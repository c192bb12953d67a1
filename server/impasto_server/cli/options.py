"""Command-line options from the parameters of a mode: the same names, ranges and defaults as everywhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from impasto_protocol.schema import AUTO, Param

from ..engine.fields import params_of
from ..engine.ip_layers import IP_LAYERS
from ..engine.modes import MODES
from ..engine.params_control import PREPROCESSORS
from ..engine.params_guides import IP_PICTURES
from ..engine.sampler_names import schedule_name, split_sampler

__all__ = ["add_mode_options", "given_values"]

_ALIASES = {"negative_prompt": ("--negative",), "styles": ("--style",)}
_REPEATED = ("styles",)
"""May be given more than once."""
_SIZES = ("width", "height")


def add_mode_options(parser: argparse.ArgumentParser, mode: str) -> None:
    """One option a parameter; those that are not given are left to the server."""
    group = parser.add_argument_group("parameters")
    for param in params_of(MODES[mode][0]):
        if param.name in _SIZES:
            continue  # --size says both
        names = (*_ALIASES.get(param.name, ()), "--" + param.name.replace("_", "-"))
        text = _help(param)
        if param.name == "loras":
            group.add_argument(
                "--lora", dest="p_loras", action="append", type=_lora, default=None, metavar="NAME[:W[:TE]]", help=_LORA
            )
        elif param.name == "control":
            group.add_argument(
                "--control",
                dest="p_control",
                action="append",
                type=_control,
                default=None,
                metavar="MODEL=FILE[:WEIGHT]",
                help=_CONTROL,
            )
        elif param.name == "vary":
            group.add_argument(
                "--vary", dest="p_vary", action="append", type=_axis, default=None, metavar="PARAM=VALUES", help=_VARY
            )
        elif param.name == "references":
            group.add_argument(
                "--reference",
                dest="p_references",
                action="append",
                type=_reference,
                default=None,
                metavar="FILE[:WEIGHT]",
                help=_REFERENCE,
            )
        elif param.name == "ip_adapters":
            group.add_argument(
                "--ip-adapter",
                dest="p_ip_adapters",
                action="append",
                type=_ip_adapter,
                default=None,
                metavar="MODEL=FILE[,FILE][:WEIGHT]",
                help=_IP_ADAPTER,
            )
        elif param.name == "regions":
            group.add_argument(
                "--region",
                dest="p_regions",
                action="append",
                type=_region,
                default=None,
                metavar="MASK=PROMPT",
                help=_REGION,
            )
        elif param.name == "pose":
            text = "joints to draw in place of those of the picture: a JSON file in OpenPose's keypoint format"
            group.add_argument("--pose", dest="p_pose", type=_text_of, default=None, metavar="FILE", help=text)
        elif param.type == "boolean":
            group.add_argument(
                *names, dest=f"p_{param.name}", action=argparse.BooleanOptionalAction, default=None, help=text
            )
        elif param.name in _REPEATED:
            group.add_argument(*names, dest=f"p_{param.name}", action="append", default=None, metavar="NAME", help=text)
        elif param.name == "sampler":
            group.add_argument(
                *names, dest="p_sampler", action=_Sampler, choices=_Samplers(param.enum), default=None, help=_SAMPLER
            )
        else:
            group.add_argument(
                *names,
                dest=f"p_{param.name}",
                type=_kind(param),
                choices=param.enum or None,
                default=None,
                metavar=None if param.enum else param.name.upper(),
                help=text,
            )


class _Samplers(tuple[str, ...]):
    """The samplers, which have A1111's names too."""

    def __contains__(self, name: object) -> bool:
        return split_sampler(str(name)) is not None


class _Sampler(argparse.Action):
    """A sampler, and the schedule that an old name of A1111 says with it, where none is given."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None) -> None:
        named = split_sampler(str(values))
        assert named is not None  # it was among the choices
        namespace.p_sampler = named[0]
        if named[1] != "automatic" and getattr(namespace, "p_schedule", None) is None:
            namespace.p_schedule = named[1]


_SAMPLER = "A1111's names do as well, also old ones: 'DPM++ 2M Karras' (sampler and schedule); default dpmpp_2m"


def given_values(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters that were given."""
    values = {name[2:]: value for name, value in vars(args).items() if name.startswith("p_") and value is not None}
    return values | {name: ", ".join(values[name]) for name in _REPEATED if name in values}


_VARY = (
    "a picture for each value: cfg=3-9 (+2), seed=1-4, sampler=euler,heun, search_replace=cat,dog, prompt=@FILE with a "
    "prompt a line; given twice, a table"
)


def _axis(text: str) -> dict[str, str]:
    """An entry of `vary`; @FILE stands for what is in the file."""
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} says no values; write cfg=3-9 (+2)")
    if values.startswith("@"):
        try:
            values = Path(values[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise argparse.ArgumentTypeError(f"{values[1:]} cannot be read ({e})") from e
    return {"param": name.strip().replace("-", "_"), "values": values}


_LORA = "a LoRA, its strength (1) and, where it differs, that on the text encoder; may be given again"


def _lora(text: str) -> dict[str, Any]:
    """An entry of `loras`: the numbers stand at the end, since a name may hold a colon."""
    name, numbers = text, list[float]()
    while len(numbers) < 2 and ":" in name:
        rest, _, last = name.rpartition(":")
        try:
            numbers.insert(0, float(last))
        except ValueError:
            break
        name = rest
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} names no LoRA; write NAME:0.8")
    return {"model": name, **dict(zip(("strength", "text_strength"), numbers, strict=False))}


def _text_of(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{file} cannot be read ({e})") from e


_CONTROL = (
    "a ControlNet, its picture and its weight (1); MODEL=canny:FILE makes the hint first, by any preprocessor that "
    "annotate has; a FILE that ends in .json holds joints that are drawn; an empty FILE takes --image; may be given "
    "again"
)


def _control(text: str) -> dict[str, Any]:
    """An entry of `control`, whose picture is still to be uploaded."""
    model, equals, rest = text.partition("=")
    if not model or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no control; write MODEL=FILE or MODEL=canny:FILE:0.8")
    entry: dict[str, Any] = {"model": model}
    head, colon, tail = rest.rpartition(":")
    try:
        entry["weight"], rest = float(tail) if colon else 1.0, head if colon else rest
    except ValueError:
        entry["weight"] = 1.0
    kind, colon, file = rest.partition(":")
    if colon and kind in PREPROCESSORS:
        entry["preprocessor"], rest = kind, file
    if rest.lower().endswith(".json"):
        return {"preprocessor": "openpose_full", **entry, "pose": _text_of(rest)}
    return {**entry, "files": {"image": rest}}


_IP_ADAPTER = (
    "an IP-Adapter, its pictures (averaged) and its weight (1); MODEL=style:FILE takes the style alone, or another of "
    "what docs/control.md lists; an empty FILE takes --image; may be given again"
)


def _ip_adapter(text: str) -> dict[str, Any]:
    """An entry of `ip_adapters`, whose `files` are still to be uploaded."""
    model, equals, rest = text.partition("=")
    if not model or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP-Adapter; write MODEL=FILE or MODEL=style:FILE:0.8")
    entry: dict[str, Any] = {"model": model}
    head, colon, tail = rest.rpartition(":")
    try:
        entry["weight"], rest = (float(tail), head) if colon else (1.0, rest)
    except ValueError:
        entry["weight"] = 1.0
    preset, colon, files = rest.partition(":")
    if colon and preset in IP_LAYERS:
        entry["layers"], rest = preset, files
    named = rest.split(",")
    if len(named) > len(IP_PICTURES):
        raise argparse.ArgumentTypeError(f"an IP-Adapter takes {len(IP_PICTURES)} pictures, not {len(named)}")
    return {**entry, "files": dict(zip(IP_PICTURES, named, strict=False))}


_REGION = (
    "a prompt for a part of the picture, beside --prompt: MASK is a file that is painted there (or white, where it is "
    "opaque); MASK:0.5=PROMPT lets it count half; may be given again"
)


def _region(text: str) -> dict[str, Any]:
    """An entry of `regions`, whose mask is still to be uploaded."""
    mask, equals, prompt = text.partition("=")
    if not mask or not equals or not prompt.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no region; write MASK=PROMPT, as in left.png='a red house'")
    head, colon, tail = mask.rpartition(":")
    weight = 1.0
    try:
        weight, mask = (float(tail), head) if colon else (1.0, mask)
    except ValueError:
        pass
    return {"prompt": prompt, "weight": weight, "files": {"mask": mask}}


_REFERENCE = (
    "a picture in whose manner to paint, and its weight (1); adain:FILE takes its colours and contrast, both:FILE its "
    "things, too; may be given again"
)


def _reference(text: str) -> dict[str, Any]:
    """An entry of `references`, whose picture is still to be uploaded."""
    head, colon, tail = text.rpartition(":")
    entry: dict[str, Any] = {}
    try:
        entry["weight"], text = (float(tail), head) if colon else (1.0, text)
    except ValueError:
        entry["weight"] = 1.0
    kind, colon, file = text.partition(":")
    if colon and kind in ("attention", "adain", "both"):
        entry["kind"], text = kind, file
    return {**entry, "files": {"image": text}}


def _kind(param: Param) -> Any:
    plain = {"integer": int, "number": float, "string": str}[param.type]
    if param.name == "schedule":
        return lambda text: schedule_name(text) or text
    if not param.auto:
        return plain

    def number_or_auto(text: str) -> Any:
        return AUTO if text == AUTO else plain(text)

    return number_or_auto


def _help(param: Param) -> str:
    text = (param.description or param.title).rstrip(".")
    if param.minimum is not None and param.maximum is not None:
        text += f" ({param.minimum:g} to {param.maximum:g})"
    if param.default not in ("", None):
        text += f"; default {param.default}"
    return text.replace("%", "%%")
