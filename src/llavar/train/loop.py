"""The training loop: everything that LLaVAR trains goes through :func:`fit`.

What is trained is an :class:`Objective`. It hands out the micro-batches of a step as a pure function of the
step and computes their loss; the loop does the rest. Because nothing is drawn from a generator that runs on
from step to step, a run that was stopped goes on bit-identically: load the tensors, continue with the next
step.

Not there yet: several processes (DDP, FSDP2), recomputation, trackers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from llavar.errors import ConfigError
from llavar.train import metrics, optim
from llavar.train.config import LoopConfig, Mean, Precision
from llavar.train.metrics import Size
from llavar.train.run import Run

Batch = TypeVar("Batch")


class Objective(Protocol[Batch]):
    """Something to train."""

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Parameters by part and name."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of ``step``; equal steps give equal batches."""
        ...

    def size(self, batch: Batch) -> Size:
        """How much ``batch`` holds."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """The loss summed over the supervised tokens of ``batch``, a scalar in fp32."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """How a run ended. ``resumed_at`` is the step it went on from, 0 for a fresh one."""

    steps: int
    resumed_at: int
    seconds: float
    ticks: tuple[metrics.Tick, ...]


def fit(
    objective: Objective[Batch],
    config: LoopConfig,
    out: Path,
    *,
    on_tick: Callable[[metrics.Tick], None] | None = None,
    on_save: Callable[[int], None] | None = None,
) -> Fitted:
    """Train ``objective`` for ``config.steps`` steps, or go on where a call with the same settings stopped.

    Writes ``metrics.jsonl`` and ``checkpoints/`` under ``out``. An interrupt, a signal turned into an
    exception or an error saves the last finished step before it is raised again. ``on_tick`` is called with
    every entry of the log, ``on_save`` with the step of every checkpoint that ``config.save_every`` asks
    for.

    Raises:
        ConfigError: ``out`` holds a run with other settings, a step has no supervised token, or its loss or
            gradient is not finite.
    """
    started = time.monotonic()
    parts = objective.parts()
    trained = _freeze_all_but(parts, config)
    optimizer = optim.build({name: list(part.values()) for name, part in parts.items()}, config)
    run = Run(config, out, fingerprint(config), trained, optimizer)
    first = run.resume()
    try:
        for number in range(first, config.steps):
            factor = optim.set_rate(optimizer, number, config)
            step = _prepare(objective, number, config.seed)
            loss = _add_gradients(objective, step, config, _device(trained))
            norm = _clip(trained, step, config)
            tick = run.finish_step(step.sizes, loss=loss, norm=norm, factor=factor, waited=step.waited)
            if tick and on_tick:
                on_tick(tick)
            if run.done % config.save_every == 0:
                run.save()
                if on_save:
                    on_save(run.done)
    finally:
        run.save()
    seconds = time.monotonic() - started
    return Fitted(steps=run.done, resumed_at=first, seconds=seconds, ticks=tuple(metrics.read(run.log)))


def fingerprint(config: LoopConfig) -> str:
    """A hash of all settings."""
    return hashlib.sha256(TypeAdapter(LoopConfig).dump_json(config)).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step(Generic[Batch]):
    """The micro-batches of one step, how large they are, and how many seconds went into getting them."""

    number: int
    batches: Sequence[Batch]
    sizes: Sequence[Size]
    waited: float

    @property
    def supervised(self) -> int:
        return sum(size.supervised for size in self.sizes)


def _prepare(objective: Objective[Batch], number: int, seed: int) -> _Step[Batch]:
    """What an objective draws (dropout, noise) depends on the step, not on what was drawn before."""
    torch.manual_seed(random.Random(f"step:{seed}:{number}").getrandbits(63))  # pyright: ignore[reportUnknownMemberType]
    before = time.monotonic()
    batches = objective.batches(number)
    waited = time.monotonic() - before
    step = _Step(number=number, batches=batches, sizes=[objective.size(b) for b in batches], waited=waited)
    if not step.supervised:
        raise ConfigError(f"step {number} has no supervised token; look at the rows with `llavar inspect`")
    return step


def _add_gradients(objective: Objective[Batch], step: _Step[Batch], config: LoopConfig, device: str) -> float:
    """Run the micro-batches forwards and backwards; returns the mean loss over all supervised tokens."""
    total = 0.0
    for batch, size in zip(step.batches, step.sizes, strict=True):
        by_batch = max(size.supervised, 1) * len(step.batches)
        share = step.supervised if config.mean is Mean.TOKEN else by_batch
        with _arithmetic(config.precision, device):
            loss = objective.loss(batch)
        if loss.requires_grad:  # rows without pictures say nothing to a projector
            (loss / share).backward()  # pyright: ignore[reportUnknownMemberType]
        total += loss.item()
    return _finite("loss", total / step.supervised, step.number)


def _clip(trained: Mapping[str, nn.Parameter], step: _Step[Batch], config: LoopConfig) -> float:
    """Shorten the gradient to ``config.clip``; returns its norm before."""
    norm = nn.utils.clip_grad_norm_(trained.values(), config.clip or math.inf)
    return _finite("gradient's norm", norm.item(), step.number)


def _finite(name: str, value: float, step: int) -> float:
    if not math.isfinite(value):
        raise ConfigError(
            f"the {name} is {value} at step {step}; lower the learning rate or look at the step's rows"
        )
    return value


def _device(trained: Mapping[str, nn.Parameter]) -> str:
    return next(iter(trained.values())).device.type


def _arithmetic(precision: Precision, device: str) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device, torch.bfloat16, enabled=precision is Precision.BF16)


def _freeze_all_but(
    parts: Mapping[str, Mapping[str, nn.Parameter]], config: LoopConfig
) -> dict[str, nn.Parameter]:
    """Let only the configured parts have gradients; returns their parameters by ``part/name``."""
    trained: dict[str, nn.Parameter] = {}
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            parameter.requires_grad_(part in config.parts)
            if part in config.parts:
                trained[f"{part}/{name}"] = parameter
    return trained
