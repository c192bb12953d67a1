"""What the doctor says: plain functions from what was found to findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from impasto_protocol.errors import ImpastoError
from impasto_protocol.version import VERSION

from . import torch_builds
from .cards import Machine
from .found_editors import Editor

__all__ = ["Finding", "of_disk", "of_memory", "of_plug_in", "of_torch", "page"]

GIB = 1 << 30
LEAST_DISK, LITTLE_DISK = 1 << 30, 10 << 30
LEAST_MEMORY = 6 << 30
"""Below this a full-size checkpoint does not fit beside an editor."""


class Finding(NamedTuple):
    """`level` is "ok", "note" or "BAD"; `mend` is the exact command, "" where there is none."""

    topic: str
    level: str
    text: str
    mend: str = ""


def page(findings: list[Finding], home: Path) -> str:
    """The findings as one page to read, to copy and to send: the user's name is not in it."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<5} {finding.topic:<9} {finding.text}")
        if finding.mend:
            lines.append(f"      {'':<9} -> {finding.mend}")
    return "\n".join(lines).replace(str(home), "~")


def of_torch(machine: Machine, told: Mapping[str, Any]) -> Iterator[Finding]:
    """Cards and driver, and whether torch has code for them. `told` comes from `torch_probe`."""
    mend = "impasto setup torch"
    for card in machine.cards:
        parts = [card.name or card.vendor]
        parts += [f"compute capability {card.capability[0]}.{card.capability[1]}"] if card.capability else []
        parts += [f"{card.memory / GIB:.0f} GiB"] if card.memory else []
        parts += [f"driver {card.driver}"] if card.driver else []
        yield Finding("card", "ok", ", ".join(parts))
    if machine.trouble:
        yield Finding("driver", "BAD", f"NVIDIA's driver does not answer: {machine.trouble}", _mend_driver(machine))
    elif not machine.cards:
        yield Finding("card", "note", "no graphics card was found: jobs run on the processor")
    if "error" in told:
        yield Finding("torch", "BAD", f"{told['error']}", mend)
        return
    build = f"CUDA {told['cuda']}" if told.get("cuda") else f"ROCm {told['rocm']}" if told.get("rocm") else ""
    yield Finding(
        "torch", "ok", f"torch {told['version']}" + (f", {build}" if build else "") + f", {told['threads']} threads"
    )
    try:
        wanted = torch_builds.choose(machine)
    except ImpastoError as e:
        yield Finding("torch", "BAD", e.message)
        return
    cards = list(told.get("cards") or ())
    for card in cards:
        yield _code_for(card, told)
    if told.get("card_error"):
        yield Finding("torch", "BAD", f"torch cannot use the card: {told['card_error']}", _mend_driver(machine))
    elif not cards and told.get("mps"):
        yield Finding("torch", "ok", "computes on Apple's graphics part (MPS)")
    elif not cards and wanted.kind not in ("cpu", "mps"):
        if torch_builds.is_installed(wanted, str(told["version"])):
            text = "torch finds no card, though its build fits: the driver is missing or does not work"
            yield Finding("torch", "BAD", text, _mend_driver(machine))
        else:
            yield Finding("torch", "BAD", f"this build of torch cannot use the card ({wanted.reason})", mend)
    elif not cards and machine.cards:
        yield Finding("torch", "note", f"jobs run on the processor ({wanted.reason})")


def _code_for(card: Mapping[str, Any], told: Mapping[str, Any]) -> Finding:
    memory = f", {card['free'] / GIB:.1f} of {card['total'] / GIB:.1f} GiB free" if card.get("free") else ""
    arch = [str(name) for name in told.get("arch_list") or ()]
    capability = card.get("capability")
    if not capability or told.get("rocm") or not arch:
        return Finding("torch", "ok", f"computes on {card['name']}{memory}")
    major, minor = capability
    # Code for an older card of the same generation runs on a newer one; code as PTX on all that came later.
    built = [(int(n[3:-1]), int(n[-1])) for n in arch if n.startswith("sm_") and n[3:].isdigit()]
    compiled = any(m == major and s <= minor for m, s in built)
    translated = any(
        n.startswith("compute_") and n[8:].isdigit() and (int(n[8:-1]), int(n[-1])) <= (major, minor) for n in arch
    )
    if compiled or translated:
        return Finding("torch", "ok", f"computes on {card['name']} (sm_{major}{minor}){memory}")
    return Finding(
        "torch",
        "BAD",
        f"{card['name']} needs code for sm_{major}{minor}, but torch.cuda.get_arch_list() is {', '.join(arch)}",
        "impasto setup torch",
    )


def _mend_driver(machine: Machine) -> str:
    if "mismatch" in machine.trouble:
        return "restart the computer: the driver was updated while it ran"
    if any(card.vendor == "nvidia" for card in machine.cards):
        return (
            "install NVIDIA's driver 580 or newer and restart the computer"
            if machine.system != "linux"
            else "install NVIDIA's driver (Debian: apt-get install nvidia-driver) and restart the computer"
        )
    return "install the card's driver and restart the computer"


def of_memory(total: int, free: int) -> Iterator[Finding]:
    """The computer's own memory; 0 is unknown."""
    if total:
        text = f"{total / GIB:.1f} GiB" + (f", {free / GIB:.1f} free" if free else "")
        little = total < LEAST_MEMORY
        yield Finding("memory", "note" if little else "ok", text + (": little for full-size models" if little else ""))


def of_disk(folder: Path, free: int) -> Finding:
    """Room where results and models are kept."""
    text = f"{free / GIB:.1f} GiB free for {folder}"
    if free < LEAST_DISK:
        mend = "make room, or set IMPASTO_HOME to a folder on another disk"
        return Finding("disk", "BAD", text + ": results cannot be kept", mend)
    return Finding("disk", "note" if free < LITTLE_DISK else "ok", text)


def of_plug_in(editor: Editor, there: tuple[str, tuple[int, int] | None] | None, state: str) -> Finding:
    """One editor and its plug-in; `state` is that of `setup.plug_in_state`."""
    title = f"{editor.packaging}, {editor.plug_in}"
    mend = f"impasto setup plugins    (close {editor.name.capitalize()} before, start it again after)"
    if there is None:
        return Finding(editor.name, "note", f"no plug-in yet ({title})", mend)
    if state != "current":
        return Finding(editor.name, "BAD", f"{state}: plug-in {there[0] or '?'}, server {VERSION} ({title})", mend)
    if editor.kritarc is not None and not _enabled(editor.kritarc):
        text = f"the plug-in is switched off in {editor.kritarc}"
        return Finding(editor.name, "BAD", text, "impasto plugin install krita")
    return Finding(editor.name, "ok", f"plug-in {there[0]} ({title})")


def _enabled(kritarc: Path) -> bool:
    try:
        return "enable_impasto_krita=true" in kritarc.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
