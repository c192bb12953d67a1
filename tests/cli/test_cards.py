"""Cards and builds of torch, on what the tools of other machines said. No machine of these was at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from impasto_protocol.errors import ImpastoError
from impasto_server.cli import cards
from impasto_server.cli.cards import Card, Machine
from impasto_server.cli.torch_builds import TORCH, Build, build_of, choose, install_commands, is_installed

ROOT = Path(__file__).parents[2]
GTX1060 = "NVIDIA GeForce GTX 1060 6GB, 6.1, 6144, 550.163.01\n"
RTX4090 = "NVIDIA GeForce RTX 4090, 8.9, 24564, 580.95.05\n"
LSPCI = """\
00:02.0 VGA compatible controller [0300]: Intel Corporation CoffeeLake-S GT2 [UHD Graphics 630] [8086:3e92]
00:1f.3 Audio device [0403]: Intel Corporation Cannon Lake PCH cAVS [8086:a348] (rev 10)
01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GP106 [GeForce GTX 1060 6GB] [10de:1c03] (rev a1)
01:00.1 Audio device [0403]: NVIDIA Corporation GP106 High Definition Audio Controller [10de:10f1] (rev a1)
"""
LSPCI_AMD = (
    "03:00.0 VGA compatible controller [0300]: Advanced Micro Devices, Inc. [AMD/ATI] "
    "Navi 31 [Radeon RX 7900 XTX] [1002:744c] (rev c8)\n"
)
LSPCI_ARC = "03:00.0 VGA compatible controller [0300]: Intel Corporation DG2 [Arc A770] [8086:56a0] (rev 08)\n"
LSPCI_SERVER = "00:02.0 VGA compatible controller [0300]: Red Hat, Inc. Virtio GPU [1af4:1050] (rev 01)\n"
BROKEN = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.163\n"
PROFILER = '{"SPDisplaysDataType": [{"_name": "Apple M2", "sppci_model": "Apple M2", "sppci_cores": "10"}]}'


def answers(**told: tuple[int, str]) -> cards.Run:
    """A machine on which only these programs exist."""

    def run(command: Sequence[str]) -> tuple[int, str]:
        name = Path(command[0]).name.removesuffix(".exe").replace("-", "_")
        return told.get(name, (127, ""))

    return run


def machine(system: str = "linux", architecture: str = "x86_64", **told: tuple[int, str]) -> Machine:
    return cards.found(answers(**told), system, architecture, Path("/nowhere"), {})


def test_nvidia_smi_says_all_that_is_needed() -> None:
    (card,) = cards.from_nvidia_smi(GTX1060)
    assert card == Card("nvidia", "NVIDIA GeForce GTX 1060 6GB", (6, 1), 6144 << 20, "550.163.01")
    assert [c.capability for c in cards.from_nvidia_smi(GTX1060 + RTX4090)] == [(6, 1), (8, 9)]
    odd = cards.from_nvidia_smi("Graphics Device, [N/A], [N/A], [N/A]\n\nnonsense\n")
    assert odd == [Card("nvidia", "Graphics Device")], "what is not known stays unknown"


def test_lspci_finds_what_draws_and_nothing_else() -> None:
    assert [(c.vendor, c.name, c.discrete) for c in cards.from_lspci(LSPCI)] == [
        ("intel", "UHD Graphics 630", False),
        ("nvidia", "GeForce GTX 1060 6GB", True),
    ]
    assert cards.from_lspci(LSPCI_SERVER) == [] and cards.from_lspci("") == []


def test_sysfs(tmp_path: Path) -> None:
    device = tmp_path / "card1" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x1002\n")
    (device / "mem_info_vram_total").write_text("25753026560\n")
    (tmp_path / "card1-HDMI-A-1" / "device").mkdir(parents=True)
    (tmp_path / "card1-HDMI-A-1" / "device" / "vendor").write_text("0x1002\n")
    unknown = tmp_path / "card0" / "device"
    unknown.mkdir(parents=True)
    (unknown / "vendor").write_text("0x1af4\n")
    assert cards.from_sysfs(tmp_path) == [Card("amd", memory=25753026560)]
    both = cards.found(answers(lspci=(0, LSPCI_AMD)), "linux", "x86_64", tmp_path, {})
    assert both.cards == (Card("amd", "Radeon RX 7900 XTX", memory=25753026560),), "each tool knows a part"


@pytest.mark.parametrize(
    ("where", "kind", "says"),
    [
        (machine(nvidia_smi=(0, RTX4090)), "cuda", "8.9"),
        (machine(nvidia_smi=(0, GTX1060), lspci=(0, LSPCI)), "cuda126", "CUDA 12.6"),
        (machine(nvidia_smi=(0, GTX1060 + RTX4090)), "cuda", "4090"),
        (machine(nvidia_smi=(0, "NVIDIA GeForce GTX 1660 Ti, 7.5, 6144, 580.95.05")), "cuda", "7.5"),
        (machine(nvidia_smi=(0, "NVIDIA TITAN V, 7.0, 12288, 580.95.05")), "cuda126", "7.0"),
        (machine(nvidia_smi=(0, "NVIDIA GeForce RTX 3060, 8.6, 12288, 550.54")), "cuda126", "driver 550.54"),
        (machine(nvidia_smi=(0, "Tesla K80, 3.7, 11441, 470.256.02")), "cpu", "too old"),
        (machine(nvidia_smi=(9, BROKEN), lspci=(0, LSPCI)), "cuda126", "GTX 1060"),
        (machine(nvidia_smi=(18, MISMATCH), lspci=(0, LSPCI.replace("GTX 1060 6GB", "RTX 9999"))), "cuda", "RTX 9999"),
        (machine(lspci=(0, LSPCI_AMD)), "rocm", "RX 7900"),
        (machine(lspci=(0, LSPCI_AMD), architecture="aarch64"), "cpu", "AMD"),
        (machine(lspci=(0, LSPCI_ARC)), "xpu", "Arc A770"),
        (machine(lspci=(0, LSPCI.splitlines()[0])), "cpu", "UHD Graphics 630"),
        (machine(lspci=(0, LSPCI_SERVER)), "cpu", "no graphics card"),
        (machine(), "cpu", "no graphics card"),
        (machine("darwin", "arm64", system_profiler=(0, PROFILER)), "mps", "MPS"),
        (machine("darwin", "arm64"), "mps", "MPS"),
        (machine("win32", "amd64", nvidia_smi=(0, RTX4090)), "cuda", "4090"),
        (machine("win32", "amd64", powershell=(0, "AMD Radeon RX 6800;32.0.12033.1030\r\n")), "cpu", "Linux alone"),
        (machine("win32", "amd64", powershell=(0, "Intel(R) Arc(TM) A750 Graphics;32.0.101.6078\r\n")), "xpu", "Arc"),
        (machine("win32", "amd64", powershell=(0, "NVIDIA GeForce GTX 1050 Ti;32.0.15.8088\r\n")), "cuda126", "1050"),
        (machine("win32", "amd64", powershell=(0, "NVIDIA GeForce RTX 4070;32.0.15.8088\r\n")), "cuda", "4070"),
        (machine("win32", "amd64", powershell=(0, "Microsoft Basic Display Adapter;10.0\r\n")), "cpu", "no graphics"),
    ],
)
def test_the_build_that_has_code_for_the_card(where: Machine, kind: str, says: str) -> None:
    build = choose(where)
    assert build.kind == kind and says in build.reason, build
    commands = install_commands(build)
    assert all(command[1:3] == ["-m", "pip"] for command in commands)
    if kind == "cuda126":
        assert f"torch=={TORCH}+cu126" in commands[1] and "https://download.pytorch.org/whl/cu126" in commands[1]
        major, minor = (int(part) for part in TORCH.split(".")[:2])
        assert (major, minor) <= (2, 14), "the last version with a build for CUDA 12.6"
    if kind == "cuda" and where.system == "win32":
        assert "+cu" in build.requirement, "the package index's builds for Windows have no CUDA"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (machine(nvidia_smi=(0, "NVIDIA GeForce RTX 3060, 8.6, 12288, 470.256.02")), "580 or newer"),
        (machine(nvidia_smi=(0, "NVIDIA GeForce RTX 5090, 12.0, 32607, 570.86")), "580 or newer"),
        (machine("darwin", "x86_64"), "another computer"),
    ],
)
def test_what_cannot_be_is_said_with_the_mend(where: Machine, says: str) -> None:
    with pytest.raises(ImpastoError) as e:
        choose(where)
    assert e.value.code == "resource.unsupported" and says in e.value.message


def test_a_tool_that_hangs_or_fails_is_told_and_hides_nothing() -> None:
    there = machine(nvidia_smi=(9, BROKEN), lspci=(0, LSPCI))
    assert "couldn't communicate with the NVIDIA driver" in there.trouble
    assert [c.vendor for c in there.cards] == ["nvidia", "intel"]
    assert cards.run_command(("impasto-has-no-such-program",)) == (127, "")


def test_builds_that_are_not_made_are_refused() -> None:
    for kind, system in (("mps", "linux"), ("rocm", "win32"), ("cuda", "darwin"), ("abacus", "linux")):
        with pytest.raises(ImpastoError) as e:
            build_of(kind, system)
        assert e.value.code == "request.invalid_param"


@pytest.mark.parametrize(
    ("kind", "there", "right"),
    [
        ("cpu", "2.13.0+cpu", True),
        ("cpu", "2.13.0", False),
        ("cuda126", "2.12.0+cu126", True),
        ("cuda126", "2.13.0", False),
        ("cuda", "2.13.0", True),
        ("cuda", "2.13.0+cu130", True),
        ("cuda", "2.13.0+cu126", False),
        ("cuda", "2.13.0+cpu", False),
        ("cuda", "2.3.1", False),
        ("cpu", "1.13.1+cpu", False),
        ("rocm", "2.14.0+rocm7.2", True),
        ("xpu", "", False),
    ],
)
def test_a_torch_that_fits_is_left_alone(kind: str, there: str, right: bool) -> None:
    assert is_installed(build_of(kind, "linux"), there) is right


def test_the_index_may_be_another_or_none() -> None:
    build: Build = build_of("cpu", "linux")
    assert "--extra-index-url" in install_commands(build)[1]
    assert not any(word.endswith("index-url") for word in install_commands(build, "none")[1])
    assert "file:///media/stick" in install_commands(build, "file:///media/stick")[1]
    assert "--force-reinstall" in install_commands(build_of("cuda", "linux"), None, "2.13.0+cpu")[1]
    assert "--force-reinstall" not in install_commands(build, None, "2.13.0")[1]


def test_the_version_is_the_one_that_the_tests_run_with() -> None:
    named = re.search(r'^TORCH = "([^"]+)"', (ROOT / "dev.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None and named[1] == TORCH
    assert f"torch=={TORCH}" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
