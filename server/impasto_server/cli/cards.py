"""Graphics cards: what the machine's own tools say of them, and which build of torch has code for them.

`found()` asks; everything else is a plain function of what was answered.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Card",
    "Machine",
    "Run",
    "found",
    "from_lspci",
    "from_nvidia_smi",
    "from_sysfs",
    "from_system_profiler",
    "from_windows",
    "merged",
    "run_command",
]

MIB = 1 << 20
VENDORS = {"10de": "nvidia", "1002": "amd", "8086": "intel"}
"""PCI vendor ids."""

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command: (exit code, output). The code is 127 where there is no such program."""


@dataclass(frozen=True)
class Card:
    """One graphics card. What is not known is "", 0 or None."""

    vendor: str
    """nvidia, amd, intel or apple."""
    name: str = ""
    capability: tuple[int, int] | None = None
    """NVIDIA's compute capability: (6, 1) is a GTX 10xx."""
    memory: int = 0
    """Bytes."""
    driver: str = ""
    """Version of the driver that answers; "" where none does."""
    discrete: bool = True
    """Not part of the processor. Only Intel's are told apart: a small one is no use here."""


@dataclass(frozen=True)
class Machine:
    """What a build of torch is chosen by."""

    system: str
    """sys.platform: linux, win32 or darwin."""
    architecture: str
    """x86_64, arm64, ..., in lower case."""
    cards: tuple[Card, ...] = ()
    trouble: str = ""
    """What a card's own tool said when it failed, for instance that its driver is broken."""


def from_nvidia_smi(text: str) -> list[Card]:
    """The answer to `--query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader,nounits`."""
    cards = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) < 4 or not parts[0]:
            continue
        name, capability, memory, driver = parts[0], parts[-3], parts[-2], parts[-1]
        found = re.fullmatch(r"(\d+)\.(\d+)", capability)
        cards.append(
            Card(
                "nvidia",
                name,
                (int(found[1]), int(found[2])) if found else None,
                int(memory) * MIB if memory.isdigit() else 0,
                driver if re.match(r"\d+\.", driver) else "",
            )
        )
    return cards


def from_lspci(text: str) -> list[Card]:
    """The answer to `lspci -nn`: only what draws (classes 0300, 0302, 0380)."""
    cards = []
    for line in text.splitlines():
        found = re.match(r"\S+ .*?\[03(?:00|02|80)\]: (.*?) \[([0-9a-f]{4}):[0-9a-f]{4}\]", line)
        if found and found[2] in VENDORS:
            vendor = VENDORS[found[2]]
            cards.append(Card(vendor, _short(found[1]), discrete=_is_discrete(vendor, found[1])))
    return cards


def from_sysfs(root: Path = Path("/sys/class/drm")) -> list[Card]:
    """The cards that Linux's own drivers know, with the memory that AMD's tells."""
    cards = []
    for device in sorted(root.glob("card[0-9]*/device")):
        if not re.fullmatch(r"card\d+", device.parent.name):
            continue  # card0-HDMI-A-1 and the like are its sockets
        vendor = VENDORS.get(_line(device / "vendor").removeprefix("0x"))
        if vendor is None:
            continue
        memory = _line(device / "mem_info_vram_total")
        name = _line(device / "product_name")
        cards.append(Card(vendor, name, memory=int(memory) if memory.isdigit() else 0))
    return cards


