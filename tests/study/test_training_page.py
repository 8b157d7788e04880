"""What the page of a training shows of looks at the model: held-out loss, scores, answers over time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.cli import main
from llavar.errors import DataError
from llavar.study import training_page as pages
from llavar.study.training_page import Said, read_training, training_page

HOSTILE = "<script>alert(1)</script>"


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sample(step: int, answer: str, score: float = 0.0, **changes: Any) -> dict[str, Any]:
    asked = {"id": "q1", "image": "a.png", "question": "What word?", "references": ["STOP", "stop"]}
    return {"step": step, **asked, "answer": answer, "score": score, **changes}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Eight logged steps, looks at 0, 4 and 8, and two questions about one picture."""
    out = tmp_path / "run"
    lines(out / "metrics.jsonl", [{"step": i, "loss": float(i)} for i in range(1, 9)])
    look = {"supervised": 9, "metric": "anls", "questions": 2, "seconds": 0.5}
    lines(
        out / "validation.jsonl",
        [{"step": step, "loss": 3.0 - step / 4, "score": step / 8, **look} for step in (0, 4, 8)],
    )
    said = [sample(0, "GO"), sample(4, "GO"), sample(8, "STOP", 1.0)]
    said += [sample(step, "", 0.5, id="q2", question="And now?") for step in (0, 4, 8)]
    lines(out / "samples.jsonl", said)
    (out / "config.json").write_text(json.dumps({"recipe": "nano-stage2", "watch_data": ""}))
    (out / "watch").mkdir()
    Image.new("RGB", (60, 30), "green").save(out / "watch" / "a.png")
    return out


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def page_of(run: Path, **options: Any) -> str:
    return training_page(read_training(run), **options)


def test_answers_are_followed_from_look_to_look(run: Path) -> None:
    one, other = read_training(run).followed
    assert (one.question, one.references) == ("What word?", ("STOP", "stop"))
    assert one.said == (
        Said(first=0, last=4, answer="GO", score=0),
        Said(first=8, last=8, answer="STOP", score=1),
    )
    assert other.said == (Said(first=0, last=8, answer="", score=0.5),)


def test_the_page_shows_losses_scores_and_answers_with_their_picture(run: Path) -> None:
    page = page_of(run)
    text = text_of(page)
    for expected in (
        "Looks at the model",
        "held-out rows",
        "rows trained on, mean since the look before",
        "Score of the questions, anls",
        "All questions.",
        "Step 0 to 4 GO 0.00",
        "Step 8 STOP 1.00",
        "Step 0 to 8 (empty) 0.50",
    ):
        assert expected in text, expected
    assert page.count("data:image/png;base64,") == 2
    assert text.index("Answers over time") < text.index("Step by step")


def test_scores_that_are_right_or_wrong_are_badges(run: Path) -> None:
    lines(run / "samples.jsonl", [sample(0, "GO"), sample(4, "STOP", 1.0)])
    assert "✗ wrong" in text_of(page_of(run))
    assert "✓ right" in text_of(page_of(run))


def test_training_loss_is_the_mean_since_the_look_before(run: Path) -> None:
    log = read_training(run).log
    assert list(pages._between([0, 4, 8], log)) == [(4, 2.5), (8, 6.5)]
    assert list(pages._between([0, 4, 8], log[4:])) == [(8, 6.5)]
    (run / "metrics.jsonl").write_text("")
    text = text_of(page_of(run))
    assert "Looks at the model" in text
    assert "rows trained on" not in text


def test_many_questions_are_drawn_by_lot_and_many_answers_thinned(run: Path) -> None:
    said = [
        sample(step, f"answer {step}", id=f"q{q}", question=f"Q{q}?") for q in range(30) for step in range(20)
    ]
    lines(run / "samples.jsonl", said)
    text = text_of(page_of(run))
    assert "8 of 30 questions, chosen by lot" in text
    assert text.count("14 more answers between them") == 8
    assert text.count("answer 0 ") == text.count("answer 19 ") == 8
    assert "3 of 30 questions" in text_of(page_of(run, images=3))
    assert "Answers over time" not in text_of(page_of(run, images=0))


def test_pictures_of_questions_of_ones_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (8, 8)).save(mine / "a.png")
    (run / "config.json").write_text(json.dumps({"watch_data": str(mine)}))
    assert page_of(run).count("data:image/png") == 2
    moved = mine.rename(tmp_path / "moved")
    assert "data:image" not in page_of(run)
    assert "--pictures DIR tells where they are now" in text_of(page_of(run))
    assert main(["report", str(run), "--pictures", str(moved)]) == 0
    assert (run / "report.html").read_text().count("data:image/png") == 2
    capsys.readouterr()


def test_looks_without_answers_and_answers_that_are_torn(run: Path) -> None:
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"step": 8, "id": "q')
    lines(run / "validation.jsonl", [{"step": 0, "loss": None, "score": None}, {"loss": 1.0}])
    text = text_of(page_of(run))
    assert "The last line of samples.jsonl is torn and left out." in text
    assert "1 lines of validation.jsonl name no step and are left out." in text
    assert "Nothing was measured yet." in text


def test_what_was_left_out_of_the_held_out_rows(run: Path) -> None:
    assert "Left out of the held-out rows" not in page_of(run)
    lines(
        run / "validation_rejects.jsonl", [{"id": "r7", "stage": "read", "reason": "too odd", "detail": "x"}]
    )
    text = text_of(page_of(run))
    assert "Left out of the held-out rows" in text
    assert "read: too odd" in text


def test_strange_answers_stay_text_and_are_no_crash(run: Path) -> None:
    strange = {"references": "none", "score": "high", "image": None, "question": HOSTILE, "id": HOSTILE}
    lines(
        run / "samples.jsonl",
        [sample(0, HOSTILE, **strange), {"step": 1}, sample(3, "x", image="../../etc/passwd")],
    )
    page = page_of(run)
    assert "<script" not in page.lower()
    assert "(none known)" in text_of(page)
    assert "there is no ../../etc/passwd" in text_of(page)


def test_a_log_of_answers_that_is_none_is_one_sentence(run: Path) -> None:
    (run / "samples.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match=r"line 1 of .*samples\.jsonl is not valid JSON"):
        read_training(run)
