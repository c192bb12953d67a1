"""Python's unpickling machine without the power to import: every name is answered by a stand-in, or ends the reading.

It knows the few names that the numbers of a model need. What it gives are plain containers with `StoredTensor`s in
place of the tensors. No torch here.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["DTYPES", "Damaged", "Forbidden", "Reader", "Source", "StoredTensor"]

DTYPES = {
    "F64": ("DoubleStorage", "float64", 8),
    "F32": ("FloatStorage", "float32", 4),
    "F16": ("HalfStorage", "float16", 2),
    "BF16": ("BFloat16Storage", "bfloat16", 2),
    "I64": ("LongStorage", "int64", 8),
    "I32": ("IntStorage", "int32", 4),
    "I16": ("ShortStorage", "int16", 2),
    "I8": ("CharStorage", "int8", 1),
    "U8": ("ByteStorage", "uint8", 1),
    "BOOL": ("BoolStorage", "bool", 1),
    "F8_E4M3": ("", "float8_e4m3fn", 1),
    "F8_E5M2": ("", "float8_e5m2", 1),
}
"""Number format as safetensors names it -> torch's storage class ("" where it has none), torch's dtype, bytes."""


class Forbidden(Exception):
    """The pickle asks for `name`, which no model's numbers need."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Damaged(Exception):
    """With a reason that completes 'it cannot be read: ...'."""


class _Fixed:
    """What a pickle may not change once it is made; the machine would write into it past all checks."""

    def __setstate__(self, state: Any) -> None:
        raise Damaged("it changes what it has made")


@dataclass(frozen=True)
class StoredTensor(_Fixed):
    """A tensor in the index: number format, shape, stride and offset (both in elements) in the storage `key`."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    key: str


@dataclass(frozen=True)
class Storage(_Fixed):
    key: str
    dtype: str
    size: int
    """Bytes."""
    item: int
    """Bytes of one element of the storage."""


@dataclass(frozen=True)
class _Kind(_Fixed):
    """Stands for a storage class or a dtype."""

    dtype: str


class _Table(dict[Any, Any]):
    """Stands for an OrderedDict and its like."""

    def __setstate__(self, state: Any) -> None:
        """Attributes of the original, such as the versions of modules: of no use here."""


class _Module(dict[Any, Any]):
    """Stands for a ParameterDict, which is a module: its parameters are what it holds."""

    def __setstate__(self, state: Any) -> None:
        parameters = state.get("_parameters") if isinstance(state, dict) else None
        if isinstance(parameters, dict):
            self.update(parameters)


class _Inert:
    """Stands for what a training program left behind: whatever is done to it, it stays what it is."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        """Ignored."""


@dataclass(frozen=True)
class _Function(_Fixed):
    """A stand-in that can be called and not be changed."""

    call: Callable[..., Any] = field(repr=False)

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


_INERT = (
    "_codecs.encode",
    "__builtin__.set",
    "builtins.set",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pytorch_lightning.callbacks.ModelCheckpoint",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.Tensor",
)
"""Names in real checkpoints beside the tensors (steps, scores, callbacks); their values are of no use here."""

_KINDS = {
    "torch.UntypedStorage": "U8",
    "torch.storage.UntypedStorage": "U8",
    **{f"torch.{dtype}": name for name, (_, dtype, _) in DTYPES.items()},
    **{f"torch.{storage}": name for name, (storage, _, _) in DTYPES.items() if storage},
    **{f"torch.cuda.{storage}": name for name, (storage, _, _) in DTYPES.items() if storage},
}
"""Storage classes and dtypes -> number format."""


class Source(io.BytesIO):
    """The bytes of a pickle; what is cut off is an EOFError and never a shorter word."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError
        return line


def _shallow(make: Callable[[Any], None]) -> Callable[[Reader], None]:
    """The instruction that makes a tuple, within limits."""

    def load(reader: Reader) -> None:
        make(reader)
        reader.measure(reader.stack[-1])

    return load


