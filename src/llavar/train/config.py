"""Settings of a training run, as frozen dataclasses; recipes are functions that return them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llavar.errors import ConfigError


class Precision(StrEnum):
    """What the arithmetic runs in. Trained weights and optimizer state are fp32 in both cases."""

    FP32 = "fp32"
    BF16 = "bf16"


class Mean(StrEnum):
    """How the loss of a step is averaged: over supervised tokens, or over micro-batches (original)."""

    TOKEN = "token"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartConfig:
    """One part of a model (tower, projector, decoder ...): its peak learning rate and weight decay."""

    lr: float
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr <= 1:
            raise ConfigError(f"lr is {self.lr}; it must lie above 0 and be at most 1")
        if not 0 <= self.weight_decay <= 1:
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must lie from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long, how fast and how often.

    ``parts`` names what is trained; everything else is frozen. ``warmup`` is the share of steps over which
    the rate rises linearly before it falls along a cosine to ``floor`` times its peak (paper: 0.03 and 0).
    ``clip`` is the longest that a gradient may be, 0 for any length. ``tags`` say what else a run depends
    on (its rows, its model), so that another run is not taken for this one.
    """

    steps: int
    parts: Mapping[str, PartConfig]
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0
    precision: Precision = Precision.FP32
    mean: Mean = Mean.TOKEN
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; a run needs at least 1")
        if not self.parts:
            raise ConfigError(
                "no part is trained; name at least one of the model's parts with a learning rate"
            )
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is {self.warmup}; it is a share of the steps, from 0 up to but not 1")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"floor is {self.floor}; it is a share of the peak rate, from 0 to 1")
        if not self.clip >= 0:
            raise ConfigError(f"clip is {self.clip}; give a length above 0, or 0 not to clip")
        if self.log_every < 1 or self.save_every < 1:
            raise ConfigError(
                f"log_every is {self.log_every} and save_every {self.save_every}; both are at least 1 step"
            )
