"""Start a real GIMP 3 with a private HOME, without a display or on one of its own, and drive it from a test.

The test-only plug-in plugins/gbridge runs the code that is sent to it in a process that GIMP obeys.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gimp_root  # noqa: E402

NEEDED = {"Xvfb": "xvfb", "xdotool": "xdotool", "openbox": "openbox", "import": "imagemagick"}
"""Program -> Debian package; and GIMP itself (tools/gimp_root.py)."""
GIMPRC = """(config-version "{version}")
(show-welcome-dialog no)
(check-updates no)
(save-session-info no)
"""


class GimpError(Exception):
    """GIMP did not start, went away, or the code sent to it raised."""


def missing() -> list[str]:
    """What is missing for these tests, as Debian packages."""
    gone = [package for program, package in NEEDED.items() if not shutil.which(program)]
    return gone + ([] if gimp_root.find() else ["gimp (3.0 or newer)"])


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"no success within {seconds} s")
        time.sleep(0.05)


class Line:
    """A connection to a bridge."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))

    def run(self, code: str, timeout: float = 60) -> Any:
        """Run code on that process's main thread; gives its `result`, or what its generator `gen` returns."""
        data = json.dumps({"code": code}).encode()
        self.socket.settimeout(timeout)
        self.socket.sendall(struct.pack(">I", len(data)) + data)
        reply = json.loads(self._receive(struct.unpack(">I", self._receive(4))[0]))
        if not reply["ok"]:
            raise GimpError(reply["error"])
        return reply["value"]

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise GimpError("the process went away")
            data += piece
        return data

    def close(self) -> None:
        self.socket.close()


