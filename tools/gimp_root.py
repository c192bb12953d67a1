"""A GIMP 3 to test with: the system's, or one in a Debian root of its own where the system has none.

    python3 tools/gimp_root.py            where GIMP 3 is; builds the root where that is needed and possible
    python3 tools/gimp_root.py CMD ...    run CMD where GIMP 3 is

The root is Debian trixie's GIMP and nothing else (about 460 MB). It is built once for a user and shared by all copies
of this repository: in the folder that IMPASTO_GIMP_ROOT names, else in the user's cache folder. Debian and the rights
of root are needed for it; the mirror is that of the system's own apt sources. Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BUILDERS", "KEYRING", "Gimp", "build_root", "can_build", "find", "mirror", "root_folder"]

BUILDERS = ("mmdebstrap", "debian-archive-keyring")
"""Debian packages that build the root."""
SUITE = "trixie"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = (
    *("gimp", "gir1.2-gimp-3.0", "gir1.2-gtk-3.0", "python3-gi", "python3-gi-cairo"),
    *("fonts-dejavu-core", "adwaita-icon-theme", "dbus-bin", "dbus-daemon"),
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
PROGRAMS = {"gimp": ("gimp-3.0", "gimp-3.2", "gimp-3", "gimp"), "gimp-console": ("gimp-console-3.0", "gimp-console-3")}

_ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# The same paths inside as outside: profiles, sockets and the displays' sockets lie below /tmp.
mount --rbind /tmp "$root/tmp"
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --rbind "$1" "$root$1"
  shift
done
shift
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Gimp:
    """A GIMP 3: the system's own (`root` is None), or that of a root."""

    root: Path | None
    version: str

    def command(self, *words: str, env: Mapping[str, str], folders: Iterable[Path] = ()) -> list[str]:
        """The command line that runs `words` where this GIMP is, with no other environment than `env`.

        Everything below /tmp has the same path there, and so have `folders`. In a root the mounts are those of the
        process alone: nothing is left to be unmounted when it ends.
        """
        words = (self.program(words[0]), *words[1:])
        clean = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]
        if self.root is None:
            return clean
        shared = [str(folder) for folder in folders if not str(folder).startswith("/tmp/")]
        enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _ENTER, "enter", str(self.root)]
        return [*enter, *shared, "--", *clean]

    def program(self, name: str) -> str:
        """The file name of `gimp` or `gimp-console`; other names are themselves."""
        where = str(self.root / "usr/bin") if self.root is not None else None
        found = (candidate for candidate in PROGRAMS.get(name, ()) if shutil.which(candidate, path=where))
        return next(found, name)


def find() -> Gimp | None:
    """The GIMP 3 that is there, or None."""
    system = _system_version()
    if system:
        return Gimp(None, system)
    root = root_folder()
    version = _root_version(root)
    return Gimp(root, version) if version and _is_root() else None


def root_folder() -> Path:
    """Where the root is or would be."""
    named = os.environ.get("IMPASTO_GIMP_ROOT")
    if named:
        return Path(named).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "impasto" / f"gimp-{SUITE}"


def can_build() -> bool:
    """Can the root be built here, once its builders are installed? Debian and the rights of root are needed."""
    return sys.platform == "linux" and _is_root() and shutil.which("apt-get") is not None


def build_root() -> Path:
    """Build the root unless it is there; whole or not at all, and once where several ask at a time. About 90 s."""
    import fcntl  # not on Windows, where nothing is built

    target = root_folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(target.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _root_version(target):
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
            packages = "--include=" + ",".join(PACKAGES)
            base = ["mmdebstrap", "--mode=root", "--variant=apt", "--quiet", f"--keyring={KEYRING}"]
            subprocess.run([*base, packages, *options, SUITE, str(partial), mirror()], check=True)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
    return target


def mirror() -> str:
    """The Debian mirror of the system's own apt sources."""
    done = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True)
    for site in done.stdout.splitlines():
        if re.search(r"/debian/?$", site):
            return site
    raise SystemExit("There is no Debian mirror in the apt sources, from which GIMP's root could be built.")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _system_version() -> str:
    """The version of the system's GIMP if that is a 3, else ""."""
    for name in PROGRAMS["gimp-console"]:
        program = shutil.which(name)
        if program is not None:
            done = subprocess.run([program, "--version"], capture_output=True, text=True)
            found = re.search(r"\b(3\.\d+\.\d+)", done.stdout)
            if found:
                return found[1]
    return ""


def _root_version(root: Path) -> str:
    """The version of GIMP in `root`, as dpkg knows it, or ""."""
    status = root / "var/lib/dpkg/status"
    if not (root / "usr/bin/gimp-console-3.0").exists() or not status.exists():
        return ""
    found = re.search(r"^Package: gimp\n(?:.+\n)*?Version: (?:\d+:)?(\d+\.\d+\.\d+)", status.read_text(), re.MULTILINE)
    return found[1] if found else ""


def main(argv: list[str]) -> int:
    gimp = find()
    if gimp is None and can_build():
        build_root()
        gimp = find()
    if gimp is None:
        print("There is no GIMP 3 here, and no root can be built (Debian, as root).", file=sys.stderr)
        return 1
    if not argv:
        print(gimp.root or "the system's", gimp.version)
        return 0
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "DISPLAY", "PATH") if name in os.environ}
    return subprocess.call(gimp.command(*argv, env=kept))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
