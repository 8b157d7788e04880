"""The state of a training run. It changes by whole steps, so that no checkpoint ever holds half of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import torch
from torch import nn

from llavar.errors import ConfigError
from llavar.train import checkpoint, metrics
from llavar.train.config import LoopConfig


class Run:
    """Trained tensors, optimizer, log and the count of finished steps: together they are one moment of a run.

    ``fingerprint`` ties the moment to the settings of the run; ``trained`` are the parameters by name.
    """

    def __init__(
        self,
        config: LoopConfig,
        out: Path,
        fingerprint: str,
        trained: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config, self.out, self.fingerprint = config, out, fingerprint
        self.trained, self.optimizer = trained, optimizer
        self.log, self.saves = out / "metrics.jsonl", out / "checkpoints"
        self.done = self._saved = 0
        self._whole = True
        self._meter = metrics.Meter(config.steps)

    def resume(self) -> int:
        """Go on from the newest checkpoint; returns how many steps are finished, 0 without one.

        Raises:
            ConfigError: ``out`` holds a run with other settings.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self.optimizer.zero_grad(set_to_none=True)
        found = checkpoint.newest(self.saves)
        if found is not None:
            if found.fingerprint != self.fingerprint:
                raise ConfigError(
                    f"{self.out} holds a run with other settings ({found.fingerprint}, this one is "
                    f"{self.fingerprint}); use another --out or remove it"
                )
            checkpoint.restore(found, self.trained, self.optimizer)
            self.done = self._saved = found.step
            self._meter.restore(found.unlogged)
        metrics.rewind(self.log, self.done)
        return self.done

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
        tick = self._meter.tick(self.done, factor * max(part.lr for part in self.config.parts.values()))
        metrics.append(tick, self.log)
        return tick

    def save(self) -> None:
        """Write the last finished step, unless that is saved already or cannot be."""
        if not self._whole or self.done == self._saved:
            return
        state = checkpoint.Checkpoint(
            step=self.done,
            fingerprint=self.fingerprint,
            weights={name: parameter.detach() for name, parameter in self.trained.items()},
            optimizer=self.optimizer.state_dict(),
            unlogged=self._meter.unlogged,
        )
        checkpoint.save(state, self.saves)
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
