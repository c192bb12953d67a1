"""Which build of torch fits a machine, the command that installs it, and how it is installed.

Where the facts come from: the builds for CUDA 12.8 and newer hold no code for cards before Turing (compute capability
7.5), and torch 2.14 is the last with a build for CUDA 12.6; CUDA 13 needs driver 580, CUDA 12 needs 525. The package
index has CUDA builds for Linux, and builds without for Windows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from impasto_protocol.errors import RequestError, ResourceError

from .cards import Card, Machine

__all__ = [
    "KINDS",
    "TORCH",
    "Build",
    "build_of",
    "choose",
    "install_commands",
    "installed",
    "is_installed",
    "pip_install",
    "upscaler_command",
]

TORCH = "2.13.0"
"""The version that is known to work with the others; `dev.py` installs the same."""

LEAST = (2, 4)
"""The oldest torch that Impasto runs with."""

INDEX = "https://download.pytorch.org/whl/"
KINDS = ("cuda", "cuda126", "rocm", "xpu", "mps", "cpu")
LOCAL = {"cuda126": "cu126", "cpu": "cpu", "xpu": "xpu"}
"""Kind -> the label that its version carries ("2.13.0+cpu")."""
CUDA_FOR_WINDOWS = "cu130"
ROCM = "rocm7.2"
TURING = (7, 5)
OLDEST = (5, 0)
"""Compute capability below which the build for CUDA 12.6 has no code either."""
BLACKWELL = (10, 0)
"""Needs CUDA 12.8 or newer."""
DRIVER_CUDA13, DRIVER_CUDA12 = 580, 525

_GENERATIONS = (
    (r"GT ?1030|GTX 10[5-8]0|TITAN Xp?\b|Quadro P\d|Tesla P(4|6|40)\b", (6, 1)),
    (r"Tesla P100", (6, 0)),
    (r"GTX 9\d\d|Quadro M\d|Tesla M(4|40|60)\b", (5, 2)),
    (r"GTX 750|GTX 745|Tesla M10\b", (5, 0)),
    (r"TITAN V|Tesla V100|Quadro GV100", (7, 0)),
    (r"GTX 16\d\d|RTX 20\d\d|Tesla T4|TITAN RTX|Quadro RTX", (7, 5)),
    (r"GTX [67]\d\d|GT [67]\d\d|Tesla K\d|Quadro K\d", (3, 0)),
)
"""Marketing names -> compute capability, for cards whose driver does not answer: the old ones, where it matters."""


@dataclass(frozen=True)
class Build:
    """One build of torch, and why it is the one."""

    kind: str
    """One of KINDS."""
    requirement: str
    """What pip is asked for."""
    index: str
    """A package index besides the user's own; "" for none."""
    only_index: bool
    """Take everything from `index`: the version there is not known beforehand."""
    reason: str
    download: str
    """Roughly what is fetched."""


def build_of(kind: str, system: str = sys.platform, reason: str = "as asked for") -> Build:
    """The build of that kind for that system. Raises RequestError `request.invalid_param` for one that is not made."""
    if kind not in KINDS:
        raise RequestError("request.invalid_param", f"There is no build {kind!r}; choose one of {', '.join(KINDS)}.")
    impossible = {"darwin": ("cuda", "cuda126", "rocm", "xpu"), "win32": ("rocm", "mps")}.get(system, ("mps",))
    if kind in impossible:
        raise RequestError("request.invalid_param", f"torch is not made for {kind} on this system ({system}).")
    if system == "darwin":
        return Build(kind, f"torch=={TORCH}", "", False, reason, "0.1 GB")
    if kind == "cuda" and system == "win32":
        return Build(kind, f"torch=={TORCH}+{CUDA_FOR_WINDOWS}", INDEX + CUDA_FOR_WINDOWS, False, reason, "3 GB")
    if kind == "cuda":
        return Build(kind, f"torch=={TORCH}", "", False, reason, "3 GB")
    if kind == "rocm":
        return Build(kind, "torch>=2.4", INDEX + ROCM, True, reason, "4 GB")
    size = {"cuda126": "3 GB", "xpu": "2 GB", "cpu": "0.2 GB"}[kind]
    return Build(kind, f"torch=={TORCH}+{LOCAL[kind]}", INDEX + LOCAL[kind], False, reason, size)


def choose(machine: Machine) -> Build:
    """The build for the best card of `machine`; the processor's where no card can be used, and why.

    Raises ResourceError `resource.unsupported` where torch is not made for this machine at all.
    """
    if machine.system == "darwin":
        if machine.architecture == "arm64":
            return build_of("mps", "darwin", "Apple silicon: torch computes on its graphics part (MPS)")
        raise ResourceError(
            "resource.unsupported",
            "torch is no longer made for Macs with Intel processors; run the server on another computer.",
        )
    by_vendor = {vendor: [c for c in machine.cards if c.vendor == vendor] for vendor in ("nvidia", "amd", "intel")}
    if by_vendor["nvidia"]:
        return _for_nvidia(by_vendor["nvidia"], machine)
    if by_vendor["amd"]:
        name = by_vendor["amd"][0].name or "an AMD card"
        if machine.system == "linux" and machine.architecture == "x86_64":
            return build_of("rocm", machine.system, f"{name}: an AMD card (ROCm)")
        return build_of("cpu", machine.system, f"{name}: torch computes on AMD cards on Linux alone")
    discrete = [c for c in by_vendor["intel"] if c.discrete]
    if discrete:
        return build_of("xpu", machine.system, f"{discrete[0].name or 'Intel'}: an Intel card (XPU)")
    names = ", ".join(c.name or c.vendor for c in machine.cards)
    return build_of(
        "cpu", machine.system, f"{names}: not a card that torch computes on" if names else "no graphics card was found"
    )


