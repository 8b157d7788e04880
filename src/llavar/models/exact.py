"""Values that a rounded sum misses, kept beside a delta so that adding it gives its target bit for bit.

See :mod:`llavar.models.delta`. The file ``delta_exact.safetensors`` holds, for each tensor that needs it, the
places in the flat tensor (``NAME.at``, int32, ascending) and the values there (``NAME.is``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from llavar.errors import ModelError
from llavar.models import stored
from llavar.models.stored import LazyTensor
from llavar.models.stream import Planned

EXACT = "delta_exact.safetensors"
_LAST_PLACE = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Values of a flat tensor: ``is_`` at the places ``at`` (ascending)."""

    at: Tensor
    is_: Tensor


def patched(part: Tensor, start: int, patch: Patch) -> Tensor:
    """The part of a flat tensor that begins at ``start``, with the patch's values in it."""
    bounds = torch.searchsorted(patch.at, torch.tensor([start, start + len(part)], dtype=patch.at.dtype))
    first, last = int(bounds[0]), int(bounds[1])
    if first == last:
        return part
    changed = part.clone()
    changed[patch.at[first:last] - start] = patch.is_[first:last]
    return changed


class Missed:
    """What a sum will miss, kept in a file meanwhile: of a large model it may be a gigabyte."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path
        self._spans: dict[str, list[tuple[int, int]]] = {}  # place in the file, values
        self._dtypes: dict[str, torch.dtype] = {}

    def __enter__(self) -> Missed:
        self._file = self._path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def add(self, name: str, patch: Patch) -> None:
        """The next values of a tensor; one tensor after the other, from its front to its back."""
        if int(patch.at[-1]) > _LAST_PLACE:
            raise ModelError(f"{name} has more than {_LAST_PLACE} values, too many for one tensor of a delta")
        self._spans.setdefault(name, []).append((self._file.tell(), len(patch.at)))
        self._dtypes[name] = patch.is_.dtype
        for tensor in (patch.at.int(), patch.is_):
            self._file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        self.count += len(patch.at)

    def plans(self) -> list[Planned]:
        """Tensors of wider dtypes first, as safetensors are aligned."""
        found = [
            Planned(
                name=f"{name}.{end}",
                shape=(sum(values for _, values in spans),),
                dtype=dtype,
                make=partial(self._read, spans, dtype, skipped),
            )
            for name, spans in self._spans.items()
            for end, dtype, skipped in (("at", torch.int32, 0), ("is", self._dtypes[name], 4))
        ]
        return sorted(found, key=lambda plan: -plan.dtype.itemsize)

    def _read(self, spans: list[tuple[int, int]], dtype: torch.dtype, skipped: int) -> Iterator[Tensor]:
        """The places lie before the values of their part: ``skipped`` bytes each."""
        for start, values in spans:
            self._file.seek(start + skipped * values)
            yield torch.frombuffer(bytearray(self._file.read(values * dtype.itemsize)), dtype=dtype)


def read_exact(path: Path, known: Mapping[str, LazyTensor]) -> dict[str, Patch]:
    """What :meth:`Missed.plans` wrote, by name of the tensor; nothing where there is no such file.

    Raises:
        ModelError: damaged, or it does not fit the tensors ``known``.
    """
    if not path.exists():
        return {}
    tensors = stored.open_tensors(path)
    exact: dict[str, Patch] = {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        at, is_ = tensors.get(f"{name}.at"), tensors.get(f"{name}.is")
        own = known.get(name)
        if own is None or at is None or is_ is None:
            raise ModelError(f"{path} speaks of {name!r:.200}, which the delta lacks; make the delta again")
        patch = Patch(at=at.load(), is_=is_.load())
        if not _fits(patch, own):
            raise ModelError(f"{path} does not fit {name} {list(own.shape)}; make the delta again")
        exact[name] = patch
    return exact


def _fits(patch: Patch, own: LazyTensor) -> bool:
    at = patch.at
    return (
        at.dtype == torch.int32
        and at.dim() == 1
        and len(at) > 0
        and patch.is_.shape == at.shape
        and patch.is_.dtype == own.dtype
        and bool((at[1:] > at[:-1]).all())
        and int(at[0]) >= 0
        and int(at[-1]) < own.numel <= _LAST_PLACE
    )
