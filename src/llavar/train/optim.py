"""The optimizer and its schedule: AdamW with a learning rate for each part, linear warm-up, cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from llavar.errors import ConfigError
from llavar.train.config import LoopConfig, Schedule


def rate(step: int, config: LoopConfig) -> float:
    """Factor on every peak learning rate at ``step`` (counted from 0)."""
    from_zero = config.schedule is Schedule.TRAINER
    share = config.warmup * config.steps
    warm = math.ceil(share) if from_zero else max(1, round(share))
    if step < warm:
        return step / warm if from_zero else (step + 1) / warm
    done = (step - warm) / max(1, config.steps - warm)
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def build(parts: Mapping[str, Iterable[nn.Parameter]], config: LoopConfig) -> torch.optim.AdamW:
    """AdamW over the configured parts, one group each.

    Raises:
        ConfigError: a configured part does not exist, or has no parameters.
    """
    groups: list[dict[str, object]] = []
    for name, part in config.parts.items():
        parameters = list(parts.get(name, ()))
        if not parameters:
            raise ConfigError(f"the model has no part {name!r} to train; it has {', '.join(sorted(parts))}")
        groups.append({"params": parameters, "lr": part.lr, "weight_decay": part.weight_decay, "name": name})
    return torch.optim.AdamW(groups, betas=config.betas, foreach=True)


def set_rate(optimizer: torch.optim.Optimizer, step: int, config: LoopConfig) -> float:
    """Set every group's learning rate for ``step``; returns the factor."""
    factor = rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = config.parts[group["name"]].lr * factor
    return factor
