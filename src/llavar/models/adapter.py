"""What a LoRA adapter shall be: settings alone, for which neither torch nor peft is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from llavar.errors import ConfigError

ALL_LINEAR = "all-linear"
"""Stands for every linear layer but the head."""

MOST = 8192
"""No rank is larger: that is as wide as the widest layers are."""


NAME = "default"
"""What peft calls the only adapter of a model."""

_PARAMETER = re.compile(rf"\.lora_[AB]\.{NAME}\.")


class Frozen(StrEnum):
    """What the weights beneath an adapter are kept in while it is trained."""

    PLAIN = "none"
    """Not quantized: as the run computes, fp32 or bf16."""
    NF4 = "nf4"
    """4 bits (:mod:`llavar.models.nf4`): plain torch, the same on every device."""
    BNB = "bnb"
    """4 bits by bitsandbytes, with kernels of its own on a GPU, and scales in 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """``W + alpha / rank * B A`` in place of ``W``, with A and B trained (LoRA, section 4.1).

    ``dropout`` is that of what A is applied to. ``targets`` are names of linear layers, or the ends of such
    names (``q_proj``, ``self_attn.q_proj``), or :data:`ALL_LINEAR`.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    frozen: Frozen = Frozen.PLAIN

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST:
            raise ConfigError(f"lora rank is {self.rank}; it must be from 1 to {MOST}")
        if not 0 < self.alpha <= 1e6:
            raise ConfigError(f"lora alpha is {self.alpha}; it must lie above 0 and be at most 1e6")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora dropout is {self.dropout}; it is a share, from 0 up to but not 1")
        if not self.targets or not all(self.targets):
            raise ConfigError(
                f"lora targets are {self.targets}; name linear layers such as q_proj, or {ALL_LINEAR}"
            )

    @property
    def scale(self) -> float:
        """What ``B A`` is multiplied with."""
        return self.alpha / self.rank

    def describe(self) -> str:
        """All of it in a few words; equal settings give equal words."""
        targets = ",".join(self.targets)
        over = "" if self.frozen is Frozen.PLAIN else f", over {self.frozen}"
        return f"rank {self.rank}, alpha {self.alpha:g}, dropout {self.dropout:g}, {targets}{over}"


def is_adapter(name: str) -> bool:
    """Whether the parameter of a model that is called ``name`` is one of its adapter."""
    return _PARAMETER.search(name) is not None
