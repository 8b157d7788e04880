from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from llavar.data.workers import Workers
from llavar.errors import DataError, LlavarError


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called in a worker is found there by its module's name."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))


def square(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    if number == 13:
        raise DataError("thirteen")
    if number == 66:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 77:
        raise Untellable(lambda: None)
    return number * number


class Untellable(Exception):
    """Does not pickle."""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_come_in_order_whoever_computes_them(count: int):
    with Workers(square, count) as pool:
        assert list(pool.results(range(12))) == [n * n for n in range(12)]
        assert list(pool.results([])) == []
        assert list(pool.results(iter([5]))) == [25]


@pytest.mark.parametrize("count", [0, 2])
def test_an_error_is_raised_where_its_result_would_come(count: int):
    with Workers(square, count) as pool:
        results = pool.results([1, 13, 2])
        assert next(results) == 1
        with pytest.raises(DataError, match="^thirteen$"):
            next(results)


def test_a_worker_that_dies_is_one_sentence_after_the_results_before_it():
    with Workers(square, 2) as pool:
        results = pool.results([1, 2, 66, 3])
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(LlavarError, match=r"worker process died \(signal 9, SIGKILL\).*--workers"):
            next(results)
    assert pool._workers == []


def test_an_error_that_does_not_travel_is_told_as_text():
    with Workers(square, 1) as pool, pytest.raises(RuntimeError, match="Untellable"):
        list(pool.results([77]))


def test_tasks_are_not_taken_far_ahead():
    taken: list[int] = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number % 10

    with Workers(square, 2) as pool:
        results = pool.results(tasks())
        assert next(results) == 0
        assert len(taken) <= 6
