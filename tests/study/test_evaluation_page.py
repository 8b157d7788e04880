"""The page of a run: what it says, what it survives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.errors import NotFoundError
from llavar.study.cards import Pictures
from llavar.study.evaluation_page import evaluation_page
from llavar.study.stored_run import read_run

Made = Callable[..., Path]
WRONG: dict[str, str | None] = {
    "Which is the first word of 0?": "no idea at all",
    "Which is the first word of 1?": "",
    "Which is the last word of 2?": None,
}


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def page(run: Path, **options: Any) -> str:
    text = evaluation_page(read_run(run), **options)
    text.encode()
    assert "<script" not in text
    return text


def test_scores_with_their_company(made_run: Made) -> None:
    text = page(made_run("run", WRONG))
    result = json.loads((made_run("run", WRONG) / "folder" / "result.json").read_text())
    assert "<h1>Evaluation of parrot</h1>" in text
    assert "16 questions of 2 tasks, 1 of them without an answer." in text
    assert f"<b>{result['score']:.4f}</b>" in text
    assert f"{result['interval'][0]:.4f} to {result['interval'][1]:.4f}" in text
    assert result["data"]["questions"] in text
    assert "Failed: 1 question without an answer" in text
    assert "the picture hurts" in text
    assert "Right: 9 answers; 8 shown, drawn by lot" in text
    assert "Wrong: 2 answers" in text
    assert "not beaten" not in text


def test_a_score_that_looking_at_nothing_also_gets_is_marked(made_run: Made) -> None:
    yes = {f"Is {n} absent?": "Yes" for n in range(2)}
    text = page(made_run("run", yes, tasks=("mme-ocr",)))
    assert "50 (always yes)" in text or "50 (always no)" in text
    assert "not beaten" in text


def test_the_choice_of_answers_is_the_same_every_time(made_run: Made) -> None:
    run = made_run("run", WRONG)
    assert page(run, images=2) == page(run, images=2)
    assert "<img" not in page(run, images=0)
    assert page(run, images=2).count("<img ") == 2 + 2 + 2  # right, wrong, and MME's, which are all right


def test_graded_answers_are_ranked(made_run: Made) -> None:
    half = "red and much else"
    text = page(made_run("run", {"Which is the first word of 0?": half}, tasks=("folder",)), images=1)
    assert "Best: 11 answers with 1.00; 1 shown, drawn by lot" in text
    assert "Worst: 1 answer with 0." in text
    assert f"<q>{half}</q>" in text


def test_answers_for_a_judge_are_shown_without_a_score(made_run: Made) -> None:
    run = made_run("run", tasks=("folder",))
    change(run / "folder" / "result.json", metric="judge", score=None)
    text = page(run, images=3)
    assert "A judge compares these answers" in text
    assert "12 answers; 3 shown, drawn by lot" in text
    assert "no score" in text


def test_pictures_that_are_gone_and_where_they_are_now(made_run: Made, data: Path, tmp_path: Path) -> None:
    run = made_run("run", WRONG, tasks=("folder",))
    moved = shutil.move(data, tmp_path / "moved")
    text = page(run)
    assert "The pictures are not at" in text
    assert "No picture: 0.png" in text
    assert "<img" not in text
    assert page(run, pictures=Path(moved)).count("<img ") == 8 + 2
    (Path(moved) / "0.png").write_bytes(b"no picture")
    assert "No picture: " in page(run, pictures=Path(moved))


def test_an_unfinished_and_a_damaged_task_do_not_hide_the_others(made_run: Made) -> None:
    run = made_run("run")
    (run / "mme-ocr" / "result.json").write_text('{"metric": "mme", "n": NaN}')
    (run / "half").mkdir()
    (run / "half" / "questions.jsonl").write_text("{}\n{}\n{}\n")
    (run / "half" / "journal.jsonl").write_text("{}\n")
    text = page(run)
    assert "half is not finished: 1 replies to 3 questions so far" in text
    assert "Left out: mme-ocr: " in text
    assert "result.json is damaged" in text
    assert 'href="#task-folder"' in text


def test_files_that_changed_since_are_noticed(made_run: Made) -> None:
    run = made_run("run", tasks=("folder",))
    change(run / "folder" / "result.json", score=0.123)
    assert "The answers in the folder give 1.0000 now, not what was recorded" in page(run)
    change(run / "folder" / "result.json", metric="no-such-metric")
    assert "The answers cannot be scored again: there is no metric" in page(run)


def test_hostile_files_give_a_page(made_run: Made, tmp_path: Path) -> None:
    bad = '<script>alert(1)</script>"\x00'
    said = {"Which is the first word of 0?": f"{bad}\ud800" + " word" * 2000}
    run = made_run("run", said, tasks=("folder",))
    part = {"n": -5, "score": 7e9, "interval": [9e9, -3]}
    change(
        run / "folder" / "result.json",
        model=bad,
        notes=[bad],
        baselines={bad: -4.0},
        categories={bad: part, "": part},
        totals={bad: part},
        about={bad: bad},
        date=bad,
        seconds=-1,
    )
    change(run / "run.json", model=bad)
    assert "&lt;script&gt;" in page(run)
    for content in ("", "[]", '{"model": 3}', "\xff"):
        (run / "run.json").write_text(content, encoding="latin-1")
        assert "<h1>Evaluation of run</h1>" in page(run)


def test_a_folder_without_results_yet(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert "No task is finished." in page(tmp_path)
    with pytest.raises(NotFoundError, match="neither run.json nor results.json"):
        read_run(tmp_path / "other")


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "\0", "x" * 5000, "."]
)
def test_pictures_outside_are_not_opened(name: str, tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    assert Pictures(root=root).find(name) is None
    assert "<img" not in (Pictures(root=root).show(name, "") or "")


def test_paths_of_another_machine_are_found_by_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert Pictures(root=tmp_path).find("/mnt/there/a.png") == tmp_path / "a.png"
    assert Pictures(root=tmp_path).find("./a.png") == tmp_path / "a.png"