def _for_nvidia(cards: Sequence[Card], machine: Machine) -> Build:
    best = max(cards, key=lambda c: (_capability(c) or (0, 0), c.memory))
    capability, name = _capability(best), best.name or "an NVIDIA card"
    told = f"{name} (compute capability {capability[0]}.{capability[1]})" if capability else name
    driver = int(best.driver.split(".")[0]) if re.match(r"\d+\.", best.driver) else 0
    # Windows' own numbers (32.0.15.8088) hide NVIDIA's; nvidia-smi tells the real one.
    old_driver = 0 < driver < DRIVER_CUDA13 and (machine.system != "win32" or driver > 100)
    if capability is not None and capability < OLDEST:
        return build_of("cpu", machine.system, f"{told}: too old for any build of torch; the processor is used")
    if capability is not None and capability < TURING:
        return build_of("cuda126", machine.system, f"{told}: only the builds for CUDA 12.6 have code for it")
    if old_driver and driver >= DRIVER_CUDA12 and (capability is None or capability < BLACKWELL):
        return build_of(
            "cuda126", machine.system, f"{told}, driver {best.driver}: CUDA 13 needs driver {DRIVER_CUDA13} or newer"
        )
    if old_driver:
        raise ResourceError(
            "resource.unsupported",
            f"{told} needs a newer driver than {best.driver}: install NVIDIA's {DRIVER_CUDA13} or newer, restart, and "
            "run `impasto setup torch` again. (`impasto setup torch --build cpu` uses the processor.)",
        )
    return build_of("cuda", machine.system, f"{told}: an NVIDIA card (CUDA)")


def _capability(card: Card) -> tuple[int, int] | None:
    if card.capability is not None:
        return card.capability
    return next((capability for pattern, capability in _GENERATIONS if re.search(pattern, card.name, re.I)), None)


def installed() -> str:
    """The version of the torch that is here ("2.13.0+cpu"), or ""."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def is_installed(build: Build, there: str) -> bool:
    """Is `there` a torch that serves for `build`? A version of the user's own is left alone if its kind fits."""
    numbers = re.match(r"(\d+)\.(\d+)", there)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < LEAST:
        return False
    _, _, label = there.partition("+")
    if build.kind == "cuda":
        # The package index's builds for Linux carry no label.
        return (not label and sys.platform != "win32") or (label.startswith("cu") and label != "cu126")
    if build.kind == "cuda126":
        return label == "cu126"
    if build.kind == "mps":
        return not label
    return label.startswith(build.kind)


def install_commands(build: Build, index: str | None = None, there: str = "") -> list[list[str]]:
    """pip's commands: a pip that can go on with half a download, torch, and the loader of upscaler models.

    `index` takes the place of the build's own; "none" leaves pip what it is set up with. `there` is the version of the
    torch that the build takes the place of.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    chosen = build.index if index is None else ("" if index == "none" else index)
    where = [] if not chosen else ["--index-url" if build.only_index and index is None else "--extra-index-url", chosen]
    patient = ["--timeout", "60", "--resume-retries", "20"]
    # To pip 2.13.0+cpu satisfies ==2.13.0, so it would leave another build where it is.
    anew = ["--force-reinstall"] if there and "+" not in build.requirement else []
    return [
        [*pip, "--quiet", "pip>=25.1"],
        [*pip, *patient, *anew, *where, build.requirement],
        upscaler_command(),
    ]


def upscaler_command() -> list[str]:
    """pip's command for the loader of upscaler models: it asks for torchvision, which it does not need here and which
    often does not fit."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    return [*pip, "--quiet", "--no-deps", "spandrel>=0.4.2,<0.5", "einops"]


def pip_install(
    commands: Sequence[Sequence[str]],
    environ: Mapping[str, str] = os.environ,
    call: Callable[..., subprocess.CompletedProcess[bytes]] = subprocess.run,
) -> None:
    """Run pip with its progress on the terminal. What it has fetched whole is kept in its cache, so that a second try
    goes on where the first one ended.

    Raises ResourceError `resource.install_failed` with the command.
    """
    for command in commands:
        done = call(list(command), env={**environ, "PYTHONUNBUFFERED": "1"}, stdout=sys.stderr)
        if done.returncode != 0:
            raise ResourceError(
                "resource.install_failed",
                f"pip ended with exit code {done.returncode}; the lines above say why. Mend it (a network, a proxy in "
                "HTTPS_PROXY, space on the disk) and run the same again: what was fetched is kept. The command was\n"
                f"  {' '.join(command)}",
            )
