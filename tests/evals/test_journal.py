"""The journal survives what happens to processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from llavar.errors import DataError
from llavar.evals.journal import Journal, write_predictions
from llavar.records import Prediction, Status

SAID = Prediction(question="q", status=Status.OK, text="a\u2028\ud800 nan", seconds=0.25)

CHILD = """
import os, signal, sys, time
from pathlib import Path
from llavar.evals.run import evaluate
from llavar.records import Question, Task

class Slow:
    name, about = "slow", {}
    asked = 0
    def answer(self, requests):
        time.sleep(0.002)
        with open(sys.argv[2], "a") as log:
            for request in requests:
                log.write(request.id + "\\n")
        if Slow.asked >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        Slow.asked += 1
        return [request.id.upper() for request in requests]

questions = [Question(id=f"q{i}", task=Task.VQA, image="", text="?", references=()) for i in range(20)]
said = evaluate(Slow(), questions, image_root=Path("."), out=Path(sys.argv[1]), batch_size=3)
print(" ".join(p.text for p in said))
"""


def test_a_killed_run_loses_only_what_was_in_flight_and_asks_nothing_twice(tmp_path: Path) -> None:
    out, log = tmp_path / "journal.jsonl", tmp_path / "asked.txt"
    kept: list[int] = []
    for batches in (2, 1, 99):
        command = [sys.executable, "-c", textwrap.dedent(CHILD), str(out), str(log), str(batches)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if batches == 99 else -signal.SIGKILL), done.stderr
        kept.append(len(out.read_text().splitlines()))
    assert kept == [6, 9, 20]
    assert done.stdout.split() == [f"Q{i}" for i in range(20)]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter(row["question"] for row in rows) == {f"q{i}": 1 for i in range(20)}
    # Asked twice were the three of each of the two batches that no answer had come to.
    assert len(log.read_text().split()) == 20 + 2 * 3


def test_lines_are_there_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j.jsonl"
    with Journal(path) as journal:
        assert journal.earlier == ()
        for count in range(1, 4):
            journal.append(str(count), SAID)
            assert len(path.read_text().splitlines()) == count
    with Journal(path) as journal:
        assert journal.earlier == tuple((str(i), SAID) for i in (1, 2, 3))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path), pytest.raises(DataError, match="another run is writing"):
        Journal(path)
    with Journal(path):  # free again
        pass


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append("1", SAID)
        journal.append("2", SAID)
    os.truncate(path, path.stat().st_size - cut)
    with Journal(path) as journal:
        assert [key for key, _ in journal.earlier] == ["1"]
        journal.append("3", SAID)
    with Journal(path) as journal:
        assert [key for key, _ in journal.earlier] == ["1", "3"]


def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"key": "1", "question": "q", "status": "sleeping", "text": "", "error": ""}\n')
    before = path.read_bytes()
    with pytest.raises(DataError, match="line 1 of .* is not a prediction"):
        Journal(path)
    assert path.read_bytes() == before
    path.unlink()
    with Journal(path):  # the refused one was let go
        pass


def test_predictions_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_predictions(path, [("k", SAID)])
    write_predictions(path, [("k2", SAID), ("k3", SAID)])
    with Journal(path) as journal:
        assert journal.earlier == (("k2", SAID), ("k3", SAID))
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl"]
