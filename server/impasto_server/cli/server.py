"""`impasto serve` and `impasto stop`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto_protocol.home import STOP_AFTER, home_folder, read_launch
from impasto_protocol.pairing import REMOTE_PORT

if TYPE_CHECKING:
    from impasto_protocol.home import Endpoint

    from ..service.settings import Settings

__all__ = [
    "add_arguments",
    "add_engine_options",
    "add_folder_options",
    "folders_of",
    "launch_command",
    "remember_launch",
    "run",
    "settings_from",
]

_LONGEST_MINUTES = 525600
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs `serve` and `stop`."""
    serve = subparsers.add_parser("serve", help="run the server that the editors talk to")
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to open to other computers, with --tls (default: this machine only)",
    )
    serve.add_argument(
        "--port", type=int, default=0, help=f"port to listen on (default: a free one, with --tls {REMOTE_PORT})"
    )
    how = serve.add_mutually_exclusive_group()
    how.add_argument("--tls", action="store_true", help="encrypt what --host opens; clients are paired (impasto pair)")
    how.add_argument(
        "--insecure", action="store_true", help="permit a --host beyond this machine without encryption, as in a VPN"
    )
    serve.add_argument(
        "--stop-after",
        type=_minutes,
        default=None,
        metavar="MINUTES",
        help="stop after so long without a client and without a job; 0 is never (default: never, and 10 where an "
        "editor starts the server)",
    )
    serve.add_argument(
        "--free-after",
        type=_minutes,
        default=600.0,
        metavar="MINUTES",
        help="minutes without a job after which the memory of loaded models is given back (default: 10; 0 never)",
    )
    add_engine_options(serve)
    subparsers.add_parser("free", help="give back the memory that the running server holds for models")
    stop = subparsers.add_parser("stop", help="stop the running server")
    stop.add_argument("--wait", type=float, default=15.0, metavar="SECONDS", help="how long to wait for its end")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The options of whatever runs the engine."""
    group = parser.add_argument_group("models and machine")
    add_folder_options(group)
    group.add_argument(
        "--wildcards", type=Path, action="append", default=[], metavar="DIR", help="a folder of wildcard files"
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    group.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    group.add_argument(
        "--memory", type=_bytes, default=None, metavar="SIZE", help="memory for loaded models, such as 4G"
    )


_PROGRAMS = {"a1111": "an A1111 or Forge web UI", "comfyui": "a ComfyUI", "invokeai": "an InvokeAI"}


def add_folder_options(parser: argparse._ActionsContainer) -> None:
    """Where models are looked for beside the user's folder."""
    parser.add_argument("--models", type=Path, nargs="+", action="extend", default=[], metavar="DIR", help="any tree")
    for name, title in _PROGRAMS.items():
        parser.add_argument(
            f"--{name}", type=Path, action="append", default=[], metavar="DIR", help=f"the folder of {title}"
        )


def folders_of(args: argparse.Namespace) -> dict[str, Any]:
    """The folders of parsed arguments, as the settings take them."""
    return {
        name: tuple(path.expanduser().absolute() for path in getattr(args, name)) for name in ("models", *_PROGRAMS)
    }


def settings_from(args: argparse.Namespace) -> Settings:
    """The settings of parsed arguments."""
    from ..service.settings import Settings

    return Settings(
        host=getattr(args, "host", "127.0.0.1"),
        port=getattr(args, "port", 0),
        tls=getattr(args, "tls", False),
        insecure=getattr(args, "insecure", False),
        **folders_of(args),
        wildcards=tuple(path.expanduser().absolute() for path in args.wildcards),
        device=args.device,
        precision=args.precision,
        memory_budget=args.memory,
        stop_after=getattr(args, "stop_after", None),
        free_after=getattr(args, "free_after", Settings.free_after),
    )


def launch_command(settings: Settings) -> list[str]:
    """The command that starts a server with these settings."""
    command = [sys.executable, "-m", "impasto_server.cli.main", "serve"]
    for name in ("host", "port", "device", "precision"):
        value = getattr(settings, name)
        if value != type(settings).__dataclass_fields__[name].default:
            command += [f"--{name}", str(value)]
    for name in ("tls", "insecure"):
        if getattr(settings, name):
            command.append(f"--{name}")
    if settings.models:
        command += ["--models", *map(str, settings.models)]
    for name in _PROGRAMS:
        for root in getattr(settings, name):
            command += [f"--{name}", str(root)]
    for folder in settings.wildcards:
        command += ["--wildcards", str(folder)]
    if settings.memory_budget is not None:
        command += ["--memory", str(settings.memory_budget)]
    if settings.free_after != type(settings).free_after:
        command += ["--free-after", f"{(settings.free_after or 0) / 60:g}"]
    if settings.stop_after is not None:
        command += ["--stop-after", f"{settings.stop_after / 60:g}"]
    return command


def remember_launch() -> None:
    """Keep the command that starts a server with default settings, where none is kept yet."""
    from ..service.home import ensure_home, write_launch
    from ..service.settings import Settings

    settings = Settings()
    if read_launch(settings.home) is None:
        ensure_home(settings.home)
        write_launch(settings.home, launch_command(settings))


def run(args: argparse.Namespace) -> int:
    """Serve until stopped, or stop the server."""
    if args.verb == "free":
        return _free()
    return _stop(args.wait) if args.verb == "stop" else _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from ..service.serve import serve

    settings = settings_from(args)
    launch = launch_command(settings)
    if settings.stop_after is None:
        # What an editor asks of the server that it starts is no setting: the next one may be started by hand.
        settings = replace(settings, stop_after=_asked_by_editor())

    def listening(endpoint: Endpoint) -> None:
        print(f"Impasto listens on {endpoint.host} port {endpoint.port}. Ctrl+C stops it.", flush=True)

    def opened(warning: str) -> None:
        print(f"impasto: {warning}", file=sys.stderr, flush=True)

    serve(settings, launch, listening, opened)
    return 0


def _asked_by_editor() -> float | None:
    """Seconds from STOP_AFTER in the environment; None where there is none or it is no number of minutes."""
    try:
        return _minutes(os.environ.get(STOP_AFTER, ""))
    except argparse.ArgumentTypeError:
        return None


def _free() -> int:
    from impasto_client.client import Client
    from impasto_client.endpoint import read_endpoint

    from .generate import client_info

    endpoint = read_endpoint(home_folder())
    if endpoint is None:
        print("No server is running.", file=sys.stderr)
        return 0
    client = Client.connect(endpoint, client_info(), lambda message: None, lambda error: None)
    try:
        client.free()
    finally:
        client.close()
    print("The memory of loaded models was given back; the next job loads again.")
    return 0


def _stop(wait: float) -> int:
    from impasto_client.client import Client
    from impasto_client.endpoint import read_endpoint
    from impasto_protocol.errors import ResourceError

    from .generate import client_info

    home = home_folder()
    endpoint = read_endpoint(home)
    if endpoint is None:
        print("No server is running.", file=sys.stderr)
        return 0
    client = Client.connect(endpoint, client_info(), lambda message: None, lambda error: None)
    client.shutdown()
    client.close()
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        if read_endpoint(home) is None:
            print("The server has stopped.")
            return 0
        time.sleep(0.1)
    raise ResourceError(
        "resource.still_running",
        f"The server (process {endpoint.pid}) has not ended within {wait:g} s; end it by hand.",
    )


def _minutes(text: str) -> float:
    """Minutes as seconds."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= _LONGEST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes; write 10, or 0 for never")
    return 60 * minutes


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write 4G or 3500M")
    return int(float(match[1]) * _UNITS[match[2].upper()])
