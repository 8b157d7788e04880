"""Looks at a model while it is trained: the loss of held-out rows, and answers to a few questions.

A look changes nothing of what training computes: random numbers, the mode of every module and gradients are
afterwards as they were before. Looks are logged like steps, so that a run that was killed has them all once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llavar import files
from llavar.errors import DataError
from llavar.train.parallel import Parallel

VALIDATION, SAMPLES = "validation.jsonl", "samples.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a model in training said to one question; ``score`` is that of the answer alone."""

    id: str
    image: str
    question: str
    references: tuple[str, ...]
    answer: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Answers to all questions of a look, and their score together by ``metric``."""

    metric: str
    score: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A line of ``validation.jsonl``. What was not looked at is None.

    ``loss`` is the mean over the ``supervised`` tokens of the held-out rows, ``score`` that of the answers by
    ``metric``; ``seconds`` is how long it took.
    """

    step: int
    loss: float | None = None
    supervised: int = 0
    score: float | None = None
    metric: str = ""
    questions: int = 0
    seconds: float = 0.0


Validate = Callable[[], tuple[float, int]]
"""Summed loss and supervised tokens of the held-out rows that this process computes."""

Watch = Callable[[], Watched]


class Looks:
    """What is looked at and when: at the start, every so many steps, and at the end.

    ``every`` are the steps between two validations and between two rounds of questions, 0 for none. Answers
    are asked for in the first process alone, unless all are needed to compute one.
    """

    def __init__(
        self,
        out: Path,
        *,
        model: nn.Module,
        steps: int,
        validate: Validate | None = None,
        validate_every: int = 0,
        watch: Watch | None = None,
        watch_every: int = 0,
        on_look: Callable[[Look, Watched | None], None] | None = None,
    ) -> None:
        self._log, self._samples = out / VALIDATION, out / SAMPLES
        self._model, self._steps = model, steps
        self._validate, self._watch = validate, watch
        self._every = (validate_every if validate else 0, watch_every if watch else 0)
        self._on_look = on_look

    def begin(self, done: int, parallel: Parallel) -> float:
        """Forget looks at steps that will be done again, and make up for one that was lost at ``done``."""
        missing, world = True, parallel.world
        with world.together():
            if world.first:
                missing = rewind(self._log, done) != done
                rewind(self._samples, done - 1 if missing else done)
        return self.look(done, parallel) if world.totals([float(missing and world.first)])[0] else 0.0

    def look(self, step: int, parallel: Parallel) -> float:
        """Look if something is due at ``step``; returns how many seconds it took."""
        validating, watching = (self._due(step, every) for every in self._every)
        if not validating and not watching:
            return 0.0
        begun, world = time.monotonic(), parallel.world
        with undisturbed(self._model):
            loss, supervised = self._validated(parallel) if validating else (None, 0)
            watched: Watched | None = None
            with parallel.computing():
                if watching and self._watch and (world.first or parallel.even):
                    watched = parallel.compute(self._watch)
        seconds = time.monotonic() - begun
        found = Look(
            step=step,
            loss=loss,
            supervised=supervised,
            score=watched.score if watched else None,
            metric=watched.metric if watched else "",
            questions=len(watched.samples) if watched else 0,
            seconds=seconds,
        )
        with world.together():
            if world.first:
                self._write(found, watched)
        return seconds

    def _due(self, step: int, every: int) -> bool:
        return every > 0 and (step % every == 0 or step == self._steps)

    def _validated(self, parallel: Parallel) -> tuple[float, int]:
        loss, supervised = 0.0, 0
        with parallel.computing():
            if self._validate:
                loss, supervised = self._validate()
        total, count = parallel.world.totals([loss, float(supervised)])
        return total / max(count, 1.0), int(count)

    def _write(self, found: Look, watched: Watched | None) -> None:
        # The line that says that the look was made comes last.
        for sample in watched.samples if watched else ():
            _append({"step": found.step, **asdict(sample)}, self._samples)
        _append(asdict(found), self._log)
        if self._on_look:
            self._on_look(found, watched)


@contextmanager
def undisturbed(model: nn.Module) -> Generator[None]:
    """Evaluate within the block; what training draws and computes after it is as if it had not been."""
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(), torch.no_grad():  # pyright: ignore[reportUnknownMemberType]
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a log of looks; a last line that a kill tore is left out.

    Raises:
        DataError: another line is none, or names no step.
    """
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    lines = lines if not lines or lines[-1] else lines[:-1]
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            found.append({**entry, "step": int(entry["step"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            if number < len(lines):
                raise DataError(f"line {number} of {path} is no entry of a look; remove the line") from None
    return found


def rewind(path: Path, step: int) -> int:
    """Drop what was logged after ``step``; returns the last step that is left, or -1."""
    entries = read(path)
    kept = [entry for entry in entries if entry["step"] <= step]
    if path.exists():
        files.write_text(path, "".join(_line(entry) for entry in kept))
    return kept[-1]["step"] if kept else -1


def _append(entry: dict[str, Any], path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(entry))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
