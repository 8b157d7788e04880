"""The training log: one JSON object a line, written as it happens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What the log holds of one step.

    ``loss`` is the mean over the supervised tokens of all steps since the last tick; rates are over the same span;
    ``wait`` is the share of the time that went into waiting for data; ``left`` is an estimate in seconds.
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


def append(tick: Tick, path: Path) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(tick)) + "\n")


def read(path: Path) -> list[Tick]:
    """All ticks; a last line that a kill tore is left out."""
    if not path.exists():
        return []
    ticks: list[Tick] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            ticks.append(Tick(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return ticks


def rewind(path: Path, step: int) -> None:
    """Drop what was logged after ``step``, because those steps are about to be done again."""
    kept = [tick for tick in read(path) if tick.step <= step]
    path.write_text("".join(json.dumps(asdict(tick)) + "\n" for tick in kept), encoding="utf-8")
