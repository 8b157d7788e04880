"""Requests and answers in files: the same rows as from a live endpoint, and no answer lost without a word."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.cli import main
from llavar.corpus.engines import rapidocr
from llavar.corpus.item import Item
from llavar.corpus.teaching.batch import TakenUp, read_batch, write_batch
from llavar.corpus.teaching.replies import Prices, spent_in
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.corpus.teaching.teacher import EndpointTeacher, Transport
from llavar.errors import DataError, NotFoundError, StorageError

HERE = Path(__file__).parent


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("teaching_helpers")


@pytest.fixture
def stage(tmp_path: Path, helpers: ModuleType) -> EndpointTeachStage:
    return made(tmp_path / "corpus", helpers)


def made(root: Path, helpers: ModuleType, **options: Any) -> EndpointTeachStage:
    known: dict[str, Any] = {"transport": Transport.BATCH, "prices": Prices(prompt=1e6)} | options
    teacher = EndpointTeacher(kind="endpoint", model="m", **known)
    return EndpointTeachStage(root=root, teacher=teacher, layout=helpers.LAYOUT)


@pytest.fixture
def items(helpers: ModuleType) -> list[Item]:
    return [helpers.item(f"i{number}", f"LINE {number}") for number in range(5)]


def result(line: str, text: str | None = None, **changed: Any) -> dict[str, Any]:
    """A line of results as OpenAI and vLLM write it."""
    asked = json.loads(line)
    content = importlib.import_module("teaching_helpers").quoting(about(asked["body"]))
    body = {
        "model": "m-2024",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": text or content}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": asked["custom_id"], "response": response, "error": None} | changed


def about(body: dict[str, Any]) -> str:
    """The last message of a request that holds data; a complaint may follow it."""
    return next(one["content"] for one in reversed(body["messages"]) if "<data>" in one["content"])


def answered(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def test_a_line_of_a_batch_is_a_request_of_openais_format(
    stage: EndpointTeachStage, items: list[Item], tmp_path: Path, helpers: ModuleType
) -> None:
    written = write_batch(stage, [items[:3], items[3:]], tmp_path / "new" / "b.jsonl")
    assert (written.requests, written.files) == (5, (tmp_path / "new" / "b.jsonl",))
    lines = [json.loads(line) for line in written.files[0].read_text().splitlines()]
    assert len({line["custom_id"] for line in lines}) == 5
    assert all(len(line["custom_id"]) <= 64 for line in lines)
    assert {key: lines[0][key] for key in ("method", "url")} == {
        "method": "POST",
        "url": "/v1/chat/completions",
    }
    body = lines[0]["body"]
    assert sorted(body) == ["max_tokens", "messages", "model", "temperature"]
    assert helpers.data_of(body["messages"][-1]["content"]) == {"lines": {"A1": "LINE 0"}}
    assert list(tmp_path.rglob("*.part")) == []


def test_newer_models_are_given_the_other_name_of_the_limit(
    items: list[Item], tmp_path: Path, helpers: ModuleType
) -> None:
    stage = made(tmp_path, helpers, limit_name="max_completion_tokens")
    (path,) = write_batch(stage, [items], tmp_path / "b.jsonl").files
    body = json.loads(path.read_text().splitlines()[0])["body"]
    assert (body["max_completion_tokens"], "max_tokens" in body) == (1500, False)


def test_many_requests_fill_several_files(
    stage: EndpointTeachStage, items: list[Item], tmp_path: Path
) -> None:
    written = write_batch(stage, [items], tmp_path / "b.jsonl", most=2)
    assert [path.name for path in written.files] == ["b.jsonl", "b-2.jsonl", "b-3.jsonl"]
    assert [len(path.read_text().splitlines()) for path in written.files] == [2, 2, 1]


def test_pictures_of_which_the_same_is_known_share_a_request(
    stage: EndpointTeachStage, helpers: ModuleType, tmp_path: Path
) -> None:
    twins = [helpers.item("a", "ONE"), helpers.item("b", "ONE")]
    (path,) = write_batch(stage, [twins], tmp_path / "b.jsonl").files
    (line,) = path.read_text().splitlines()
    taken = read_batch(stage, [twins], answered(tmp_path / "r.jsonl", result(line)))
    assert taken == TakenUp(answers=1, known=0, unanswered=(), faults=(), waiting=0)
    assert all(isinstance(outcome, Item) and outcome.stage2 for _, outcome in stage.run(twins))


def test_what_is_answered_is_taken_up_and_the_rest_is_listed_with_its_reason(
    stage: EndpointTeachStage, items: list[Item], tmp_path: Path
) -> None:
    (path,) = write_batch(stage, [items], tmp_path / "b.jsonl").files
    lines = path.read_text().splitlines()
    results = answered(
        tmp_path / "r.jsonl",
        result(lines[0]),
        result(lines[1], "nonsense"),
        result(lines[2], response=None, error={"code": "expired", "message": "too late"}),
        result(lines[3], response={"status_code": 400, "body": {"error": {"message": "no"}}}),
        result(lines[0], custom_id="of another corpus"),
        "{torn",
        '{"no": "id"}',
        "[1]",
    )
    taken = read_batch(stage, [items], results)
    assert (taken.answers, taken.known, taken.waiting) == (2, 0, 1)
    assert [one.id for one in taken.unanswered] == ["i2", "i3", "i4"]
    reasons = [one.reason for one in taken.unanswered]
    assert "too late" in reasons[0]
    assert '"no"' in reasons[1]
    assert reasons[2] == "no line in the results"
    assert [fault.partition(":")[0] for fault in taken.faults] == ["line 5", "line 6", "line 7", "line 8"]
    again = read_batch(stage, [items], results)
    assert (again.answers, again.known) == (0, 2)
    assert spent_in(stage.root).cost == 14.0


def test_a_second_batch_holds_what_is_missing_and_the_complaints(
    stage: EndpointTeachStage, items: list[Item], tmp_path: Path, fake_endpoint: Any, helpers: ModuleType
) -> None:
    (path,) = write_batch(stage, [items], tmp_path / "b.jsonl").files
    lines = path.read_text().splitlines()
    read_batch(
        stage,
        [items],
        answered(tmp_path / "r.jsonl", result(lines[0], "nonsense"), *map(result, lines[2:])),
    )
    (path,) = write_batch(stage, [items], tmp_path / "b2.jsonl").files
    bodies = [json.loads(line)["body"] for line in path.read_text().splitlines()]
    assert [body["messages"][-2]["content"] == "nonsense" for body in bodies] == [True, False]
    assert "holds no JSON" in bodies[0]["messages"][-1]["content"]
    # A live endpoint goes on where the batch has stopped.
    server = fake_endpoint.serve(lambda asked: fake_endpoint.say(helpers.quoting(about(asked.body))))
    live = made(stage.root, helpers, transport=Transport.LIVE, url=server.url)
    outcomes = dict(live.run(items))
    assert all(isinstance(outcome, Item) and outcome.stage2 for outcome in outcomes.values())
    assert len(server.requests) == 2
    assert write_batch(stage, [items], tmp_path / "b3.jsonl").requests == 0
    assert not (tmp_path / "b3.jsonl").exists()
    assert dict(stage.run(items)) == outcomes


@pytest.mark.parametrize("content", ["", "no json\n", '{"custom_id": "x", "response": {}}\n', "\xff\xfe"])
def test_a_file_of_something_else_is_refused(
    content: str, stage: EndpointTeachStage, items: list[Item], tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content.encode("latin-1"))
    if not content:
        assert len(read_batch(stage, [items], path).unanswered) == 5
        return
    with pytest.raises(DataError, match="r.jsonl holds no results of this corpus"):
        read_batch(stage, [items], path)


def test_files_that_are_not_there_or_cannot_be_written_are_named(
    stage: EndpointTeachStage, items: list[Item], tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="r.jsonl"):
        read_batch(stage, [items], tmp_path / "r.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_batch(stage, [items], tmp_path / "file" / "b.jsonl")


# ------------------------------------------------------------------------------------------ the command


@pytest.fixture
def corpus(
    tmp_path: Path,
    blank: Callable[..., Path],
    engines: ModuleType,
    helpers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A corpus whose run waits for its teacher."""
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)
    for width in (60, 70, 80):
        blank(width, height=50)
    (tmp_path / "mine.txt").write_text("Ask one thing.")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "source: {folder: pictures}\nworkers: 1\nlayout: {min_height: 0}\nnear: null\nselect: null\n"
        "teacher: {kind: endpoint, model: m, transport: batch, prompt: mine.txt}\n"
    )
    return tmp_path / "corpus"


