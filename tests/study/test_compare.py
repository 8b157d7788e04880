"""Two runs, or two files, question by question."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.study.compare import compare, holm
from llavar.study.compare_page import compare_page, verdict

Made = Callable[..., Path]
NO = "no idea"
WORSE: Mapping[str, str | None] = {f"Which is the first word of {n}?": NO for n in range(5)}


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change or leave out every row of a file of lines."""
    rows = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def mme_file(folder: Path, name: str, replies: str) -> Path:
    """MME's format, a letter of ``replies`` a question: y or n; the right answers are Yes, No, Yes, No ..."""
    path = folder / f"{name}.txt"
    said = {"y": "Yes.", "n": "No."}
    rows = [
        f"{i // 2}.jpg\tQ{i}?\t{'No' if i % 2 else 'Yes'}\t{said[each]}\n" for i, each in enumerate(replies)
    ]
    path.write_text("".join(rows))
    return path


def test_a_difference_its_interval_and_the_answers_that_make_it(made_run: Made) -> None:
    found = compare(made_run("a"), made_run("b", WORSE))
    folder, mme = found.tasks
    assert (folder.task, mme.task) == ("folder", "mme-ocr")
    assert folder.compared.comparison.difference == pytest.approx(-5 / 12)
    assert folder.compared.comparison.high < 0
    assert {flip.first.id for flip in folder.down} == {f"first-{n}" for n in range(5)}
    assert not folder.up
    flip = folder.down[0]
    assert (flip.first.prediction, flip.second.prediction, flip.values) == ("red", NO, (1.0, 0.0))
    assert folder.settings == ()
    assert mme.compared.comparison.p == 1
    assert mme.better is None


def test_what_was_set_otherwise_is_named(made_run: Made) -> None:
    found = compare(made_run("a"), made_run("b", max_new_tokens=7))
    assert found.tasks[0].settings == (("Most new tokens", "256", "7"),)


def test_the_document_is_json_with_every_number(made_run: Made) -> None:
    document = json.loads(json.dumps(compare(made_run("a"), made_run("b", WORSE)).document()))
    task = document["tasks"]["folder"]
    assert (task["n"], task["up"], task["down"]) == (12, 0, 5)
    assert task["down_ids"] == [f"first-{n}" for n in range(5)]
    assert task["a"]["score"] - task["b"]["score"] == pytest.approx(-task["difference"])
    low, high = task["interval"]
    assert low <= task["difference"] <= high
    assert task["p"] <= task["p_holm"]
    assert document["tasks"]["mme-ocr"]["n"] == 4


def test_one_task_and_another_metric(made_run: Made) -> None:
    found = compare(made_run("a"), made_run("b", WORSE), tasks=["folder"], metric="cer")
    (task,) = found.tasks
    assert task.compared.metric == "cer"
    assert task.compared.comparison.difference > 0  # errors: more of them are worse
    assert len(task.down) == 5
    assert task.better is None or task.better is False


def test_enough_evidence_is_called_a_difference(tmp_path: Path) -> None:
    right = "yn" * 12
    one, other = mme_file(tmp_path, "OCR_a", "yy" * 12), mme_file(tmp_path, "OCR_b", right)
    found = compare(one, other)
    (task,) = found.tasks
    assert (task.better, len(task.up), len(task.down)) == (True, 12, 0)
    assert task.compared.mcnemar == pytest.approx(2 / 2**12)
    assert verdict(found.tasks) == "B is better on OCR_a and OCR_b."
    assert compare(other, one).tasks[0].better is False


def test_questions_of_one_side_alone_are_counted_and_left_out(made_run: Made) -> None:
    a, b = made_run("a"), made_run("b")
    for name in ("questions.jsonl", "predictions.jsonl"):
        key = "id" if name == "questions.jsonl" else "question"
        rewrite(b / "folder" / name, lambda row, key=key: None if row[key] == "last-2" else row)
    task = compare(a, b, tasks=["folder"]).tasks[0]
    assert task.compared.first.n == 11
    assert task.notes == ("1 questions are in A only and left out (first: 'last-2')",)


