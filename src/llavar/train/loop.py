"""The training loop: everything that LLaVAR trains goes through :func:`fit`.

What is trained is an :class:`Objective`. It hands out the micro-batches of a step as a pure function of the step
and computes their loss; the loop does the rest. Because nothing is drawn from a generator that runs on from step
to step, a run that was stopped goes on bit-identically: load the tensors, continue with the next step.

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
from typing import Protocol, TypeVar

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

    Writes ``metrics.jsonl`` and ``checkpoints/`` under ``out``. An interrupt, a signal turned into an exception
    or an error saves the last finished step before it is raised again. ``on_tick`` is called with every entry
    of the log, ``on_save`` with the step of every checkpoint that ``config.save_every`` asks for.

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
        for step in range(first, config.steps):
            _seed(config.seed, step)
            factor = optim.set_rate(optimizer, step, config)
            batches, waited = _timed(objective.batches, step)
            sizes = [objective.size(batch) for batch in batches]
            loss = _add_gradients(objective, batches, sizes, config, step)
            norm = _clip(trained, config, step)
            tick = run.finish_step(sizes, loss=loss, norm=norm, factor=factor, waited=waited)
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


def _seed(seed: int, step: int) -> None:
    """What an objective draws (dropout, noise) belongs to the step, not to what was drawn before it."""
    torch.manual_seed(random.Random(f"step:{seed}:{step}").getrandbits(63))  # pyright: ignore[reportUnknownMemberType]


def _timed(get: Callable[[int], Sequence[Batch]], step: int) -> tuple[Sequence[Batch], float]:
    before = time.monotonic()
    return get(step), time.monotonic() - before


def _add_gradients(
    objective: Objective[Batch], batches: Sequence[Batch], sizes: Sequence[Size], config: LoopConfig, step: int
) -> float:
    """Run the micro-batches forwards and backwards; returns the mean loss over all supervised tokens."""
    supervised = sum(size.supervised for size in sizes)
    if not supervised:
        raise ConfigError(f"step {step} has no supervised token; look at the rows with `llavar inspect`")
    device = _device(objective)
    total = 0.0
    for batch, size in zip(batches, sizes, strict=True):
        share = supervised if config.mean is Mean.TOKEN else max(size.supervised, 1) * len(batches)
        with _arithmetic(config.precision, device):
            loss = objective.loss(batch)
        if loss.requires_grad:  # rows without pictures say nothing to a projector
            (loss / share).backward()  # pyright: ignore[reportUnknownMemberType]
        total += loss.item()
    mean = total / supervised
    if not math.isfinite(mean):
        raise ConfigError(
            f"the loss is {mean} at step {step}; lower the learning rate or look at the step's rows"
        )
    return mean


def _clip(trained: Mapping[str, nn.Parameter], config: LoopConfig, step: int) -> float:
    """Shorten the gradient to ``config.clip``; returns its norm before."""
    norm = nn.utils.clip_grad_norm_(trained.values(), config.clip or math.inf).item()
    if not math.isfinite(norm):
        raise ConfigError(
            f"the gradient's norm is {norm} at step {step}; lower the learning rate or look at the step's rows"
        )
    return norm


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