def _refuse(reader: Reader) -> None:
    raise Damaged("it holds what no model does")


_TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_STRANGE = (pickle.FROZENSET, pickle.BYTEARRAY8, pickle.EXT1, pickle.EXT2, pickle.EXT4)
_MAX_DEPTH = 64
"""Tuples inside one another. Python follows all of them for the hash of a key, and thousands end the process."""


class Reader(pickle._Unpickler):
    """Python's own machine, without the power to import: every name is answered from a table of stand-ins.

    It is the one in Python: that in C runs the same program, but lets nobody look at the tuples that it makes.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        **{code[0]: _shallow(pickle._Unpickler.dispatch[code[0]]) for code in _TUPLES},
        **dict.fromkeys((code[0] for code in _STRANGE), _refuse),
    }
    stack: list[Any]

    def __init__(self, file: Source) -> None:
        super().__init__(file, encoding="utf-8")
        self._depths: dict[int, tuple[int, Any]] = {}
        self.storages: dict[str, Storage] = {}
        self.tensors: list[StoredTensor] = []
        table = _Function(lambda *args: _Table())
        self._known: dict[str, Any] = {
            "collections.OrderedDict": table,
            "collections.defaultdict": table,
            "torch.nn.modules.container.ParameterDict": _Module,
            "torch.Size": _Function(lambda sizes=(): tuple(sizes)),
            "torch._utils._rebuild_tensor": _Function(self._tensor),
            "torch._utils._rebuild_tensor_v2": _Function(self._tensor),
            "torch._utils._rebuild_tensor_v3": _Function(self._tensor_of_dtype),
            "torch._utils._rebuild_parameter": _Function(lambda data, *rest: data),
            "torch._utils._rebuild_parameter_with_state": _Function(lambda data, *rest: data),
            "torch._tensor._rebuild_from_type_v2": _Function(self._typed),
            **{name: _Kind(dtype) for name, dtype in _KINDS.items()},
            **dict.fromkeys(_INERT, _Inert()),
        }

    def measure(self, made: tuple[Any, ...]) -> None:
        """Note how deep a new tuple is; it is kept, so that its id stays its own. Raises Damaged."""
        depth = 1 + max((self._depths[id(inner)][0] for inner in made if id(inner) in self._depths), default=0)
        if depth > _MAX_DEPTH:
            raise Damaged("its containers lie too deep inside one another")
        self._depths[id(made)] = depth, made

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._known:
            raise Forbidden(full)
        return self._known[full]

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise Damaged("it refers to something that is no storage")
        _, kind, key, _, count, *view = pid
        if not isinstance(kind, _Kind) or not _counts((count,)) or view not in ([], [None]):
            raise Damaged("it has a storage that makes no sense")
        item = DTYPES[kind.dtype][2]
        storage = Storage(str(key), kind.dtype, count * item, item)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise Damaged("it has two storages of one name")
        return storage

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> StoredTensor:
        return self._stored(storage, storage.dtype, offset, shape, stride)

    def _tensor_of_dtype(
        self, storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
    ) -> StoredTensor:
        if not isinstance(dtype, _Kind):
            raise Damaged("it has a tensor of no number format")
        return self._stored(storage, dtype.dtype, offset, shape, stride)

    def _stored(self, storage: Any, dtype: str, offset: Any, shape: Any, stride: Any) -> StoredTensor:
        sizes = tuple(shape), tuple(stride)
        good = isinstance(storage, Storage) and len(sizes[0]) == len(sizes[1]) <= 64
        if not good or not _counts((offset, *sizes[0], *sizes[1])):
            raise Damaged("it has a tensor that makes no sense")
        tensor = StoredTensor(dtype, *sizes, offset, storage.key)
        self.tensors.append(tensor)
        return tensor

    def _typed(self, make: Any, kind: Any, args: Any, state: Any = None) -> Any:
        if not isinstance(make, _Function):
            raise Damaged("it has a tensor that is made by nothing")
        return make(*args)


def _counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 2**48 for value in values)
