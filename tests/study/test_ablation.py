"""The ablation: the rows of its arms, what is measured of them, and what the page says of their order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llavar.cli import main
from llavar.corpus.pairs import pair
from llavar.corpus.teach import TemplateTeacher
from llavar.records import Example, Line, Prediction, Question, Reading, Role, Status, Task
from llavar.render.layouts import scene
from llavar.study import ablation, trial
from llavar.study.ablation import arms_of, caption_rows, text_rich
from llavar.study.ablation_scores import VARIANTS, Kind, Measure, Order, pairs, scores
from llavar.study.demo import PLAIN, READ_BY_OCR, DemoSettings
from llavar.study.demo_corpus import Built
from llavar.study.demo_page import Scenes
from llavar.study.nano.questions import exam
from llavar.study.nano.scenes import facts, reading
from llavar.study.trial import Runs

SETTINGS = DemoSettings(text_pictures=3, control_pictures=5, exam_pictures=20, seeds=2)
Says = Callable[[Question], str]


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(
        text={f"{i:04d}.png": scene(f"text:{i}", READ_BY_OCR) for i in range(3)},
        control={f"{i:04d}.png": scene(f"control:{i}", PLAIN) for i in range(5)},
        exam=exam(20, seed="ablation"),
    )


@pytest.fixture(scope="module")
def built(scenes: Scenes) -> Built:
    """What a perfect OCR engine would make of the pictures."""
    readings = {f"text/{n}": reading(shown, f"text/{n}", 384) for n, shown in scenes.text.items()}
    stage1 = [pair(read, id=name, image=name) for name, read in readings.items()]
    talks = [TemplateTeacher().teach(read) for read in readings.values()]
    stage2 = [
        Example(id=name, conversation=talk, images=(name,))
        for name, talk in zip(readings, talks, strict=True)
    ]
    return Built(readings=readings, stage1=tuple(stage1), stage2=tuple(stage2), rejects=())


def answer_of(row: Example) -> str:
    return next(turn.text for turn in row.conversation.turns if turn.role is Role.ASSISTANT)


# --- rows -----------------------------------------------------------------------------------------------


def test_captions_name_the_highest_line_and_what_is_shown(scenes: Scenes, built: Built):
    rows = caption_rows(scenes, built, 0)
    assert [row.id for row in rows] == [row.id for row in built.stage1]
    for row in rows:
        shown = scenes.text[Path(row.id).name]
        title = max(shown.lines, key=lambda line: line.box.height).text.strip()
        assert answer_of(row).startswith(f"{title}, ")
        assert facts(shown).ground in answer_of(row)
        assert sum(line.text in answer_of(row) for line in shown.lines) < max(2, len(shown.lines))


def test_a_caption_rests_on_sure_lines_alone(scenes: Scenes, built: Built):
    row = built.stage1[0]
    lines = built.readings[row.id].lines
    unsure = tuple(Line(text=line.text, box=line.box, confidence=0.5) for line in lines)
    read = Reading(image=row.id, size=(384, 384), lines=unsure, engine="doubt")
    changed = Built(readings={**built.readings, row.id: read}, stage1=(row,), stage2=(), rejects=())
    assert caption_rows(scenes, changed, 0) == []


def test_each_arm_has_the_rows_that_its_name_says(scenes: Scenes, built: Built):
    rich, rejects = text_rich(scenes, built, SETTINGS)
    assert {kind: len(rows) for kind, rows in rich.items()} == {Kind.OCR: 3, Kind.CAPTIONS: 3, Kind.TALKS: 3}
    assert rejects == []
    arms = arms_of(scenes, rich, 0)
    control = arms["control"]
    for one in VARIANTS:
        arm = arms[one.name]
        for rows, kind, plain in (
            (arm.stage1, one.stage1, control.stage1),
            (arm.stage2, one.stage2, control.stage2),
        ):
            assert len(rows) == 5
            if kind is Kind.NONE:
                assert rows == plain
            else:
                assert rows == (*plain[3:], *rich[kind])


def test_text_rich_rows_that_find_no_place_are_rejects(scenes: Scenes, built: Built):
    fewer = DemoSettings(text_pictures=2, control_pictures=2)
    rich, rejects = text_rich(scenes, built, fewer)
    assert {len(rows) for rows in rich.values()} == {2}
    assert {reject.reason for reject in rejects} == {"no control row left to take the place of"}


# --- what is measured -----------------------------------------------------------------------------------


def said(questions: Sequence[Question], says: Says) -> tuple[Prediction, ...]:
    return tuple(Prediction(question=q.id, status=Status.OK, text=says(q)) for q in questions)


def obeys(asked: Question) -> str:
    return asked.references[0]


def recites_all(questions: Sequence[Question]) -> Says:
    whole = {q.image: q.references[0] for q in questions if q.task is Task.TRANSCRIPTION}
    return lambda asked: whole[asked.image]


def sees_nothing(asked: Question) -> str:
    return {Task.TRANSCRIPTION: "", Task.YES_NO: "yes", Task.SCENE: "red"}.get(asked.task, "a red circle")


def test_reciting_earns_what_the_paper_counts_and_nothing_else(scenes: Scenes):
    questions = scenes.exam.questions
    right = scores(questions, [said(questions, obeys)] * 2)
    reciting = scores(questions, [said(questions, recites_all(questions))])
    blind = scores(questions, [said(questions, sees_nothing)])
    assert right[Measure.EXACT].value == right[Measure.HELD].value == 1
    assert right[Measure.RECITED].value == right[Measure.ERROR].value == 0
    assert reciting[Measure.HELD].value == 1
    assert reciting[Measure.EXACT].value < 0.7
    assert reciting[Measure.RECITED].value == 1
    assert reciting[Measure.YES_NO].value == reciting[Measure.SHOWN].value == 0
    assert blind[Measure.HELD].value == 0
    assert blind[Measure.RECITED].value == 0  # it has nothing to recite
    assert blind[Measure.YES_NO].value == blind[Measure.ERROR].value == 1


def answers_of(questions: Sequence[Question], by_arm: Mapping[str, Says]) -> dict[str, Any]:
    return {name: [said(questions, says)] * 2 for name, says in by_arm.items()}


def test_pairs_are_told_apart_by_their_intervals(scenes: Scenes):
    questions = scenes.exam.questions
    arms = dict.fromkeys((one.name for one in VARIANTS), sees_nothing)
    found = pairs(questions, answers_of(questions, {**arms, "both": obeys, "stage2-ocr": obeys}))
    assert len(found) == 15
    order = {(one.better.name, one.worse.name): one.order for one in found}
    assert order["both", "control"] is Order.SAME
    assert order["both", "stage2-ocr"] is Order.OPEN
    assert order["stage1-ocr", "stage2-ocr"] is Order.OTHER
    assert order["stage1-ocr", "control"] is Order.OPEN


# --- from end to end, without training ------------------------------------------------------------------


@pytest.fixture
def run(scenes: Scenes, built: Built, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """An ablation whose arms were not trained: each says what it is told to."""

    def make(out: Path, by_arm: Mapping[str, Says]) -> Path:
        def fake(out: Path, arms: object, questions: Sequence[Question], **_: object) -> dict[str, Runs]:
            return {
                name: Runs(arms=(), answers=tuple(each))
                for name, each in answers_of(questions, by_arm).items()
            }

        monkeypatch.setattr(ablation, "prepare", lambda *_: (scenes, built))
        monkeypatch.setattr(trial, "run_trial", fake)
        ablation.run(out, SETTINGS, quiet=True)
        return out

    return make


def text_of(out: Path) -> str:
    page = (out / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page[page.index("<body>") :]))


def test_an_ablation_as_in_the_paper(run: Callable[..., Path], scenes: Scenes, tmp_path: Path):
    reciting = recites_all(scenes.exam.questions)
    arms = dict.fromkeys((one.name for one in VARIANTS), obeys)
    out = run(tmp_path / "run", {**arms, "control": sees_nothing, "stage2-ocr": reciting})
    page = text_of(out)
    assert "5 of 15 pairs of arms differ as in the paper, 10 cannot be told apart." in page
    assert "No pair of arms contradicts the paper beyond its interval." in page
    assert "as the paper reports (it calls the ability destroyed)" in page
    for figure in ("36.7", "46.5", "45.6", "43.6", "43.3", "48.5"):
        assert figure in page
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["arms"]["stage2-ocr"]["recited"]["value"] == 1
    assert result["arms"]["control"]["paper_textvqa"] == 36.7
    assert len(result["pairs"]) == 15
    assert result["rows"] == {"noisy OCR": 3, "captions": 3, "conversations": 3}


def test_an_ablation_that_contradicts_the_paper_says_so(run: Callable[..., Path], tmp_path: Path):
    arms = dict.fromkeys((one.name for one in VARIANTS), sees_nothing)
    out = run(tmp_path / "run", {**arms, "control": obeys})
    page = text_of(out)
    assert "5 the other way round" in page
    assert "control is above both stages by +100.0 points" in page
    assert "by this measure it does not here" in page


def test_other_settings_in_the_same_folder(
    run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = run(tmp_path / "run", dict.fromkeys((one.name for one in VARIANTS), obeys))
    assert main(["demo", "--ablation", "--out", str(out), "--seeds", "1"]) == 2
    assert "holds a demo with another" in capsys.readouterr().err


def test_the_users_pictures_have_no_place_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["demo", "--ablation", "--images", str(tmp_path)]) == 2
    assert "leave out --images" in capsys.readouterr().err