def test_a_pair_that_lost_one_question_loses_the_other(tmp_path: Path) -> None:
    one, other = mme_file(tmp_path, "OCR_a", "ynynyn"), mme_file(tmp_path, "OCR_b", "ynyn")
    task = compare(one, other).tasks[0]
    assert task.compared.first.n == 4
    rows = [{"id": f"OCR:{i}", "prediction": "yes", "references": ["Yes"]} for i in (1, 3)]
    odd = tmp_path / "odd.jsonl"
    odd.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no pair of questions is in both"):
        compare(one, odd, metric="mme")


def test_other_references_are_refused_and_other_wordings_named(made_run: Made) -> None:
    a, b = made_run("a"), made_run("b")
    rewrite(b / "folder" / "questions.jsonl", lambda row: row | {"text": "Huh?", "image": "else.png"})
    notes = compare(a, b, tasks=["folder"]).tasks[0].notes
    assert notes[0].startswith("the wording of 12 of 12 questions differs (first: 'first-0' with 'Which is")
    assert notes[1].startswith("the picture of 12 of 12 questions differs")
    rewrite(b / "folder" / "questions.jsonl", lambda row: row | {"references": row["references"][::-1]})
    compare(a, b, tasks=["folder"])  # in another order they are the same
    rewrite(b / "folder" / "questions.jsonl", lambda row: row | {"references": ["x"]})
    with pytest.raises(DataError, match="folder: the references of 12 of 12 questions differ"):
        compare(a, b, tasks=["folder"])


def test_failed_answers_are_told(made_run: Made) -> None:
    failing = {"Which is the last word of 3?": None}
    task = compare(made_run("a"), made_run("b", failing)).tasks[0]
    assert "failed, and so wrong: 0 of A's answers, 1 of B's" in task.notes
    assert [flip.first.id for flip in task.down] == ["last-3"]


def test_tasks_of_one_run_alone_and_unfinished_ones_are_named(made_run: Made) -> None:
    a, b = made_run("a"), made_run("b", tasks=("folder",))
    (b / "half").mkdir()
    (b / "half" / "questions.jsonl").write_text("{}\n{}\n")
    notes = compare(a, b).notes
    assert notes == (
        f"half is not finished in {b} (0 replies, 2 questions)",
        f"1 tasks are finished in {a} only: mme-ocr",
    )


def test_what_cannot_be_compared_says_why(made_run: Made, tmp_path: Path) -> None:
    a, b = made_run("a"), made_run("b", tasks=("mme-ocr",))
    file = mme_file(tmp_path, "OCR_x", "yn")
    with pytest.raises(NotFoundError, match="there is nothing at"):
        compare(a, tmp_path / "gone")
    with pytest.raises(ConfigError, match="is a run and .* is none"):
        compare(a, file)
    with pytest.raises(ConfigError, match="no tasks; leave --task out"):
        compare(file, file, tasks=["x"])
    with pytest.raises(NotFoundError, match="holds no task 'folder'; it holds mme-ocr"):
        compare(a, b, tasks=["folder"])
    with pytest.raises(ConfigError, match="there is no metric 'nope'"):
        compare(a, b, metric="nope")
    with pytest.raises(ConfigError, match="leave --references .* out"):
        compare(a, b, references=file)
    (a / "mme-ocr" / "result.json").write_text('{"metric": 3}')
    with pytest.raises(DataError, match=r"result.json is damaged \(metric: Input should be a valid string"):
        compare(a, b, tasks=["mme-ocr"])


def test_files_of_two_formats_need_a_metric(tmp_path: Path) -> None:
    file = mme_file(tmp_path, "OCR_x", "yn")
    rows = [{"id": f"OCR:{i}", "prediction": "Yes", "references": [r]} for i, r in ((1, "Yes"), (2, "No"))]
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="give --metric with one of mmocr"):
        compare(file, own)
    assert compare(file, own, metric="mme").tasks[0].compared.second.value == 50
    own.write_text(json.dumps({"id": "z", "prediction": "", "references": ["Yes"]}))
    with pytest.raises(DataError, match="no question is in both: A's ids are 'OCR:1', 'OCR:2', B's 'z'"):
        compare(file, own, metric="mme")


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_and_keeps_their_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(p <= q <= min(1.0, len(values) * p) for p, q in zip(values, corrected, strict=True))
    pairs = sorted(zip(values, corrected, strict=True))
    assert [q for _, q in pairs] == sorted(corrected)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_shows_the_answers_that_differ(made_run: Made) -> None:
    found = compare(made_run("a"), made_run("b", WORSE))
    text = compare_page(found, images=3)
    assert "<h1>b against a</h1>" in text
    assert "B is worse: 5 answers; 3 shown, drawn by lot" in text
    assert text.count("<img ") == 3
    assert text.count(f"<q>{NO}</q>") == 3
    assert text == compare_page(found, images=3)
    assert "<script" not in text


