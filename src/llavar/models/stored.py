"""Checkpoints as they are found: ``.bin`` or safetensors, whole or in shards, read lazily and safely.

A tensor is known by name, shape and dtype before any of its bytes are read, and comes as a view of the
mapped file: reading a model tensor by tensor takes no more memory than its largest tensor. Files come from
strangers. Pickles go through torch's ``weights_only`` reader, which builds tensors and plain containers and
runs nothing; what an index says is compared with what the files hold.
"""

from __future__ import annotations

import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from torch import Tensor, nn

from llavar.errors import ModelError, NotFoundError
from llavar.models.folder import INDEX, WEIGHTS, check_replaceable, read_document

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The dtypes that are read and written, with their names in safetensors."""

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Files beside the weights that make a folder complete."""

_LFS_HEAD = b"version https://git-lfs"
_ZIP_HEAD = b"PK\x03\x04"
_LARGEST_COMPANION = 256 << 20
_LONGEST_NAME = 200
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_META = re.compile(r"consolidated\.\d+\.pth")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)|global(?:: | )([\w.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyTensor:
    """A tensor that was not read yet: ``name`` in the file ``path``."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    path: Path
    read: Callable[[], Tensor] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return self.numel * self.dtype.itemsize

    @property
    def numel(self) -> int:
        """How many values it has."""
        return torch.Size(self.shape).numel()

    def load(self) -> Tensor:
        """The tensor on the CPU, mostly a view of the mapped file: do not change it, drop it soon."""
        return self.read()


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """What a checkpoint holds, by name, in the order of the files. Reads headers only.

    Args:
        path: a folder with ``model*.safetensors`` or ``pytorch_model*.bin`` (the former where it has both),
            with or without their index; or one file: ``.safetensors``, or anything ``torch.save`` wrote.

    Raises:
        NotFoundError: there is no such path.
        ModelError: no weights; a missing, damaged or truncated shard, an LFS pointer, Meta's own format; a
            pickle that holds more than tensors; an index that points outside the folder or names what is
            not there; a tensor twice.
    """
    if not path.exists():
        raise NotFoundError(f"there is no checkpoint {path}; name a model folder or a file of weights")
    found: dict[str, LazyTensor] = {}
    files, table = _files(path) if path.is_dir() else ([path], {})
    for file in files:
        for tensor in _open(file):
            if tensor.name in found:
                other = found[tensor.name].path.name
                raise ModelError(f"{file} holds {tensor.name!r}, which {other} holds too; fetch it again")
            found[tensor.name] = tensor
    for name, file in table.items():
        if name not in found or found[name].path.name != file:
            raise ModelError(f"the index of {path} has {name!r} in {file}, which lacks it; fetch both again")
    if not found:
        raise ModelError(f"{path} holds no tensors; fetch or write it again")
    return found


# Which files.


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The weight files of a folder, and what its index says: tensor name to file name."""
    for whole, index in ((WEIGHTS, INDEX), (BIN, BIN_INDEX)):
        shards = _numbered(folder, whole)
        kinds = [name for name, there in ((whole, (folder / whole).exists()), ("shards", shards)) if there]
        if len(kinds) > 1:
            raise ModelError(
                f"{folder} holds {whole} and {shards[0].name}, so the weights are there twice; remove one"
            )
        if (folder / index).exists():
            table = _table(folder, index)
            return [folder / name for name in sorted(set(table.values()))], table
        if kinds:
            return (_complete(folder, shards) if shards else [folder / whole]), {}
    raise ModelError(_nothing(folder))


def _numbered(folder: Path, whole: str) -> list[Path]:
    stem, suffix = whole.rsplit(".", 1)
    return [path for path in sorted(folder.glob(f"{stem}-*-of-*.{suffix}")) if _SHARD.fullmatch(path.name)]


def _complete(folder: Path, shards: list[Path]) -> list[Path]:
    """Shards without an index: their names say how many there must be."""
    names = {path.name for path in shards}
    parts = [match for name in sorted(names) if (match := _SHARD.fullmatch(name))]
    counts = sorted({int(part["count"]) for part in parts})
    if len(counts) > 1:
        raise ModelError(f"{folder} mixes shards of {counts[0]} and of {counts[1]}; keep one set of them")
    first = parts[0]
    for number in range(1, counts[0] + 1):
        name = f"{first['stem']}-{number:05d}-of-{first['count']}{first['suffix']}"
        if name not in names:
            raise ModelError(f"{folder} is incomplete: {name} is missing; fetch the checkpoint again")
    if len(names) > counts[0]:
        raise ModelError(f"{folder} holds {len(names)} shards of {counts[0]}; fetch the checkpoint again")
    return shards


def _table(folder: Path, index: str) -> dict[str, str]:
    given = read_document(folder, index).get("weight_map")
    if not isinstance(given, dict) or not given:
        raise ModelError(f"{folder / index} has no weight_map; fetch or write the checkpoint again")
    table = {str(key): str(value) for key, value in cast("dict[object, object]", given).items()}
    suffix = PurePosixPath(index.removesuffix(".index.json")).suffix
    for name in sorted(set(table.values())):
        plain = PurePosixPath(name).name == name and "\\" not in name and len(name) <= _LONGEST_NAME
        if not plain or not name.endswith(suffix):
            raise ModelError(f"{folder / index} points to {name!r:.200}; only {suffix} beside it are read")
        if not (folder / name).is_file():
            raise ModelError(f"{folder} is incomplete: {name} is missing; fetch the checkpoint again")
    return table


def _nothing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    meta = next((name for name in names if _META.fullmatch(name)), None)
    if meta:
        return _meta_format(folder / meta)
    if "adapter_config.json" in names:
        return f"{folder} is a LoRA adapter, not a model; merge it first: llavar convert merge-lora"
    gguf = next((name for name in names if name.endswith(".gguf")), None)
    if gguf:
        return f"{folder} has its weights in {gguf}, which is not read; fetch safetensors or {BIN}"
    return f"{folder} holds no weights: neither {WEIGHTS} nor {BIN} nor shards of them are there"


def _meta_format(path: Path) -> str:
    return (
        f"{path} is in Meta's own format; convert its folder first with convert_llama_weights_to_hf.py "
        "(in the source of transformers, src/transformers/models/llama)"
    )


# One file.


def check_file(path: Path) -> None:
    """Refuse what is no file, and a Git LFS pointer in place of one.

    Raises:
        ModelError: that.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_HEAD))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); fetch it again") from error
    if head == _LFS_HEAD:
        raise ModelError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes, not the file; run 'git lfs pull'"
        )


def _open(path: Path) -> Iterator[LazyTensor]:
    check_file(path)
    if _META.fullmatch(path.name):
        raise ModelError(_meta_format(path))
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    return _open_zip(path) if _is_zip(path) else _open_old(path)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP_HEAD)) == _ZIP_HEAD


def _safe_open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


def _open_safetensors(path: Path) -> Iterator[LazyTensor]:
    from safetensors import SafetensorError

    dtypes = {name: dtype for dtype, name in DTYPES.items()}

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            with _safe_open(path) as file:
                return cast("Tensor", file.get_tensor(name))

        return read

    try:
        with _safe_open(path) as file:
            slices = [(str(name), file.get_slice(name)) for name in file.offset_keys()]
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path} is damaged or truncated at {size} bytes ({error!s:.200}); fetch or write it again"
        ) from error
    for name, piece in slices:
        kind = piece.get_dtype()
        if kind not in dtypes:
            raise ModelError(f"{path} holds {name!r} as {kind}; read are {', '.join(dtypes)}")
        shape = tuple(int(size) for size in piece.get_shape())
        yield LazyTensor(name=name, shape=shape, dtype=dtypes[kind], path=path, read=reader(name))


def _open_zip(path: Path) -> Iterator[LazyTensor]:
    """What ``torch.save`` writes since 1.6: a zip whose members are the bytes of the tensors, mapped."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(_damaged(path)) from error
    if packed:
        raise ModelError(f"{path} is compressed ({packed[0]!r:.80}), which torch never does; fetch it again")
    tensors = _checked(path, _unpickle(path, mapped=True))
    # In the order of the file, so that reading one after the other reads it from front to back.
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        yield LazyTensor(
            name=name, shape=tuple(tensor.shape), dtype=tensor.dtype, path=path, read=_given(tensor)
        )


def _given(tensor: Tensor) -> Callable[[], Tensor]:
    return lambda: tensor


def _open_old(path: Path) -> Iterator[LazyTensor]:
    """What ``torch.save`` wrote before 1.6. It cannot be mapped: a file is in memory while it is read."""
    tensors = _checked(path, _unpickle(path, mapped=False))
    held: dict[str, Tensor] = {}

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            if not held:
                held.update(_checked(path, _unpickle(path, mapped=False)))
            tensor = held.pop(name, None)
            if tensor is None:  # asked for again: read again
                held.update(_checked(path, _unpickle(path, mapped=False)))
                tensor = held.pop(name)
            return tensor

        return read

    known = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    del tensors
    for name, shape, dtype in known:
        yield LazyTensor(name=name, shape=shape, dtype=dtype, path=path, read=reader(name))


def _unpickle(path: Path, *, mapped: bool) -> object:
    import pickle

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own storage classes
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = _GLOBAL.search(str(error))
        if found is None:
            raise ModelError(_damaged(path)) from error
        raise ModelError(
            f"{path} holds {found[1] or found[2]}, and only tensors are read from pickles; nothing of it was "
            "run, do not trust this file"
        ) from error
    except Exception as error:  # a stranger's bytes can fail anywhere in the reader
        raise ModelError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path} is damaged or truncated at {path.stat().st_size} bytes; fetch or write it again"


def _checked(path: Path, value: object) -> dict[str, Tensor]:
    """A flat dictionary of plain tensors, or an error that says what else it is."""
    if not isinstance(value, Mapping):
        raise ModelError(f"{path} holds a {type(value).__name__}; a dictionary of tensors was expected")
    return {
        _tensor_name(path, key): _plain(path, key, item)
        for key, item in cast("Mapping[object, object]", value).items()
    }


def _tensor_name(path: Path, key: object) -> str:
    if not isinstance(key, str):
        raise ModelError(f"{path} names a tensor {key!r:.80}; names must be strings")
    return key


def _plain(path: Path, key: object, item: object) -> Tensor:
    if type(item) not in (Tensor, nn.Parameter):
        raise ModelError(f"{path} holds a {type(item).__name__} at {key!r:.80}; tensors were expected")
    tensor = cast("Tensor", item).detach()
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ModelError(f"{path} holds {key!r:.80} as {kind}, {tensor.layout}; plain dense ones are read")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{path} declares {key!r:.80} as {list(tensor.shape)}, more than it holds of it")
    return tensor


# What lies beside the weights.


def copy_companions(source: Path, target: Path, names: Iterable[str] = COMPANIONS) -> list[str]:
    """Copy configuration, tokenizer and processor of a model folder; give the names that were there.

    Raises:
        ModelError: one of them is an LFS pointer, unreadable or absurdly large.
    """
    copied: list[str] = []
    for name in names:
        path = source / name
        if not path.exists():
            continue
        check_file(path)
        if path.stat().st_size > _LARGEST_COMPANION:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; at most {_LARGEST_COMPANION} are read")
        shutil.copyfile(path, target / name)
        copied.append(name)
    return copied


def check_out(out: Path, *inputs: Path) -> None:
    """Refuse, before anything is done, a folder that cannot be written.

    Raises:
        ModelError: it is read, is a file or no model folder, or its old ``.bin`` weights would stay.
    """
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ModelError(f"{out} is read and would be written; name another folder for --out")
    old = next(iter(sorted(out.glob("pytorch_model*.bin"))), None) if out.is_dir() else None
    if old is not None:
        raise ModelError(f"{out} holds {old.name}, which would stay beside the new weights; remove it")
    if out.exists():
        check_replaceable(out)
