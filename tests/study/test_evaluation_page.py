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


def test_error_rates_have_a_chart_of_their_own_and_are_best_when_low(made_run: Made) -> None:
    run = made_run("run", {"Which is the first word of 0?": "no idea at all"})
    shutil.copytree(run / "folder", run / "second")
    for name in ("folder", "second"):
        change(
            run / name / "result.json", metric="cer", metric_version="", better="lower", score=0.1, also={}
        )
    text = page(run)
    assert "Error rates, lower is better" in text
    assert "cer, lower is better" in text
    assert "cer (lower is better) 0.1" in text
    assert "Best: 11 answers; 8 shown, drawn by lot" in text
    assert "Worst: 1 answer" in text
    assert "give 0.0833 now, not what was recorded" in text


def test_a_score_without_a_baseline_says_so(made_run: Made) -> None:
    run = made_run("run", tasks=("folder",))
    change(run / "folder" / "result.json", baselines={})
    assert "not computed" in page(run)
    assert "The same metric for replies that look at no picture" not in page(run)


def test_forty_categories_are_drawn_and_all_are_listed(made_run: Made) -> None:
    run = made_run("run", tasks=("folder",))
    part = {"score": 0.5, "interval": [0.25, 0.75], "n": 3}
    change(run / "folder" / "result.json", categories={"": part} | {f"kind {i}": part for i in range(44)})
    text = page(run)
    assert "By category, with 95% intervals, the first 40 of 45" in text
    assert "(none)" in text
    assert "<td>kind 43</td>" in text


def test_totals_and_repeated_questions_are_shown(made_run: Made) -> None:
    run = made_run("run", tasks=("mme-ocr",))
    totals = {"perception": {"score": 812.5, "interval": [700, 900], "n": 40}}
    verified = {"n": 3, "equal": 2, "unequal": ["OCR/1.png:2"]}
    change(
        run / "mme-ocr" / "result.json", totals=totals, verified=verified, notes=["perception is without <b>"]
    )
    text = page(run)
    assert "mme-ocr, perception" in text
    assert "812.5" in text
    assert "2 of 3 as before; not OCR/1.png:2" in text
    assert "perception is without &lt;b&gt;" in text


def test_many_different_errors_are_counted_by_reason(made_run: Made) -> None:
    run = made_run("run", {f"Which is the first word of {n}?": None for n in range(6)}, tasks=("folder",))
    text = page(run)
    assert "Failed: 6 questions without an answer" in text
    assert text.count("<td>the picture hurts</td>") == 1
    path = run / "folder" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"error": ""}) + "\n" for row in rows))
    assert "no reason is recorded" in page(run)


def test_what_all_tasks_share_is_named_once(made_run: Made) -> None:
    run = made_run("run")
    head, _, rest = page(run).partition("<h2>Scores</h2>")
    assert "before the question" in head
    assert rest
    change(run / "mme-ocr" / "result.json", image_position="after")
    assert "the question" not in page(run).partition("<h2>Scores</h2>")[0].partition("Picture")[2][:80]
