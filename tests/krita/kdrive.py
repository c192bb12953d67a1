"""Start Xvfb and a real Krita with a private HOME, and drive it from a test. Standard library only.

The test-only plug-in plugins/kbridge runs the code that is sent to it on Krita's main thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

NEEDED = {"krita": "krita", "Xvfb": "xvfb", "xdotool": "xdotool", "import": "imagemagick"}
"""Program -> Debian package."""


class KritaError(Exception):
    """Krita did not start, went away, or the code sent to it raised."""


def missing() -> list[str]:
    """The Debian packages that are missing for these tests."""
    return [package for program, package in NEEDED.items() if not shutil.which(program, path="/usr/bin:/bin")]


def add_bridge(home: Path) -> None:
    """Put the test bridge into a HOME, and switch it on beside what is enabled there."""
    here = Path(__file__).parent / "plugins"
    pykrita = home / ".local/share/krita/pykrita"
    shutil.copytree(here / "kbridge", pykrita / "kbridge", dirs_exist_ok=True)
    shutil.copy(here / "kbridge.desktop", pykrita)
    kritarc = home / ".config/kritarc"
    kritarc.parent.mkdir(parents=True, exist_ok=True)
    text = kritarc.read_text() if kritarc.exists() else ""
    if "[python]" not in text:
        text += "\n[python]\n"
    kritarc.write_text(text.replace("[python]\n", "[python]\nenable_kbridge=true\n"))


class KritaSession:
    """A Krita on a display of its own. Leave it by `quit` or by the end of the `with` block."""

    def __init__(self, home: Path, env: dict[str, str] | None = None, screen: str = "1600x1000x24") -> None:
        self.home = home.resolve()
        runtime, temporary = self.home / "run", self.home / "tmp"
        for folder in (runtime, temporary):
            folder.mkdir(parents=True, exist_ok=True)
        runtime.chmod(0o700)
        self.socket_path = self.home / "bridge.sock"
        self.socket_path.unlink(missing_ok=True)
        self.connection: socket.socket | None = None
        self.krita: subprocess.Popen[bytes] | None = None
        self.xvfb: subprocess.Popen[bytes] | None = None
        self.count = 0
        self.env = {
            "HOME": str(self.home),
            # Krita's embedded Python takes its prefix from the first python3 in PATH, and finds no PyQt5 there when
            # that is a virtual environment.
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(runtime),
            "TMPDIR": str(temporary),  # a Krita that is killed leaves swap files there
            "KBRIDGE_SOCKET": str(self.socket_path),
            "QT_QPA_PLATFORM": "xcb",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        try:
            self._start_xvfb(screen)
            with open(self.home / "krita.log", "wb") as log:
                self.krita = subprocess.Popen(
                    ["/usr/bin/krita", "--nosplash"], env=self.env, stdout=log, stderr=subprocess.STDOUT, cwd=self.home
                )
        except BaseException:
            self.close()
            raise

    def _start_xvfb(self, screen: str) -> None:
        # Xvfb writes the number of its display and the newline separately: read up to the newline.
        read_end, write_end = os.pipe()
        command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", screen, "-nolisten", "tcp", "-noreset"]
        with open(self.home / "xvfb.log", "wb") as log:
            self.xvfb = subprocess.Popen(command, pass_fds=(write_end,), stdout=subprocess.DEVNULL, stderr=log)
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            number = pipe.readline()
        if not number.endswith(b"\n"):
            raise KritaError("Xvfb did not start: " + (self.home / "xvfb.log").read_text(errors="replace"))
        self.env["DISPLAY"] = ":" + number.decode().strip()

    def connect(self, timeout: float = 120) -> KritaSession:
        """Wait until the bridge answers. The first start of a HOME takes long, later ones a few seconds."""
        assert self.krita is not None
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.krita.poll() is not None:
                raise KritaError(f"Krita exited with {self.krita.returncode}\n{self.log_tail()}")
            attempt = socket.socket(socket.AF_UNIX)
            try:
                attempt.connect(str(self.socket_path))
                self.connection = attempt
                return self
            except OSError:
                attempt.close()
                time.sleep(0.05)
        raise KritaError(f"no bridge after {timeout} s\n{self.log_tail()}")

    def run(self, code: str, timeout: float = 60) -> Any:
        """Run code on Krita's main thread; gives its `result`, or what its generator `gen` returns (bridge.py)."""
        assert self.connection is not None
        self.count += 1
        message = json.dumps({"id": self.count, "code": code}).encode()
        self.connection.settimeout(timeout)
        self.connection.sendall(struct.pack(">I", len(message)) + message)
        reply = json.loads(self._receive(struct.unpack(">I", self._receive(4))[0]))
        if not reply["ok"]:
            raise KritaError(reply["error"])
        return reply["value"]

    def _receive(self, size: int) -> bytes:
        assert self.connection is not None
        data = b""
        while len(data) < size:
            chunk = self.connection.recv(size - len(data))
            if not chunk:
                raise KritaError("Krita closed the connection\n" + self.log_tail())
            data += chunk
        return data

    def log_tail(self, size: int = 3000) -> str:
        """The end of Krita's output; a crash leaves the Python line there."""
        log = self.home / "krita.log"
        return log.read_text(errors="replace")[-size:] if log.exists() else ""

    def xdotool(self, *args: str) -> None:
        """Real input events of mouse and keyboard."""
        subprocess.run(["xdotool", *args], env=self.env, check=True, timeout=30)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the left button at `start` (screen pixels), move, release at `end`."""
        middle = ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
        command = ["mousemove", *map(str, start), "sleep", "0.2", "mousedown", "1", "sleep", "0.1"]
        for point in (middle, end):
            command += ["mousemove", *map(str, point), "sleep", "0.1"]
        self.xdotool(*command, "mouseup", "1")

    def click(self, x: int, y: int) -> None:
        self.xdotool("mousemove", str(x), str(y), "sleep", "0.05", "click", "1")

    def screenshot(self, path: Path) -> None:
        subprocess.run(["import", "-window", "root", str(path)], env=self.env, check=True, timeout=30)

    def quit(self, timeout: float = 30) -> int:
        """Leave the way a painter does; the exit code. A modified document would ask in a modal box."""
        assert self.krita is not None
        self.run(
            "from krita import Krita\nfrom kbridge.bridge import QTimer\n"
            "for d in Krita.instance().documents(): d.setModified(False)\n"
            "QTimer.singleShot(0, lambda: Krita.instance().action('file_quit').trigger())"
        )
        return self.krita.wait(timeout)

    def close(self) -> None:
        """End the processes that were started here, and only those."""
        if self.connection is not None:
            self.connection.close()
        for process in (self.krita, self.xvfb):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(5)

    def __enter__(self) -> KritaSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
