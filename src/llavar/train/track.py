"""Trackers that a run can report to besides its own log: Weights & Biases, TensorBoard, Trackio.

``metrics.jsonl`` is always written and is what counts. A tracker gets the same numbers under the same names.
One that cannot be started ends the run before its first step; one that fails later is named and left alone,
because hours of training are worth more than a chart.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from llavar.errors import LlavarError, MissingExtraError

PROJECT = "llavar"


class Kind(StrEnum):
    """Which tracker."""

    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"


class Tracker(Protocol):
    """Takes numbers by name."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """All trackers of a run as one. ``tell`` is called with a sentence when one of them fails."""

    def __init__(self, of: Mapping[Kind, Tracker], tell: Callable[[str], None]) -> None:
        self._of, self._tell = dict(of), tell

    def add(self, kind: Kind, tracker: Tracker) -> None:
        self._of[kind] = tracker

    def log(self, step: int, values: Mapping[str, object], *, group: str) -> None:
        """The numbers among ``values``, as ``group/name``."""
        numbers = {
            f"{group}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, int | float) and name != "step"
        }
        self._each("no longer gets this run's log", lambda tracker: tracker.log(step, numbers))

    def close(self) -> None:
        self._each("did not end well", lambda tracker: tracker.close())

    def _each(self, what: str, do: Callable[[Tracker], None]) -> None:
        for kind, tracker in list(self._of.items()):
            try:
                with redirect_stdout(sys.stderr):  # what they tell people is no result of ours
                    do(tracker)
            except Exception as error:  # noqa: BLE001 - a service may fail in any way, and training goes on
                del self._of[kind]
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                self._tell(f"{kind} {what} ({reason}); everything is in the run's own folder.")


@contextmanager
def opened(
    kinds: Sequence[Kind], out: Path, settings: Mapping[str, object], tell: Callable[[str], None]
) -> Generator[Trackers]:
    """The trackers ``kinds`` for the run in ``out``; a run that goes on is the same run there.

    Raises:
        MissingExtraError: one is not installed.
        LlavarError: one cannot be started.
    """
    every = Trackers({}, tell)
    try:
        for kind in kinds:
            every.add(kind, _open(kind, out.absolute(), settings))
        yield every
    finally:
        every.close()


def _open(kind: Kind, out: Path, settings: Mapping[str, object]) -> Tracker:
    makers: dict[Kind, Callable[[Path, Mapping[str, object]], Tracker]] = {
        Kind.WANDB: _Wandb,
        Kind.TENSORBOARD: _TensorBoard,
        Kind.TRACKIO: _Trackio,
    }
    try:
        with redirect_stdout(sys.stderr):
            return makers[kind](out, settings)
    except MissingExtraError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise LlavarError(
            f"{kind} cannot be started: {reason}; set it up, or leave out --track {kind}"
        ) from error


def _imported(name: str, kind: Kind) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"--track {kind} needs {kind} ({error}); install it with pip install 'llavar[track]'"
        ) from error


class _Wandb:
    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        module = _imported("wandb", Kind.WANDB)
        self._run: Any = module.init(
            project=PROJECT,
            name=out.name,
            id=_identity(out),
            resume="allow",
            dir=str(out),
            config=dict(settings),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _TensorBoard:
    """Files below ``tensorboard/`` of the run; steps that are done again replace those of before."""

    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        module = _imported("torch.utils.tensorboard", Kind.TENSORBOARD)
        self._make: Callable[..., Any] = module.SummaryWriter
        self._folder = out / "tensorboard"
        self._settings = settings
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = self._make(log_dir=str(self._folder), purge_step=step)
            lines = "\n".join(f"    {name}: {value}" for name, value in self._settings.items())
            self._writer.add_text("settings", lines)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Trackio:
    def __init__(self, out: Path, settings: Mapping[str, object]) -> None:
        self._module = _imported("trackio", Kind.TRACKIO)
        name = f"{out.name}-{_identity(out)[-6:]}"
        self._module.init(project=PROJECT, name=name, resume="allow", config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._module.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


def _identity(out: Path) -> str:
    """Names the run in ``out`` to a service, the same at every start."""
    return f"{PROJECT}-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"
