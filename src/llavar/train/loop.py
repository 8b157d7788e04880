"""The training loop: everything that LLaVAR trains goes through :func:`fit`.

What is trained is an :class:`Objective`. It hands out the micro-batches of a step as a pure function of the
step and computes their loss; the loop does the rest. Because nothing is drawn from a generator that runs on
from step to step, a run that was stopped goes on bit-identically: load the tensors, continue with the next
step. In a world of several processes each computes its own micro-batches of a step; gradients are summed and
divided by what all of them hold together, so that the number of processes changes nothing but round-off. What
each of them holds of the model is a matter of :mod:`llavar.train.parallel`.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from llavar.errors import ConfigError
from llavar.train import memory, metrics, optim
from llavar.train.config import LoopConfig, Mean, Precision
from llavar.train.look import Looks
from llavar.train.metrics import Size
from llavar.train.parallel import Parallel, Replicated
from llavar.train.run import Resumed, Run
from llavar.train.world import World

Batch = TypeVar("Batch")


class Objective(Protocol[Batch]):
    """Something to train."""

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Parameters by part and name."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of ``step`` that this process computes; equal steps give equal batches."""
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
    on_resume: Callable[[Resumed], None] | None = None,
    on_tick: Callable[[metrics.Tick], None] | None = None,
    on_save: Callable[[int], None] | None = None,
    looks: Looks | None = None,
    world: World | None = None,
    parallel: Parallel | None = None,
    peak: float = 0.0,
) -> Fitted:
    """Train ``objective`` for ``config.steps`` steps, or go on where a call with the same settings stopped.

    Writes ``metrics.jsonl`` and ``checkpoints/`` under ``out``. An interrupt, a signal turned into an
    exception or an error saves the last finished step before it is raised again. ``on_resume`` is called
    where a checkpoint was found, ``on_tick`` with every entry of the log, ``on_save`` with the step of every
    checkpoint that ``config.save_every`` asks for. ``world`` are the processes that share the steps,
    ``parallel`` is how they do (each with the whole model, if it is not given), ``peak`` what their devices
    can do together in FLOP/s (0: unknown).

    Raises:
        ConfigError: ``out`` holds a run with other settings, a step has no supervised token, or its loss or
            gradient is not finite.
        LlavarError: another process of the world ended the run.
    """
    started = time.monotonic()
    parts = objective.parts()
    trained = freeze_all_but(parts, config.parts)
    optimizer = optim.build(parts, config)
    parallel = parallel or Replicated(world or World(), config.precision, _device(trained))
    world = parallel.world
    run = Run(config, out, fingerprint(config), trained, optimizer, parallel=parallel, peak=peak)
    resumed = run.resume()
    first = resumed.step
    if on_resume and first:
        on_resume(resumed)
    memory.forget_peak(world.device)
    try:
        if looks:
            run.pause(looks.begin(first, parallel))
        for number in range(first, config.steps):
            factor = optim.set_rate(optimizer, number, config)
            step = _prepare(objective, number, config.seed, world)
            loss = _add_gradients(objective, step, config, parallel, trained)
            norm = _finite("gradient's norm", parallel.clip(trained, config.clip), number)
            with world.together():
                tick = run.finish_step([step.total], loss=loss, norm=norm, factor=factor, waited=step.waited)
                if tick and on_tick and world.first:
                    on_tick(tick)
            if looks:
                run.pause(looks.look(run.done, parallel))
            with parallel.saving():
                if run.done % config.save_every == 0:
                    run.save()
                    if on_save:
                        on_save(run.done)
    finally:
        run.save()
    seconds = time.monotonic() - started
    return Fitted(steps=run.done, resumed_at=first, seconds=seconds, ticks=tuple(metrics.read(run.log)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What a dry run told: seconds of the largest micro-batch, and of whole steps by ``tokens``, of all
    processes and with padding. ``waited`` of those went into making batches, all in this process. ``peak`` is
    the most memory that was held meanwhile, in bytes.
    """

    largest: float
    seconds: float
    waited: float
    tokens: int
    peak: int

    def whole(self, tokens: float, workers: int = 0) -> float:
        """Seconds for a run of so many tokens whose batches ``workers`` processes make ahead, 0 for none.

        What they make while the model computes costs no time; only where they are the slower ones it does.
        """
        seconds = self.seconds
        if workers:
            seconds = max(self.seconds - self.waited, self.waited / workers)
        return seconds / max(self.tokens, 1) * tokens


def rehearse(
    objective: Objective[Batch],
    largest: Batch,
    steps: Iterable[Callable[[], Sequence[Batch]]],
    config: LoopConfig,
    parallel: Parallel,
    *,
    enough: float = 2.0,
) -> Rehearsed:
    """Compute the micro-batch ``largest`` and then whole ``steps``, until ``enough`` seconds have passed.

    The updates are made at a rate of 0, so that nothing is learned; what a run needs most memory for is so
    tried before its first step. The first of ``steps`` is not counted where others follow: gradients and
    moments come to be in it, and memory is fetched, which later ones find. At least two are counted.
    """
    parts = objective.parts()
    trained = freeze_all_but(parts, config.parts)
    optimizer = optim.build(parts, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    world = parallel.world
    memory.forget_peak(world.device)
    first = seconds = waited = 0.0
    tokens = 0
    with parallel.computing():
        for _ in range(2):
            before = time.monotonic()
            _try(objective, [largest], parallel)
            first = time.monotonic() - before
    for number, prepare in enumerate(steps):
        if number == 1:
            seconds = waited = 0.0
            tokens = 0
        before = time.monotonic()
        with world.together():
            batches = prepare()
            own = sum(objective.size(batch).tokens for batch in batches)
        waited += time.monotonic() - before
        with parallel.computing():
            _try(objective, batches, parallel)
        parallel.reduce(trained)
        norm = parallel.clip(trained, config.clip)
        if math.isfinite(norm):  # at a rate of 0, what is not finite would still reach the weights
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.monotonic() - before
        tokens += int(world.totals([float(own)])[0])
        if number >= 2 and world.totals([seconds])[0] / world.size > enough:
            break
    optimizer.zero_grad(set_to_none=True)
    peak = memory.peak(world.device)
    return Rehearsed(largest=first, seconds=seconds, waited=waited, tokens=tokens, peak=peak)


def _try(objective: Objective[Batch], batches: Sequence[Batch], parallel: Parallel) -> None:
    for batch in batches:
        loss = parallel.compute(partial(objective.loss, batch))
        if loss.requires_grad:
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
        loss.item()  # waits for the device


def summed_loss(
    objective: Objective[Batch], steps: int, precision: Precision, parallel: Parallel | None = None
) -> tuple[float, int]:
    """The loss summed over the supervised tokens of all ``steps`` steps, and how many those are.

    Of the micro-batches of this process; nothing is learned from them.
    """
    loss, supervised = 0.0, 0
    device = _device(next(iter(objective.parts().values())))
    parallel = parallel or Replicated(World(), precision, device)
    with torch.no_grad():
        for step in range(steps):
            for batch in objective.batches(step):
                loss += parallel.compute(partial(objective.loss, batch)).item()
                supervised += objective.size(batch).supervised
    return loss, supervised


def fingerprint(config: LoopConfig) -> str:
    """A hash of all settings."""
    return hashlib.sha256(TypeAdapter(LoopConfig).dump_json(config)).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step(Generic[Batch]):
    """The micro-batches of one step in this process, their sizes, and the seconds that getting them took.

    ``total`` and ``micro_batches`` count those of all processes, but for micro-batches without a row, which
    stand in where processes have to compute equally many.
    """

    number: int
    batches: Sequence[Batch]
    sizes: Sequence[Size]
    waited: float
    total: Size
    micro_batches: int


def _prepare(objective: Objective[Batch], number: int, seed: int, world: World) -> _Step[Batch]:
    """What an objective draws (dropout, noise) depends on the step, not on what was drawn before."""
    where = f"step:{seed}:{number}" + (f":{world.rank}" if world.rank else "")
    torch.manual_seed(random.Random(where).getrandbits(63))  # pyright: ignore[reportUnknownMemberType]
    before = time.monotonic()
    with world.together():
        batches = objective.batches(number)
        sizes = [objective.size(batch) for batch in batches]
    waited = time.monotonic() - before
    total, count = _total(sizes, world)
    if not total.supervised:
        raise ConfigError(f"step {number} has no supervised token; look at the rows with `llavar inspect`")
    return _Step(number=number, batches=batches, sizes=sizes, waited=waited, total=total, micro_batches=count)


def _total(sizes: Sequence[Size], world: World) -> tuple[Size, int]:
    """The sum of ``sizes`` over all processes, and how many they are."""
    rows = [(s.samples, s.tokens, s.supervised, s.real, s.flops, int(s.samples > 0)) for s in sizes]
    summed = world.totals([float(sum(column)) for column in zip(*rows, strict=True)] or [0.0] * 6)
    samples, tokens, supervised, useful = (int(value) for value in summed[:4])
    total = Size(samples=samples, tokens=tokens, supervised=supervised, useful=useful, flops=summed[4])
    return total, int(summed[5])


def _add_gradients(
    objective: Objective[Batch],
    step: _Step[Batch],
    config: LoopConfig,
    parallel: Parallel,
    trained: Mapping[str, nn.Parameter],
) -> float:
    """Run the micro-batches forwards and backwards; returns the mean loss over all supervised tokens."""
    own = 0.0
    with parallel.computing():
        for batch, size in zip(step.batches, step.sizes, strict=True):
            by_batch = max(size.supervised, 1) * step.micro_batches
            share = step.total.supervised if config.mean is Mean.TOKEN else by_batch
            loss = parallel.compute(partial(objective.loss, batch))
            if loss.requires_grad:  # rows without pictures say nothing to a projector
                (loss / share).backward()  # pyright: ignore[reportUnknownMemberType]
            own += loss.item()
    (total,) = parallel.world.totals([own])
    parallel.reduce(trained)
    return _finite("loss", total / step.total.supervised, step.number)


def _finite(name: str, value: float, step: int) -> float:
    if not math.isfinite(value):
        raise ConfigError(
            f"the {name} is {value} at step {step}; lower the learning rate or look at the step's rows"
        )
    return value


def _device(trained: Mapping[str, nn.Parameter]) -> str:
    return next(iter(trained.values())).device.type


def freeze_all_but(
    parts: Mapping[str, Mapping[str, nn.Parameter]], chosen: Container[str]
) -> dict[str, nn.Parameter]:
    """Let only the ``chosen`` parts have gradients; returns their parameters by ``part/name``."""
    trained: dict[str, nn.Parameter] = {}
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            parameter.requires_grad_(part in chosen)
            if part in chosen:
                trained[f"{part}/{name}"] = parameter
    return trained
