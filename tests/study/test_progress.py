"""Steps announced, counted and timed, across interruptions."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

from llavar.errors import DataError
from llavar.study.progress import Watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in its only element, to be moved by hand."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_steps_are_timed(tmp_path: Path, clock: list[float]):
    watch = Watch(tmp_path / "seconds.json", quiet=True)
    for name, seconds in (("read", 3.0), ("train", 40.0), ("read", 2.0)):
        with watch.step(name):
            clock[0] += seconds
    assert watch.seconds == {"read": 5.0, "train": 40.0}
    assert watch.total == 45.0
    assert json.loads((tmp_path / "seconds.json").read_text()) == watch.seconds
    assert [path.name for path in tmp_path.iterdir()] == ["seconds.json"]


def test_an_interrupted_step_counts_and_goes_on(tmp_path: Path, clock: list[float]):
    watch = Watch(tmp_path / "seconds.json", quiet=True)

    def train() -> None:
        clock[0] += 7
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watch.step("train"):
        train()
    again = Watch(tmp_path / "seconds.json", quiet=True)
    with again.step("train"):
        clock[0] += 5
    assert again.seconds == {"train": 12.0}


def test_a_kill_costs_the_ledger_ten_seconds(tmp_path: Path, clock: list[float]):
    watch = Watch(tmp_path / "seconds.json", quiet=True)

    def kept() -> float:
        return Watch(tmp_path / "seconds.json").seconds.get("train", 0.0)

    with watch.step("train"):
        seen: list[float] = []
        for done, seconds in enumerate((4.0, 5.0, 6.0, 9.0, 1.0)):
            clock[0] += seconds
            watch.count(done, 5)
            seen.append(kept())
        assert seen == [0.0, 0.0, 15.0, 15.0, 25.0]
        clock[0] += 2
    clock[0] += 100
    watch.count(5, 5)  # between steps no time is anyone's
    assert kept() == watch.total == 27.0


@pytest.mark.parametrize("content", ["{", "[1]", '{"read": "long"}', '{"read": null}', "\\xff"])
def test_a_damaged_ledger(tmp_path: Path, content: str):
    (tmp_path / "seconds.json").write_text(content)
    with pytest.raises(DataError, match=r"seconds.json is damaged .* remove it, only the times"):
        Watch(tmp_path / "seconds.json")


def test_lines_where_nobody_watches(tmp_path: Path, clock: list[float]):
    stream = io.StringIO()
    watch = Watch(tmp_path / "seconds.json", stream=stream)
    with watch.step("read"):
        for done in range(5):
            watch.count(done, 4, "pages")
            clock[0] += 4
    lines = stream.getvalue().splitlines()
    assert lines == ["read ...", "  read: 0/4 pages", "  read: 3/4 pages", "  read: 4/4 pages"]


def test_a_bar_in_a_terminal(tmp_path: Path, clock: list[float]):
    stream = Terminal()
    watch = Watch(tmp_path / "seconds.json", stream=stream)
    with watch.step("read"):
        watch.count(1, 2)
        clock[0] += 0.05
        watch.count(1, 2, "too soon")
        clock[0] += 0.1
        watch.count(2, 2)
    text = stream.getvalue()
    assert "[############............] 1/2" in text
    assert "[########################] 2/2" in text
    assert "too soon" not in text
    assert text.endswith("\r\x1b[K")  # whatever is written next begins on a clean line


def test_nothing_to_count_is_no_error(tmp_path: Path):
    stream = Terminal()
    watch = Watch(tmp_path / "seconds.json", stream=stream)
    watch.count(0, 0)
    assert "0/0" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_is_quiet(tmp_path: Path, stream: io.StringIO):
    watch = Watch(tmp_path / "seconds.json", stream=stream, quiet=True)
    with watch.step("read"):
        watch.count(1, 1)
        watch.say("hello")
    assert stream.getvalue() == ""
