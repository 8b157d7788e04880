"""``llavar score``: a table or one object; an error is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavar import __version__
from llavar.cli import main
from llavar.evals import metrics

MME = "1.jpg\tIs it? Please answer yes or no.\tYes\tYes, it is.\n1.jpg\tIs it not?\tNo\tYes.\n"
ROWS = [
    {
        "question": "What is on the sign?",
        "answer": f"The sign says {word}.",
        "gt_answers": ["stop", "halt"],
        "image_path": f"./{i // 2}.jpg",
        "model_name": "LLaVA",
    }
    for i, word in enumerate(["STOP", "go", "halt", "no parking"])
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "textVQA.json"
    path.write_text(json.dumps(ROWS))
    return path


@pytest.fixture
def mme(tmp_path: Path) -> Path:
    path = tmp_path / "OCR_model.txt"
    path.write_text(MME)
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs ``llavar score``, which must succeed without a complaint."""

    def run(*argv: object) -> str:
        assert main(["score", *map(str, argv)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs ``llavar score``, which must fail with one sentence."""

    def run(*argv: object) -> str:
        assert main(["score", *map(str, argv)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("llavar: ")
        assert captured.err.count("\n") == 1
        return captured.err

    return run


def test_json_is_one_object_with_all_that_is_known(said: Callable[..., str], rows: Path) -> None:
    text = said(rows, "--metric", "mmocr", "--json")
    assert text.count("\n") == 1
    document: dict[str, Any] = json.loads(text)
    assert document["metric"] == "mmocr"
    assert document["n"] == 4
    assert document["score"] == 0.5
    low, high = document["interval"]
    assert 0 <= low <= 0.5 <= high <= 1
    assert document["version"] == __version__
    assert document["format"] == "LLaVAR / MultimodalOCR"
    assert len(document["data_sha256"]) == 64
    assert document["failed"] == document["empty"] == 0
    assert document["mean_length"] == 4.25
    assert document["baselines"]["most common reference"] == 1
    assert document["seconds"] > 0


def test_the_table_shows_what_is_no_better_than_a_constant(said: Callable[..., str], rows: Path) -> None:
    lines = said(rows).splitlines()  # the metric that LLaVAR ran
    assert lines[0] == f"{rows} (LLaVAR / MultimodalOCR), mmocr@9f0ffdf, higher is better"
    assert any(line.split()[:2] == ["score", "0.5000"] for line in lines)
    assert any("most common reference" in line and "not worse than" in line for line in lines)
    assert any("yes no" in line and "not worse" not in line for line in lines)


def test_error_rates_say_that_less_is_better(said: Callable[..., str], rows: Path) -> None:
    assert "LOWER is better" in said(rows, "--metric", "cer")
    assert json.loads(said(rows, "--metric", "cer", "--json"))["better"] == "lower"


def test_mme_files_need_no_metric(said: Callable[..., str], mme: Path) -> None:
    document = json.loads(said(mme, "--json"))
    assert (document["metric"], document["score"], document["n"]) == ("mme", 50, 2)
    assert document["baselines"] == {"always yes": 50, "always no": 50}
    table = said(mme)
    assert "50.0" in table
    assert "note: every picture scored alike" in table


def test_a_folder_shows_tasks_and_sums(said: Callable[..., str], tmp_path: Path) -> None:
    for task in ("OCR", "count"):
        (tmp_path / f"{task}.txt").write_text(MME)
    lines = [line.split()[:2] for line in said(tmp_path).splitlines()]
    assert ["count", "50.0"] in lines
    assert ["perception", "100.0"] in lines


def test_baselines_can_be_left_out(said: Callable[..., str], rows: Path) -> None:
    assert json.loads(said(rows, "--json", "--no-baselines"))["baselines"] == {}
    assert "look at no picture" not in said(rows, "--no-baselines")


def test_references_from_another_file(
    said: Callable[..., str], refused: Callable[..., str], tmp_path: Path
) -> None:
    answers, wanted = tmp_path / "answers.jsonl", tmp_path / "references.jsonl"
    answers.write_text('{"question_id": 1, "text": "bus"}\n')
    wanted.write_text('{"question_id": 1, "text": "bus"}\n{"question_id": 2, "text": "tram"}\n')
    assert "--references FILE" in refused(answers, "--metric", "exact")
    document = json.loads(said(answers, "--metric", "exact", "--references", wanted, "--json"))
    assert (document["n"], document["score"], document["failed"]) == (2, 0.5, 1)
    assert len(document["references_sha256"]) == 64
    assert "count as failed" in document["notes"][0]
    only = said(answers, "--metric", "exact", "--references", wanted, "--answered-only", "--json")
    assert json.loads(only)["score"] == 1
    assert "can be scored in several ways; give --metric with one of mmocr" in refused(
        answers, "--references", wanted
    )


def test_the_list_names_every_metric(said: Callable[..., str]) -> None:
    lines = said("--list").splitlines()
    assert [line.split()[0] for line in lines] == list(metrics.NAMES)
    assert list(json.loads(said("--list", "--json"))) == list(metrics.NAMES)


def test_wrong_input_is_one_sentence(
    refused: Callable[..., str], rows: Path, mme: Path, tmp_path: Path
) -> None:
    assert "nothing to score" in refused()
    assert "no metric 'bleu'; choose one of" in refused(rows, "--metric", "bleu")
    assert "no metric 'bleu'" in refused(tmp_path / "absent.json", "--metric", "bleu")
    assert "there is no file" in refused(tmp_path / "absent.json")
    assert "needs yes or no" in refused(rows, "--metric", "mme")
    mme.write_text(MME + "1.jpg\tIs it?\tYes\tYes\n")
    assert "line 3" in refused(mme)


def test_half_surrogates_in_a_file_reach_the_table(said: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    row = {"index": 0, "answer": "x", "prediction": "\ud800", "category": "\udfff"}
    path.write_text(json.dumps([row, {**row, "index": 1, "category": "b"}]))
    # As main prepares a terminal: what cannot be encoded is shown by its number.
    command = [sys.executable, "-m", "llavar", "score", str(path), "--metric", "exact"]
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "\\udfff" in done.stdout
    assert json.loads(done.stdout)["categories"]["\udfff"]["n"] == 1


def test_scoring_imports_nothing_heavy(rows: Path) -> None:
    program = (
        "import sys; from llavar.cli import main; status = main(['score', sys.argv[1], '--json'])\n"
        "heavy = {'torch', 'transformers', 'scipy', 'httpx', 'rich', 'PIL', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(rows)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_of_a_run_is_told_where_its_answers_are(tmp_path: Path, refused: Callable[..., str]) -> None:
    run = tmp_path / "run"
    for task in ("signs", "books"):
        (run / task).mkdir(parents=True)
        (run / task / "predictions.jsonl").write_text("")
    told = refused(run)
    assert "is a run of llavar eval with 2 tasks (books, signs); score the answers of one, such as" in told
    assert str(run / "books" / "predictions.jsonl") in told
    assert f"llavar report {run}" in told
    told = refused(run / "signs")
    assert f"is the folder of one task; score its answers: {run / 'signs' / 'predictions.jsonl'}" in told
    (run / "other").mkdir()
    assert "holds no .txt file" in refused(run / "other")
