#!/usr/bin/env python3
"""What GIMP starts. The packages in `_vendor` are this process's own: nothing else runs in it."""

import importlib.util
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def load_package() -> None:
    """Make this folder importable as `impasto_gimp`, wherever GIMP found it."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != FOLDER]
    vendored = FOLDER / "_vendor"
    if not vendored.is_dir():
        raise SystemExit(
            "Impasto is incomplete: its folder has no _vendor. Build it with `impasto plugin build gimp`, or install "
            "it with `impasto plugin install gimp`."
        )
    sys.path.insert(0, str(vendored))
    spec = importlib.util.spec_from_file_location(
        "impasto_gimp", str(FOLDER / "__init__.py"), submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["impasto_gimp"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    from impasto_gimp.plugin import main

    main()
