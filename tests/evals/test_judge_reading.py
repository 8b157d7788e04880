"""What goes into a judge, and the scores that come out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llavar.errors import DataError, NotFoundError
from llavar.evals.judge import Rule, built_in_rules, parse_scores, read_cases, read_rules, review_prompt
from llavar.evals.judge.files import read_questions
from llavar.evals.judge.prompt import Context, Instance, rule_for


def original(reply: str) -> tuple[float, float] | None:
    """The rule of ``parse_score``, written out again."""
    try:
        first, second = reply.split("\n")[0].replace(",", " ").split(" ")
        scores = float(first), float(second)
    except ValueError:
        return None
    return scores if scores != (-1, -1) else None


REPLIES = st.one_of(
    st.text(),
    st.text(alphabet="0123456789 ,./\n\t-[]*:"),
    st.builds("{} {}{}".format, st.floats(), st.floats(), st.sampled_from(["", "\nwhy", " "])),
)


@settings(deadline=None)
@given(REPLIES)
@example("1_0 9")
@example("８ ９")
@example("nan 5")
@example("-1 -1")
def test_strict_is_the_original(reply: str) -> None:
    found, expected = parse_scores(reply), original(reply)
    assert (found is None) == (expected is None)
    if found and expected:
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(found, expected, strict=True))


@settings(deadline=None)
@given(REPLIES)
@example("**8/10**, 9/10.")
def test_tolerant_takes_more_but_no_other_scores(reply: str) -> None:
    strict, tolerant = parse_scores(reply), parse_scores(reply, strict=False)
    if tolerant:
        assert all(0 <= score <= 10 for score in tolerant)
    if strict:
        assert tolerant == (strict if all(0 <= score <= 10 for score in strict) else None)


@pytest.mark.parametrize(
    "reply",
    [
        *(
            "8, 9",
            "8/10 9/10",
            " 8 9",
            "8 9 ",
            "8  9",
            "8\t9",
            "[8, 9]",
            "(8 9)",
            "**8 9**",
            "8;9",
            "8 and 9",
        ),
        *("\n8 9\nwhy", "\r\n\r\n8 9", "8.0, 9.0.", "Scores: 8 9", "score: 8/10, 9/10", "８　９", "8 | 9"),
        *(
            "Assistant 1: 8\nAssistant 2: 9",
            "Assistant 1: 8, Assistant 2: 9",
            "**Assistant 1:** 8\n\n**Assistant 2:** 9",
        ),
        *("Assistant 1: 8/10\nAssistant 2: 9/10\nbecause", "assistant 1 = 8; assistant 2 = 9", "`8 9`"),
    ],
)
def test_forms_that_judges_use(reply: str) -> None:
    assert parse_scores(reply, strict=False) == (8, 9)


@pytest.mark.parametrize(
    "reply",
    [
        *("", " ", "8", "8 9 10", "8,9,10", "8-9", "8 - 9", "8/9", "8/10", "80 90", "8 11", "-1 -1", "-8 9"),
        *(
            "nan 5",
            "inf 8",
            "8 nine",
            "8:9",
            "I cannot score",
            "8\n9",
            "8,5 9,0",
            "8/5 9/5",
            "8 9 points each",
        ),
        *(
            "Assistant 1: 8",
            "Assistant 2: 9\nAssistant 1: 8",
            "Assistant 1: 8\nAssistant 2: none",
            "0x8 9",
            "1e1 99",
        ),
        "Failed to obtain answer via API. ",
    ],
)
def test_forms_that_could_mean_something_else(reply: str) -> None:
    assert parse_scores(reply, strict=False) is None


def test_a_hostile_reply_is_read_in_no_time() -> None:
    for text in (
        "8" * 100_000,
        " " * 100_000 + "8 9",
        "[" * 100_000,
        "assistant 1: " * 20_000,
        "8 , " * 50_000,
    ):
        assert parse_scores(text, strict=False) is None


# --- prompts and rules ----------------------------------------------------------------------------------


def test_the_prompt_holds_every_part_in_its_place() -> None:
    context = Context(captions=("one", "two"), instances=(Instance(category="cup", bbox=(0, 0.5, 1.0, 1)),))
    prompt = review_prompt(context, "What?", ("A", "B"), Rule(prompt="Rate.", role="Reader"))
    assert prompt == (
        "[Context]\none\ntwo\n\ncup: [0, 0.5, 1.0, 1]\n\n[Question]\nWhat?\n\n"
        "[Reader 1]\nA\n\n[End of Reader 1]\n\n"
        "[Reader 2]\nB\n\n[End of Reader 2]\n\n[System]\nRate.\n\n"
    )
    assert "[Context]\none\n\n[Question]" in review_prompt(
        Context(captions=("one",)), "What?", ("A", "B"), Rule(prompt="")
    )


def test_built_in_rules_ask_for_a_form_that_both_parsers_read() -> None:
    rules = built_in_rules()
    assert set(rules) == {"conv", "detail", "complex", "read", "default"}
    assert len({rule.prompt for rule in rules.values()}) == 5
    for rule in rules.values():
        assert "one space between" in rule.prompt
        assert rule.role == "Assistant"
    assert "OCR" in rules["read"].prompt
    assert "OCR" not in rules["conv"].prompt


def test_rules_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    path.write_text(json.dumps({"conv": {"prompt": "p\ud800", "role": "Bot"}, "default": {"prompt": "d"}}))
    rules = read_rules(path)
    assert rules == {"conv": Rule(prompt="p\ufffd", role="Bot"), "default": Rule(prompt="d")}
    assert rule_for(rules, "new") == rules["default"]
    with pytest.raises(DataError, match="no rule for the category 'new'"):
        rule_for({"conv": rules["conv"]}, "new")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", '{"a": 1}', '{"a": {}}', '{"a": {"prompt": 1}}', "[" * 10**5]
)
def test_files_that_are_no_rules(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rule.json"
    path.write_text(content)
    with pytest.raises(DataError, match="rule"):
        read_rules(path)


# --- questions, contexts and answers --------------------------------------------------------------------


def write(folder: Path, name: str, *rows: Any) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files(folder: Path, **changes: list[dict[str, Any]]) -> tuple[Path, Path, Path, Path]:
    rows: dict[str, list[dict[str, Any]]] = {
        "questions": [
            {"question_id": 0, "image": "a.png", "text": "What?", "category": "read"},
            {"question_id": "x1", "image": "sub/COCO_val2014_000007.jpg", "text": "Who?", "category": "conv"},
        ],
        "contexts": [
            {
                "id": "000007",
                "captions": ["c1", "c2"],
                "instances": [{"category": "dog", "bbox": [0, 0, 1, 1]}],
            },
            {"id": "1", "image": "a.png", "captions": "a sign"},
            {"id": "unused", "captions": "nothing"},
        ],
        "reference": [{"question_id": "x1", "text": "R1"}, {"question_id": "0", "text": "R0"}],
        "answers": [
            {"question_id": 0, "text": "", "answer_id": "abc"},
            {"question_id": "x1", "text": "A1"},
            {"question_id": 99, "text": "of another question"},
        ],
    }
    rows |= changes
    paths = [write(folder, f"{name}.jsonl", *found) for name, found in rows.items()]
    return paths[0], paths[1], paths[2], paths[3]


def test_rows_are_matched_by_id_and_picture_and_not_by_line(tmp_path: Path) -> None:
    first, second = read_cases(*files(tmp_path))
    assert (first.question.id, first.question.category, first.question.context.text) == (0, "read", "a sign")
    assert (first.reference.text, first.answer.text, first.answer.id) == ("R0", "", "abc")
    assert second.question.context.text == "c1\nc2\n\ndog: [0, 0, 1, 1]"
    assert (second.reference.text, second.answer.text, second.answer.id) == ("R1", "A1", "x1")


def test_a_context_may_name_its_question(tmp_path: Path) -> None:
    contexts = [
        {"question_id": 0, "captions": "mine"},
        {"image": "a.png", "captions": "not mine"},
        {"id": "000007", "captions": "c"},
    ]
    assert read_questions(*files(tmp_path, contexts=contexts)[:2])[0].context.text == "mine"


def test_contexts_that_are_equal_do_no_harm(tmp_path: Path) -> None:
    row = {"image": "a.png", "captions": "a sign"}
    paths = files(tmp_path, contexts=[row, row, {"id": "000007", "captions": "c"}])
    assert len(read_cases(*paths)) == 2


def test_one_json_list_and_a_byte_order_mark_are_read_too(tmp_path: Path) -> None:
    paths = files(tmp_path)
    rows = [json.loads(line) for line in paths[0].read_text().splitlines()]
    paths[0].write_text("\ufeff" + json.dumps(rows))
    assert len(read_cases(*paths)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": []}, "holds no questions"),
        ({"questions": [{"image": "a.png", "text": "?"}]}, "row 1 of .*questions.jsonl has no 'question_id'"),
        ({"questions": [{"question_id": True, "image": "a.png", "text": "?"}]}, "no 'question_id'"),
        ({"questions": [{"question_id": 0, "image": "a.png"}]}, "has no 'text'"),
        (
            {"questions": [{"question_id": 0, "image": "z.png", "text": "?"}]},
            "'z.png', which .* has no context for",
        ),
        ({"questions": [{"question_id": 0, "text": "?"}]}, "no context for"),
        ({"contexts": [{"image": "a.png"}]}, "has no 'captions'"),
        ({"contexts": [{"image": "a.png", "captions": [1]}]}, "has no 'captions'"),
        ({"contexts": [{"image": "a.png", "captions": " "}]}, "says nothing"),
        (
            {"contexts": [{"image": "a.png", "captions": "c", "instances": [{"bbox": [1]}]}]},
            "has an instance that is not",
        ),
        ({"contexts": [{"image": "a.png", "captions": "c", "instances": 5}]}, "has an instance that is not"),
        (
            {"contexts": [{"image": "a.png", "captions": "c"}, {"image": "a.png", "captions": "d"}]},
            "two different contexts for 'a.png'",
        ),
        ({"reference": [{"question_id": 0, "text": "R"}]}, r"no answer to 1 of 2 questions \(x1\)"),
        ({"answers": []}, r"no answer to 2 of 2 questions \(0, x1\)"),
        (
            {"answers": [{"question_id": 0, "text": "a"}, {"question_id": "0", "text": "b"}]},
            "the question_id '0' again",
        ),
        ({"answers": [{"question_id": 0, "text": None}]}, "has no 'text'"),
        ({"answers": [{"question_id": 0, "text": "boom", "status": "failed"}]}, "has no 'text'"),
        ({"answers": [[1]]}, "row 1 of .* is no object"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cases(*files(tmp_path, **changes))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    paths = files(tmp_path)
    with pytest.raises(NotFoundError, match="check the path"):
        read_cases(paths[0], paths[1], tmp_path / "none.jsonl", paths[3])
    for content in (b"{", b"[1", b"\xff\xfe", b"[" * 10**5, b"{}{}"):
        paths[0].write_bytes(content)
        with pytest.raises(DataError, match="not JSON"):
            read_cases(*paths)


@pytest.mark.parametrize("reply", [None, 8, b"8 9", ["8 9"]])
@pytest.mark.parametrize("strict", [True, False])
def test_a_reply_that_is_no_text_is_an_error(reply: Any, strict: bool) -> None:
    with pytest.raises(DataError, match="must be text"):
        parse_scores(reply, strict=strict)
