"""What both plug-ins are packed with: their sources, the vendored packages, a zip of reproducible bytes."""

from __future__ import annotations

import importlib.util
import shutil
import stat
import zipfile
from pathlib import Path

from impasto_protocol.errors import RequestError, ResourceError

from .vendor import vendor

__all__ = ["add_vendored", "copy_sources", "package_folder", "put_folder", "zip_tree"]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: the same sources give the same bytes."""


def package_folder(name: str) -> Path:
    """Where the sources of a package of this project are, without importing it."""
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise ResourceError(
            "resource.incomplete_install", f"The package {name} is missing; install Impasto once more (pip install)."
        )
    return Path(places[0])


def copy_sources(name: str, target: Path, *skipped: str) -> None:
    """Copy the sources of a package to the new folder `target`, without what belongs to one machine."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "_vendor", *skipped)
    shutil.copytree(package_folder(name), target, ignore=ignored)


def add_vendored(target: Path) -> None:
    """Make the folder `target` with all packages that travel inside a plug-in.

    Raises ResourceError `resource.vendor_failed` where they cannot be built.
    """
    vendor(target)
    for name in ("impasto_protocol", "impasto_client"):
        copy_sources(name, target / name)


def put_folder(source: Path, target: Path) -> None:
    """Copy the folder `source` to `target`, in the place of one of our own there; the old one stays until the new one
    is whole. Raises OSError, and RequestError `request.bad_home` where `target` is a link: that is not ours."""
    if target.is_symlink():
        raise RequestError(
            "request.bad_home", f"{target} is a link to {target.resolve()}, which somebody made; remove it first."
        )
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(source, fresh)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def zip_tree(tree: Path, target: Path) -> None:
    """Pack `tree` with an entry for every directory: Krita's importer finds a plug-in by them."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tree.rglob("*"), key=lambda p: p.relative_to(tree).as_posix()):
            name = path.relative_to(tree).as_posix()
            if path.is_dir():
                entry = zipfile.ZipInfo(name + "/", EPOCH)
                entry.external_attr = (0o40755 << 16) | 0x10
                archive.writestr(entry, b"")
            else:
                entry = zipfile.ZipInfo(name, EPOCH)
                runs = path.stat().st_mode & stat.S_IXUSR
                entry.external_attr = (0o100755 if runs else 0o100644) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
