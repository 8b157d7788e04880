"""The training log: one JSON object a line, written as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from llavar import files
from llavar.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Samples, tokens that the model computes on, and tokens that are supervised.

    ``useful`` are the tokens that are no padding (none given: all are useful); ``flops`` are the arithmetic
    that they need forwards and backwards, 0 where nobody counts.
    """

    samples: int
    tokens: int
    supervised: int
    useful: int = -1
    flops: float = 0.0

    @property
    def real(self) -> int:
        """Tokens that are no padding."""
        return self.tokens if self.useful < 0 else self.useful


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What the log holds of one step.

    ``loss`` is the mean over the supervised tokens of all steps since the last tick; rates are over the
    same span; ``wait`` is the share of the time that went into waiting for data; ``left`` is an estimate in
    seconds. ``useful_tokens_per_second`` leaves out the padding, whose share is ``padding``. ``mfu`` is the
    share of the peak that useful arithmetic reached, None where the peak is not known; ``memory_gb`` is the
    most that was held on the GPU, or on a CPU by the whole process.
    """

    step: int
    loss: float
    lr: float
    grad_norm: float
    samples_per_second: float
    tokens_per_second: float
    wait: float
    seconds: float
    left: float
    useful_tokens_per_second: float = 0.0
    padding: float = 0.0
    mfu: float | None = None
    memory_gb: float = 0.0


def append(tick: Tick, path: Path) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(tick)) + "\n")


def read(path: Path) -> list[Tick]:
    """All ticks; a last line that a kill tore is left out.

    Raises:
        DataError: another line is no tick.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    ticks: list[Tick] = []
    for number, line in enumerate(lines, start=1):
        try:
            ticks.append(Tick(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            if number < len(lines):
                raise DataError(f"line {number} of {path} is no log entry; remove the line") from error
    return ticks


def rewind(path: Path, step: int) -> None:
    """Drop what was logged after ``step``, because those steps are about to be done again."""
    kept = [tick for tick in read(path) if tick.step <= step]
    files.write_text(path, "".join(json.dumps(asdict(tick)) + "\n" for tick in kept))


class Owed(NamedTuple):
    """What the log is still owed at a checkpoint: sums over the steps since its last entry."""

    loss: float = 0.0
    supervised: int = 0
    tokens: int = 0
    useful: int = 0

    @classmethod
    def of(cls, stored: Sequence[float]) -> Owed:
        """As a checkpoint holds it; those of earlier versions hold fewer numbers."""
        loss, *counts = stored or (0.0,)
        return cls(loss, *(int(count) for count in counts[:3]))


class Meter:
    """Sums between two ticks of a run of ``steps`` steps. ``peak`` is what all devices can do, in FLOP/s."""

    def __init__(self, steps: int, *, peak: float = 0.0) -> None:
        self._steps, self._peak = steps, peak
        self._begun = time.monotonic()
        self._seen = 0
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._loss = self._waited = self._norm = 0.0
        self._samples = self._tokens = self._useful = self._supervised = 0
        self._flops = 0.0
        self._earlier = Owed()

    @property
    def unlogged(self) -> Owed:
        """Sums since the last tick: what a checkpoint has to remember."""
        earlier = self._earlier
        return Owed(
            self._loss, self._supervised, self._tokens + earlier.tokens, self._useful + earlier.useful
        )

    def restore(self, unlogged: Owed) -> None:
        """Go on where another meter was; rates are of the time since now."""
        self._loss, self._supervised, self._earlier = unlogged.loss, unlogged.supervised, unlogged

    def pause(self, seconds: float) -> None:
        """Leave out ``seconds`` that went into looking at the model: rates are those of training."""
        self._since += seconds

    def add(self, sizes: Sequence[Size], *, loss: float, norm: float, waited: float) -> None:
        """One step: sizes of its micro-batches, mean loss, gradient norm, and seconds waited for data."""
        supervised = sum(size.supervised for size in sizes)
        self._loss += loss * supervised
        self._supervised += supervised
        self._samples += sum(size.samples for size in sizes)
        self._tokens += sum(size.tokens for size in sizes)
        self._useful += sum(size.real for size in sizes)
        self._flops += sum(size.flops for size in sizes)
        self._norm, self._waited = norm, self._waited + waited
        self._seen += 1

    def tick(self, step: int, lr: float, *, memory_gb: float = 0.0) -> Tick:
        """The entry for ``step``, at least one step after the last; the sums begin again."""
        now = time.monotonic()
        span = max(now - self._since, 1e-9)
        tokens, useful = self._tokens + self._earlier.tokens, self._useful + self._earlier.useful
        tick = Tick(
            step=step,
            loss=self._loss / self._supervised,
            lr=lr,
            grad_norm=self._norm,
            samples_per_second=self._samples / span,
            tokens_per_second=self._tokens / span,
            wait=self._waited / span,
            seconds=now - self._begun,
            left=(now - self._begun) / self._seen * (self._steps - step),
            useful_tokens_per_second=self._useful / span,
            padding=1 - useful / max(tokens, 1),
            mfu=self._flops / span / self._peak if self._peak else None,
            memory_gb=memory_gb,
        )
        self._reset()
        return tick
