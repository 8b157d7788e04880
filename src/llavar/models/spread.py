"""Tensors that are spread over processes by their first dimension (torch's ``DTensor``), and parts of them.

A process holds some rows of each, as ``torch.chunk`` would divide them: equally many, fewer or none in the
last ones. torch.distributed is imported by whoever makes such tensors, and not here.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def is_spread(tensor: Tensor) -> bool:
    """Whether each process holds a part of ``tensor`` alone."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """What this process holds of ``tensor``, not a copy: all of it unless it is spread."""
    held: Any = tensor
    return held.to_local() if is_spread(tensor) else tensor


def rows_of(tensor: Tensor) -> slice:
    """Which rows of a spread tensor this process holds."""
    mesh: Any = cast("Any", tensor).device_mesh
    last = mesh.ndim - 1  # processes of other rows hold the same
    rows, size = tensor.shape[0], int(mesh.size(last))
    each = -(-rows // size)
    first = min(mesh.get_local_rank(last) * each, rows)
    return slice(first, min(first + each, rows))


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Of the values ``whole``, those that this process holds of ``like``, of which they are the values."""
    return whole[rows_of(like)] if is_spread(like) else whole


def made_like(like: Tensor, part: Tensor) -> Tensor:
    """A tensor that is spread as ``like``, of which this process holds ``part``; else ``part`` itself."""
    if not is_spread(like):
        return part
    given: Any = like
    kind = cast("Any", type(like))
    return kind.from_local(
        part,
        given.device_mesh,
        given.placements,
        run_check=False,
        shape=given.shape,
        stride=given.stride(),
    )


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor in every process. Each process of the world has to call this for the same tensor."""
    held: Any = tensor
    return held.full_tensor() if is_spread(tensor) else tensor.detach()
