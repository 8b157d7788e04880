"""Parts of a tuning: the user's questions, both sides of the pictures, the budget, and what is concluded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.corpus.item import Fingerprint, Item, Masked, Origin, Taught
from llavar.corpus.layout import LayoutSettings
from llavar.errors import ConfigError, DataError, NotFoundError, StorageError
from llavar.records import Answered, Box, Conversation, Line, Reading, Status
from llavar.study import tune_plan as plans
from llavar.study import tune_rows as rows
from llavar.study.demo_corpus import Computed
from llavar.study.tune_answers import Replies, measured, most_tokens
from llavar.study.tune_model import Base, steps_of
from llavar.study.tune_page import verdict
from llavar.study.tune_plan import Plan
from llavar.study.tune_questions import OwnQuestion, pictures_of, read_questions
from llavar.study.tune_rows import Part


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them in a folder below."""
    (tmp_path / "pictures" / "below").mkdir(parents=True)
    for name in ("a.png", "below/b.png"):
        Image.new("RGB", (40, 30), "white").save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def base(**changes: Any) -> Base:
    settled: dict[str, Any] = {
        "name": "small",
        "model": "/small",
        "folder": Path("/small"),
        "kind": "llava",
        "own_processor": False,
        "sees": 96,
        "context": 1024,
        "parameters": 1000,
        "stored": 4000,
        "identity": "0",
        "writes": str.isascii,
    }
    return Base(**(settled | changes))


# --- the user's questions -------------------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> Path:
    path = folder.parent / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", '{"image": "a.png", "question": "What?", "answer": "stop"}\n\n'),
        ("q.jsonl", '{"picture": "a.png", "query": "What?", "answers": ["stop"], "more": [1]}\n'),
        ("q.json", '[{"file_name": "a.png", "prompt": "What?", "references": "stop"}]'),
        ("q.json", '{"data": [{"image": "a.png", "question": "What?", "answers": [{"answer": "stop"}]}]}'),
        ("q.csv", "image,question,answer\na.png,What?,stop\n"),
        ("q.tsv", "\ufeffimage\tquestion\tanswer\na.png\tWhat?\tstop\n"),
    ],
)
def test_rows_of_several_formats_are_understood(folder: Path, name: str, text: str) -> None:
    (asked,) = read_questions(written(folder, name, text), folder)
    assert (asked.picture, asked.text, asked.answers) == (folder / "a.png", "What?", ("stop",))
    assert asked.id == "1"


def test_numbers_keep_their_digits_and_answers_come_once(folder: Path) -> None:
    text = '{"id": 7, "image": "below/b.png", "question": "How much?", "answers": [1.50, "1.50", true, " "]}'
    (asked,) = read_questions(written(folder, "q.jsonl", text), folder)
    assert asked.answers == ("1.50", "yes")
    assert asked.id == "7"


def test_pictures_are_found_beside_the_file_and_by_their_whole_path(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "beside.png")
    lines = [
        {"image": name, "question": "What?", "answer": "a"}
        for name in ("beside.png", str(folder / "a.png"), "a.png", "pictures/../pictures/a.png")
    ]
    found = read_questions(written(folder, "q.jsonl", "\n".join(map(json.dumps, lines))), folder)
    assert pictures_of(found) == (tmp_path / "beside.png", folder / "a.png")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "a.png", "question": "What?"}', r"line 2 of .*no answer; write the right one"),
        ('{"image": "a.png", "question": " ", "answer": "x"}', "line 2 of .*asks nothing"),
        ('{"image": "a.png", "answer": "x"}', r"line 2 of .*no 'question' or 'query' \(its fields are"),
        ('{"question": "What?", "answer": "x"}', "line 2 of .*no 'image' or 'picture'"),
        ('{"image": "c.png", "question": "What?", "answer": "x"}', "line 2 of .*'c.png', which is not in"),
        ('{"image": 3.5, "question": ["What?"], "answer": "x"}', "line 2 of .*as 'question'; give text"),
        ('{"image": "a.png", "question": "What?", "answer": [[]]}', "line 2 of .*empty 'answer'"),
        ('{"image": "a.png", "question": "What?", "answer": [{"x": 1}]}', "line 2 of .*give a text or a"),
        ('{"image": "a.png", "question": "What?", "answer": "\\ud800"}', "line 2 of .*lone surrogate"),
        ('{"image": "a\\u0000.png", "question": "What?", "answer": "x"}', "line 2 of .*names no picture"),
        ('{"id": 1, "image": "a.png", "question": "What?", "answer": "x"}', "line 2 of .*a second time"),
        ('["a.png", "What?", "x"]', "line 2 of .*not an object"),
        ("{", "line 2 of .*not valid JSON"),
    ],
)
def test_rows_that_cannot_be_understood_are_refused_by_their_number(
    folder: Path, line: str, reason: str
) -> None:
    good = '{"id": "1", "image": "a.png", "question": "What?", "answer": "x"}'
    with pytest.raises(DataError, match=reason):
        read_questions(written(folder, "q.jsonl", f"{good}\n{line}\n"), folder)


