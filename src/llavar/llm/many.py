"""Many requests at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from llavar.errors import BudgetError, ConfigError, LlavarError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """One finished piece of work: its position among the items, and its result or its error."""

    index: int
    result: R | None
    error: LlavarError | None


def many(work: Callable[[T], R], items: Sequence[T], *, workers: int = 8) -> Iterator[Done[R]]:
    """``work(item)`` for every item on ``workers`` threads, each yielded as soon as it is done.

    A :class:`LlavarError` is yielded as the item's error. A :class:`BudgetError` ends the work: what is under
    way is still yielded, then it is raised. So is any other exception, which is a defect. Closing the
    iterator starts nothing more, and does not wait for what is under way.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot work; use at least 1")
    todo = iter(enumerate(items))
    finished: queue.SimpleQueue[Done[R] | BaseException | None] = queue.SimpleQueue()
    lock, stop = threading.Lock(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            with lock:
                index, item = next(todo, (-1, None))
            if index < 0:
                break
            try:
                finished.put(Done(index, work(cast(T, item)), None))
            except BudgetError as error:
                stop.set()
                finished.put(error)
            except LlavarError as error:
                finished.put(Done(index, None, error))
            except BaseException as error:  # noqa: BLE001 - raised again where the results are read
                stop.set()
                finished.put(error)
        finished.put(None)

    # Daemons: an interrupt must not wait for requests that nobody will read.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    yield from _collect(finished, len(threads), stop)


def _collect(
    finished: queue.SimpleQueue[Done[R] | BaseException | None], running: int, stop: threading.Event
) -> Iterator[Done[R]]:
    failure: BaseException | None = None
    try:
        while running:
            result = finished.get()
            if result is None:
                running -= 1
            elif isinstance(result, BaseException):
                failure = failure if failure and not isinstance(failure, BudgetError) else result
            else:
                yield result
    finally:
        stop.set()
    if failure:
        raise failure