def run(corpus: Path) -> int:
    return main(["corpus", "run", str(corpus.parent / "recipe.yaml"), "--out", str(corpus)])


def test_the_command_writes_a_batch_and_takes_it_up(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch, results = tmp_path / "b.jsonl", tmp_path / "r.jsonl"
    assert run(corpus) == 2
    assert "3 items of a shard of 3 wait for answers" in capsys.readouterr().err
    assert main(["corpus", "teach", str(corpus), "--write-batch", str(batch)]) == 0
    assert f"3 requests in {batch}" in capsys.readouterr().out
    lines = batch.read_text().splitlines()
    assert json.loads(lines[0])["body"]["messages"][0]["content"] == "Ask one thing."
    answered(results, result(lines[0]), result(lines[1], "nonsense"))
    assert main(["corpus", "teach", str(corpus), "--read-batch", str(results), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["answers"], said["waiting"], [one["id"] for one in said["unanswered"]]) == (2, 1, ["80.png"])
    assert main(["corpus", "teach", str(corpus), "--read-batch", str(results)]) == 0
    out = capsys.readouterr().out
    assert "0 answers taken up, 2 that were there before" in out
    assert "80.png: no line in the results" in out
    for _ in range(2):
        assert main(["corpus", "teach", str(corpus), "--write-batch", str(batch)]) == 0
        answered(results, *(result(line, "nonsense") for line in batch.read_text().splitlines()))
        assert main(["corpus", "teach", str(corpus), "--read-batch", str(results)]) == 0
    assert main(["corpus", "teach", str(corpus), "--write-batch", str(batch)]) == 0
    answered(results, *(result(line, "nonsense") for line in batch.read_text().splitlines()))
    assert main(["corpus", "teach", str(corpus), "--read-batch", str(results)]) == 0
    assert main(["corpus", "teach", str(corpus), "--write-batch", str(batch)]) == 0
    assert "every request has its answer" in capsys.readouterr().out
    assert run(corpus) == 0
    rows = json.loads((corpus / "products" / "stage2.json").read_text())
    assert len(rows) == 1
    rejected = (corpus / "products/rejects.jsonl").read_text()
    rejects = [json.loads(line)["reject"] for line in rejected.splitlines()]
    assert [(one["id"], one["reason"]) for one in rejects] == [
        ("70.png", "the teacher's reply holds no JSON"),
        ("80.png", "the teacher's reply holds no JSON"),
    ]
    assert main(["corpus", "status", str(corpus)]) == 0
    assert " teacher  7 replies, 70 tokens, cost 0.0000" in capsys.readouterr().out


def test_wrong_uses_of_the_command_say_what_to_do(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teach = ["corpus", "teach", str(corpus), "--write-batch", str(tmp_path / "b.jsonl")]
    assert main(teach) == 2
    assert "holds no corpus" in capsys.readouterr().err
    assert run(corpus) == 2
    assert main([*teach, "--requests", "-1"]) == 2
    assert "--requests is -1" in capsys.readouterr().err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().partition("teacher:")[0])
    assert run(corpus) == 0
    assert main(teach) == 2
    assert "kind: endpoint" in capsys.readouterr().err
    (corpus / "recipe.json").write_text('{"sauce": 1}')
    assert main(teach) == 2
    assert "of another version" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ killed

_CHILD = """
import sys
from pathlib import Path
from teaching_helpers import LAYOUT, item
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.corpus.teaching.teacher import EndpointTeacher

class Source:
    settings = {"n": 1}
    def fingerprint(self):
        return "1"
    def items(self):
        return (item(f"i{number}", f"LINE {number}") for number in range(12))

root = Path(sys.argv[2])
teacher = EndpointTeacher(kind="endpoint", model="m", url=sys.argv[1], concurrency=2)
stage = EndpointTeachStage(root=root, teacher=teacher, layout=LAYOUT)
Corpus(root).run(Source(), [stage], settings=RunSettings(shard_rows=7))
"""


def test_a_run_that_is_killed_pays_for_no_reply_twice(
    tmp_path: Path, fake_endpoint: Any, helpers: ModuleType
) -> None:
    reached, killed, numbers = threading.Event(), threading.Event(), itertools.count(1)

    def answer(asked: Any) -> Any:
        number = next(numbers)
        if number == 6:
            reached.set()
        if number >= 5:  # two are under way when the kill comes
            killed.wait(60)
        return fake_endpoint.say(helpers.quoting(asked.text))

    server = fake_endpoint.serve(answer)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE.parents[1] / 'src'}{os.pathsep}{HERE}",
        "OMP_NUM_THREADS": "1",
    }

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _CHILD, server.url, str(tmp_path / name)]
        return subprocess.Popen(command, env=environment)

    child = start("killed")
    try:
        assert reached.wait(60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed.set()
    assert (len(server.requests), spent_in(tmp_path / "killed").replies) == (6, 4)
    assert start("killed").wait(60) == 0
    assert len(server.requests) == 6 + 8
    assert start("straight").wait(60) == 0
    one, other = (
        [path.read_bytes() for path in sorted((tmp_path / name / "stages/teach").glob("*.parquet"))]
        for name in ("killed", "straight")
    )
    assert one == other
    assert len(one) == 4
