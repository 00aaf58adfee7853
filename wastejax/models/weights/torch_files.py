"""Tensors out of `.safetensors` and PyTorch's `.pth` files, without PyTorch and without running what they hold.

A `.pth` is a pickle, and a pickle may name any function to be called. Here it can name a few constructors that
only describe tensors; everything else is refused before it is imported.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes  # comes with jax
import numpy as np
import safetensors

from wastejax.errors import UserError

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

_SAFETENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),  # which safetensors.numpy does not know
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

# Keys under which checkpoints keep a state dict.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

Tensors = dict[str, np.ndarray]


class _Tensor(NamedTuple):
    """A tensor that a pickle described: a view of a storage that is read later."""

    storage: Any  # ('storage', type, key, device, number of values, ...)
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """An unpickler with an allow-list.

    Each instance hands out functions of its own: a pickle may set attributes on what it is given.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")

        def rebuild_tensor(storage, offset, shape, strides, *_):
            return _Tensor(storage, offset, tuple(shape), tuple(strides))

        def rebuild_parameter(tensor, *_):
            return tensor

        self._allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            **{("torch", name): name for name in STORAGES},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Returns an allowed constructor; a storage's is just its name."""
        if (module, name) not in self._allowed:
            raise UserError(
                f"it asks to run {module}.{name}, which is no part of a weights file; nothing was run. "
                "Use it only if you trust its origin, and then save its state_dict as .safetensors"
            )
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Returns the description of a storage as it is."""
        return pid


def _resolve(tensor: _Tensor, read_storage: Callable[[str, np.dtype, int], np.ndarray]) -> np.ndarray:
    """Returns the values of a described tensor. The description is not to be trusted: it is checked first."""
    kind, storage_type, key, _, length, *view = tensor.storage
    numbers = (length, tensor.offset, *tensor.shape, *tensor.strides)
    if kind != "storage" or storage_type not in STORAGES or not isinstance(key, str) or any(view):
        raise ValueError("a tensor is not described as PyTorch does")
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(tensor.shape) != len(tensor.strides):
        raise ValueError("a tensor's shape is impossible")
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    empty = 0 in tensor.shape
    if not empty and (last >= length or math.prod(tensor.shape) > length):
        raise ValueError("a tensor reaches beyond its storage")
    values = read_storage(key, STORAGES[storage_type], length)
    if empty:
        return np.empty(tensor.shape, values.dtype)
    strides = [step * values.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()


def _state_dict(content: Any, read_storage: Callable[[str, np.dtype, int], np.ndarray]) -> Tensors:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping):
        raise ValueError("it holds no state_dict")
    tensors = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"entry {str(name)[:80]!r} of its state_dict is no tensor")
        tensors[name.removeprefix("module.")] = _resolve(value, read_storage)
    return tensors


def _read_zip(file: BinaryIO) -> Tensors:
    """Reads PyTorch's format since 1.6: a zip archive of one pickle and one member per storage."""
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("it holds no data.pkl, so it is no PyTorch file")
        folder = pickles[0].removesuffix("data.pkl")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, which PyTorch never does")  # and could grow beyond all memory
        if folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        content = _Unpickler(BytesIO(archive.read(pickles[0]))).load()

        def read_storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
            member = archive.getinfo(f"{folder}data/{key}")
            if member.file_size != length * dtype.itemsize:
                raise ValueError("a storage has another length than its description")
            return np.frombuffer(archive.read(member), dtype)

        return _state_dict(content, read_storage)


def _read_legacy(file: BinaryIO) -> Tensors:
    """Reads PyTorch's format before 1.6: five pickles in a row, then the storages, each with its length."""
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise ValueError("it is a pickle, but no PyTorch file")
    _Unpickler(file).load()  # of the machine that wrote it
    content, keys = (_Unpickler(file).load() for _ in range(2))
    storages: dict[str, bytes] = {}
    sizes = {t.storage[2]: STORAGES[t.storage[1]].itemsize for t in _tensors_in(content)}
    for key in keys:
        length = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(length * sizes[key])

    def read_storage(key: str, dtype: np.dtype, length: int) -> np.ndarray:
        if len(storages[key]) != length * dtype.itemsize:
            raise ValueError("it is cut off")
        return np.frombuffer(storages[key], dtype)

    return _state_dict(content, read_storage)


def _read_safetensors(content: bytes) -> Tensors:
    return {
        name: np.frombuffer(tensor["data"], _SAFETENSORS[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(content)
    }


def _tensors_in(content: Any) -> list[_Tensor]:
    if isinstance(content, _Tensor):
        return [content]
    values = content.values() if isinstance(content, Mapping) else ()
    return [tensor for value in values for tensor in _tensors_in(value)]


def read_tensors(path: Path) -> Tensors:
    """Reads the tensors of a weights file by name.

    Args:
        path: a `.safetensors` file, or a state dict (also one inside a checkpoint) written by `torch.save`.

    Returns:
        Arrays in the file's shapes and dtypes. A leading `module.` of the names is removed.

    Raises:
        UserError: it cannot be read, is neither format, or is a pickle that asks for more than tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
            file.seek(0)
            if start[8:9] == b"{":  # 8 bytes of header length, then JSON
                return _read_safetensors(file.read())
            if start[:4] == b"PK\x03\x04":
                return _read_zip(file)
            if start[:1] == b"\x80":
                return _read_legacy(file)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged file provokes in the readers
        raise UserError(f"{path}: damaged weights file: {type(error).__name__}: {error}") from None
    raise UserError(f"{path}: neither a .safetensors nor a PyTorch file")
