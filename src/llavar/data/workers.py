"""Processes that compute the same function on task after task, with results in the order of the tasks.

Which worker gets a task, and how many there are, changes nothing but time.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from llavar.errors import LlavarError

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks that a worker has at once: one that it computes and one that waits for it."""


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    line: Connection


class Workers(Generic[Task, Result]):
    """``count`` processes that compute ``call``; with 0 it is computed here, when a result is asked for.

    ``call`` is pickled once for each process. Processes are spawned: nothing of a half-used thread pool or
    device is copied into them. They end when this one does, however it ends.
    """

    def __init__(self, call: Callable[[Task], Result], count: int) -> None:
        self._call = call
        self._workers: list[_Worker] = []
        context = multiprocessing.get_context("spawn")
        try:
            for _ in range(count):
                here, there = context.Pipe()
                process = context.Process(target=_serve, args=(there, call), daemon=True)
                process.start()
                there.close()
                self._workers.append(_Worker(process, here))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Workers[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        """The result of every task, in order; tasks are taken as workers become free for them.

        An iteration that is given up in the middle leaves results behind: close the workers then.

        Raises:
            LlavarError: a worker died. What ``call`` raises in a worker is raised here.
        """
        if not self._workers:
            yield from map(self._call, tasks)
            return
        source, given = iter(tasks), 0
        open_: deque[_Worker] = deque()

        def give() -> None:
            nonlocal given
            for task in source:
                worker = self._workers[given % len(self._workers)]
                self._send(worker, task)
                open_.append(worker)
                given += 1
                return

        for _ in range(_AHEAD * len(self._workers)):
            give()
        while open_:
            result = self._receive(open_.popleft())
            give()
            yield result

    def _send(self, worker: _Worker, task: Task) -> None:
        try:
            worker.line.send(task)
        except (BrokenPipeError, ConnectionResetError):
            raise _died(worker) from None

    def _receive(self, worker: _Worker) -> Result:
        # A worker that dies closes its end; its last result is still read first.
        wait([worker.line])
        try:
            answer: Any = worker.line.recv()
        except (EOFError, ConnectionResetError, FileNotFoundError, ConnectionRefusedError):
            raise _died(worker) from None
        if isinstance(answer, _Failed):
            raise answer.error
        return cast("Result", answer)

    def close(self) -> None:
        """End all processes, whatever they are at."""
        for worker in self._workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []


def _died(worker: _Worker) -> LlavarError:
    worker.process.join(5)
    code = worker.process.exitcode
    how = f"status {code}"
    if code is not None and code < 0:
        how = f"signal {-code}, {signal.Signals(-code).name}"
    return LlavarError(
        f"a worker process died ({how}); if memory ran out use fewer --workers, and start the same command "
        "again: it goes on from what is finished"
    )


def _serve(line: Connection, call: Callable[[Any], Any]) -> None:
    """The life of a worker. Ctrl-C reaches every process of a terminal; only the first one acts on it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            task = line.recv()
            line.send(_answer(call, task))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked is gone


def _answer(call: Callable[[Any], Any], task: object) -> object:
    try:
        return call(task)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the asker's
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - an error that does not travel
            return _Failed(RuntimeError("".join(traceback.format_exception(error))))
        return _Failed(error)
