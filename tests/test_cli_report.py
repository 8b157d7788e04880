"""``llavar report`` and ``llavar compare`` on folders as ``llavar eval`` and ``llavar train`` leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llavar.cli import main

HOSTILE = "<script>alert(1)</script>"


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def evaluation(tmp_path: Path) -> Callable[..., Path]:
    """A run of one task with five questions; ``said`` are the replies, the first reference is ``yes``."""

    def make(name: str, said: list[str]) -> Path:
        run = tmp_path / name
        folder = run / "signs"
        ids = [str(i) for i in range(len(said))]
        asked = {
            "task": "vqa",
            "image": "",
            "text": "Is it?",
            "references": ["yes"],
            "group": "",
            "category": "",
        }
        lines(folder / "questions.jsonl", [{"id": i, **asked} for i in ids])
        done = {"status": "ok", "error": "", "seconds": 0.1, "key": "k"}
        lines(
            folder / "predictions.jsonl",
            [{"question": i, "text": t, **done} for i, t in zip(ids, said, strict=True)],
        )
        right = sum(text == "yes" for text in said) / len(said)
        result = {"task": "signs", "metric": "exact", "n": len(said), "score": right, "failed": 0}
        (folder / "result.json").write_text(json.dumps(result))
        (run / "run.json").write_text(json.dumps({"model": name}))
        return run

    return make


@pytest.fixture
def training(tmp_path: Path) -> Path:
    run = tmp_path / "training"
    entry = {
        "lr": 1e-3,
        "grad_norm": 1.5,
        "samples_per_second": 9.0,
        "wait": 0.25,
        "padding": 0.1,
        "mfu": None,
    }
    log = [{"step": i + 1, "loss": 4 / (i + 1), **entry, "seconds": i, "left": 9 - i} for i in range(10)]
    lines(run / "metrics.jsonl", log)
    lines(run / "rejects.jsonl", [{"id": HOSTILE, "stage": "rows", "reason": "too long", "detail": "900"}])
    config = {
        "stage": {"batch": 8, "parts": {"projector": {"lr": 0.002}}},
        "model": "nano",
        "data": ["a.json"],
    }
    (run / "config.json").write_text(json.dumps(config | {"recipe": "nano-stage1", "packing": False}))
    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*argv: object) -> str:
        assert main([str(each) for each in argv]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    return run


def test_a_page_of_an_evaluation(
    evaluation: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = evaluation("first", ["yes", "no", HOSTILE, "yes", "yes"])
    assert main(["report", str(run)]) == 0
    page = run / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text()
    assert "Evaluation of first" in text
    assert HOSTILE not in text
    out = tmp_path / "deep" / "page.html"
    assert main(["report", str(run), "--out", str(out), "--images", "1"]) == 0
    assert "Right: 3 answers; 1 shown" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_a_page_of_a_training(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "nano-stage1: training" in text
    for title in ("Loss", "Learning rate", "Gradient norm", "Throughput", "Padding", "Waiting for data"):
        assert title in text
    assert "Share of the peak" not in text  # nobody knows the peak
    assert "about 1.0 s" not in text
    assert "stage parts projector lr" in text
    assert "rows: too long" in text
    assert "<script" not in text


def test_a_training_log_of_a_run_that_was_killed(training: Path) -> None:
    with (training / "metrics.jsonl").open("a") as log:
        log.write(
            '{"loss": 3}\n{"step": 11, "loss": 1e999, "lr": -1, "left": 1e400, "seconds": NaN, "wait": "x"}\n'
        )
        log.write(f'{{"step": 1{"0" * 400}}}\n{{"step": 12, "lo')
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "The last line of the log is torn" in text
    assert "2 lines of the log name no step" in text


def test_a_training_without_a_step(training: Path) -> None:
    (training / "metrics.jsonl").write_text("")
    (training / "rejects.jsonl").unlink()
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "No step is logged yet." in text
    assert "No row was left out." in text


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_settings_that_are_no_settings(content: str, training: Path, refused: Callable[..., str]) -> None:
    (training / "config.json").write_text(content)
    assert "config.json" in refused("report", training)


def test_logs_that_are_no_logs(training: Path, refused: Callable[..., str]) -> None:
    (training / "metrics.jsonl").write_bytes(b"\xff\n")
    assert "is not UTF-8 at byte 0" in refused("report", training)
    (training / "metrics.jsonl").write_text("3\n")
    assert "line 1 of" in refused("report", training)


def test_a_folder_that_is_no_run(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused("report", tmp_path)
    assert "neither run.json or results.json of llavar eval, nor metrics.jsonl and config.json" in said
    assert "there is no folder" in refused("report", tmp_path / "gone")


def test_a_page_in_the_place_of_a_folder(
    evaluation: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    run = evaluation("first", ["yes"])
    assert f"{tmp_path} is a folder; name a file" in refused("report", run, "--out", tmp_path)


def test_a_comparison_prints_its_numbers_and_leaves_a_page(
    evaluation: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = evaluation("first", ["yes"] * 5), evaluation("second", ["no", "yes", "yes", "yes", "no"])
    assert main(["compare", str(a), str(b)]) == 0
    said = capsys.readouterr().out
    page = b / "compared_with_first.html"
    assert str(page) in said
    assert "answers that B has better: 0, worse: 2; McNemar's exact p 0.5000" in said
    assert "B is worse: 2 answers" in page.read_text()


def test_a_comparison_as_an_object_writes_no_page(
    evaluation: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = evaluation("first", ["yes"] * 5), evaluation("second", ["no", "yes", "yes", "yes", "no"])
    assert main(["compare", str(a), str(b), "--task", "signs", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tasks"]["signs"]["down_ids"] == ["0", "4"]
    assert document["b"]["model"] == "second"
    assert not list(b.glob("*.html"))
    out = tmp_path / "page.html"
    assert main(["compare", str(a), str(b), "--json", "--out", str(out)]) == 0
    json.loads(capsys.readouterr().out)
    assert out.is_file()


def test_a_comparison_that_cannot_be(
    evaluation: Callable[..., Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    a = evaluation("first", ["yes"])
    assert "there is nothing at" in refused("compare", a, tmp_path / "gone")
    assert "there is no metric" in refused("compare", a, a, "--metric", "nope")
    assert "holds no task 'x'" in refused("compare", a, a, "--task", "x")


def test_a_hundred_of_the_rows_left_out_are_named(training: Path) -> None:
    rejects = [
        {"id": f"row-{i}", "stage": "pictures", "reason": "missing", "detail": None} for i in range(130)
    ]
    lines(training / "rejects.jsonl", rejects)
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "130 rows by step and reason" in text
    assert "Each of them (the first 100 of 130)" in text
    assert "row-99<" in text
    assert "row-100<" not in text
    assert "pictures: missing" in text


def test_a_training_that_goes_on_and_one_that_is_done(training: Path) -> None:
    assert main(["report", str(training)]) == 0
    assert "the last step is done" in (training / "report.html").read_text()
    log = (training / "metrics.jsonl").read_text().splitlines()[:6]
    (training / "metrics.jsonl").write_text("\n".join(log) + "\n")
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "left when it was logged" in text
    assert "4 \N{RIGHTWARDS ARROW} 0.667" in text
    assert "25% of the time spent waiting for data" in text


def test_settings_of_every_kind_are_words(training: Path) -> None:
    config = {
        "recipe": "r",
        "on": True,
        "off": False,
        "none": None,
        "many": ["a", 2],
        "deep": {"er": {"est": 1}},
    }
    (training / "config.json").write_text(json.dumps(config))
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "From an unnamed model on unnamed data." in text
    for name, value in (("on", "yes"), ("off", "no"), ("many", "a, 2"), ("deep er est", "1")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "<dt>none</dt>" not in text


def test_a_run_without_throughput_or_loss_still_has_a_page(training: Path) -> None:
    lines(training / "metrics.jsonl", [{"step": 1}, {"step": 2, "loss": None, "lr": 0}])
    assert main(["report", str(training)]) == 0
    text = (training / "report.html").read_text()
    assert "Samples a second" not in text
    assert "Learning rate" not in text  # never above zero
