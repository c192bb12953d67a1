"""Open GIMP 3 with the plug-in in a private profile, so that neither your settings nor your server are touched.

python3 dev.py gimp [--profile DIR] [FILE ...]

Where the system has no GIMP 3 but the tests have built one (tools/gimp_root.py), that one is opened. It cannot start
programs outside of its root, so the server is started here then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import gimp_root
from impasto_client.connecting import connect_or_start
from impasto_protocol.errors import ImpastoError
from impasto_protocol.messages import ClientInfo
from impasto_server.cli.plugin_gimp import gimp_folders, install_gimp
from impasto_server.service.home import ensure_home, write_launch

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path, default=ROOT / "build" / "gimp-profile", help="the private home folder")
    parser.add_argument("files", nargs="*", help="pictures to open")
    args = parser.parse_args()
    gimp = gimp_root.find()
    if gimp is None:
        print("GIMP 3 is not installed; `python3 dev.py test tests/gimp` brings one on Debian.", file=sys.stderr)
        return 1
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("There is no display here; run this from a desktop session.", file=sys.stderr)
        return 1
    profile = args.profile.resolve()
    profile.mkdir(parents=True, exist_ok=True)
    install_gimp(profile)
    home = profile / "impasto"
    ensure_home(home)
    write_launch(home, [sys.executable, "-m", "impasto_server.cli.main", "serve"])
    settings = gimp_folders(profile)[0]
    env = {"HOME": str(profile), "IMPASTO_HOME": str(home), "GIMP3_DIRECTORY": str(settings)}
    files = [str(Path(name).resolve()) for name in args.files]
    print(f"GIMP's profile: {profile}\nThe panel: Filters > Impasto > Panel (Ctrl+Alt+I)", file=sys.stderr)
    if gimp.root is None:
        dropped = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
        env = {**{name: value for name, value in os.environ.items() if name not in dropped}, **env}
        return subprocess.call([gimp.program("gimp"), "--no-splash", *files], env=env)
    try:
        info = ClientInfo("dev.py", "0", "dev.py gimp")
        connect_or_start(info, lambda _: None, lambda _: None, home=home).close()
    except ImpastoError as error:
        print(error.message, file=sys.stderr)
        return 1
    kept = ("LANG", "DISPLAY", "XAUTHORITY")
    env.update({name: os.environ[name] for name in kept if name in os.environ}, PATH="/usr/bin:/bin")
    folders = [profile, *(Path(name).parent for name in files)]
    return subprocess.call(gimp.command("gimp", "--no-splash", *files, env=env, folders=folders))


if __name__ == "__main__":
    sys.exit(main())
