"""Processes that do one task at a time, and may hang or die without taking the run with them.

A task that exceeds the time limit is ended together with its process; a process that dies is replaced and its
task tried again, since it may have been killed from outside. What cannot be done in the end is a
:class:`Lost`, never an exception, and the other tasks go on.

Where the processes are is a :class:`Place`: here they are children of this one (:class:`Processes`),
:mod:`llavar.corpus.ray_place` has them on the nodes of a cluster.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing import connection, resource_tracker
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, cast

from llavar.errors import ConfigError, LlavarError, ModelError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

START_LIMIT = 300.0
"""Seconds that a process may take to load what it works with before the run is given up."""

TRIES = 3
"""Processes that a task may take down before it is lost."""

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)


class Loss(StrEnum):
    """Why a task has no result."""

    FAILED = "it raised an error"
    TIME_LIMIT = "it took longer than the time limit"
    DIED = "its process died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A task without a result."""

    why: Loss
    detail: str = ""


class Maker(Protocol[Made]):
    """Loads, inside a process, the function that does the tasks there; has to pickle."""

    @property
    def name(self) -> str:
        """What is loaded, for messages."""
        ...

    def __call__(self) -> Made: ...


class Gone(Exception):
    """A process has ended by itself; the message says how, to stand behind "ended with"."""


class Hand(Protocol):
    """A process that loads, and then does one task at a time."""

    def give(self, task: Any) -> None:
        """Have a task done. If it has ended meanwhile, :meth:`hear` says so, not this."""
        ...

    def hear(self) -> Any:
        """What it has to say: None once it has loaded, an exception if it cannot; then results.

        Raises:
            Gone: it has ended.
        """
        ...

    def end(self) -> None:
        """End it, whatever it does."""
        ...


AnyHand = TypeVar("AnyHand", bound=Hand)


class Place(Protocol[AnyHand]):
    """Where hands work, and how one waits for them."""

    @property
    def start_limit(self) -> float:
        """Seconds in which a hand has to load."""
        ...

    @property
    def spare(self) -> int:
        """How many hands in a row may end before they have loaded without the run being given up."""
        ...

    @property
    def advice(self) -> str:
        """What to do about hands that end before they have loaded."""
        ...

    def hire(self, maker: Maker[Callable[[Any], Any]]) -> AnyHand: ...

    def wait(self, hands: Sequence[AnyHand], seconds: float) -> Sequence[AnyHand]:
        """Those that have something to say, as soon as there are some, or after ``seconds`` at the latest."""
        ...


@dataclass(slots=True)
class _Job(Generic[Key, Task]):
    key: Key
    task: Task
    tries: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker(Generic[Key, Task]):
    """A hand and what it is doing. ``job`` is None until it has loaded, and when it is idle."""

    hand: Any
    deadline: float
    loaded: bool = False
    job: _Job[Key, Task] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Process:
    """A child of this process, at the other end of a pipe."""

    process: SpawnProcess
    channel: Connection

    def give(self, task: Any) -> None:
        with suppress(OSError):  # it died meanwhile: the end of its pipe is heard
            self.channel.send(task)

    def hear(self) -> Any:
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            self.process.join(timeout=10)
            raise Gone(f"exit code {self.process.exitcode}") from None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()
        self.process.close()


@dataclass(frozen=True, slots=True)
class Processes:
    """Children of this process, spawned: forking a parent with the threads of torch can deadlock."""

    start_limit: float = START_LIMIT
    spare: int = 0
    advice: str = "see its output above, and start a script of your own under  if __name__ == '__main__':"

    def hire(self, maker: Maker[Callable[[Any], Any]]) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, maker), name="llavar-crew", daemon=True)
        try:
            with _deaf_to_interrupts():
                process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the death of the process is the end of the file here
        return _Process(process=process, channel=ours)

    def wait(self, hands: Sequence[_Process], seconds: float) -> Sequence[_Process]:
        ready = connection.wait([hand.channel for hand in hands], timeout=seconds)
        return [hand for hand in hands if hand.channel in ready]


