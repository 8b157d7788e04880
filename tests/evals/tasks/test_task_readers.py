"""What each reader makes of its files: texts, references, pictures, order, numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llavar.errors import DataError
from llavar.evals import tasks
from llavar.evals.tasks import recognition, vqa
from llavar.records import Question, Task


def _load(name: str, data: Path) -> tuple[Question, ...]:
    return tasks.get(name).load(data).questions


def test_word_sets_take_the_second_piece_of_a_line(official: Path) -> None:
    questions = _load("mmocr-iiit5k", official)
    assert [(q.image, q.references) for q in questions] == [
        ("image/1.png", ("HARBOUR",)),
        ("image/2.png", ("mill",)),
        ("image/3.png", ("$5",)),
    ]
    assert {q.text for q in questions} == {"what is written in the image?"}
    (official / "svt/test_label.txt").write_text("only-an-image.png\n")
    with pytest.raises(DataError, match=r"line 1: 'only-an-image.png' is not an image and its text"):
        _load("mmocr-svt", official)


def test_iam_is_read_in_the_order_of_names(official: Path) -> None:
    loaded = tasks.get("mmocr-iam").load(official)
    assert [(q.id, q.image, q.references) for q in loaded.questions] == [
        ("a01-000u-00-00", "a01/a01-000u/a01-000u-00-00.png", ("don't",)),
        ("b02-007-00-00", "b02/b02-007/b02-007-00-00.png", ("ferry",)),
    ]
    assert loaded.image_root == official / "IAM"
    (official / "IAM/words").mkdir()
    assert tasks.get("mmocr-iam").load(official).image_root == official / "IAM/words"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE f [<!ENTITY a "aa">]><form>&a;</form>', "declares XML entities"),
        ("<form><word id=", "not valid XML"),
        ('<form><word id="a"/></form>', "no id or no text"),
        ('<form><word id="../../x" text="y"/></form>', "no path inside the image folder"),
    ],
)
def test_hostile_xml_is_refused(text: str, message: str, official: Path) -> None:
    (official / "IAM/xml/a01-000u.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        _load("mmocr-iam", official)


def test_rects_keeps_what_is_all_chinese(official: Path) -> None:
    questions = _load("mmocr-rects", official)
    assert [(q.image, q.references) for q in questions] == [("1.jpg", ("茶馆",)), ("3.jpg", ("面",))]
    assert questions[0].text == "What are the Chinese characters in the image?"


def test_formulas_are_cut_at_tabs(official: Path) -> None:
    questions = _load("mmocr-hme100k", official)
    assert [q.references for q in questions] == [("x ^ { 2 } = 9",), ("\\frac { 1 } { 2 }",)]
    (official / "HME100K/test_labels.txt").write_text("t_1.jpg x\n")
    with pytest.raises(DataError, match="line 1: it is not an image, a tab and a formula"):
        _load("mmocr-hme100k", official)


def test_the_first_n_are_taken(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "_FIRST", 1)
    monkeypatch.setattr(recognition, "_FIRST_FORMULAS", 1)
    monkeypatch.setattr(vqa, "_FIRST", 1)
    names = ("mmocr-iam", "mmocr-rects", "mmocr-hme100k", "stvqa", "mmocr-estvqa-cn")
    assert {name: len(_load(name, official)) for name in names} == dict.fromkeys(names, 1)


def test_ocrvqa_stops_at_5000_questions_whatever_the_book(official: Path) -> None:
    book = {"questions": ["Who wrote this book?"] * 3, "answers": ["A"] * 3, "split": 1}
    (official / "ocrVQA/dataset.json").write_text(json.dumps({f"B{n}": book for n in range(1700)}))
    questions = _load("ocrvqa", official)
    assert len(questions) == 5000
    assert questions[-1].id == "B1666/1"


def test_receipts_ask_for_the_keys_that_are_there(official: Path) -> None:
    questions = _load("mmocr-sroie", official)
    assert [q.id for q in questions] == [
        *("r1/company", "r1/date", "r1/address", "r1/total"),
        *("r2/company", "r2/total"),
    ]
    assert questions[-1] == Question(
        id="r2/total",
        task=Task.VQA,
        image="r2.jpg",
        text="what is the total amount of this receipt?",
        references=("3.40",),
        category="total",
    )


def test_forms_join_the_answers_in_the_order_of_the_links(official: Path) -> None:
    (question,) = _load("mmocr-funsd", official)
    assert question.text == 'what is "NAME:" information in the image?'
    assert question.references == ("Finch Mara",)
    assert (question.id, question.image) == ("f1/0", "f1.png")
    path = official / "FUNSD/testing_data/annotations/f1.json"
    path.write_text(json.dumps({"form": [{"id": 0, "label": "question", "text": "A", "linking": [[0]]}]}))
    with pytest.raises(DataError, match=r"form field 0: the link \[0\] is no pair of ids"):
        _load("mmocr-funsd", official)


def test_nutrition_labels_turn_brackets_into_answers(official: Path) -> None:
    first, second = _load("mmocr-poie", official)
    assert first.text == "what is Serving size in the image?"
    assert first.references == ("40 g", "2 bars")
    assert second.references == ("90 kcal",)
    row = {"file_name": "a.jpg", "entity_dict": {"XX": "1"}}
    (official / "POIE/test.txt").write_text(json.dumps(row))
    with pytest.raises(DataError, match="line 1, entity_dict: the entity 'XX' is unknown"):
        _load("mmocr-poie", official)


def test_textvqa_keeps_the_ten_answers(official: Path) -> None:
    loaded = tasks.get("textvqa").load(official)
    assert loaded.image_root == official / "textVQA/train_images"
    assert [q.id for q in loaded.questions] == ["7", "8"]
    assert loaded.questions[0].image == "0a1b.jpg"
    assert loaded.questions[0].references == ("eggs",) * 10
    assert tasks.get("mmocr-textvqa").load(official) == loaded


def test_a_test_file_without_answers_says_so(official: Path) -> None:
    path = official / "docVQA/val/val_v1.0.json"
    row = {"questionId": 3, "image": "documents/p.png", "question": "What?"}
    path.write_text(json.dumps({"data": [row]}))
    with pytest.raises(DataError, match="row 0: the field 'answers' is missing; test files come without"):
        _load("docvqa", official)


def test_book_covers_have_categories_and_splits(official: Path) -> None:
    questions = _load("ocrvqa", official)
    assert [(q.id, q.category) for q in questions] == [
        ("B1/0", "author"),
        ("B1/1", "yes/no"),
        ("B2/0", "title"),
    ]
    assert [q.id for q in _load("ocrvqa-test", official)] == ["B2/0"]
    books = {"B1": {"questions": ["Q?"], "answers": [], "split": 3}}
    (official / "ocrVQA/dataset.json").write_text(json.dumps(books))
    with pytest.raises(DataError, match="book 'B1': it has 1 questions and 0 answers"):
        _load("ocrvqa", official)


def test_estvqa_goes_by_the_first_question(official: Path) -> None:
    assert [q.id for q in _load("mmocr-estvqa-cn", official)] == ["0/0"]
    (question,) = _load("mmocr-estvqa-en", official)
    assert (question.id, question.image, question.references) == ("1/0", "2.jpg", ("tea",))


def test_charts_keep_people_and_captions_apart(official: Path) -> None:
    assert [(q.id, q.category) for q in _load("chartqa", official)] == [
        ("human/0", "human"),
        ("augmented/0", "augmented"),
    ]
    (official / "ChartQA/test/test_human.json").write_text(
        '[{"imgname": "1.png", "query": "Q?", "label": 0.5}]'
    )
    assert _load("chartqa", official)[0].references == ("0.5",)


def test_ocrbench_counts_by_type(official: Path) -> None:
    word, formula = _load("ocrbench", official)
    assert (word.category, word.references) == ("Regular Text Recognition", ("pier",))
    assert formula.references == ("x _ 1 = 0\n", "x_1=0")
    assert tasks.get("ocrbench").metric_of == {formula.category: "ocrbench-hme"}


def test_ocrbench_v2_keeps_the_short_answers(official: Path) -> None:
    (question,) = _load("ocrbench-v2", official)
    assert (question.id, question.references) == ("0", ("pier", "5"))


def test_mme_has_pairs_in_both_layouts(official: Path) -> None:
    questions = _load("mme-ocr", official)
    assert [q.id for q in questions] == ["OCR/0001/0", "OCR/0001/1", "OCR/0002/0", "OCR/0002/1"]
    assert questions[1].text == "Is there a lamp? Please answer yes or no."
    assert questions[1].references == ("No",)
    assert (questions[1].group, questions[1].image) == ("OCR/0001", "OCR/0001.png")
    (first, _) = _load("mme-artwork", official)
    assert first.image == "artwork/images/tt1.jpg"
    everything = _load("mme", official)
    assert len(everything) == 2 * (9 * 2 + 5)
    assert len({q.category for q in everything}) == 14
    assert tasks.get("mme").n == 2374


def test_mme_is_found_in_its_release_folder(official: Path) -> None:
    inner = official / "MME/MME_Benchmark_release_version/MME_Benchmark"
    inner.mkdir(parents=True)
    (official / "MME/OCR").rename(inner / "OCR")
    assert tasks.get("mme-ocr").load(official).image_root == inner
    with pytest.raises(DataError, match="the subtasks of MME are not all in"):
        _load("mme", official)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Is it?\tYes\n", "has 1 lines; MME asks two"),
        ("Is it?\tYes\nIs it not? No\n", "line 2: 'Is it not\\? No' is not a question, a tab"),
        ("Is it?\tYes\nIs it not?\tperhaps\n", "line 2: .* is not a question, a tab, and Yes or No"),
    ],
)
def test_mme_pairs_are_checked(text: str, message: str, official: Path) -> None:
    (official / "MME/OCR/0001.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        _load("mme-ocr", official)


def test_mme_misses_pictures(official: Path) -> None:
    (official / "MME/OCR/0001.png").unlink()
    with pytest.raises(DataError, match="0001.txt has no picture 0001 beside it"):
        _load("mme-ocr", official)


def test_pope_keeps_its_kinds_apart(official: Path) -> None:
    questions = _load("pope", official)
    assert [q.id for q in questions[:3]] == ["random/1", "random/2", "popular/1"]
    assert [q.references for q in questions[:2]] == [("yes",), ("no",)]
    path = official / "pope/coco_pope_random.json"
    path.write_text(path.read_text().replace('"yes"', '"maybe"'))
    with pytest.raises(DataError, match="coco_pope_random.json, line 1: the label is 'maybe'"):
        _load("pope", official)


def test_qa90_gets_the_prefix_of_coco_and_gpt4s_answers(official: Path) -> None:
    (question,) = _load("qa90", official)
    assert question.image == "COCO_val2014_000000000009.jpg"
    assert question.references == ("A boat.",)
    assert (question.task, question.text) == (Task.OPEN, "What is  shown?")
    (official / "qa90/qa90_gpt4_answer.jsonl").unlink()
    assert _load("qa90", official)[0].references == ()
    (question,) = _load("text50", official)
    assert (question.image, question.category, question.references) == ("1.png", "read", ())


def test_qa90_matches_answers_by_id(official: Path) -> None:
    (official / "qa90/qa90_gpt4_answer.jsonl").write_text('{"question_id": 5, "text": "A boat."}\n')
    with pytest.raises(DataError, match="question 0 has no answer in"):
        _load("qa90", official)


def test_scienceqa_asks_as_llava_does(official: Path) -> None:
    first, second = _load("scienceqa", official)
    assert first.id == "14"
    assert first.references == ("A",)
    assert second.image == "12/image.png"
    assert second.text == (
        "Context: Look at the picture.\nQuestion: Which is solid?\nOptions: (A) air (B) ice\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert first.text.startswith("Context: N/A\n")
    assert second.category == "natural science"


@pytest.mark.parametrize("answer", [2, -1, True, "B", None])
def test_scienceqa_checks_the_answer(answer: object, official: Path) -> None:
    path = official / "scienceqa/problems.json"
    problems = json.loads(path.read_text())
    problems["14"]["answer"] = answer
    path.write_text(json.dumps(problems))
    with pytest.raises(
        DataError, match="problem '14': the answer is .*; it must be the position of a choice"
    ):
        _load("scienceqa", official)


def test_ones_own_questions(official: Path) -> None:
    (question,) = _load("folder", official)
    assert (question.id, question.image, question.references) == ("1", "sub/a.png", ("Ada", "Ida"))
    rows = [{"image": "a.png", "question": "Q?", "answers": "x", "id": 4, "category": "signs"}]
    (official / "questions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (question,) = _load("folder", official)
    assert (question.id, question.category, question.references) == ("4", "signs", ("x",))


def test_ones_own_transcriptions(official: Path) -> None:
    (question,) = _load("folder-text", official)
    assert (question.id, question.image) == ("a", "a.PNG")
    assert question.references == ("LINE ONE\nline two",)
    (official / "b.jpg").touch()
    with pytest.raises(DataError, match="'b' is a picture without a text, one of 1 alone"):
        _load("folder-text", official)
    (official / "b.txt").write_text(" \n")
    with pytest.raises(DataError, match="b.txt is empty"):
        _load("folder-text", official)
    (official / "b.txt").write_text("B")
    (official / "b.png").touch()
    with pytest.raises(DataError, match="differ in their suffix alone"):
        _load("folder-text", official)