def test_hostile_answers_stay_text_and_missing_pictures_are_told(made_run: Made, tmp_path: Path) -> None:
    bad = '<script>alert("x")</script>\x00\ud800' + "y" * 5000
    found = compare(made_run("a"), made_run("b", {"Which is the first word of 0?": bad}))
    text = compare_page(found, pictures=tmp_path / "gone")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "more characters" in text
    assert "<img" not in text
    assert "The pictures are not at" in text
    text.encode()


def test_a_single_task_needs_no_correction_on_its_page(made_run: Made) -> None:
    text = compare_page(compare(made_run("a"), made_run("b", WORSE), tasks=["folder"]))
    assert "Holm" not in text
    assert "The verdict takes p below 0.05." in text
    both = compare_page(compare(made_run("c"), made_run("d", WORSE)))
    assert "Among 2 tasks some small p comes by chance alone" in both
    assert both.count(">p, Holm<") == 1


def test_error_rates_fall_when_a_model_gets_better(made_run: Made) -> None:
    """B makes fewer errors: its rate is lower, the difference negative, and the verdict still "better"."""
    all_wrong: dict[str, str | None] = {
        f"Which is the {kind} word of {n}?": NO for n in range(6) for kind in ("first", "last")
    }
    found = compare(made_run("a", all_wrong), made_run("b"), tasks=["folder"], metric="cer")
    (task,) = found.tasks
    assert task.compared.comparison.difference < 0
    assert (len(task.up), len(task.down)) == (12, 0)
    assert task.better is True
    assert verdict(found.tasks) == "B is better on folder."
    text = compare_page(found)
    assert "cer, lower is better" in text
    assert "B is better: 12 answers" in text
    assert found.document()["tasks"]["folder"]["better"] == "lower"  # pyright: ignore


def test_a_graded_metric_has_no_mcnemar_and_shows_what_differs_most(made_run: Made) -> None:
    half = {"Which is the first word of 0?": "red with more", "Which is the first word of 1?": NO}
    (task,) = compare(made_run("a"), made_run("b", half), tasks=["folder"]).tasks
    assert task.compared.mcnemar is None
    assert not task.binary
    text = compare_page(compare(made_run("a"), made_run("b", half), tasks=["folder"]), images=1)
    assert "B is worse: 2 answers; 1 shown, those that differ most" in text
    assert f"<q>{NO}</q>" in text
    assert "<q>red with more</q>" not in text


def test_a_page_without_answers_and_with_pictures_elsewhere(
    made_run: Made, data: Path, tmp_path: Path
) -> None:
    found = compare(made_run("a"), made_run("b", WORSE))
    bare = compare_page(found, images=0)
    assert "<img" not in bare
    assert "B is worse: " not in bare
    moved = tmp_path / "moved"
    data.rename(moved)
    assert "The pictures are not at" in compare_page(found)
    assert "<img" in compare_page(found, pictures=moved)


def test_a_failed_answer_is_a_badge_and_no_text(made_run: Made) -> None:
    failed = compare(made_run("a"), made_run("b", {"Which is the first word of 0?": None}))
    text = compare_page(failed, pictures=Path("/nowhere"))
    assert "\u2717 failed</span>" in text
    assert "failed, and so wrong: 0 of A&#x27;s answers, 1 of B&#x27;s" in text


def test_verdicts(made_run: Made) -> None:
    alike = compare(made_run("a"), made_run("b"))
    assert verdict(alike.tasks) == "No difference between A and B can be told from chance."
    assert [task.better for task in alike.tasks] == [None, None]
    assert all(task.corrected == 1 for task in alike.tasks)


def test_names_that_are_alike_become_paths(made_run: Made, tmp_path: Path) -> None:
    """Two runs of one model in folders of one name can only be told apart by where they are."""
    one, other = made_run("run"), tmp_path / "elsewhere" / "run"
    other.parent.mkdir()
    shutil.copytree(one, other)
    assert f"<h1>{other} against {one}</h1>" in compare_page(compare(one, other))
