"""The first start on a bare Debian: every line of docs/install.md, in a fresh root, from the built wheel to a picture.

    python3 dev.py exec -- python tools/first_start.py bookworm [--out DIR] [--setup-options "..."] [--share DIR ...]

Makes a minimal root of that suite (mmdebstrap; Debian and the rights of root are needed), copies what `dev.py build`
made into the home folder of a user who is not root, and runs the commands under "Debian" in docs/install.md one by
one: `sudo` lines as root, the others as that user. Each is printed with its time and its last lines; the first that
fails ends it. The pictures are copied to DIR.

How this machine reaches its package indexes (PIP_ variables, pip.conf, certificates, proxies) holds inside too; folders
that they name are given with --share. `--setup-options` are added to the lines with `impasto setup`, where an index
that is not reached here has to be replaced.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gimp_root import KEYRING, can_build, mirror

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "install.md"
HEADING = "## Debian"
USER, NUMBER = "painter", "1000"
HOME = f"/home/{USER}"
FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")
KEPT = re.compile(r"PIP_.*|(https?|no|all)_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE", re.IGNORECASE)
CERTIFICATES = "/opt/first-start-certificates.crt"
"""This machine's, copied: the root's own package of certificates writes into /etc/ssl."""

ENTER = """
set -e
root=$1; user=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  mount --bind "$1" "$root$1"
  mount -o remount,bind,ro "$root$1"
  shift
done
shift
exec chroot --userspec="$user" "$root" "$@"
"""
"""In a mount namespace of its own: nothing is left to be unmounted when it ends. What is shared cannot be written."""


def commands(page: str) -> list[str]:
    """The commands of the page's part under HEADING: its indented lines."""
    start = page.index(HEADING)
    end = page.find("\n## ", start + 1)
    lines = re.findall(r"^    (\S.*)$", page[start:end], re.MULTILINE)
    return [re.sub(r"\s{2,}#.*$", "", line) for line in lines]


def make_root(suite: str, root: Path) -> None:
    """A root with apt and nothing that this suite does not call essential."""
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    base = ["mmdebstrap", "--mode=root", "--variant=apt", "--quiet", f"--keyring={KEYRING}"]
    subprocess.run([*base, suite, str(root), mirror()], check=True)
    for name in FILES:
        if Path(name).is_file():
            target = root / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(name, target)
    bundle = next((os.environ[n] for n in ("PIP_CERT", "SSL_CERT_FILE") if Path(os.environ.get(n, "")).is_file()), None)
    if bundle is not None:
        shutil.copyfile(bundle, root / CERTIFICATES.lstrip("/"))
    (root / HOME.lstrip("/")).mkdir(parents=True)
    os.chown(root / HOME.lstrip("/"), int(NUMBER), int(NUMBER))
    for name, line in (("passwd", f"{USER}:x:{NUMBER}:{NUMBER}::{HOME}:/bin/bash"), ("group", f"{USER}:x:{NUMBER}:")):
        with open(root / "etc" / name, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def run(root: Path, line: str, shared: list[str]) -> tuple[int, str, float]:
    """Run one line of the page: (exit code, output, seconds)."""
    as_root = line.startswith("sudo ")
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        if name in kept:
            kept[name] = CERTIFICATES
    env = {
        **kept,
        "HOME": "/root" if as_root else HOME,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    folders = [folder for folder in shared if Path(folder).is_dir()]
    inside = f"cd {'/root' if as_root else HOME} && {line.removeprefix('sudo ')}"
    clean = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), "bash", "-c", inside]
    user = "0:0" if as_root else f"{NUMBER}:{NUMBER}"
    enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTER, "enter", str(root), user]
    began = time.monotonic()
    # A file, not a pipe: a server that the line starts keeps it open, and is not waited for.
    with open(root.with_name(root.name + ".log"), "w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run([*enter, *folders, "--", *clean], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.seek(0)
        return done.returncode, log.read(), time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=("bookworm", "trixie"), help="Debian 12 or 13")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="what `python3 dev.py build` made")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "first-start", help="where the pictures go")
    parser.add_argument("--root", type=Path, help="where the root is made (default: build/first-start-SUITE)")
    parser.add_argument("--share", action="append", default=[], metavar="DIR", help="a folder that is there inside too")
    parser.add_argument("--setup-options", default="", metavar="OPTIONS", help='more words for "impasto setup"')
    args = parser.parse_args()
    wheels = sorted(args.dist.glob("impasto-*.whl"))
    if not wheels or not can_build() or shutil.which("mmdebstrap") is None:
        print("Needs dist/ (python3 dev.py build), Debian, mmdebstrap and the rights of root.", file=sys.stderr)
        return 1
    root = (args.root or ROOT / "build" / f"first-start-{args.suite}").absolute()
    print(f"making a bare {args.suite} in {root}", flush=True)
    make_root(args.suite, root)
    home = root / HOME.lstrip("/")
    shutil.copy(wheels[-1], home)
    before = set(home.glob("*"))
    try:
        for line in commands(PAGE.read_text(encoding="utf-8")):
            if "impasto setup" in line and args.setup_options:
                line = f"{line} {args.setup_options}"
            print(f"\n$ {line}", flush=True)
            code, output, seconds = run(root, line, args.share)
            kept = [each.split("\r")[-1] for each in output.splitlines() if each.strip()]
            print("\n".join(f"  {each}" for each in kept[-24:]), flush=True)
            print(f"  [{seconds:.1f} s, exit code {code}]", flush=True)
            if code != 0:
                return 1
            args.out.mkdir(parents=True, exist_ok=True)
            for picture in (*home.glob("*.png"), *home.glob(".local/share/impasto/*.png")):
                shutil.copy(picture, args.out / f"{args.suite}-{picture.name}")
    finally:
        left = sorted(p.relative_to(home).as_posix() for p in set(home.glob("*")) - before)
        print(f"\nin the home folder at the end: {', '.join(left)}")
        shutil.rmtree(root, ignore_errors=True)
        root.with_name(root.name + ".log").unlink(missing_ok=True)
    print("all lines of the page work")
    return 0


if __name__ == "__main__":
    sys.exit(main())