def from_system_profiler(text: str) -> list[Card]:
    """macOS: the answer to `system_profiler SPDisplaysDataType -json`."""
    try:
        entries = json.loads(text)["SPDisplaysDataType"]
        names = [str(entry.get("sppci_model", "")) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [Card(_vendor_of(name), name) for name in names if name and _vendor_of(name)]


def from_windows(text: str) -> list[Card]:
    """Windows: the answer to PowerShell's `Get-CimInstance Win32_VideoController`, one `NAME;DRIVER` a line."""
    cards = []
    for line in text.splitlines():
        name, _, driver = line.strip().partition(";")
        if name and _vendor_of(name):
            cards.append(Card(_vendor_of(name), name, driver=driver.strip(), discrete=_is_discrete("intel", name)))
    return cards


def merged(first: Sequence[Card], second: Sequence[Card]) -> tuple[Card, ...]:
    """The cards of `first`, and those of `second` whose vendor `first` does not know. A name that one lacks comes from
    the other, where each has as many cards of that vendor."""
    result = []
    for vendor in ("nvidia", "amd", "intel", "apple"):
        ours, theirs = ([c for c in cards if c.vendor == vendor] for cards in (first, second))
        if len(ours) == len(theirs):
            result += [
                Card(
                    a.vendor,
                    a.name or b.name,
                    a.capability,
                    a.memory or b.memory,
                    a.driver or b.driver,
                    a.discrete and b.discrete,
                )
                for a, b in zip(ours, theirs, strict=True)
            ]
        else:
            result += ours or theirs
    return tuple(result)


NVIDIA_SMI = ("--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader,nounits")
_POWERSHELL = (
    "Get-CimInstance Win32_VideoController | ForEach-Object { $_.Name + ';' + $_.DriverVersion }"  # one a line
)


def found(
    run: Run | None = None,
    system: str = sys.platform,
    architecture: str = "",
    sysfs: Path = Path("/sys/class/drm"),
    environ: Mapping[str, str] = os.environ,
) -> Machine:
    """The machine and its cards. A tool that is missing or fails makes a card less known, never an error."""
    run = run or run_command
    trouble = ""
    architecture = (architecture or platform.machine()).lower()
    code, text = run((_nvidia_smi(system, environ), *NVIDIA_SMI))
    cards: Sequence[Card] = from_nvidia_smi(text) if code == 0 else []
    if code not in (0, 127):
        trouble = text.strip().splitlines()[0] if text.strip() else f"nvidia-smi ended with exit code {code}"
    if system == "darwin":
        others = from_system_profiler(run(("system_profiler", "SPDisplaysDataType", "-json"))[1])
        if not others and architecture == "arm64":
            others = [Card("apple", "Apple silicon")]
    elif system == "win32":
        others = from_windows(run(("powershell", "-NoProfile", "-Command", _POWERSHELL))[1])
    else:
        others = list(merged(from_sysfs(sysfs), from_lspci(run(("lspci", "-nn"))[1])))
    return Machine(system, architecture, merged(cards, others), trouble)


def _nvidia_smi(system: str, environ: Mapping[str, str]) -> str:
    if system == "win32":
        beside = Path(environ.get("SystemRoot", r"C:\Windows")) / "System32" / "nvidia-smi.exe"
        return str(beside) if beside.exists() else "nvidia-smi"
    # WSL keeps it beside its drivers, which are not on every PATH.
    return "nvidia-smi" if shutil.which("nvidia-smi") else "/usr/lib/wsl/lib/nvidia-smi"


def run_command(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30)
    except FileNotFoundError:
        return 127, ""
    except subprocess.TimeoutExpired:
        return 1, f"{command[0]} did not answer within 30 s"
    except OSError as e:
        return 1, f"{command[0]}: {e.strerror}"
    return done.returncode, done.stdout or done.stderr


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _short(name: str) -> str:
    """ "NVIDIA Corporation GP106 [GeForce GTX 1060 6GB]" is the card's name in its brackets."""
    brackets = re.findall(r"\[([^\]]+)\]", name)
    return brackets[-1] if brackets else name


def _vendor_of(name: str) -> str:
    words = name.lower()
    for vendor, signs in (
        ("nvidia", ("nvidia", "geforce", "quadro", "tesla")),
        ("amd", ("amd", "radeon")),
        ("intel", ("intel",)),
        ("apple", ("apple",)),
    ):
        if any(sign in words for sign in signs):
            return vendor
    return ""


def _is_discrete(vendor: str, name: str) -> bool:
    return vendor != "intel" or re.search(r"\bArc\b|\bDG2\b|\bBattlemage\b|Data Center GPU", name) is not None
