"""Tensors out of torch's files without running anything.

A torch file is a zip archive: ``data.pkl`` says how to build the object, ``data/<key>`` hold raw
storages. The pickle is read by an unpickler that knows tensors and plain containers; every other
global becomes an inert placeholder, and one that plainly executes is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from perennial.errors import CheckpointError
from perennial.models.opcodes import absurd

MAX_PICKLE_BYTES = 64 << 20
MAX_DIMENSIONS = 64  # torch's own bound
MAX_EXPANDED = 1 << 22  # numbers beyond those that are stored, over all tensors of a file
_EXECUTING_MODULES = {
    "os", "posix", "nt", "subprocess", "commands", "sys", "importlib", "runpy", "pty", "socket",
    "shutil", "ctypes", "webbrowser", "code", "codeop", "pdb", "timeit", "pickle", "_pickle",
    "marshal", "multiprocessing", "threading", "signal", "tempfile", "urllib", "http",
    "ftplib", "smtplib", "asyncio", "bdb", "cProfile", "profile", "pip", "site", "platform",
}  # fmt: skip
_EXECUTING = {
    "builtins": {
        "eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "delattr", "input",
        "breakpoint", "globals", "locals", "vars", "map", "filter",
    },
    "__builtin__": {"eval", "exec", "compile", "open", "__import__", "getattr", "execfile"},
    "io": {"open", "open_code", "FileIO"},
    "_io": {"open", "open_code", "FileIO"},
    "operator": {"attrgetter", "methodcaller", "itemgetter"},
    "torch": {"load", "compile"},
    "torch.serialization": {"load"},
    "numpy": {"load"},
    "joblib": {"load"},
    "sympy": {"sympify"},
    "functools": {"reduce"},
}  # fmt: skip
_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip


class Inert:
    """Stands for an object of a class that is not built; takes everything, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Inert:
        """Take a call; nothing comes of it."""
        return Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an item of a list-like."""

    def extend(self, values: Any) -> None:
        """Take items of a list-like."""

    def add(self, value: Any) -> None:
        """Take an item of a set-like."""


class _Storage:
    """A storage's type in the pickle: only its dtype matters."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a storage's type takes no state")


class _Built(Tensor):
    """A tensor that a pickle cannot change: Tensor's own ``__setstate__`` can resize storages."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor takes no state")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise pickle.UnpicklingError("a tensor takes no items")

    def add(self, *args: Any, **kwargs: Any) -> Tensor:
        """Refuse what the pickle's ADDITEMS calls."""
        raise pickle.UnpicklingError("a tensor takes no items")


