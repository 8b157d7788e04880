from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from llavar.cli import main


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The arguments that name 12 questions with their contexts and answers."""
    rows = {
        "questions": [
            {"question_id": i, "image": f"{i}.png", "text": f"Q{i}?", "category": ("conv", "read")[i % 2]}
            for i in range(12)
        ],
        "contexts": [{"image": f"{i}.png", "captions": f"caption {i}"} for i in range(12)],
        "reference": [{"question_id": i, "text": f"reference {i}"} for i in range(12)],
        "answers": [{"question_id": i, "text": f"model {i}"} for i in range(12)],
    }
    return [
        part
        for name, found in rows.items()
        for part in (f"--{name}", str(write(tmp_path / f"{name}.jsonl", found)))
    ]


def run(files: list[str], server: Any, out: Path, *more: str) -> int:
    return main(
        ["judge", "run", *files, "--model", "judge", "--base-url", server.url, "--out", str(out), *more]
    )


def test_from_questions_to_a_summary(
    fake_endpoint: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 6\nwhy")]), tmp_path / "reviews.jsonl"
    assert run(files, server, out, "--both-orders", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["asked"], document["kept"], document["failed"]) == (24, 0, 0)
    assert document["summary"]["all"]["relative"] == 100.0
    assert "24/24 reviews" in captured.err

    assert main(["judge", "summary", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert list(summary) == ["conv", "read", "all"]
    row = summary["read"]
    assert {name: row[name] for name in ("n", "failed", "reference", "model", "relative")} == {
        "n": 6,
        "failed": 0,
        "reference": 7.0,
        "model": 7.0,
        "relative": 100.0,
    }
    assert row["interval"] == [100.0, 100.0]

    assert run(files, server, out) == 0
    text = capsys.readouterr().out
    assert "0 asked, 12 kept" in text
    assert "standing first is worth +2.000 points" in text
    assert len(server.requests) == 24


def test_failures_are_told_and_give_status_1(
    fake_endpoint: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [fake_endpoint.refuse(400, "too long"), fake_endpoint.say("8 6")]
    server, out = fake_endpoint.serve(script), tmp_path / "reviews.jsonl"
    assert run(files, server, out) == 1
    captured = capsys.readouterr()
    assert "1 of 12 requests failed, the last so:" in captured.err
    assert "too long" in captured.err
    assert "12 asked, 0 kept from before, 1 failed" in captured.out
    assert run(files, server, out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["asked"] == 1


def test_a_budget_and_a_cache(
    fake_endpoint: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, cache = fake_endpoint.serve([fake_endpoint.say("8 6")]), ("--cache", str(tmp_path / "cache"))
    assert run(files, server, tmp_path / "a", *cache, "--budget", "5") == 2
    error = capsys.readouterr().err
    assert "budget of 5 requests is used up" in error
    assert "Traceback" not in error
    assert run(files, server, tmp_path / "b", *cache) == 0
    assert len(server.requests) == 12  # those that the first run paid for were not asked again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "QUESTIONS"], "no file of rules"),
        (["--base-url", "localhost"], "not the URL of an endpoint"),
        (["--temperature", "-1"], "temperature of -1.0"),
        (["--contexts", "nowhere"], "nowhere is no file"),
        (["--answers", "QUESTIONS", "--contexts", "QUESTIONS"], "has no 'captions'"),
        (["--timeout", "0"], "timeout of 0.0 s"),
        (["--out", "FOLDER"], "is a folder"),
    ],
)
def test_wrong_input_gives_one_sentence(
    fake_endpoint: Any,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("8 6")])
    places = {"QUESTIONS": files[1], "FOLDER": str(tmp_path)}
    assert run(files, server, tmp_path / "r", *[places.get(a, a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert server.requests == []


def test_a_key_is_sent_and_stored_nowhere(
    fake_endpoint: Any,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden-4711")
    server = fake_endpoint.serve(
        [fake_endpoint.refuse(401, "wrong key sk-hidden-4711"), fake_endpoint.say("8 9")]
    )
    assert run(files, server, tmp_path / "r", "--cache", str(tmp_path / "c"), "--json") == 1
    captured = capsys.readouterr()
    assert server.requests[0].headers["Authorization"] == "Bearer sk-hidden-4711"
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "wrong key ***" in written
    assert "sk-hidden" not in captured.out + captured.err + written


def test_a_killed_run_goes_on_where_it_was(fake_endpoint: Any, files: list[str], tmp_path: Path) -> None:
    hanging, lock, answered = threading.Semaphore(0), threading.Lock(), [0]

    def script(asked: Any) -> Any:
        with lock:
            answered[0] += 1
            late = answered[0] > 6
        if late:
            hanging.release()
            return fake_endpoint.Answer(delay=60.0)
        return fake_endpoint.say("8 6")

    out = tmp_path / "reviews.jsonl"
    first = fake_endpoint.serve(script)
    command = [sys.executable, "-m", "llavar", "judge", "run", *files, "--model", "judge"]
    command += ["--base-url", first.url, "--out", str(out), "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "NO_PROXY": "*"}) as process:
        assert hanging.acquire(timeout=60)
        assert hanging.acquire(timeout=60)  # both workers wait for a reply, so all others are on disk
        process.send_signal(signal.SIGKILL)
    kept = {json.loads(line)["question_id"] for line in out.read_text().splitlines()}
    assert len(kept) == 6
    second = fake_endpoint.serve([fake_endpoint.say("8 6")])
    assert run(files, second, out) == 0
    assert len(second.requests) == 6
    asked = {int(request.text.split("[Question]\nQ")[1].split("?")[0]) for request in second.requests}
    assert asked.isdisjoint(kept)


def test_reference_answers_can_be_judged(
    fake_endpoint: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("an answer")]), tmp_path / "made.jsonl"
    command = ["judge", "reference", *files[:4], "--model", "m", "--base-url", server.url, "--out", str(out)]
    assert main(command) == 0
    assert "12 asked, 0 kept from before, 0 failed" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 12
    judge = fake_endpoint.serve([fake_endpoint.say("8 6")])
    files[files.index("--reference") + 1] = str(out)
    assert run(files, judge, tmp_path / "reviews.jsonl") == 0
    assert "[Assistant 1]\nan answer\n" in judge.requests[0].text


def test_agreement_of_two_runs(
    fake_endpoint: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path, reply in zip(paths, ("8 6", "8 7"), strict=True):
        assert run(files, fake_endpoint.serve([fake_endpoint.say(reply)]), Path(path)) == 0
    capsys.readouterr()
    assert main(["judge", "agree", *paths, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reference_spread"] == {"n": 12, "differ": 0, "largest": 0.0, "mean": 0.0}
    (pair,) = document["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == (*paths, 12)
    assert pair["reference"] == {"equal": 1.0, "distance": 0.0, "spearman": None}
    assert pair["relative"]["all"]["difference"] == 12.5
    assert main(["judge", "agree", *paths]) == 0
    assert "relative score, all: +12.5 [12.5, 12.5]" in capsys.readouterr().out
    assert main(["judge", "agree", paths[0]]) == 2
    with pytest.raises(SystemExit):
        main(["judge"])


def test_reading_reviews_loads_no_model_and_no_network(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [{"question_id": 0, "category": "conv", "content": "8 9"}])
    code = (
        "import sys; from llavar.cli import main; "
        f"main(['judge', 'summary', {str(path)!r}]); "
        "print([name for name in ('torch', 'transformers', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "112.5" in done.stdout
