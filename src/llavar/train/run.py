"""The state of a training run. It changes by whole steps, so that no checkpoint ever holds half of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from llavar.errors import ConfigError
from llavar.train import checkpoint, memory, metrics
from llavar.train.config import LoopConfig
from llavar.train.moment import Moment
from llavar.train.parallel import Parallel, Replicated
from llavar.train.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where a run goes on: after ``step`` steps, written down by so many ``processes`` (0: not known)."""

    step: int
    processes: int = 0


class Run:
    """Trained tensors, optimizer, log and the count of finished steps: together they are one moment of a run.

    ``fingerprint`` ties the moment to the settings of the run; ``trained`` are the parameters by name.
    ``parallel`` says what a process holds of them, and which processes write them down. ``peak`` is what all
    devices can do together, in FLOP/s.
    """

    def __init__(
        self,
        config: LoopConfig,
        out: Path,
        fingerprint: str,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        parallel: Parallel | None = None,
        peak: float = 0.0,
    ) -> None:
        self.config, self.out, self.fingerprint = config, out, fingerprint
        self.trained, self.optimizer = trained, optimizer
        self.parallel: Parallel = parallel or Replicated(World(), config.precision)
        self.world = self.parallel.world
        self.log, self.saves = out / "metrics.jsonl", out / "checkpoints"
        self.done = self._saved = self._processes = 0
        self._whole = True
        self._meter = metrics.Meter(config.steps, peak=peak)

    def resume(self) -> Resumed:
        """Go on from the newest checkpoint, by however many processes it was written; at step 0 without one.

        Raises:
            ConfigError: ``out`` holds a run with other settings.
        """
        self.optimizer.zero_grad(set_to_none=True)
        # The first one may tidy up what a crash left, so the others look after it.
        with self.world.together():
            if self.world.first:
                self._go_on()
        with self.world.together():
            if not self.world.first:
                self._go_on()
        self.world.agree(self.done, "finished steps")
        return Resumed(step=self.done, processes=self._processes)

    def _go_on(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        found = checkpoint.newest(self.saves)
        if found is not None:
            if found.fingerprint != self.fingerprint:
                raise ConfigError(
                    f"{self.out} holds a run with other settings ({found.fingerprint}, this one is "
                    f"{self.fingerprint}); use another --out or remove it"
                )
            checkpoint.restore(found, self.trained, self.optimizer)
            self.done, self._saved, self._processes = found.step, found.step, found.processes
            self._meter.restore(metrics.Owed.of(found.unlogged))
        if self.world.first:
            metrics.rewind(self.log, self.done)

    def finish_step(
        self, sizes: Sequence[metrics.Size], *, loss: float, norm: float, factor: float, waited: float
    ) -> metrics.Tick | None:
        """Update the tensors, count the step and write it down if a tick is due: all of it or nothing.

        Signals wait until it is over. After an error in here there is nothing left to save.
        """
        with deferred(signal.SIGINT), deferred(signal.SIGTERM):
            self._whole = False
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.done += 1
            self._meter.add(sizes, loss=loss, norm=norm, waited=waited)
            tick = self._tick(factor)
            self._whole = True
        return tick

    def _tick(self, factor: float) -> metrics.Tick | None:
        if self.done % self.config.log_every and self.done < self.config.steps:
            return None
        held = memory.peak(self.world.device) / 1e9
        fastest = max(part.lr for part in self.config.parts.values())
        tick = self._meter.tick(self.done, factor * fastest, memory_gb=held)
        if self.world.first:
            metrics.append(tick, self.log)
        return tick

    def pause(self, seconds: float) -> None:
        """Do not count ``seconds`` as training."""
        self._meter.pause(seconds)

    def save(self) -> None:
        """Write the last finished step, unless that is saved already or cannot be."""
        if not self.parallel.writes(self._whole and self.done != self._saved):
            return
        moment = Moment(
            step=self.done,
            fingerprint=self.fingerprint,
            unlogged=self._meter.unlogged,
            processes=self.world.size,
        )
        self.parallel.save(moment, self.trained, self.optimizer, self.saves, self.config.keep)
        self._saved = self.done


@contextlib.contextmanager
def deferred(number: signal.Signals) -> Generator[None]:
    """Let signal ``number``, if Python handles it, wait for the end of the block.

    Only the main thread handles signals, so there is nothing to wait for in any other; and the default of a
    signal that Python leaves alone ends the process at once, which no code can put off.
    """
    handler = signal.getsignal(number)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[FrameType | None] = []
    try:
        signal.signal(number, lambda _, frame: came.append(frame))
        yield
    finally:
        signal.signal(number, handler)
        if came:
            handler(number, came[0])
