"""``llavar eval``: from official files to results, with a scripted model, with nano, with an endpoint."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llavar import cli
from llavar.errors import ConfigError, ImageError, LlavarError, NotFoundError
from llavar.evals import tasks
from llavar.evals.interchange import read_answers
from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.generate.base import Decoding, Request
from llavar.images import Transform
from llavar.records import Question, Task
from llavar.render.layouts import Style, scene
from llavar.render.paint import paint
from llavar.study import evaluation
from llavar.study.evaluation import Settings

FILES = (Expected(path="asked.jsonl", what="questions", source="these tests"),)


def _questions(found: Found) -> Loaded:
    rows = [json.loads(line) for line in found[0].read_text().splitlines()]
    made = [Question(**{**row, "task": Task.VQA, "references": tuple(row["references"])}) for row in rows]
    return Loaded(questions=tuple(made), image_root=found[0].parent)


def benchmark(name: str, metric: str, **changes: Any) -> Benchmark:
    made = Benchmark(
        name=name,
        about="for tests",
        metric=metric,
        files=FILES,
        load=loader(name, FILES, _questions),
        max_new_tokens=9,
    )
    return replace(made, **changes)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made = (
        benchmark("signs", "mmocr", also=("exact",)),
        benchmark("pairs", "mme"),
        benchmark("open", "judge"),
        benchmark("hidden", "mmocr"),
    )
    monkeypatch.setattr(tasks, "_all", lambda: {each.name: each for each in made})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures with two questions each, answered yes and no."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows: list[dict[str, object]] = []
    for index in range(2):
        paint(scene(f"eval:{index}", Style()), 96).save(folder / f"{index}.png")
        for number, word in enumerate(("yes", "no")):
            row = {"id": f"{index}{number}", "image": f"{index}.png", "text": f"Is it {word}?"}
            rows.append({**row, "references": [word.title()], "group": str(index)})
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@dataclass
class Scripted:
    """Says yes; breaks on the pictures named."""

    name: str = "scripted"
    broken: tuple[str, ...] = ()
    reply: str = "Yes"
    about: Mapping[str, str] = field(default_factory=lambda: {"transform": "none"})
    asked: list[Request] = field(default_factory=list)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        for request in requests:
            if Path(str(request.image)).name in self.broken:
                raise ImageError(f"{request.image} is broken")
        self.asked.extend(requests)
        return [self.reply for _ in requests]


def settings_for(data: Path, *names: str, **changes: Any) -> Settings:
    made = Settings(model="m", tasks=names or ("signs",), data=data, out=data.parent / "run")
    return replace(made, **changes)


def evaluated(
    settings: Settings, generator: Any = None, stream: io.StringIO | None = None
) -> evaluation.Evaluation:
    return evaluation.run(settings, stream=stream or io.StringIO(), generator=generator or Scripted())


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what is written ------------------------------------------------------------------------------------


def test_a_run_leaves_everything_that_is_needed(data: Path) -> None:
    done = evaluated(settings_for(data))
    out = data.parent / "run"
    assert sorted(path.name for path in (out / "signs").iterdir()) == [
        "journal.jsonl",
        "predictions.jsonl",
        "questions.jsonl",
        "result.json",
    ]
    result = read(out / "signs" / "result.json")
    assert result["score"] == 0.5
    assert result["also"]["exact"]["score"] == 0.5
    low, high = result["interval"]
    assert low <= 0.5 <= high
    assert (result["n"], result["failed"], result["empty"], result["mean_length"]) == (4, 0, 0, 1.0)
    assert result["baselines"]
    assert result["prompt"] == {"id": "plain", "suffix": ""}
    assert result["decoding"] == {"temperature": 0.0}
    assert (result["image_position"], result["transform"]) == ("before", "none")
    assert result["max_new_tokens"] == 9
    assert len(result["data"]["asked.jsonl"]) == len(result["data"]["questions"]) == 64
    assert result["code"]["version"]
    assert result["model"] == "scripted"
    assert result["seconds"] >= 0
    (row,) = read(out / "results.json")["tasks"]
    assert (row["task"], row["metric"], row["score"]) == ("signs", "mmocr", 0.5)
    assert read(out / "run.json")["settings"]["tasks"] == ["signs"]
    assert done.failed == done.unequal == 0
    assert done.results[0].line.startswith("signs: mmocr 0.5000 [")


def test_the_files_can_be_scored_alone(data: Path) -> None:
    evaluated(settings_for(data))
    folder = data.parent / "run" / "signs"
    found = read_answers(folder / "predictions.jsonl", references=folder / "questions.jsonl")
    assert [(a.id, a.prediction, a.references) for a in found.answers] == [
        ("00", "Yes", ("Yes",)),
        ("01", "Yes", ("No",)),
        ("10", "Yes", ("Yes",)),
        ("11", "Yes", ("No",)),
    ]


def test_pairs_are_scored_as_pairs_and_never_cut(data: Path) -> None:
    done = evaluated(settings_for(data, "pairs"))
    assert done.results[0].scored is not None
    assert done.results[0].scored.score.value == 50  # always yes
    assert [result.n for result in evaluated(settings_for(data, "pairs", limit=1)).results] == [2]
    assert [result.n for result in evaluated(settings_for(data, "pairs", limit=3)).results] == [4]


def test_tasks_of_earlier_commands_stay_in_the_table(data: Path) -> None:
    evaluated(settings_for(data, "signs"))
    stream = io.StringIO()
    evaluated(settings_for(data, "pairs"), stream=stream)
    out = data.parent / "run"
    assert [row["task"] for row in read(out / "results.json")["tasks"]] == ["pairs", "signs"]
    (out / "signs" / "result.json").write_text("[1]")
    evaluated(settings_for(data, "pairs"), stream=stream)
    assert [row["task"] for row in read(out / "results.json")["tasks"]] == ["pairs"]
    assert "signs/result.json cannot be read" in stream.getvalue()


def test_a_judged_task_gives_answers_and_no_score(data: Path) -> None:
    done = evaluated(settings_for(data, "open"))
    path = data.parent / "run" / "open" / "answers.jsonl"
    assert f"4 answers in {path}; review them: llavar judge run" in done.results[0].line
    assert f"--answers {path} --model JUDGE" in done.results[0].line
    assert [(row["text"], row["model_id"]) for row in lines(path)] == [("Yes", "scripted")] * 4
    assert read(data.parent / "run" / "open" / "result.json")["score"] is None


def test_questions_without_references_have_no_score(data: Path) -> None:
    rows = [{**row, "references": []} for row in lines(data / "asked.jsonl")]
    (data / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = evaluated(settings_for(data, "hidden"))
    assert done.results[0].scored is None
    assert "no references" in done.results[0].line


# --- going on -------------------------------------------------------------------------------------------


def test_failures_are_counted_and_asked_again(data: Path) -> None:
    stream = io.StringIO()
    done = evaluated(settings_for(data), Scripted(broken=("1.png",)), stream)
    assert done.failed == 2
    assert "2 failed, the first: " in done.results[0].line
    result = read(data.parent / "run" / "signs" / "result.json")
    assert (result["failed"], result["empty"], result["score"]) == (2, 0, 0.25)
    again = Scripted()
    assert evaluated(settings_for(data), again).failed == 0
    assert [request.id for request in again.asked] == ["10", "11"]


def test_other_settings_in_the_same_folder_are_not_mixed(data: Path) -> None:
    evaluated(settings_for(data), Scripted(reply="Yes"))
    stream, second = io.StringIO(), Scripted(reply="No")
    evaluated(settings_for(data, suffix="Briefly."), second, stream)
    folder = data.parent / "run" / "signs"
    assert "4 earlier replies in" in stream.getvalue()
    assert {row["text"] for row in lines(folder / "predictions.jsonl")} == {"No"}
    assert len(lines(folder / "journal.jsonl")) == 8
    assert read(folder / "result.json")["prompt"]["suffix"] == "Briefly."
    assert second.asked[0].question == "Is it yes?\nBriefly."
    third = Scripted()
    evaluated(settings_for(data), third)
    assert third.asked == []
    assert {row["text"] for row in lines(folder / "predictions.jsonl")} == {"Yes"}


def test_batches_are_verified(data: Path) -> None:
    class Dependent(Scripted):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            return ["Yes" if len(requests) > 1 else "No" for _ in requests]

    done = evaluated(settings_for(data, verify_batch=3), Dependent())
    assert done.unequal == 3
    assert read(data.parent / "run" / "signs" / "result.json")["verified"]["equal"] == 0
    fine = evaluated(settings_for(data, verify_batch=3, out=data.parent / "other"))
    assert fine.unequal == 0
    assert "alone and in a batch: 3 of 3 equal" in fine.results[0].line


# --- settings -------------------------------------------------------------------------------------------


def test_presets_and_what_overrides_them(data: Path) -> None:
    paper = settings_for(data, preset="mmocr", seed=4)
    assert paper.asking(9).decoding == Decoding(temperature=0.9, seed=4)
    assert paper.asking(9).max_new_tokens == 256
    assert paper.transform_for("signs") is Transform.FIT
    own = replace(paper, temperature=0.0, max_new_tokens=5, transform=Transform.PAD, image_first=True)
    assert own.asking(9).decoding.greedy
    assert (own.asking(9).max_new_tokens, own.asking(9).image_first) == (5, True)
    assert own.transform_for("signs") is Transform.PAD
    plain = settings_for(data)
    assert (plain.asking(9).max_new_tokens, plain.transform_for("signs")) == (9, None)


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"tasks": ()}, ConfigError, "no task is named"),
        ({"tasks": ("signs", "signs")}, ConfigError, "'signs' is named twice"),
        ({"tasks": ("absent",)}, ConfigError, "no task 'absent'"),
        ({"preset": "best"}, ConfigError, "no preset 'best'"),
        ({"temperature": -1.0}, ConfigError, "temperature is -1"),
        ({"data": Path("/nonexistent")}, NotFoundError, "no folder at /nonexistent"),
        ({"model": "http://h/v1"}, ConfigError, "names no model; append it: http://h/v1#NAME"),
        ({"model": "http://h/v1#m", "transform": Transform.FIT}, ConfigError, "in its own way"),
        ({"model": "http://h/v1#m", "conversation": "llava_v1"}, ConfigError, "a server uses"),
        ({"model": "/absent"}, LlavarError, "no model folder '/absent'"),
    ],
)
def test_settings_that_cannot_be(
    data: Path, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        evaluation.run(replace(settings_for(data), **changes), stream=io.StringIO())
    assert not (data.parent / "run").exists()


def test_missing_data_is_named(data: Path) -> None:
    (data / "asked.jsonl").unlink()
    with pytest.raises(NotFoundError, match=r"MISSING.* asked.jsonl .questions; from these tests"):
        evaluated(settings_for(data))


def test_a_file_in_the_place_of_the_run(data: Path) -> None:
    with pytest.raises(ConfigError, match="is a file; --out names the folder of a run"):
        evaluated(settings_for(data, out=data / "asked.jsonl"))


# --- models ---------------------------------------------------------------------------------------------


def test_nano_from_the_command_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "run"
    command = ["eval", "nano", "--tasks", "signs", "--data", str(data), "--out", str(out)]
    paper = [*command, "--preset", "mme", "--max-new-tokens", "6", "--verify-batch", "2", "--seed", "3"]
    assert cli.main([*paper, "--json"]) == 0
    (first,) = json.loads(capsys.readouterr().out)["tasks"].values()
    assert (first["transform"], first["about"]["transform"]) == ("fit", "fit")
    assert first["decoding"] == {"temperature": 0.2, "top_p": 1.0, "seed": 3}
    assert first["delete_newlines"] is True
    assert first["verified"]["equal"] == 2
    assert first["about"]["conversation"] == "llava_v1"
    assert cli.main([*paper, "--batch-size", "1", "--transform", "crop"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("signs: mmocr ")
    assert "4 earlier replies in" in shown.err
    assert read(out / "signs" / "result.json")["transform"] == "crop"


def test_an_endpoint_from_the_command_line(
    data: Path, capsys: pytest.CaptureFixture[str], fake_endpoint: Any
) -> None:
    def script(asked: Any) -> Any:
        if asked.text == "Is it no?":
            return fake_endpoint.refuse(400, "too long")
        return fake_endpoint.say("Yes")

    server = fake_endpoint.serve(script)
    out = data.parent / "run"
    command = ["eval", f"{server.url}#m", "--tasks", "signs", "--data", str(data), "--out", str(out)]
    assert cli.main([*command, "--image-position", "before"]) == 1
    assert "2 failed" in capsys.readouterr().out
    kinds = [part["type"] for part in server.requests[0].body["messages"][0]["content"]]
    assert kinds == ["image_url", "text"]
    asked = len(server.requests)
    assert cli.main([*command, "--image-position", "before", "--allow-failures"]) == 0
    assert len(server.requests) == asked + 2
    result = read(out / "signs" / "result.json")
    assert result["transform"] == "server's own"
    assert result["image_position"] == "before"
    assert (result["failed"], result["score"]) == (2, 0.5)


def test_a_killed_command_goes_on(tmp_path: Path, data: Path, fake_endpoint: Any) -> None:
    """SIGKILL in the middle of a real command: what came is kept, and nothing is asked that was answered."""
    rows = [{"id": str(i), "image": "0.png", "question": f"q{i}", "answers": ["ok"]} for i in range(12)]
    (data / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    slow = [True]

    def script(asked: Any) -> Any:
        stuck = slow[0] and int(asked.text[1:]) >= 5
        said = fake_endpoint.say(f"ok {asked.text}")
        return replace(said, delay=60.0) if stuck else said

    server = fake_endpoint.serve(script)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "llavar", "eval", f"{server.url}#m", "--tasks", "folder"]
    command += ["--data", str(data), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    journal = out / "folder" / "journal.jsonl"
    until = time.monotonic() + 60
    while not (
        journal.exists() and len(journal.read_bytes().splitlines()) >= 5 and len(server.requests) >= 7
    ):
        assert time.monotonic() < until
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    slow[0] = False
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(server.requests) == 12 + 2  # the two in flight
    assert [row["text"] for row in lines(out / "folder" / "predictions.jsonl")] == [
        f"ok q{i}" for i in range(12)
    ]
    assert len(lines(journal)) == 12


def test_asking_a_server_loads_no_torch(data: Path, fake_endpoint: Any) -> None:
    row = {"image": "0.png", "question": "q", "answers": ["yes"]}
    (data / "questions.jsonl").write_text(json.dumps(row) + "\n")
    server = fake_endpoint.serve([fake_endpoint.say("yes")])
    out = data.parent / "run"
    code = (
        "import sys; from llavar.cli import main; assert main(sys.argv[1:]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    command = ["eval", f"{server.url}#m", "--tasks", "folder", "--data", str(data), "--out", str(out)]
    subprocess.run(
        [sys.executable, "-c", code, *command, "--verify-batch", "1"], check=True, capture_output=True
    )
    assert read(out / "folder" / "result.json")["verified"]["n"] == 1
