"""The optimizer and its schedule: AdamW with a learning rate for each part, linear warm-up, cosine decay.

Muon is at choice for the matrices inside a part: nano's tower learns more from as many pictures with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from llavar.errors import ConfigError
from llavar.train.config import LoopConfig, Schedule

_MOMENTUM = 0.95

_OUTER = ("embed", "lm_head")
"""Names of matrices that Muon is not meant for: their rows are looked up, or stand for tokens."""


def rate(step: int, config: LoopConfig) -> float:
    """Factor on every peak learning rate at ``step`` (counted from 0)."""
    from_zero = config.schedule is Schedule.TRAINER
    share = config.warmup * config.steps
    warm = math.ceil(share) if from_zero else max(1, round(share))
    if step < warm:
        return step / warm if from_zero else (step + 1) / warm
    done = (step - warm) / max(1, config.steps - warm)
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Mixed(torch.optim.Optimizer):
    """Muon for the groups whose ``muon`` is true, AdamW for the others: one set of groups, one state.

    Both work on this object's groups and state, so that what is saved and loaded is one optimizer's.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], betas: tuple[float, float]) -> None:
        matrices = [group for group in groups if group["muon"]]
        self._muon = torch.optim.Muon(matrices, momentum=_MOMENTUM)
        self._adamw = torch.optim.AdamW(
            [group for group in groups if not group["muon"]], betas=betas, foreach=True
        )
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        self._muon.param_groups = [group for group in self.param_groups if group["muon"]]
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both; a ``closure`` is not supported."""
        assert closure is None
        self._muon.step()  # pyright: ignore[reportUnknownMemberType]
        self._adamw.step()  # pyright: ignore[reportUnknownMemberType]


def build(parts: Mapping[str, Mapping[str, nn.Parameter]], config: LoopConfig) -> torch.optim.Optimizer:
    """The optimizer of the configured parts, one group each.

    It is AdamW. A part with a rate for Muon (Jordan et al. 2024) has a second group, its hidden matrices: all
    that are neither embeddings nor the output layer.

    Raises:
        ConfigError: a configured part does not exist, or has no parameters, or Muon is to
            train matrices that are divided among processes.
    """
    groups: list[dict[str, Any]] = []
    for name, part in config.parts.items():
        held = parts.get(name, {})
        if not held:
            raise ConfigError(f"the model has no part {name!r} to train; it has {', '.join(sorted(parts))}")
        hidden = [value for key, value in held.items() if part.muon and _is_hidden(key, value)]
        rest = [value for key, value in held.items() if not (part.muon and _is_hidden(key, value))]
        shared = {"name": name, "weight_decay": part.weight_decay}
        groups += [
            {"params": members, "lr": rate, "muon": muon, **shared}
            for members, rate, muon in ((rest, part.lr, False), (hidden, part.muon, True))
            if members
        ]
    matrices = [matrix for group in groups if group["muon"] for matrix in group["params"]]
    if any(isinstance(matrix, DTensor) for matrix in matrices):
        raise ConfigError("Muon needs whole matrices; train with --shard none, or without its rate")
    if matrices:
        return Mixed(groups, config.betas)
    return torch.optim.AdamW(groups, betas=config.betas, foreach=True)


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(word in name for word in _OUTER)


def set_rate(optimizer: torch.optim.Optimizer, step: int, config: LoopConfig) -> float:
    """Set every group's learning rate for ``step``; returns the factor."""
    factor = rate(step, config)
    for group in optimizer.param_groups:
        part = config.parts[group["name"]]
        group["lr"] = (part.muon if group["muon"] else part.lr) * factor
    return factor
