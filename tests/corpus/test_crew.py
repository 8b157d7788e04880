"""Processes that may hang or die: the others go on, and nothing is lost."""

from __future__ import annotations

import ctypes
import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest

from llavar.corpus import crew as crew_module
from llavar.corpus.crew import Crew, Loss, Lost
from llavar.errors import ConfigError, MissingExtraError, ModelError


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("crew_work")


def test_every_task_has_one_outcome_whatever_it_does(work: ModuleType, tmp_path: Path):
    tasks = [4, -1, 5, -2, 6, -3, -4, 7, -5]
    with Crew(maker=work.Doubling(folder=str(tmp_path)), workers=2, time_limit=3.0) as crew:
        outcomes = dict(crew.results((str(task), task) for task in tasks))
        again = dict(crew.results([("a", 8)]))
    assert {key: outcomes[key] for key in "4567"} == {"4": 8, "5": 10, "6": 12, "7": 14}
    assert again == {"a": 16}
    assert outcomes["-5"] == -10  # killed once, tried again
    assert outcomes["-1"] == Lost(why=Loss.TIME_LIMIT, detail="3 s")
    assert outcomes["-2"] == Lost(why=Loss.DIED, detail="exit code 7, 3 times")
    assert outcomes["-3"] == Lost(why=Loss.FAILED, detail="RuntimeError: odd")
    assert outcomes["-4"].why is Loss.FAILED
    assert "pickle" in outcomes["-4"].detail
    assert len(outcomes) == len(tasks)


def test_tasks_are_taken_as_they_are_needed(work: ModuleType):
    taken: list[int] = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number, number

    with Crew(maker=work.Doubling(), workers=1, time_limit=30.0) as crew:
        results = crew.results(tasks())
        assert next(results) == (0, 0)
        assert len(taken) <= 3
        results.close()
        assert not crew._hired  # whoever gives up in the middle has ended the processes


def test_the_next_task_is_given_before_a_result_is_looked_at(work: ModuleType):
    with Crew(maker=work.Doubling(), workers=1, time_limit=30.0) as crew:
        results = crew.results((number, number) for number in range(3))
        assert next(results) == (0, 0)
        assert [worker.job and worker.job.key for worker in crew._hired] == [1]
        assert list(results) == [(1, 2), (2, 4)]


@pytest.mark.parametrize(
    ("loads", "error", "sentence"),
    [
        ("missing", MissingExtraError, "'nothing' is not installed"),
        ("broken", ModelError, "'doubling' cannot be loaded: ZeroDivisionError: no models"),
        ("dead", ModelError, "'doubling' ended with exit code 3 before it had loaded"),
    ],
)
def test_what_cannot_be_loaded_ends_the_crew(
    loads: str, error: type[Exception], sentence: str, work: ModuleType
):
    crew = Crew(maker=work.Doubling(loads=loads), workers=1, time_limit=5.0)
    with pytest.raises(error, match=sentence), crew:
        list(crew.results([(0, 1)]))


def test_without_tasks_nobody_is_hired(work: ModuleType):
    with Crew(maker=work.Doubling(loads="dead"), workers=4, time_limit=5.0) as crew:
        assert list(crew.results([])) == []


@pytest.mark.parametrize("limits", [{"workers": 0, "time_limit": 1.0}, {"workers": 1, "time_limit": 0.0}])
def test_limits_that_cannot_work_are_refused(limits: dict[str, float], work: ModuleType):
    with pytest.raises(ConfigError, match="is 0"):
        Crew(maker=work.Doubling(), **limits)


def test_a_process_killed_from_outside_between_tasks_costs_nothing(work: ModuleType):
    with Crew(maker=work.Doubling(), workers=1, time_limit=30.0) as crew:
        assert list(crew.results([(0, 1)])) == [(0, 2)]
        (worker,) = crew._hired
        os.kill(worker.hand.process.pid, 9)
        worker.hand.process.join()
        assert list(crew.results([(0, 2)])) == [(0, 4)]


@pytest.mark.parametrize("library", [object(), OSError("no library"), TypeError("none by this name")])
def test_an_allocator_that_cannot_be_told_is_left_as_it_is(library: object, monkeypatch: pytest.MonkeyPatch):
    def opened(_name: object) -> object:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(ctypes, "CDLL", opened)
    crew_module._keep_freed_memory()
