"""Any file or folder that holds a model: its header and its tensors. No torch to list them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from impasto_protocol.errors import ModelError

from .checkpoint import Header, Tensors, corrupt, open_tensors, read_header, unreadable
from .folders import read_folder
from .modelpath import PICKLES, is_model_folder
from .pickles import open_pickle, pickle_header

if TYPE_CHECKING:
    import torch

__all__ = ["header_of", "open_model", "open_sources"]


def header_of(path: str | Path, known: Container[bytes] | None = None) -> Header:
    """Names, number formats and shapes of all tensors; of a folder by the names of the single-file layout. `known` is
    for who reads many (`checkpoint.read_header`).

    Raises ModelError: `model.corrupt`, `model.unsafe`, `model.unsupported`, `model.unknown`.
    """
    path = Path(path)
    if path.is_dir() and is_model_folder(path):
        return read_folder(path).header
    if path.suffix.lower() in PICKLES:
        _is_pickle(path)
        return pickle_header(path)
    try:
        return read_header(path, known)
    except ModelError:
        _is_pickle(path)  # which may know a better reason
        raise


@contextmanager
def open_model(path: str | Path) -> Iterator[Tensors]:
    """Map the file or the files of a folder; see `checkpoint.open_tensors`. Raises the same as `header_of`."""
    path = Path(path)
    with ExitStack() as stack:
        if path.is_dir() and is_model_folder(path):
            yield _Joined(read_folder(path).sources, stack)
        else:
            yield stack.enter_context(open_pickle(path) if _is_pickle(path) else open_tensors(path))


@contextmanager
def open_sources(sources: Mapping[str, tuple[Path, str]]) -> Iterator[Tensors]:
    """The same of tensors that lie in several files: name -> the file, and the name there."""
    with ExitStack() as stack:
        yield _Joined(sources, stack)


class _Joined:
    """The tensors of several files by other names."""

    def __init__(self, sources: Mapping[str, tuple[Path, str]], stack: ExitStack) -> None:
        self._sources = sources
        self._files: Mapping[Path, Tensors] = {
            file: stack.enter_context(open_pickle(file) if _is_pickle(file) else open_tensors(file))
            for file in {file for file, _ in sources.values()}
        }

    def keys(self) -> list[str]:
        return list(self._sources)

    def get_tensor(self, name: str) -> torch.Tensor:
        file, own = self._sources[name]
        return self._files[file].get_tensor(own)


def _is_pickle(path: Path) -> bool:
    """By the ending, which must agree with how the file begins: who takes a .safetensors file relies on it."""
    named = path.suffix.lower() in PICKLES
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise unreadable(path, error) from error
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise corrupt(path, "it is a web page: the download needed a login or failed")
    if named and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        raise corrupt(path, f"it is a safetensors file with the wrong ending; rename it to {path.stem}.safetensors")
    if not named and start.startswith((b"PK\3\4", b"\x80\2")):
        raise corrupt(path, f"it is a pickle with the wrong ending; rename it to {path.stem}.ckpt if you trust it")
    return named