@dataclass(slots=True, kw_only=True)
class Crew(Generic[Key, Task, Result]):
    """Up to ``workers`` processes, started when there is work for them; they stay until :meth:`close`.

    ``time_limit`` is in seconds for one task. Used from one thread.
    """

    maker: Maker[Callable[[Task], Result]]
    workers: int
    time_limit: float
    place: Place[Any] = Processes()
    _waiting: deque[_Job[Key, Task]] = field(default_factory=deque["_Job[Key, Task]"])
    _hired: list[_Worker[Key, Task]] = field(default_factory=list["_Worker[Key, Task]"])
    _stillborn: int = 0
    """Processes that have ended before they had loaded since the last one that did load."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers} but at least 1 process is needed: set workers >= 1")
        if not self.time_limit > 0:
            raise ConfigError(f"time_limit is {self.time_limit} s but must be above 0: set it to 60, say")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, whatever they do."""
        self._waiting.clear()
        for worker in tuple(self._hired):
            self._dismiss(worker)

    def results(self, tasks: Iterable[tuple[Key, Task]]) -> Generator[tuple[Key, Result | Lost], None, None]:
        """What came of each task, in the order in which they end, under the key it came with.

        Tasks are taken as processes become free, at most ``workers`` ahead. An iteration that is given up in
        the middle ends the processes.

        Raises:
            LlavarError: whatever a process said while it loaded, or that it could not load.
        """
        coming = iter(tasks)
        try:
            while self._deal(coming):
                ended = self._step()
                self._deal(coming)  # before the caller looks at them: nobody waits for that
                yield from ended
        except BaseException:
            self.close()
            raise

    def _deal(self, coming: Iterator[tuple[Key, Task]]) -> bool:
        """Give tasks to those who are free, hire where there are more of them; whether anybody is busy."""
        while len(self._waiting) < self.workers:
            entry = next(coming, None)
            if entry is None:
                break
            self._waiting.append(_Job(*entry))
        for worker in self._hired:
            if worker.loaded and worker.job is None:
                self._assign(worker)
        loading = sum(not worker.loaded for worker in self._hired)
        for _ in range(min(len(self._waiting) - loading, self.workers - len(self._hired))):
            self._hire()
        return bool(self._waiting) or any(worker.job is not None for worker in self._hired)

    def _step(self) -> list[tuple[Key, Result | Lost]]:
        """Wait until some process has news or is late; what ended by it."""
        busy = [worker for worker in self._hired if worker.job is not None or not worker.loaded]
        assert busy, "tasks are left but nobody does them"
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        ready = {id(hand) for hand in self.place.wait([worker.hand for worker in busy], patience)}
        ended = [done for worker in busy if id(worker.hand) in ready for done in self._hear(worker)]
        now = time.monotonic()
        late = [worker for worker in busy if id(worker.hand) not in ready and worker.deadline <= now]
        return ended + [self._give_up(worker) for worker in late]

    def _hear(self, worker: _Worker[Key, Task]) -> list[tuple[Key, Result | Lost]]:
        try:
            message = worker.hand.hear()
        except Gone as gone:
            return self._bury(worker, gone)
        if isinstance(message, BaseException):
            raise message
        if not worker.loaded:
            worker.loaded, self._stillborn = True, 0
            return []
        job, worker.job = worker.job, None
        assert job is not None, "an idle process spoke"
        return [(job.key, cast("Result | Lost", message))]

    def _bury(self, worker: _Worker[Key, Task], gone: Gone) -> list[tuple[Key, Result | Lost]]:
        """The process of ``worker`` has ended by itself."""
        job = worker.job
        self._dismiss(worker)
        if job is None:
            self._stillborn += 1
            if self._stillborn <= self.place.spare:
                return []
            raise ModelError(
                f"the process for {self.maker.name!r} ended with {gone} before it had loaded: "
                f"{self.place.advice}"
            )
        job.tries += 1
        if job.tries < TRIES:
            self._waiting.appendleft(job)
            return []
        return [(job.key, Lost(why=Loss.DIED, detail=f"{gone}, {TRIES} times"))]

    def _give_up(self, worker: _Worker[Key, Task]) -> tuple[Key, Result | Lost]:
        job = worker.job
        self._dismiss(worker)
        if job is None:
            raise ModelError(
                f"{self.maker.name!r} has not loaded after {self.place.start_limit:g} s: use fewer workers, "
                "or another"
            )
        return job.key, Lost(why=Loss.TIME_LIMIT, detail=f"{self.time_limit:g} s")

    def _assign(self, worker: _Worker[Key, Task]) -> None:
        if not self._waiting:
            return
        worker.job = self._waiting.popleft()
        worker.deadline = time.monotonic() + self.time_limit
        worker.hand.give(worker.job.task)

    def _dismiss(self, worker: _Worker[Key, Task]) -> None:
        self._hired.remove(worker)
        worker.hand.end()

    def _hire(self) -> None:
        hand = self.place.hire(self.maker)
        self._hired.append(_Worker(hand=hand, deadline=time.monotonic() + self.place.start_limit))


@contextmanager
def _deaf_to_interrupts() -> Generator[None, None, None]:
    """Processes started inside never see Ctrl-C, not even while they import: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_with_parent() -> None:
    """End this process with the parent, even one that was killed while a task hangs here."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _serve(channel: Connection, maker: Maker[Callable[[Any], Any]]) -> None:
    """What a process does: load, say so, then a task in and a result out until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    _keep_freed_memory()
    try:
        work = maker()
    except LlavarError as error:
        channel.send(error)
        return
    except Exception as error:  # noqa: BLE001 - sent in words, since a foreign exception may not unpickle
        channel.send(ModelError(f"{maker.name!r} cannot be loaded: {type(error).__name__}: {error}"))
        return
    channel.send(None)
    while True:
        try:
            task = channel.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            channel.send(_tried(work, task))
        except OSError:
            return
        except Exception as error:  # noqa: BLE001 - the result does not pickle
            channel.send(Lost(why=Loss.FAILED, detail=f"{type(error).__name__}: {error}"[:500]))


def _keep_freed_memory() -> None:
    """Have the allocator keep up to 64 MiB of what a task gives back for the next one.

    Each picture is a few large buffers, and the kernel would clear their pages anew every time: a fifth of
    what opening one costs. Only glibc can be told so (malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 16 * 2**20)
        mallopt(-1, 64 * 2**20)


def _tried(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except Exception as error:  # noqa: BLE001 - work raises anything, and one task must not end the run
        return Lost(why=Loss.FAILED, detail=f"{type(error).__name__}: {error}"[:500])