class GimpSession:
    """A GIMP that runs until the end of the `with` block; `ui` gives it a display and a window manager."""

    def __init__(
        self, home: Path, env: dict[str, str] | None = None, ui: bool = False, screen: str = "1600x1000x24"
    ) -> None:
        gimp = gimp_root.find()
        if gimp is None:
            raise GimpError("there is no GIMP 3 here")
        self.gimp, self.home, self.ui = gimp, home.resolve(), ui
        self.socket_path = self.home / "gbridge.sock"
        self.line: Line | None = None
        self.processes: list[subprocess.Popen[bytes]] = []
        inject = self.home / "tests"
        if not inject.exists():
            shutil.copytree(Path(__file__).parent / "plugins", inject / "plugins")
            shutil.copytree(Path(__file__).parent / "inject", inject / "inject")
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        self.env = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TMPDIR": str(temporary),
            "GBRIDGE": str(self.socket_path),
            "PYTHONPATH": str(inject / "inject"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_AT_BRIDGE": "1",
            "GTK_CSD": "0",
            **(env or {}),
        }
        try:
            self._start(screen)
        except BaseException:
            self.close()
            raise

    @property
    def settings(self) -> Path:
        return self.home / ".config/GIMP" / ".".join(self.gimp.version.split(".")[:2])

    def _start(self, screen: str) -> None:
        self.socket_path.unlink(missing_ok=True)
        self.settings.mkdir(parents=True, exist_ok=True)
        gimprc = self.settings / "gimprc"
        if not gimprc.exists():  # GIMP notes more in it: without that it would ask all plug-ins anew
            gimprc.write_text(GIMPRC.format(version=self.gimp.version))
        words = ["gimp-console", "-n", "-i", "-d"]
        if self.ui:
            self._start_display(screen)
            words = ["dbus-run-session", "--", self.gimp.program("gimp"), "-n", "--no-splash"]
        folders = [self.home, *(Path(v) for k, v in self.env.items() if k == "IMPASTO_HOME")]
        with open(self.home / "gimp.log", "ab") as log:
            command = self.gimp.command(*words, env=self.env, folders=folders)
            self.processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            )

    def _start_display(self, screen: str) -> None:
        read_end, write_end = os.pipe()
        command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", screen, "-nolisten", "tcp", "-noreset"]
        with open(self.home / "xvfb.log", "wb") as log:
            xvfb = subprocess.Popen(command, pass_fds=(write_end,), stdout=subprocess.DEVNULL, stderr=log)
        self.processes.append(xvfb)
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            number = pipe.readline()
        if not number.endswith(b"\n"):
            raise GimpError("Xvfb did not start: " + (self.home / "xvfb.log").read_text(errors="replace"))
        self.env["DISPLAY"] = ":" + number.decode().strip()
        with open(self.home / "openbox.log", "wb") as log:
            self.processes.append(
                subprocess.Popen(["openbox"], env={**os.environ, **self.x_env}, stdout=log, stderr=log)
            )

    @property
    def x_env(self) -> dict[str, str]:
        return {"DISPLAY": self.env["DISPLAY"], "HOME": str(self.home), "LANG": "C.UTF-8"}

    def connect(self, timeout: float = 120) -> GimpSession:
        """Wait until the bridge answers. The first start of a HOME takes long, later ones a few seconds."""
        gimp = self.processes[-1]
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if gimp.poll() is not None:
                raise GimpError(f"GIMP exited with {gimp.returncode}\n{self.log_tail()}")
            if self.socket_path.exists():
                self.line = Line(self.socket_path)
                return self
            time.sleep(0.05)
        raise GimpError(f"no bridge after {timeout} s\n{self.log_tail()}")

    def run(self, code: str, timeout: float = 60) -> Any:
        """Run code in the test plug-in's process (bridge.py)."""
        assert self.line is not None
        try:
            return self.line.run(code, timeout)
        except TimeoutError as error:
            raise GimpError(f"no answer within {timeout} s\n{self.log_tail()}") from error

    def plug_in(self, test: str, seconds: float = 20) -> Line:
        """The process of Impasto for which the expression `test` is true, for example an open panel."""

        def look() -> Line | None:
            for path in sorted(self.home.glob("plug-in-*.sock"), key=lambda p: p.stat().st_mtime, reverse=True):
                try:
                    line = Line(path)
                except OSError:
                    path.unlink(missing_ok=True)
                    continue
                try:
                    if line.run(f"try: result = bool({test})\nexcept Exception: result = False", 2):
                        return line
                except (GimpError, OSError):
                    pass
                line.close()
            return None

        try:
            found: Line = until(look, seconds)
        except AssertionError as error:
            if self.ui:
                self.screenshot(self.home / "screen.png")
            raise AssertionError(f"no process for which {test}; see {self.home}\n{self.log_tail()}") from error
        return found

    def log_tail(self, size: int = 3000) -> str:
        log = self.home / "gimp.log"
        return log.read_text(errors="replace")[-size:] if log.exists() else ""

    def xdotool(self, *args: str) -> str:
        """Real input events of mouse and keyboard."""
        done = subprocess.run(
            ["xdotool", *args], env={**os.environ, **self.x_env}, timeout=30, capture_output=True, text=True
        )
        return done.stdout.strip()

    def click(self, x: int, y: int) -> None:
        self.xdotool("mousemove", str(x), str(y), "sleep", "0.1", "click", "1")

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Press the left button at `start` (screen pixels), move, release at `end`."""
        middle = ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
        command = ["mousemove", *map(str, start), "sleep", "0.2", "mousedown", "1", "sleep", "0.1"]
        for point in (middle, end):
            command += ["mousemove", *map(str, point), "sleep", "0.1"]
        self.xdotool(*command, "mouseup", "1")

    def screenshot(self, path: Path) -> None:
        subprocess.run(["import", "-window", "root", str(path)], env={**os.environ, **self.x_env}, check=True)

    def quit(self, timeout: float = 30) -> int:
        """Let GIMP end by itself; its exit code."""
        assert self.line is not None
        try:
            self.line.run(
                "from gi.repository import Gimp\n"
                "p = Gimp.get_pdb().lookup_procedure('gimp-quit')\n"
                "c = p.create_config()\n"
                "c.set_property('force', True)\n"
                "p.run(c)",
                10,
            )
        except (GimpError, OSError):
            pass  # it may be gone before it answers
        return self.processes[-1].wait(timeout)

    def close(self) -> None:
        """End the processes that were started here, and only those."""
        if self.line is not None:
            self.line.close()
            self.line = None
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)
        self.processes = []

    def __enter__(self) -> GimpSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
