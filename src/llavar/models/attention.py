"""Attention within the rows of packed sequences: where the borders lie, and what computes it.

Rows that share a sequence are told apart by their positions alone, which begin anew with each. From these
come the borders (``cu_seqlens``); with them no row looks at another, and no mask of length x length is made.
On a GPU torch's own kernel for sequences of different lengths does it
(:mod:`torch.nn.attention.varlen`, FlashAttention), anywhere else :func:`row_by_row`, which takes the same
arguments and is what the kernel is held against.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from llavar.errors import ConfigError

_CAUSAL = (-1, 0)
"""As a window: everything before, nothing after."""

_WIDEST, _MULTIPLE = 256, 8
"""Widths of a head that the kernel takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """Where rows end in ``packs x length`` tokens laid end to end.

    ``ends``: int32 (rows + 1,), from 0 to the count of tokens, on the device of the tokens; ``longest`` are
    the tokens of the longest row.
    """

    ends: Tensor
    longest: int


class Kernel(Protocol):
    """As ``torch.nn.attention.varlen.varlen_attn``; what it takes and gives is (tokens, heads, width)."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
    ) -> Tensor: ...


def borders(positions: Tensor) -> Borders:
    """Of ``positions`` (packs, length): a row ends where they do not go on by one, and with its pack.

    Waits for the device once; rows of all layers are the same, so once for a batch is enough.
    """
    begins = torch.ones_like(positions, dtype=torch.bool)
    begins[:, 1:] = positions.diff(dim=1) != 1
    starts = begins.flatten().nonzero().flatten()
    ends = torch.cat([starts, starts.new_tensor([positions.numel()])])
    return Borders(ends=ends.to(torch.int32), longest=int(ends.diff().max()))


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Borders, *, scale: float | None = None
) -> Tensor:
    """Causal attention within each row.

    ``query`` (packs, heads, length, width) and ``key`` and ``value`` with as many heads or a divisor of them
    give (packs, length, heads, width) in the type of ``value``.
    """
    packs, heads, length, width = query.shape
    groups = heads // key.shape[1]
    dtype = _computed_in(query, value)
    q, k, v = (
        part.transpose(1, 2).reshape(packs * length, part.shape[1], width).to(dtype)
        for part in (query, key, value)
    )
    if groups > 1:  # not every version of the kernel shares keys among heads
        k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
    kernel = torch_kernel() if _suits(q) else row_by_row
    ends, most = rows.ends, rows.longest
    found = kernel(q, k, v, ends, ends, most, most, scale=scale, window_size=_CAUSAL)
    return found.view(packs, length, heads, width)


def _computed_in(query: Tensor, value: Tensor) -> torch.dtype:
    """Autocast reaches no kernel of our choosing, and rotary positions leave queries in fp32."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype


def _suits(query: Tensor) -> bool:
    """Whether torch's kernel takes such tensors."""
    width = query.shape[-1]
    halved = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and halved and width <= _WIDEST and width % _MULTIPLE == 0


def row_by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = _CAUSAL,
) -> Tensor:
    """What torch's kernel computes, one row after the other, in any type and on any device.

    Raises:
        ConfigError: another window than the causal one is asked for.
    """
    if tuple(window_size) != _CAUSAL or cu_seq_q is not cu_seq_k or max_q != max_k:
        raise ConfigError(
            f"rows are attended with the window {window_size}; only the causal one {_CAUSAL} over the same "
            "rows is computed here"
        )
    ends: list[int] = cu_seq_q.cpu().numpy().tolist()
    # With a dimension for the batch, without which torch computes and keeps all scores on a CPU.
    q, k, v = (part.transpose(0, 1)[None] for part in (query, key, value))
    found = [
        scaled_dot_product_attention(
            q[:, :, begin:end], k[:, :, begin:end], v[:, :, begin:end], is_causal=True, scale=scale
        )
        for begin, end in itertools.pairwise(ends)
    ]
    return torch.cat(found, dim=2)[0].transpose(0, 1)


def torch_kernel() -> Kernel:
    """``varlen_attn`` of the installed torch.

    Raises:
        ConfigError: this torch has none, or one that takes other arguments.
    """
    try:
        found: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError):
        found = None
    missing = {"scale", "window_size"} - set(inspect.signature(found).parameters if found else ())
    if missing:
        raise ConfigError(
            f"torch {torch.__version__} has no attention for rows of different lengths that this needs; "
            "install torch>=2.11, or choose --attention sdpa"
        )
    return cast(Kernel, found)


def has_kernel() -> bool:
    """Whether there is a GPU, and a torch whose kernel fits."""
    if not torch.cuda.is_available():
        return False
    try:
        torch_kernel()
    except ConfigError:
        return False
    return True
