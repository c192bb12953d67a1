"""Open Krita with the plug-in in a private profile, so that neither your settings nor your server are touched.

python3 dev.py krita [--profile DIR] [FILE ...]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from impasto_server.cli.plugin import install_krita
from impasto_server.service.home import ensure_home, write_launch

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--profile", type=Path, default=ROOT / "build" / "krita-profile", help="the private home folder"
    )
    parser.add_argument("files", nargs="*", help="pictures to open")
    args = parser.parse_args()
    krita = shutil.which("krita", path="/usr/bin:/usr/local/bin:" + os.environ.get("PATH", ""))
    if krita is None:
        print("Krita is not installed; on Debian: apt-get install krita python3-pyqt5", file=sys.stderr)
        return 1
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("There is no display here; run this from a desktop session.", file=sys.stderr)
        return 1
    profile = args.profile.resolve()
    install_krita(profile)
    home = profile / "impasto"
    ensure_home(home)
    write_launch(home, [sys.executable, "-m", "impasto_server.cli.main", "serve"])
    # Krita's own Python takes its prefix from the first python3 in PATH: a virtual environment there hides its PyQt.
    kept = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p != str(Path(sys.executable).parent)]
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    env.update(HOME=str(profile), IMPASTO_HOME=str(home), PATH=os.pathsep.join(["/usr/bin", "/bin", *kept]))
    print(f"Krita's profile: {profile}\nThe docker: Settings > Dockers > Impasto", file=sys.stderr)
    return subprocess.call([krita, "--nosplash", *args.files], env=env)


if __name__ == "__main__":
    sys.exit(main())
