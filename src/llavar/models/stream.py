"""Safetensors written as a stream: the header first, then one tensor after the other.

``safetensors.save_file`` wants a whole file's tensors at once. Here a tensor is asked for when its turn
comes, may come in parts, and is dropped when its bytes are with the operating system, so that a model of any
size needs the memory of its largest part. Threads share the work: this one makes the parts, one writes them,
one takes their checksums if they are wanted (both let Python run meanwhile).
"""

from __future__ import annotations

import hashlib
import json
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from llavar.errors import ModelError
from llavar.models.folder import INDEX, WEIGHTS, write_document
from llavar.models.stored import DTYPES

MAX_SHARD_BYTES = 10_000_000_000
"""As large as the shards of the original checkpoints."""

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and the bytes in all."""

_WAITING = 2  # parts between two threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A tensor to come: ``make`` gives it, or the parts of its flat values in order, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor | Iterable[Tensor]]

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file that was written, with its size in bytes and its sha256 in hexadecimal, if that was wanted."""

    name: str
    size: int
    sha256: str | None


def write(
    folder: Path,
    tensors: Iterable[Planned],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    *,
    progress: Progress | None = None,
    checksums: bool = True,
) -> tuple[WrittenFile, ...]:
    """Write safetensors into ``folder``: one file, or several and their index.

    Tensors keep their order, but for those of wider dtypes, which come first in their file (values must lie
    at multiples of their size). Checksums cost about as much processor time as all the rest.

    Raises:
        ModelError: a tensor alone is larger than ``max_shard_bytes``; two of one name; not enough room on
            the disk; what ``make`` gave is not what was planned.
    """
    shards = [
        sorted(shard, key=lambda plan: -plan.dtype.itemsize) for shard in _shards(tensors, max_shard_bytes)
    ]
    total = sum(plan.nbytes for shard in shards for plan in shard)
    _check_room(folder, total)
    names = _names(len(shards))
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    files = tuple(
        write_file(folder / name, shard, advance, checksums=checksums)
        for name, shard in zip(names, shards, strict=True)
    )
    if len(shards) > 1:
        table = {plan.name: name for name, shard in zip(names, shards, strict=True) for plan in shard}
        write_document(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": table})
    return files


def write_file(
    path: Path,
    plans: Sequence[Planned],
    advance: Callable[[int], None] | None = None,
    *,
    checksums: bool = True,
) -> WrittenFile:
    """One safetensors file, tensors in the order given; ``advance`` is told the bytes of each when written.

    Raises:
        ModelError: the disk is full or the file cannot be written; what ``make`` gave is not as planned.
    """
    with path.open("wb", buffering=0) as file, _Pipe(file, checksums=checksums) as pipe:
        pipe.put(_header(plans))
        for plan in plans:
            _send(plan, pipe)
            if advance is not None:
                advance(plan.nbytes)
    path.chmod(0o644)
    return WrittenFile(name=path.name, size=pipe.size, sha256=pipe.sha256())


def _names(count: int) -> list[str]:
    if count == 1:
        return [WEIGHTS]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _shards(tensors: Iterable[Planned], limit: int) -> Iterator[list[Planned]]:
    """Cut where the next one would not fit; the header counts too."""
    shard: list[Planned] = []
    seen: set[str] = set()
    room = used = 1024
    for plan in tensors:
        size = plan.nbytes + len(json.dumps(plan.name)) + 160
        if plan.name in seen:
            raise ModelError(f"two tensors are to be written as {plan.name!r}; names must differ")
        if room + size > limit:
            raise ModelError(
                f"{plan.name} needs {size} bytes and a file may have {limit}; raise max_shard_bytes"
            )
        if shard and used + size > limit:
            yield shard
            shard, used = [], room
        seen.add(plan.name)
        shard.append(plan)
        used += size
    yield shard


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{needed / 1e9:.1f} GB are to be written in {folder.parent} and {free / 1e9:.1f} GB are "
            "free; make room or name a folder on another disk"
        )


def _header(plans: Sequence[Planned]) -> bytes:
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}  # old readers insist on it
    start = 0
    for plan in plans:
        end = start + plan.nbytes
        table[plan.name] = {
            "dtype": DTYPES[plan.dtype],
            "shape": list(plan.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _send(plan: Planned, pipe: _Pipe) -> None:
    made = plan.make()
    sent = 0
    for part in [made] if isinstance(made, Tensor) else made:
        if part.dtype != plan.dtype or (part is made and part.shape != plan.shape):
            raise ModelError(
                f"{plan.name} was planned as {plan.dtype} {list(plan.shape)} and is {part.dtype} "
                f"{list(part.shape)}"
            )
        sent += part.nbytes
        pipe.put(_bytes(part))
    if sent != plan.nbytes:
        raise ModelError(f"{plan.name} was planned with {plan.nbytes} bytes and has {sent}")


def _bytes(tensor: Tensor) -> memoryview:
    array: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


class _Pipe:
    """Bytes put in go to the file and into the checksum, each in a thread of its own, in order."""

    def __init__(self, file: BinaryIO, *, checksums: bool) -> None:
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256() if checksums else None
        self._failure: OSError | None = None
        takers = [self._write] if self._hash is None else [self._write, self._hash.update]
        self._queues: list[queue.Queue[bytes | memoryview | None]] = [queue.Queue(_WAITING) for _ in takers]
        self._threads = [
            threading.Thread(target=self._drain, args=(waiting, take), daemon=True)
            for waiting, take in zip(self._queues, takers, strict=True)
        ]

    def __enter__(self) -> _Pipe:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        if kind is None:
            self._check()

    def put(self, data: bytes | memoryview) -> None:
        self._check()
        self.size += len(data)
        for waiting in self._queues:
            waiting.put(data)

    def sha256(self) -> str | None:
        return self._hash.hexdigest() if self._hash else None

    def _check(self) -> None:
        if self._failure is not None:
            reason = self._failure.strerror or type(self._failure).__name__
            raise ModelError(
                f"the weights cannot be written ({reason}); make room or name a folder on another disk"
            ) from self._failure

    def _drain(
        self,
        waiting: queue.Queue[bytes | memoryview | None],
        take: Callable[[bytes | memoryview], None],
    ) -> None:
        while (data := waiting.get()) is not None:
            take(data)
            del data  # while waiting for the next one, this one's memory is free

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest and self._failure is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failure = error
