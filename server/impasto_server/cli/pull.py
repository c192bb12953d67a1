"""`impasto models pull`: fetch a model of a curated list from the hub. Nothing else in Impasto ever goes there.

The hub's own library finds the file and moves the bytes; so proxies (HTTPS_PROXY, NO_PROXY) and another hub
(HF_ENDPOINT) are set as for any program that uses it. What it does not do is done here: a download that was cut is gone
on with at the next call, and what arrived is compared with the checksum before it gets its name.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto_protocol.errors import AssetError, ImpastoError, ModelError, ResourceError

__all__ = ["Entry", "catalogue", "entry", "fetch", "table"]

DATA = Path(__file__).with_name("data") / "models.json"
SPARE = 256 << 20
"""Bytes that are left free on the disk."""
_BLOCK = 4 << 20


@dataclass(frozen=True)
class Entry:
    """A file on the hub. What is None is not known to us."""

    name: str
    title: str
    kind: str
    family: str
    repo: str
    file: str
    folder: str
    """Below the models folder; "" is the folder itself."""
    save_as: str
    size: int | None
    """Bytes."""
    sha256: str | None
    licence: str

    @property
    def page(self) -> str:
        """Where its licence and its description are."""
        return f"https://huggingface.co/{self.repo}"


def catalogue() -> tuple[Entry, ...]:
    """What can be pulled, in the order of the list. Touches no network."""
    return tuple(Entry(**told) for told in json.loads(DATA.read_text(encoding="utf-8")))


def entry(name: str, others: Sequence[str] = ()) -> Entry:
    """The entry of that name. Raises ModelError `model.unknown` with the nearest one, also of the names that are pulled
    from elsewhere."""
    entries = {e.name: e for e in catalogue()}
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, [*entries, *others], 1, 0.4)
    hint = f"Did you mean {near[0]!r}?" if near else "`impasto models pull --list` shows all."
    raise ModelError("model.unknown", f"There is no model {name[:80]!r} to pull. {hint}", data={"nearest": near})


def table(entries: Sequence[Entry]) -> str:
    """The list to read."""
    lines = []
    for e in entries:
        size = f"{e.size / 1e9:.2f} GB" if e.size else "?"
        what = " ".join(part for part in (e.kind, e.family) if part)
        lines.append(f"{e.name:<22} {what:<18} {size:>8}  {e.licence:<26} {e.title}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _OnHub:
    url: str
    size: int
    sha256: str | None


def fetch(wanted: Entry, models: Path, endpoint: str | None = None) -> tuple[Path, bool]:
    """Fetch the file into its place below `models`: (path, whether it was fetched now).

    A part that an earlier call left is gone on with. The file gets its name only when its size and checksum are right.
    `endpoint` is another hub than the one that HF_ENDPOINT names.

    Raises ResourceError `resource.no_network`, `resource.disk_full`, `resource.home`; AssetError
    `asset.digest_mismatch` for other bytes than are known; ModelError `model.unknown` where the hub has no such file.
    """
    target = models / wanted.folder / wanted.save_as
    if target.exists():
        _check_there(wanted, target)
        return target, False
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        there = _look_up(wanted, endpoint)
        _check_room(part, there.size)
        _download(there, part, wanted.title)
        _check_part(wanted, there, part)
        os.replace(part, target)
    except ImpastoError:
        raise
    except OSError as e:
        raise _of_disk(e, target) from e
    return target, True


def _look_up(wanted: Entry, endpoint: str | None) -> _OnHub:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    hub = endpoint or os.environ.get("HF_ENDPOINT") or None
    url = hf_hub_url(wanted.repo, wanted.file, endpoint=hub)
    told: Any = _asking(wanted, lambda: get_hf_file_metadata(url, token=False, endpoint=hub, timeout=30))
    known = told.etag if told.etag and re.fullmatch(r"[0-9a-f]{64}", told.etag) else None
    if told.size is None:
        raise ResourceError("resource.no_network", f"{url} does not tell its size; is that a hub?", retryable=True)
    if (wanted.sha256 and known and known != wanted.sha256) or (wanted.size and told.size != wanted.size):
        raise AssetError(
            "asset.digest_mismatch",
            f"The hub's {wanted.file} is another file than the one that is known ({told.size} bytes, sha256 "
            f"{known or 'not told'}); nothing was fetched. Look at {wanted.page} and fetch it by hand if you trust it.",
        )
    return _OnHub(told.location, told.size, wanted.sha256 or known)


def _download(there: _OnHub, part: Path, title: str) -> None:
    from huggingface_hub.file_download import http_get

    with open(part, "ab") as file:
        done = file.tell()
        if done > there.size:
            file.truncate(done := 0)
        if done:
            print(f"going on at {done / 1e6:.1f} of {there.size / 1e6:.1f} MB", file=sys.stderr)
        if done < there.size:
            _asking(
                None,
                lambda: http_get(
                    there.url, file, resume_size=done, expected_size=there.size, displayed_filename=title[:40]
                ),
            )


def _asking(wanted: Entry | None, call: Any) -> Any:
    """Call the hub's library; its many errors become two: no network, no such file. OSErrors of the disk pass."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    again = "try again, and it goes on where it stopped. (A proxy is set by HTTPS_PROXY, another hub by HF_ENDPOINT.)"
    try:
        return call()
    except OfflineModeIsEnabled as e:
        raise ResourceError(
            "resource.no_network", "HF_HUB_OFFLINE is set, so the hub is not asked; unset it to pull models."
        ) from e
    except (EntryNotFoundError, RepositoryNotFoundError) as e:
        what = f"{wanted.file} in {wanted.repo}" if wanted else "that file"
        raise ModelError("model.unknown", f"The hub has no {what} any more; look for it by hand.") from e
    except HfHubHTTPError as e:
        raise ResourceError("resource.no_network", f"The hub refused: {_line(e)}; {again}", retryable=True) from e
    except OSError as e:
        if e.errno is not None and not isinstance(e, ConnectionError | TimeoutError):
            raise
        raise ResourceError("resource.no_network", f"The download was cut: {_line(e)}; {again}", retryable=True) from e
    except Exception as e:  # the errors of the library's own HTTP client, which changes with its versions
        if not any(word in type(e).__module__ for word in ("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise ResourceError(
            "resource.no_network",
            f"The hub cannot be reached ({type(e).__name__}: {_line(e)}); {again}",
            retryable=True,
        ) from e


def _check_room(part: Path, size: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if size - have + SPARE > free:
        raise ResourceError(
            "resource.disk_full",
            f"{part.parent} has {free / 1e9:.2f} GB left, and {(size - have) / 1e9:.2f} GB are to come; make room, or "
            "name another folder with --to.",
        )


def _check_part(wanted: Entry, there: _OnHub, part: Path) -> None:
    if there.sha256 is None:
        print(f"{wanted.save_as}: no checksum of it is known; its size is right", file=sys.stderr)
        return
    found = _sha256(part)
    if found != there.sha256:
        part.unlink()
        raise AssetError(
            "asset.digest_mismatch",
            f"What arrived of {wanted.save_as} is damaged (sha256 {found}, expected {there.sha256}); it was removed. "
            "Pull it again.",
            retryable=True,
        )


def _check_there(wanted: Entry, target: Path) -> None:
    """A file of that name that is another one is the user's, and stays."""
    size = target.stat().st_size
    other = wanted.size is not None and size != wanted.size
    if other or (wanted.sha256 is not None and _sha256(target) != wanted.sha256):
        raise AssetError(
            "asset.digest_mismatch",
            f"{target} is there, but it is not {wanted.title}; move it away, or name another folder with --to.",
        )


def _of_disk(error: OSError, target: Path) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            "resource.disk_full",
            f"The disk of {target.parent} is full ({error.strerror}); make room and pull again: what arrived is kept.",
        )
    return ResourceError("resource.home", f"{target.parent} cannot be written ({error.strerror or error}).")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