def read_archive(path: Path) -> Any:
    """The object that a torch zip file holds, with tensors on the CPU.

    Raises:
        CheckpointError: Not such a file, truncated, compressed, beyond bounds, or executing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except CheckpointError:
        raise
    except (
        zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError,
        ValueError, AttributeError, RuntimeError, OverflowError, MemoryError, RecursionError,
        NotImplementedError, UnicodeDecodeError, OSError, struct.error,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"The checkpoint is damaged or no torch file ({type(error).__name__}: {error}).",
            where=str(path),
            mend="save it again with torch.save(model.state_dict(), path) or as .safetensors",
        ) from error


def _read(archive: zipfile.ZipFile, path: Path) -> Any:
    names = {info.filename: info for info in archive.infolist()}
    if any("/code/__torch__" in name for name in names):
        raise CheckpointError(
            "The file is a TorchScript archive, which holds code beside the weights.",
            where=str(path),
            mend="save the weights alone: torch.save(model.state_dict(), path)",
        )
    size = path.stat().st_size
    for info in names.values():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            _refuse(path, f"entry {info.filename!r} is compressed or larger than the file")
    if sum(info.file_size for info in archive.infolist()) > size:
        _refuse(path, "its entries overlap")
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        _refuse(path, "it holds no data.pkl (TorchScript and .pt2 files are not read)")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names or any(name.startswith(f"{root}code/") for name in names):
        _refuse(path, "it is TorchScript, which carries code")
    if names[pickles[0]].file_size > MAX_PICKLE_BYTES:
        _refuse(path, f"its pickle is larger than {MAX_PICKLE_BYTES >> 20} MiB")
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
    if order.strip() != b"little":
        _refuse(path, "it was written on a big-endian machine")

    def storage(key: str) -> bytes:
        return archive.read(f"{root}data/{key}")

    content = archive.read(pickles[0])
    if why := absurd(content):
        _refuse(path, why)
    return _Unpickler(io.BytesIO(content), storage=storage, path=path).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, *, storage: Callable[[str], bytes], path: Path) -> None:
        super().__init__(file)
        self._storage = storage
        self._path = path
        self._read: dict[str, Tensor] = {}
        self._expanded = 0

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        executing = set(name.split(".")) & _EXECUTING.get(module, set())
        if root in _EXECUTING_MODULES or module in _EXECUTING_MODULES or executing:
            raise CheckpointError(
                f"The checkpoint would run {module}.{name} when loaded; it was not.",
                where=str(self._path),
                mend="do not use this file; get the weights from a source you trust, "
                "best as .safetensors",
            )
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            # bytes whose dtype comes as a later argument: float8, unsigned integers
            return lambda *args: self._tensor(*args, dtype=args[6] if len(args) > 6 else None)
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return lambda *args: self._tensor(*args)  # fresh: BUILD may write on it
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda data, *_: data
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _Storage(_DTYPES[name])
        if module == "torch":
            found = vars(torch).get(name)  # getattr would import lazily
            if isinstance(found, torch.dtype):
                return found
            if name == "Size":
                return tuple
        if module == "builtins" and name in ("set", "frozenset", "complex", "slice", "range"):
            return {"set": set, "frozenset": frozenset}.get(name, Inert)
        return type("Inert", (Inert,), {"__module__": __name__})

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _Storage):
            _refuse(self._path, "it refers to something that is no storage")
        name = f"{key}:{storage_type.dtype}"
        if name not in self._read:
            content = bytearray(self._storage(str(key)))
            width = torch.empty(0, dtype=storage_type.dtype).element_size()
            if len(content) < count * width:
                _refuse(self._path, f"storage {key!r} is shorter than it claims")
            self._read[name] = (
                torch.frombuffer(content, dtype=storage_type.dtype)
                if content
                else torch.empty(0, dtype=storage_type.dtype)
            ).as_subclass(_Built)
        return self._read[name]

    def _tensor(
        self, storage: Any, offset: int, size: Any, stride: Any, *_: Any, dtype: Any = None
    ) -> Tensor:
        if isinstance(storage, Tensor) and isinstance(dtype, torch.dtype):
            storage = storage.view(dtype)
        size, stride = tuple(size), tuple(stride)
        whole = all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride))
        known = isinstance(storage, Tensor) and len(size) == len(stride) <= MAX_DIMENSIONS
        if not isinstance(storage, Tensor) or not known or not whole:
            _refuse(self._path, "a tensor's shape is malformed")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= len(storage):
            _refuse(self._path, f"a tensor of shape {size} does not lie within its storage")
        # a stride of 0, as expand() makes, could claim any size from one number
        self._expanded += max(math.prod(size) - len(storage), 0)
        if self._expanded > MAX_EXPANDED:
            _refuse(self._path, "its tensors claim far more numbers than it holds")
        # not a copy: a small pickle could ask for many copies of one storage
        return storage.as_strided(size, stride, offset).as_subclass(_Built)


def _refuse(path: Path, why: str) -> NoReturn:
    raise CheckpointError(
        f"The checkpoint is not read: {why}.",
        where=str(path),
        mend="save it again with torch.save(model.state_dict(), path) or as .safetensors",
    )
