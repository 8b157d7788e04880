from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llavar.errors import DataError, LlavarError, NotFoundError
from llavar.evals import interchange, rows
from llavar.evals.interchange import Format, read_answers, write_answers, write_llava_answers
from llavar.evals.references import read_references
from llavar.evals.score import score_answers
from llavar.records import Answered, Status

Save = Callable[..., Path]

AWKWARD = ["007", "1.50", "", "None", "nan", "N/A", "null", " x ", "a\u2028b", "\ttab\n", "=1+1", "[]"]
"""Replies that tables change."""


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a value as JSON, a list of objects as JSONL if ``lines``, or text as it is."""

    def write(value: Any, name: str = "answers.json", *, lines: bool = False) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if lines:
            value = "".join(json.dumps(row) + "\n" for row in value)
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write


def llavar_row(answer: Any = "A bus.", gt: Any = "bus", **more: Any) -> dict[str, Any]:
    row = {"question": "What?", "answer": answer, "gt_answers": gt, "image_path": "./a.jpg"}
    return {**row, "model_name": "LLaVA", **more}


# --- LLaVAR and MultimodalOCR ---------------------------------------------------------------------------


def test_llavars_files_have_one_reference_or_several(save: Save) -> None:
    loaded = read_answers(save([llavar_row(), llavar_row("Nothing", ["a", "b"], image_path="./b.jpg")]))
    assert loaded.format is Format.LLAVAR
    assert loaded.metric == "mmocr"
    assert loaded.answers[0] == Answered(
        id="0", prediction="A bus.", references=("bus",), question="What?", image="./a.jpg"
    )
    assert loaded.answers[1].references == ("a", "b")
    assert len(loaded.sha256) == 64


def test_the_same_rows_are_read_as_lines(save: Save) -> None:
    table = [llavar_row("1"), llavar_row("2")]
    whole, lines = save(table), save(table, "answers.jsonl", lines=True)
    assert read_answers(whole).answers == read_answers(lines).answers
    assert len(read_answers(save(table[:1], "one.jsonl", lines=True)).answers) == 1


def test_a_null_answer_failed(save: Save) -> None:
    answers = read_answers(save([llavar_row(None), llavar_row("")])).answers
    assert [answer.status for answer in answers] == [Status.FAILED, Status.OK]


# --- strings stay strings -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", AWKWARD)
def test_replies_survive(text: str, save: Save) -> None:
    assert read_answers(save([llavar_row(text)])).answers[0].prediction == text
    kit = [{"index": 0, "question": "?", "answer": "x", "prediction": text}]
    assert read_answers(save(kit)).answers[0].prediction == text


def test_numbers_keep_the_spelling_of_the_file(save: Save) -> None:
    text = '[{"question": "?", "answer": 1.50, "gt_answers": [7, "007"], "image_path": ""}]'
    answer = read_answers(save(text)).answers[0]
    assert answer.prediction == "1.50"
    assert answer.references == ("7", "007")
    huge = "9" * 5000  # beyond what Python turns into a number
    assert read_answers(save(text.replace("1.50", huge))).answers[0].prediction == huge


# --- MME ------------------------------------------------------------------------------------------------

MME = "1.jpg\tIs it? Please answer yes or no.\tYes\tYes, it is.\n1.jpg\tIs it not?\tNo\tYes.\n"


def test_mme_lines_are_paired_by_position(save: Save) -> None:
    loaded = read_answers(save(MME + MME, "OCR_llavar.txt"))
    assert loaded.format is Format.MME
    assert loaded.metric == "mme"
    assert [answer.category for answer in loaded.answers] == ["OCR"] * 4
    assert [answer.group for answer in loaded.answers] == ["OCR pair 1"] * 2 + ["OCR pair 2"] * 2
    assert loaded.answers[0].prediction == "Yes, it is."
    assert score_answers(loaded.answers, "mme").score.value == 50


def test_mme_files_of_windows_and_pairs_of_two_pictures(save: Save) -> None:
    text = MME.replace("1.jpg\tIs it not", "2.jpg\tIs it not").replace("\n", "\r\n")
    loaded = read_answers(save(text, "mine.txt"))
    assert loaded.answers[1].prediction == "Yes."
    assert loaded.answers[0].category == "mine"
    assert loaded.notes == (
        "1 pairs of mine.txt name two pictures (first: line 1); paired by position, as MME's tool does",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MME.replace("it is", "it\tis"), "line 1 of .* has 5 fields.*no tab"),
        (MME + "1.jpg\tIs it?\n", "line 3 of .* has 2 fields"),
        (MME + MME.split("\n", maxsplit=1)[0], "line 3 of .* has no partner"),
        (MME + "\n" + MME, "line 3 of .* has 1 fields"),
        (MME.replace("\tNo\t", "\tmaybe\t"), "line 2 of .* has the reference 'maybe'"),
    ],
)
def test_mme_lines_that_do_not_fit_are_named(text: str, message: str, save: Save) -> None:
    with pytest.raises(DataError, match=message):
        read_answers(save(text, "OCR.txt"))


def test_a_folder_of_mme_gives_sums(save: Save, tmp_path: Path) -> None:
    for task in ("OCR", "count", "code_reasoning"):
        save(MME, f"mme/{task}.txt")
    loaded = read_answers(tmp_path / "mme")
    scored = score_answers(loaded.answers, loaded.metric)
    assert scored.totals["perception"].value == 100
    assert scored.totals["cognition"].value == 50
    before = loaded.sha256
    save(MME.replace("Yes.", "No."), "mme/count.txt")
    assert read_answers(tmp_path / "mme").sha256 != before


def test_a_folder_holds_nothing_but_tasks(save: Save, tmp_path: Path) -> None:
    save(MME, "mme/OCR_llavar.txt")
    with pytest.raises(DataError, match="OCR_llavar.txt is not named after a task of MME"):
        read_answers(tmp_path / "mme")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no .txt file"):
        read_answers(tmp_path / "empty")


# --- lmms-eval ------------------------------------------------------------------------------------------


def lmms_row(doc_id: int, target: Any, replies: Any, **more: Any) -> dict[str, Any]:
    row = {"doc_id": doc_id, "input": "What?", "target": target, "filtered_resps": replies}
    return {**row, "doc_hash": "x", "anls": float("nan"), **more}


def test_samples_of_lmms_eval(save: Save) -> None:
    table = [
        lmms_row(0, "bus", ["bus"]),
        lmms_row(1, "['a', \"it's\"]", [["it's"]]),
        lmms_row(2, "bus", ["[LMMS_EVAL_REQUEST_FAILED after 5 retries] Connection error."]),
        lmms_row(3, "bus", "bus"),
        lmms_row(4, "bus", []),
    ]
    loaded = read_answers(save(table, "x_samples_docvqa_val.jsonl", lines=True))
    assert loaded.format is Format.LMMS_EVAL
    assert loaded.metric == ""
    assert [answer.status.value for answer in loaded.answers] == ["ok", "ok", "failed", "ok", "failed"]
    assert loaded.answers[1] == Answered(
        id="1", prediction="it's", references=("a", "it's"), question="What?"
    )
    assert loaded.answers[2].prediction == ""
    assert any("target of 1 of 5 rows is a Python list" in note for note in loaded.notes)


def test_unfiltered_and_several_replies(save: Save) -> None:
    row = lmms_row(0, "bus", None, resps=[["bus", "tram"]])
    del row["filtered_resps"]
    loaded = read_answers(save([row], "s.jsonl", lines=True))
    assert loaded.answers[0].prediction == "bus"
    assert loaded.notes == ("1 rows hold several replies, of which the first is scored",)
    with pytest.raises(DataError, match="line 1 of .* as 'filtered_resps'; give text"):
        read_answers(save([lmms_row(0, "bus", [True])], lines=True))


@settings(deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_every_list_that_python_writes_is_read_back(texts: list[str]) -> None:
    row = rows.Row({"target": str(texts)}, "row 1")
    assert interchange._target(row, "target") == (tuple(texts), True)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "[1]",
        "['a'",
        "['a' 'b']",
        "[['a']]",
        "__import__('os').system('true')",
        "['a', __import__('os')]",
        "[f'{1}']",
        "[b'a']",
        "['\\U99999999']",
        "['\\d']",
        "[" * 100_000,
        "['a'," + " " * 200_000 + "x]",
        "[" + "'a', " * 300_000 + "]",  # longer than the limit
        "(left)",
        "[illegible]",
    ],
)
def test_other_text_in_brackets_is_one_reference(text: str) -> None:
    assert interchange._target(rows.Row({"target": text}, "row 1"), "target") == ((text,), False)


# --- VLMEvalKit -----------------------------------------------------------------------------------------

KIT: list[dict[str, Any]] = [
    {"index": 5, "question": "What?", "answer": "['bus', 'coach']", "prediction": "bus", "category": "A"},
    {"index": 6, "question": "Who?", "answer": "me", "prediction": "Failed to obtain answer via API. "},
    {"index": 7, "question": "Why?", "answer": 42, "prediction": None, "category": None},
]


def test_vlmevalkits_json_in_both_orientations(save: Save) -> None:
    columns = {
        key: {str(i): row.get(key) for i, row in enumerate(KIT)}
        for key in ("index", "question", "answer", "prediction", "category")
    }
    for value in (KIT, columns):
        loaded = read_answers(save(value))
        assert loaded.format is Format.VLMEVALKIT
        assert [answer.id for answer in loaded.answers] == ["5", "6", "7"]
        assert [answer.status.value for answer in loaded.answers] == ["ok", "failed", "failed"]
        assert [answer.category for answer in loaded.answers] == ["A", "", ""]
        assert [answer.references for answer in loaded.answers] == [("bus", "coach"), ("me",), ("42",)]
        assert any("answer of 1 of 3 rows is a Python list" in note for note in loaded.notes)


def test_pretty_printed_columns_are_one_object(save: Save, tmp_path: Path) -> None:
    columns = {key: {"0": value} for key, value in KIT[0].items()}
    assert len(read_answers(save(json.dumps(columns, indent=1))).answers) == 1


def test_tables_and_pickles_are_refused_with_the_way_to_json(save: Save, tmp_path: Path) -> None:
    book = tmp_path / "answers.bin"
    book.write_bytes(b"PK\x03\x04...")
    with pytest.raises(DataError, match="spreadsheet, in which .* 007 becomes 7.*PRED_FORMAT=json"):
        read_answers(book)
    for name, text in (("a.tsv", "x"), ("a.txt", "index\tquestion\tanswer\tprediction\n0\tq\tyes\tp")):
        with pytest.raises(DataError, match="table, which .*PRED_FORMAT=json"):
            read_answers(save(text, name))
    pickle = tmp_path / "a.pkl"
    pickle.write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="pickle, which can run code"):
        read_answers(pickle)


# --- references from another file -----------------------------------------------------------------------


def llava_row(question_id: Any, text: Any, **more: Any) -> dict[str, Any]:
    row = {"question_id": question_id, "prompt": "What?", "text": text, "answer_id": "x", "model_id": "m"}
    return {**row, "metadata": {}, **more}


def test_llava_answers_meet_references_by_id_not_by_line(save: Save) -> None:
    answers = save([llava_row(1, "bus"), llava_row(0, "tram")], "answers.jsonl", lines=True)
    wanted = [
        {"question_id": 0, "text": "tram", "category": "conv"},
        {"question_id": 1, "text": "bus", "category": "detail"},
    ]
    loaded = read_answers(answers, references=save(wanted, "gpt4.jsonl", lines=True))
    assert loaded.format is Format.LLAVA
    assert [(a.id, a.references, a.category, a.question) for a in loaded.answers] == [
        ("1", ("bus",), "detail", "What?"),
        ("0", ("tram",), "conv", "What?"),
    ]
    assert score_answers(loaded.answers, "exact").score.value == 1
    assert len(loaded.references_sha256) == 64
    assert loaded.notes == ()


@pytest.mark.parametrize(
    "annotation",
    [
        {"question_id": 1, "image_id": "0a", "question": "What?", "answers": ["bus"] * 10},  # TextVQA
        {"questionId": 1, "image": "documents/0a.png", "question": "What?", "answers": ["bus"]},  # DocVQA
        {"question_id": 1, "file_name": "0a.jpg", "question": "What?", "answers": ["bus"]},  # ST-VQA
    ],
)
def test_annotations_are_references(annotation: dict[str, Any], save: Save) -> None:
    wanted = save({"dataset_version": "1", "data": [annotation]}, "val.json")
    answers = save([llava_row(1, "bus")], "answers.jsonl", lines=True)
    answer = read_answers(answers, references=wanted).answers[0]
    assert set(answer.references) == {"bus"}
    assert answer.image.startswith(("0a", "documents/0a"))


def test_llavas_textvqa_answers_are_found_by_picture_and_wording(save: Save) -> None:
    data = [
        {"question_id": 7, "image_id": "0a", "question": "What is the brand?", "answers": ["nokia"]},
        {"question_id": 8, "image_id": "0a", "question": "what  year?", "answers": ["2012"]},
    ]
    prompt = "{}\nReference OCR token: x\nAnswer the question using a single word or phrase."
    answers = [
        llava_row("0a", "2012", prompt=prompt.format("What year?")),
        llava_row("0a", "Nokia", prompt=prompt.format("What is the brand?")),
    ]
    wanted = save({"data": data}, "val.json")
    loaded = read_answers(save(answers, "a.jsonl", lines=True), references=wanted)
    assert [(answer.id, answer.prediction, answer.references) for answer in loaded.answers] == [
        ("8", "2012", ("2012",)),
        ("7", "Nokia", ("nokia",)),
    ]


def test_questions_without_an_answer_count_as_failed_unless_told(save: Save) -> None:
    answers = save([llava_row(0, "bus")], "answers.jsonl", lines=True)
    wanted = save([{"question_id": i, "text": "bus"} for i in range(4)], "r.jsonl", lines=True)
    loaded = read_answers(answers, references=wanted)
    assert score_answers(loaded.answers, "exact").score.value == 0.25
    assert [answer.id for answer in loaded.answers] == ["0", "1", "2", "3"]
    assert "3 of 4 questions" in loaded.notes[0]
    assert "count as failed" in loaded.notes[0]
    fewer = read_answers(answers, references=wanted, answered_only=True)
    assert score_answers(fewer.answers, "exact").score.value == 1
    assert "are left out" in fewer.notes[0]


def test_references_that_are_missing_superfluous_or_wrong(save: Save) -> None:
    answers = save([llava_row(0, "bus")], "answers.jsonl", lines=True)
    with pytest.raises(DataError, match="without references; .*--references FILE"):
        read_answers(answers)
    other = save([{"question_id": 1, "text": "bus"}], "other.jsonl", lines=True)
    with pytest.raises(DataError, match="question '0' of .* is not in .*other.jsonl"):
        read_answers(answers, references=other)
    with pytest.raises(DataError, match="holds its own references; leave --references"):
        read_answers(save([llavar_row()]), references=other)
    questions = save([{"question_id": 0, "image": "a.jpg", "text": "What?"}], "q.jsonl", lines=True)
    with pytest.raises(DataError, match="line 1 of .* holds no reference"):
        read_answers(answers, references=questions)
    twice = save([llava_row(1, "bus"), llava_row("1", "bus")], "twice.jsonl", lines=True)
    with pytest.raises(DataError, match="two answers to question '1'"):
        read_answers(twice, references=other)
    doubled = save([{"question_id": 0, "text": "bus"}] * 2, "doubled.jsonl", lines=True)
    with pytest.raises(DataError, match="two rows with the id '0'"):
        read_answers(answers, references=doubled)


def test_a_log_of_a_run_counts_the_last_word_on_each_question(save: Save) -> None:
    def line(question: str, status: str, text: str) -> dict[str, Any]:
        return {"key": "k", "question": question, "status": status, "text": text, "error": "", "seconds": 0.5}

    log = [
        line("a", "failed", ""),
        line("a", "ok", "bus"),
        line("b", "ok", "tram"),
        line("b", "failed", ""),
        line("c", "failed", ""),
    ]
    questions = [
        {"id": name, "task": "vqa", "image": "a.jpg", "text": "What?", "references": ["bus"], "category": "x"}
        for name in "abc"
    ]
    path = save(log, "predictions.jsonl", lines=True)
    loaded = read_answers(path, references=save(questions, "q.jsonl", lines=True))
    assert loaded.format is Format.RUN
    assert [(answer.prediction, answer.status.value) for answer in loaded.answers] == [
        ("bus", "ok"),
        ("tram", "ok"),
        ("", "failed"),
    ]
    assert (loaded.answers[0].question, loaded.answers[0].category) == ("What?", "x")
    with pytest.raises(DataError, match="without references"):
        read_answers(path)
    save(questions, "questions.jsonl", lines=True)  # as a run writes them
    assert read_answers(path).answers == loaded.answers
    with pytest.raises(DataError, match="line 1 of .* has the status 'maybe'"):
        read_answers(save([line("a", "maybe", "")], "bad.jsonl", lines=True))


# --- writing --------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec=None, categories=None), max_size=8)
ANSWERS = st.lists(
    st.builds(
        Answered,
        id=TEXT,
        prediction=TEXT,
        references=st.lists(TEXT, max_size=3).map(tuple),
        question=TEXT,
        image=TEXT,
        group=TEXT,
        category=TEXT,
        status=st.sampled_from(Status),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda answer: answer.id,
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS)
def test_answers_are_read_back_as_they_were(tmp_path: Path, answers: list[Answered]) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    write_answers(path, answers)
    loaded = read_answers(path)
    assert loaded.format is Format.ANSWERED
    assert loaded.answers == tuple(answers)
    assert [each.name for each in path.parent.iterdir()] == ["answers.jsonl"]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS)
def test_llava_files_keep_ids_texts_and_failures(tmp_path: Path, answers: list[Answered]) -> None:
    answers = [
        replace(answer, prediction="") if answer.status is Status.FAILED else answer for answer in answers
    ]
    path, wanted = tmp_path / "llava.jsonl", tmp_path / "references.jsonl"
    write_llava_answers(path, answers, "llavar-13b")
    write_answers(wanted, answers)
    assert read_answers(path, references=wanted).answers == tuple(answers)


def test_llava_rows_have_llavas_fields(tmp_path: Path) -> None:
    answers = [
        Answered(id=name, prediction="bus", references=(), question="What?") for name in ("12", "007", "a/1")
    ]
    path = tmp_path / "llava.jsonl"
    write_llava_answers(path, answers, "m")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["question_id"] for row in found] == [12, "007", "a/1"]
    assert set(found[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert len({row["answer_id"] for row in found}) == 3
    write_llava_answers(path, answers, "m", numeric_ids=False)
    assert json.loads(path.read_text().splitlines()[0])["question_id"] == "12"


def test_nothing_is_left_behind_by_a_write_that_fails(tmp_path: Path) -> None:
    def broken() -> Any:
        yield Answered(id="1", prediction="x", references=())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answers(tmp_path / "answers.jsonl", broken())
    assert list(tmp_path.iterdir()) == []


# --- hostile and broken files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("hello", "begins with 'hello'"),
        ("[]", "holds no rows"),
        ("{}", "has the fields \\(none\\)"),
        ("[1, 2]", "row 1 of .* is '1', not an object"),
        ('[{"answer": "x"}]', "by which no format is known; known are LLaVAR"),
        ('[{"answer": "x", "gt_answers": "y"}', "is not valid JSON"),
        ('[{"answer": "x", "gt_answers": {"a": 1}}]', "row 1 of .* has .* as 'gt_answers'; give text"),
        ('[{"answer": ["x"], "gt_answers": "x"}]', "row 1 of .* has .* as 'answer'; give text"),
        ('[{"answer": "x", "gt_answers": [["y"]]}]', "row 1 of .* give a text or a list of texts"),
        (
            '[{"answer": "x", "gt_answers": "y"}, {"answer": "x"}]',
            "row 2 of .* has no 'gt_answers'; its fields",
        ),
        ('{"question_id": 1, "text": "a"}\n{"question_id": 2', "line 2 of .* is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"a":' * 100_000, "line 1 of .* is not valid JSON"),
        ('{"data": 3, "other": {}}', "no format is known"),
    ],
)
def test_broken_files_are_one_sentence(content: str, message: str, save: Save) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_answers(save(content))
    assert len(str(caught.value)) < 1000


def test_files_that_are_not_there_or_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="there is no file .*nothing.json"):
        read_answers(tmp_path / "nothing.json")
    with pytest.raises(DataError, match="is a folder"):
        read_references(tmp_path)
    latin = tmp_path / "latin.json"
    latin.write_bytes('[{"answer": "é"}]'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8 at byte 13"):
        read_answers(latin)
    monkeypatch.setattr(rows, "_LARGEST", 5)
    with pytest.raises(DataError, match="bytes, more than 5; split it"):
        read_answers(latin)


def test_doubled_ids_are_an_error(save: Save) -> None:
    with pytest.raises(DataError, match="two rows with the id '5'"):
        read_answers(save([KIT[0], KIT[0]]))


FIELDS = (
    *("answer", "gt_answers", "doc_id", "target", "filtered_resps", "resps", "id", "data", "prediction"),
    *("references", "index", "key", "question", "status", "text", "question_id"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, st.booleans())
def test_any_json_is_read_or_refused(tmp_path: Path, value: Any, lines: bool) -> None:
    path = tmp_path / "any.json"
    table = value if lines and isinstance(value, list) else [value]
    path.write_text("\n".join(map(json.dumps, table)) if lines else json.dumps(value))
    try:
        loaded = read_answers(path, references=None)
    except LlavarError:
        return
    assert all(isinstance(text, str) for a in loaded.answers for text in (a.prediction, *a.references))