def test_a_picture_that_is_none_is_refused_by_its_row(folder: Path) -> None:
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    text = '{"image": "torn.png", "question": "What?", "answer": "x"}'
    with pytest.raises(DataError, match="line 1 of .*its picture cannot be used"):
        read_questions(written(folder, "q.jsonl", f"{text}\n{text}"), folder)


def test_files_that_are_none_are_refused(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        read_questions(folder / "none.jsonl", folder)
    with pytest.raises(DataError, match="holds no rows"):
        read_questions(written(folder, "q.csv", "image,question,answer\n"), folder)
    with pytest.raises(DataError, match="is empty"):
        read_questions(written(folder, "q.jsonl", ""), folder)


def test_pictures_asked_about_have_ids_of_their_own(folder: Path, tmp_path: Path) -> None:
    asked = [
        OwnQuestion(id=str(n), picture=path, text="?", answers=("x",), category="", place="")
        for n, path in enumerate([folder / "below" / "b.png", tmp_path / "other" / "b.png"])
    ]
    ids = rows.asked_about(asked, folder)
    assert list(ids.values()) == ["below/b.png", "questions/00001/b.png"]


# --- both sides -----------------------------------------------------------------------------------------


def item(name: str, text: str, *, talk: bool = True, masked: Masked | None = None) -> Item:
    line = Line(text=text, box=Box(left=0, top=0, right=90, bottom=40), confidence=1.0)
    said = Conversation.of("<image>\nWhat does it say?", text)
    return Item(
        id=name,
        origin=Origin(source="folder", path=f"/pictures/{name}"),
        fingerprint=Fingerprint(pixels=name.encode().hex(), perceptual="0"),
        readings=(Reading(image=name, size=(100, 100), lines=(line,), engine="fake"),),
        masked=masked or Masked(),
        stage1=said,
        stage2=Taught(conversation=said, teacher="fake") if talk else None,
    )


def made(items: Sequence[Item]) -> Computed:
    return Computed(read=tuple(items), kept=tuple(items), rejects=())


def test_every_picture_is_on_one_side() -> None:
    items = [item(f"{n}.png", f"word {n}") for n in range(23)]
    sides = rows.divided(made(items), base(), ["3.png", "4.png"], held_out=None, seed=0)
    training, held_out = ({one.id for one in side} for side in (sides.training, sides.held_out))
    assert len(held_out) == 21 // 5
    assert training | held_out == {f"{n}.png" for n in range(23)} - {"3.png", "4.png"}
    assert not training & held_out
    assert {name for row in sides.rows for name in row.images} == training
    assert len({row.id for row in sides.rows}) == len(sides.rows) == 2 * len(training)


def test_pictures_that_come_later_move_none_for_their_number() -> None:
    items = [item(f"{n}.png", f"word {n}") for n in range(40)]
    few = rows.divided(made(items[:20]), base(), [], held_out=5, seed=0)
    many = rows.divided(made(items), base(), [], held_out=5, seed=0)
    old = {one.id for one in items[:20]}
    assert {one.id for one in many.held_out} & old <= {one.id for one in few.held_out}
    other = rows.divided(made(items), base(), [], held_out=5, seed=1)
    assert {one.id for one in other.held_out} != {one.id for one in many.held_out}


def test_what_the_tokenizer_lacks_is_counted_and_named() -> None:
    items = [
        item("a.png", "plain"),
        item("b.png", "caf\u00e9"),
        item("c.png", "\u4e2d\u6587"),
        item("d.png", "x"),
    ]
    sides = rows.divided(made(items), base(), [], held_out=None, seed=0)
    assert sides.unwritable == 4
    assert set(sides.odd.split()) == {"\u00e9", "\u4e2d", "\u6587"}
    assert {one.reason for one in sides.rejects} == {"characters that the tokenizer lacks"}
    assert {one.id for one in (*sides.training, *sides.held_out)} == {"a.png", "d.png"}


def test_too_few_pictures_are_refused_with_the_reasons() -> None:
    chinese = [item(f"{n}.png", "\u4e2d\u6587") for n in range(3)]
    with pytest.raises(DataError, match="0 of 3 pictures have text that small can learn.*left out: 6 charac"):
        rows.divided(made(chinese), base(), [], held_out=None, seed=0)
    with pytest.raises(DataError, match="1 of 1 pictures have text.*at least 2 are needed"):
        rows.divided(made([item("a.png", "word")]), base(), [], held_out=None, seed=0)
    with pytest.raises(DataError, match="5 pictures are to be held out of 3 with text; give --held-out"):
        rows.divided(made([item(f"{n}.png", "word") for n in range(3)]), base(), [], held_out=5, seed=0)
    alone = rows.divided(
        made([item("a.png", "w"), item("b.png", "w")]), base(), ["b.png"], held_out=None, seed=0
    )
    assert [one.id for one in alone.training] == ["a.png"]
    assert not alone.held_out


def test_what_was_masked_is_not_asked_about() -> None:
    items = [item(f"{n}.png", "call [phone]", masked=Masked(phone=1)) for n in range(9)]
    sides = rows.divided(made([*items, item("z.png", "open")]), base(), [], held_out=None, seed=0)
    assert [one.id for one in sides.held_out] == ["z.png"]
    with pytest.raises(DataError, match="no picture can be held out: each has personal data"):
        rows.divided(made(items), base(), [], held_out=None, seed=0)


def test_the_exam_is_a_folder_that_evaluation_reads(folder: Path, tmp_path: Path) -> None:
    from llavar.evals import tasks

    held = replace(item("a.png", "OPEN NOW"), origin=Origin(source="f", path=str(folder / "a.png")))
    own = read_questions(written(folder, "q.csv", "image,question,answer\nbelow/b.png,What?,stop\n"), folder)
    exam = rows.exam_of(tmp_path / "exam", [held], own, LayoutSettings(), 0)
    assert list(exam.parts) == [Part.OWN, Part.TEXT, Part.FACTS]
    for part, asked in exam.parts.items():
        loaded = tasks.get("folder").load(exam.root / part)
        assert [(q.id, q.text, q.references, q.image) for q in loaded.questions] == [
            (q.id, q.text, q.references, q.image) for q in asked
        ]
        assert all((loaded.image_root / q.image).is_file() for q in asked)
    words = [q for q in exam.parts[Part.FACTS] if q.category == "word_present"]
    assert [q.references for q in words] in ([("yes",), ("no",)], [("no",), ("yes",)])
    again = rows.exam_of(tmp_path / "exam", [held], own, LayoutSettings(), 0)
    assert rows.exam_digest(again) == rows.exam_digest(exam)


# --- the budget -----------------------------------------------------------------------------------------


def test_without_a_budget_all_is_read() -> None:
    plan = plans.choose_reading(Plan(), ["a", "b", "c"], 60.0)
    assert plan.read == 3
    assert plan.reasons == ("Reading takes about 3 min 00 s.",)


def test_a_budget_chooses_and_says_so() -> None:
    names = [str(n) for n in range(1000)]
    plan = plans.choose_reading(Plan(hours=1.0), names, 10.0)
    assert plan.read == 108
    assert plan.reasons[0].startswith("108 of 1,000 pictures are read, drawn by lot: all of them would take")
    plan = plans.choose_asking(plan, 20, 30.0)
    assert plan.asked == 12
    assert plan.reasons[1].startswith("Questions are asked about 12 of 20 held-out pictures")
    plan = plans.choose_steps(plan, 100, 20.0, spent=1200.0, later=300.0)
    assert plan.steps == (3600 * 0.95 - 1500) // 20
    assert plan.reasons[2].startswith("96 of the 100" if plan.steps == 96 else f"{plan.steps} of the 100")


def test_what_fits_is_said_too() -> None:
    plan = plans.choose_reading(Plan(hours=1.0), ["a", "b"], 1.0)
    assert "which fits" in plan.reasons[0]
    plan = plans.choose_asking(plan, 2, 1.0)
    assert (plan.asked, plan.reasons[1].split()[:3]) == (2, ["Questions", "about", "2"])
    plan = plans.choose_steps(plan, 10, 1.0, spent=10.0, later=4.0)
    assert plan.steps == 10
    assert "fit into the 1 h" in plan.reasons[2]


def test_budgets_that_are_too_small_name_one_that_is_not() -> None:
    with pytest.raises(ConfigError, match=r"a picture takes 10 s; give --hours 0.37 or more"):
        plans.choose_reading(Plan(hours=0.01), ["a", "b"], 10.0)
    with pytest.raises(
        ConfigError, match=r"leaves 0.0 s for training.*give --hours [\d.]+ or more, what is done"
    ):
        plans.choose_steps(Plan(hours=0.1), 50, 30.0, spent=400.0, later=20.0)


def test_more_pictures_keep_those_that_were_drawn() -> None:
    names = [f"{n}.png" for n in range(50)]
    few, more = (plans.drawn(names, count, 0) for count in (10, 20))
    assert len(few) == 10
    assert set(few) < set(more)
    assert list(more) == [name for name in names if name in set(more)]
    assert plans.drawn(names, 50, 0) == tuple(names)


def test_a_plan_stands_once_training_has_begun(tmp_path: Path) -> None:
    plan = plans.save(Plan(hours=1.0, content="a", read=5, steps=7), tmp_path)
    assert plans.load(tmp_path, 1.0, "a", begun=True) == plan
    assert plans.load(tmp_path, 2.0, "a", begun=False) == Plan(hours=2.0, content="a")
    assert plans.load(tmp_path, 1.0, "b", begun=False) == Plan(hours=1.0, content="b")
    with pytest.raises(ConfigError, match="has begun with --hours 1.0, now 2.0"):
        plans.load(tmp_path, 2.0, "a", begun=True)
    with pytest.raises(ConfigError, match="the pictures have changed since training began"):
        plans.load(tmp_path, 1.0, "b", begun=True)
    (tmp_path / plans.FILE).write_text("{")
    with pytest.raises(ConfigError, match="plan.json is damaged"):
        plans.load(tmp_path, 1.0, "a", begun=False)


def test_disks_and_memories_that_are_too_small_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llavar.study.tune_model import stage_of

    huge = base(stored=10**18)
    monkeypatch.setattr(plans, "adapter_numbers", lambda _base, _rank: 1000)
    with pytest.raises(StorageError, match=r"needs about .* are free there; make room"):
        plans.needs_of(huge, stage_of(huge, 10), 5, tmp_path)
    wide = base(parameters=10**15, own_processor=True)
    with pytest.raises(ConfigError, match="small needs .* for its weights .* name a smaller --model"):
        plans.needs_of(wide, stage_of(wide, 10), 5, tmp_path)


@pytest.mark.parametrize(
    ("count", "batch", "steps"), [(16, 4, 40), (100, 4, 75), (5000, 16, 939), (1, 4, 10)]
)
def test_few_rows_are_seen_more_often(count: int, batch: int, steps: int) -> None:
    assert steps_of(count, batch) == steps


# --- what is concluded ----------------------------------------------------------------------------------


def replies(texts: Sequence[str], part: Part = Part.TEXT) -> Replies:
    answers = tuple(
        Answered(
            id=str(n),
            prediction=text,
            references=("open from nine",),
            question="What?",
            image=f"{n}.png",
            status=Status.OK,
        )
        for n, text in enumerate(texts)
    )
    return Replies(model="m", parts={part: answers})


def test_worse_is_said_first() -> None:
    good, bad = replies(["open from nine"] * 12), replies(["nothing like it"] * 12)
    assert verdict(measured(good, bad)).startswith("Tuning made it worse: text that differs from OCR 0.0%")
    assert verdict(measured(bad, good)).startswith("Tuning made it better: text that differs from OCR 85.7%")
    mixed = measured(replies(["yes"] * 12, Part.FACTS), replies(["open from nine"] * 12, Part.FACTS))
    both = verdict((*mixed, *measured(good, bad)))
    assert both.startswith("Tuning made it worse: text that differs")
    assert "It got better in this: questions answered as OCR has it 0.0% before, 100.0% after" in both


def test_chance_is_called_chance() -> None:
    few = measured(replies(["nothing"] * 3), replies(["open from nine"] * 3))
    assert verdict(few).startswith("Whether tuning helped cannot be told from chance")


def test_own_questions_are_scored_by_nearness_and_by_being_right() -> None:
    found = measured(replies(["open from ten"] * 2, Part.OWN), replies(["Open from nine."] * 2, Part.OWN))
    assert [one.measure.name for one in found] == ["anls", "exact"]
    assert [one.compared.second.value for one in found][1] == 1.0
    assert 0.5 < found[0].compared.first.value < 1


def test_answers_have_room_for_the_longest_that_is_known() -> None:
    from llavar.records import Question, Task

    asked = [Question(id="q", task=Task.VQA, image="", text="?", references=("x" * 200,))]
    assert most_tokens(asked, by_letter=True) == 316
    assert most_tokens(asked, by_letter=False) == 166
    short = [replace(asked[0], references=("x",))]
    assert most_tokens(short, by_letter=True) == 48
