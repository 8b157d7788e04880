"""The training loop: everything that LLaVAR trains goes through :func:`fit`.

What is trained is an :class:`Objective`. It hands out the micro-batches of a step as a pure function of the step and
computes their loss; the loop does the rest. Because nothing is drawn from a running generator, a run that was stopped
goes on bit-identically: load the tensors, continue with the next step.

Not there yet: several processes (DDP, FSDP2), recomputation, trackers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from llavar.errors import ConfigError
from llavar.train import checkpoint, metrics, optim
from llavar.train.config import LoopConfig, Mean, Precision

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
class Size:
    """Samples, tokens that the model computes on, and tokens that are supervised."""

    samples: int
    tokens: int
    supervised: int


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
    """Train ``objective`` for ``config.steps`` steps, or go on where an earlier call with the same settings stopped.

    Writes ``metrics.jsonl`` and ``checkpoints/`` under ``out``. An interrupt, a signal turned into an exception or an
    error saves the last finished step before it is raised again.

    Raises:
        ConfigError: ``out`` holds a run with other settings, a batch without supervised tokens, or a loss that is
            not finite.
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    parts = objective.parts()
    trained = _freeze_all_but(parts, config)
    optimizer = optim.build({name: list(part.values()) for name, part in parts.items()}, config)
    log, saves, mark = out / "metrics.jsonl", out / "checkpoints", fingerprint(config)
    out.mkdir(parents=True, exist_ok=True)
    first = _resume(saves, mark, trained, optimizer)
    metrics.rewind(log, first)

    done = first
    meter = _Meter(config.steps)
    try:
        for step in range(first, config.steps):
            factor = optim.set_rate(optimizer, step, config)
            batches, waited = _timed(objective.batches, step)
            loss, norm = _step(objective, batches, optimizer, config, step)
            done = step + 1
            meter.add(loss, norm, waited, [objective.size(batch) for batch in batches])
            if done % config.log_every == 0 or done == config.steps:
                tick = meter.tick(done, factor * max(part.lr for part in config.parts.values()))
                metrics.append(tick, log)
                if on_tick:
                    on_tick(tick)
            if done % config.save_every == 0:
                _save(saves, done, mark, trained, optimizer)
                if on_save:
                    on_save(done)
    finally:
        # An interrupt may come in the middle of an update; then the last complete state is the saved one.
        if done > first and not getattr(optimizer, "_midway", False):
            _save(saves, done, mark, trained, optimizer)
    return Fitted(
        steps=done, resumed_at=first, seconds=time.monotonic() - started, ticks=tuple(metrics.read(log))
    )


def fingerprint(config: LoopConfig) -> str:
    """A hash of all settings that change the numbers of a run."""
    return hashlib.sha256(TypeAdapter(LoopConfig).dump_json(config)).hexdigest()[:16]


def _step(
    objective: Objective[Batch],
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: LoopConfig,
    step: int,
) -> tuple[float, float]:
    """One update; returns the mean loss over supervised tokens and the norm of the gradient before clipping."""
    counts = [objective.size(batch).supervised for batch in batches]
    if not sum(counts):
        raise ConfigError(f"step {step} has no supervised token; look at the rows with `llavar inspect`")
    total = 0.0
    for batch, count in zip(batches, counts, strict=True):
        share = sum(counts) if config.mean is Mean.TOKEN else max(count, 1) * len(batches)
        with _arithmetic(config.precision):
            loss = objective.loss(batch)
        (loss / share).backward()
        total += loss.item()
    mean = total / sum(counts)
    if not math.isfinite(mean):
        raise ConfigError(f"the loss is {mean} at step {step}; lower the learning rate or look at the step's rows")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, config.clip or math.inf)
    optimizer._midway = True  # type: ignore[attr-defined]
    optimizer.step()
    optimizer._midway = False  # type: ignore[attr-defined]
    optimizer.zero_grad(set_to_none=True)
    return mean, norm.item()


def _arithmetic(precision: Precision) -> contextlib.AbstractContextManager[object]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=precision is Precision.BF16)


def _freeze_all_but(parts: Mapping[str, Mapping[str, nn.Parameter]], config: LoopConfig) -> dict[str, nn.Parameter]:
    """Let only the configured parts have gradients; returns their parameters by ``part/name``."""
    trained: dict[str, nn.Parameter] = {}
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            parameter.requires_grad_(part in config.parts)
            if part in config.parts:
                trained[f"{part}/{name}"] = parameter
    return trained


def _resume(
    saves: Path, mark: str, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> int:
    found = checkpoint.newest(saves)
    if found is None:
        return 0
    if found.fingerprint != mark:
        raise ConfigError(
            f"{saves.parent} holds a run with other settings ({found.fingerprint}, this one is {mark}); "
            "use another --out or remove it"
        )
    checkpoint.restore(found, trained, optimizer)
    return found.step


def _save(
    saves: Path, step: int, mark: str, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    weights = {name: parameter.detach() for name, parameter in trained.items()}
    state = checkpoint.Checkpoint(step=step, fingerprint=mark, weights=weights, optimizer=optimizer.state_dict())
    checkpoint.save(state, saves)


def _timed(get: Callable[[int], Sequence[Batch]], step: int) -> tuple[Sequence[Batch], float]:
    before = time.monotonic()
    return get(step), time.monotonic() - before


class _Meter:
    """Sums between two ticks."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._begun = time.monotonic()
        self._seen = 0
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._loss = self._waited = self._norm = 0.0
        self._count = self._samples = self._tokens = self._supervised = 0

    def add(self, loss: float, norm: float, waited: float, sizes: Sequence[Size]) -> None:
        supervised = sum(size.supervised for size in sizes)
        self._loss += loss * supervised
        self._supervised += supervised
        self._samples += sum(size.samples for size in sizes)
        self._tokens += sum(size.tokens for size in sizes)
        self._norm, self._waited = norm, self._waited + waited
        self._count += 1
        self._seen += 1

    def tick(self, step: int, lr: float) -> metrics.Tick:
        now = time.monotonic()
        span = max(now - self._since, 1e-9)
        tick = metrics.Tick(
            step=step,
            loss=self._loss / self._supervised,
            lr=lr,
            grad_norm=self._norm,
            samples_per_second=self._samples / span,
            tokens_per_second=self._tokens / span,
            wait=self._waited / span,
            seconds=now - self._begun,
            left=(now - self._begun) / self._seen * (self._steps - step),
        )
        self._reset()
        return tick
