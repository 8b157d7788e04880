from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavar.cli import main
from llavar.evals import tasks


def test_all_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{out}" for name in tasks.names())


def test_states_are_shown_with_data(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "docVQA/val/val_v1.0.json").unlink()
    assert main(["tasks", "--data", str(official)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "1/2 missing" in lines["docvqa"]
    assert "ready" in lines["textvqa"]


def test_one_task_shows_its_files_and_the_first_question(
    official: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "ocrbench", "--data", str(official)]) == 0
    out = capsys.readouterr().out
    assert f"[found] {official / 'OCRBench/OCRBench.json'}" in out
    assert "ocrbench-hme for Handwritten" in out
    assert "2 questions, pictures in" in out
    assert "'pier'" in out
    assert main(["tasks", "qa90"]) == 0
    out = capsys.readouterr().out
    assert "[found]" not in out
    assert "[missing]" not in out
    assert ", optional" in out


def test_json_is_one_object(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "docVQA/val/val_v1.0.json").unlink()
    assert main(["tasks", "--json", "--data", str(official)]) == 0
    listed = {task["name"]: task for task in json.loads(capsys.readouterr().out)["tasks"]}
    assert set(listed) == set(tasks.names())
    assert listed["docvqa"]["ready"] is False
    assert [bool(file["found"]) for file in listed["docvqa"]["files"]] == [False, True]
    assert listed["ocrbench"]["metric_of"] == dict(tasks.get("ocrbench").metric_of)
    assert main(["tasks", "pope", "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert task["ready"] is None
    assert task["n"] == 9000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["textvqaa"], "there is no task 'textvqaa'; did you mean textvqa"),
        (["textvqa", "--data", "/nowhere/at/all"], "there is no folder at /nowhere/at/all"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_file_gets_a_sentence(official: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (official / "ChartQA/test/test_human.json").write_text("[{}]")
    assert main(["tasks", "chartqa", "--data", str(official)]) == 2
    assert "test_human.json, row 0: the field 'imgname' is missing" in capsys.readouterr().err
