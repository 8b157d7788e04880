from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, DataError
from llavar.evals import metrics, stats
from llavar.evals.score import COGNITION, PERCEPTION, compare_answers, mcnemar, score_answers
from llavar.records import Answered, Status


def answer(
    prediction: str, *references: str, id: str = "", image: str = "", category: str = "", question: str = ""
) -> Answered:
    return Answered(
        id=id or prediction,
        prediction=prediction,
        references=references,
        image=image,
        category=category,
        question=question,
    )


def failed(*references: str, image: str = "", category: str = "") -> Answered:
    lost = answer("", *references, id="lost", image=image, category=category)
    return replace(lost, status=Status.FAILED)


def pairs(task: str, replies: str) -> Iterator[Answered]:
    """MME's questions of one task, right answers yes and no in turn; replies as letters y, n, ?."""
    words = {"y": "Yes.", "n": "No.", "?": "perhaps"}
    for i, letter in enumerate(replies):
        yield answer(
            words[letter], "No" if i % 2 else "Yes", id=f"{task}{i}", image=f"{i // 2}.jpg", category=task
        )


# --- one score ------------------------------------------------------------------------------------------


def test_the_value_is_the_mean_of_the_metric() -> None:
    answers = [answer("a red bus", "bus"), answer("tram", "bus"), answer("the bus stop", "stop", "halt")]
    scored = score_answers(answers, "mmocr")
    assert scored.score.value == pytest.approx(2 / 3)
    assert scored.score.low <= scored.score.value <= scored.score.high
    assert (scored.n, scored.score.n, scored.failed, scored.empty) == (3, 3, 0, 0)
    assert scored.mean_length == pytest.approx(7 / 3)


def test_failed_answers_count_as_wrong_and_are_shown() -> None:
    scored = score_answers([answer("bus", "bus"), failed("bus")], "exact")
    assert scored.score.value == 0.5
    assert scored.failed == 1
    assert scored.empty == 0
    assert scored.mean_length == 1
    assert "1 of 2 answers failed and count as wrong" in scored.notes


@pytest.mark.parametrize(("metric", "worst"), [("exact", 0), ("anls", 0), ("cer", 1), ("wer", 1)])
def test_a_failed_answer_is_wrong_even_where_an_empty_one_would_be_right(metric: str, worst: float) -> None:
    # Peers give an empty reply to an empty reference full marks; a failure is no reply.
    assert score_answers([failed("")], metric, baselines=False).score.value == worst
    assert score_answers([answer("", "")], metric, baselines=False).score.value == 1 - worst


def test_empty_replies_are_no_failures() -> None:
    scored = score_answers([answer("", "bus", id="1"), answer(" \n", "bus", id="2")], "mmocr")
    assert (scored.empty, scored.failed, scored.mean_length) == (2, 0, 0)


def test_an_empty_list_of_references_counts_as_wrong_with_a_note() -> None:
    scored = score_answers([answer("bus", "bus"), answer("tram")], "mmocr")
    assert scored.score.value == 0.5
    assert "1 of 2 answers have an empty list of references and count as wrong" in scored.notes


def test_the_interval_resamples_pictures() -> None:
    mixed = ["bus" if i % 2 else "tram" for i in range(200)]
    alone = [answer(text, "bus", id=str(i)) for i, text in enumerate(mixed)]
    tied = [replace(each, image=each.prediction) for each in alone]  # two pictures: all right, all wrong
    narrow, wide = score_answers(alone, "exact").score, score_answers(tied, "exact").score
    assert narrow.value == wide.value == 0.5
    assert narrow.high - narrow.low < 0.2
    assert (wide.low, wide.high) == (0, 1)


def test_many_pictures_are_resampled_by_kind_with_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        answer("bus" if i % 10 < 3 else "tram", "bus", id=str(i), image=f"{i // 2}") for i in range(4000)
    ]
    fast = score_answers(answers, "exact", baselines=False).score
    monkeypatch.setattr(stats, "_MANY", 10**9)
    slow = score_answers(answers, "exact", baselines=False).score
    assert fast.value == slow.value == pytest.approx(0.3)
    assert fast.low == pytest.approx(slow.low, abs=2e-3)
    assert fast.high == pytest.approx(slow.high, abs=2e-3)
    assert fast.low < 0.295 < 0.305 < fast.high


def test_answers_that_score_alike_get_a_note_about_the_interval() -> None:
    assert "no width" in " ".join(score_answers([answer("bus", "bus")], "exact").notes)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.lists(st.text(max_size=8), min_size=1, max_size=3)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["mmocr", "mmocr-strict", "anls", "exact", "cer", "token-f1", "textvqa"]),
)
def test_any_text_scores_as_the_mean_over_single_answers(
    rows: list[tuple[str, list[str]]], metric: str
) -> None:
    answers = [Answered(id=str(i), prediction=p, references=tuple(r)) for i, (p, r) in enumerate(rows)]
    scored = score_answers(answers, metric)
    assert scored.score.value == pytest.approx(sum(metrics.score(metric, p, r) for p, r in rows) / len(rows))
    assert json.loads(json.dumps(scored.document()))["n"] == len(rows)


def test_the_order_of_answers_does_not_move_the_value() -> None:
    answers = [answer(str(i), str(i % 3), id=str(i)) for i in range(30)]
    assert score_answers(answers, "exact").score.value == score_answers(answers[::-1], "exact").score.value


# --- categories -----------------------------------------------------------------------------------------


def test_categories_have_scores_of_their_own() -> None:
    answers = [
        answer("1", "1", category="year"),
        answer("2", "1", category="year"),
        answer("x", "x", category="name"),
    ]
    scored = score_answers(answers, "exact")
    assert {name: (score.value, score.n) for name, score in scored.categories.items()} == {
        "year": (0.5, 2),
        "name": (1, 1),
    }
    assert score_answers([answer("1", "1")], "exact").categories == {}


def test_another_metric_may_score_a_category() -> None:
    answers = [answer("X ^ 2", "x^2", category="formula"), answer("A BUS", "bus", category="text")]
    scored = score_answers(answers, "ocrbench", metric_of={"formula": "ocrbench-hme"})
    assert scored.categories["formula"].value == 0  # case counts in formulas
    assert scored.categories["text"].value == 1


def test_metrics_that_have_no_common_mean_are_not_mixed() -> None:
    for other in ("cer", "mme"):
        with pytest.raises(ConfigError, match="no common mean"):
            score_answers([answer("1", "1")], "exact", metric_of={"year": other})


# --- baselines ------------------------------------------------------------------------------------------


def test_constant_answers_are_scored_on_the_same_rows() -> None:
    answers = [
        answer("a calendar", "Calendars", id="1", question="What genre is it?"),
        answer("no idea", "calendars", id="2", question="Is it about calendars?"),
        answer("2016", "2016", id="3", question="When?"),
        answer("who knows", "No", id="4", question="Is it old?"),
    ]
    scored = score_answers(answers, "mmocr")
    assert scored.score.value == 0.25
    assert scored.baselines == {
        "most common reference": 0.5,
        "ten most common references": 1,
        "yes no": 0.25,
        "repeating the question": 0.25,
    }


def test_a_reference_that_annotators_repeat_counts_once_for_its_question() -> None:
    answers = [
        answer("?", *["unique"] * 10, id="1"),
        answer("?", "stop", id="2"),
        answer("?", "stop", id="3"),
    ]
    assert score_answers(answers, "exact").baselines["most common reference"] == pytest.approx(2 / 3)


def test_the_most_common_reference_keeps_its_usual_spelling() -> None:
    answers = [answer("?", text, id=str(i)) for i, text in enumerate(("STOP", "Stop", "STOP", "x"))]
    scored = score_answers(answers, "mmocr-hme")  # case counts
    assert scored.baselines["most common reference"] == 0.5


def test_yes_no_questions_get_the_answers_that_never_look() -> None:
    answers = [answer("yes", "yes", id="1"), answer("no", "yes", id="2"), answer("no", "no", id="3")]
    baselines = score_answers(answers, "exact").baselines
    assert baselines["always yes"] == pytest.approx(2 / 3)
    assert baselines["always no"] == pytest.approx(1 / 3)


def test_baselines_can_be_left_out_and_need_no_questions() -> None:
    assert score_answers([answer("1", "1")], "exact", baselines=False).baselines == {}
    assert "repeating the question" not in score_answers([answer("1", "1")], "exact").baselines
    # Nothing but empty references: there is no most common one to answer with.
    assert score_answers([answer("1", "")], "exact").baselines["ten most common references"] == 1


# --- MME ------------------------------------------------------------------------------------------------


def test_mme_is_questions_plus_pairs() -> None:
    scored = score_answers(list(pairs("OCR", "ynynyy??")), "mme")
    assert scored.score.value == pytest.approx(100 * 5 / 8 + 100 * 2 / 4)
    assert (scored.n, scored.score.n) == (8, 8)
    assert scored.baselines == {"always yes": 50, "always no": 50}
    assert scored.score.low < scored.score.value < scored.score.high <= 200


def test_mme_agrees_with_the_metric_and_its_parsers_differ() -> None:
    answers = [answer("Answer: yes", "yes", id="1", image="a"), answer("nope", "no", id="2", image="a")]
    for name in ("mme", "mme-lmms", "mme-vlmevalkit"):
        rows = [(each.image, each.prediction, each.references[0]) for each in answers]
        assert score_answers(answers, name).score.value == metrics.mme_score(rows, name).score
    assert score_answers(answers, "mme").score.value == 50  # reads "nope" as no, and not "Answer: yes"


def test_a_failed_answer_is_wrong_and_its_pair_too() -> None:
    answers = list(pairs("OCR", "ynyn"))
    answers[1] = replace(answers[1], prediction="", status=Status.FAILED)
    assert score_answers(answers, "mme").score.value == pytest.approx(75 + 50)


def test_mme_needs_pairs() -> None:
    three = [*pairs("OCR", "yn"), answer("Yes", "Yes", image="0.jpg", category="OCR")]
    with pytest.raises(DataError, match=r"picture '0.jpg' of task 'OCR' has 3 answers.*pairs"):
        score_answers(three, "mme")
    with pytest.raises(DataError, match="without a picture there are 1 answers"):
        score_answers([answer("Yes", "Yes")], "mme")
    with pytest.raises(DataError, match="'bus' has the references \\['bus'\\], but mme needs yes or no"):
        score_answers([answer("bus", "bus", image="0.jpg")], "mme")


def test_one_picture_may_serve_two_tasks_and_sums_are_given() -> None:
    answers = [*pairs("color", "yn"), *pairs("count", "yy"), *pairs("code_reasoning", "nn")]
    scored = score_answers(answers, "mme")
    assert {name: score.value for name, score in scored.categories.items()} == {
        "color": 200,
        "count": 50,
        "code_reasoning": 50,
    }
    assert {name: (score.value, score.n) for name, score in scored.totals.items()} == {
        "perception": (250, 4),
        "cognition": (50, 2),
    }
    assert any(note.startswith("perception is without existence, position") for note in scored.notes)


def test_sums_over_tasks_have_intervals_narrower_than_the_sum_of_widths() -> None:
    answers = [each for task in (*PERCEPTION, *COGNITION) for each in pairs(task, "ynyyynnn" * 3)]
    scored = score_answers(answers, "mme")
    total = scored.totals["perception"]
    widths = [scored.categories[task].high - scored.categories[task].low for task in PERCEPTION]
    assert total.value == pytest.approx(sum(scored.categories[task].value for task in PERCEPTION))
    assert total.high - total.low == pytest.approx(math.hypot(*widths), rel=0.1)
    assert not any("is without" in note for note in scored.notes)


# --- documents and errors -------------------------------------------------------------------------------


def test_the_document_holds_what_result_files_need() -> None:
    document = score_answers(
        [answer("1", "1", category="a"), answer("2", "1", category="b")], "mmocr"
    ).document()
    assert document["metric"] == "mmocr"
    assert document["metric_version"] == "mmocr@9f0ffdf"
    assert document["better"] == "higher"
    assert document["n"] == 2
    assert document["score"] == 0.5
    low, high = document["interval"]
    assert low <= 0.5 <= high
    assert document["categories"]["a"]["score"] == 1
    assert set(document["timing"]) == {"metric", "interval", "baselines"}
    assert document["seconds"] == pytest.approx(sum(document["timing"].values()), abs=1e-3)
    assert score_answers([answer("1", "1")], "cer").document()["better"] == "lower"


def test_what_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="no answers to score"):
        score_answers([], "mmocr")
    with pytest.raises(DataError, match="none of the 1 answers has a reference; .*--references"):
        score_answers([answer("1")], "mmocr")
    with pytest.raises(ConfigError, match="no metric 'bleu'; choose one of mmocr"):
        score_answers([answer("1", "1")], "bleu")
    with pytest.raises(ConfigError, match="no metric 'bleu'"):
        score_answers([answer("1", "1")], "exact", metric_of={"x": "bleu"})


# --- comparison -----------------------------------------------------------------------------------------


def test_two_models_are_compared_question_by_question() -> None:
    first = [answer("x", str(i), id=str(i)) for i in range(10)]
    second = [answer(str(i) if i < 8 else "x", str(i), id=str(i)) for i in range(10)]
    compared = compare_answers(first, second[::-1], "exact")  # the order does not matter
    assert compared.gained == tuple(map(str, range(8)))
    assert compared.lost == ()
    assert compared.comparison.difference == pytest.approx(0.8)
    assert compared.mcnemar == pytest.approx(2 / 2**8)
    back = compare_answers(second, first, "exact")
    assert (back.gained, len(back.lost), back.mcnemar) == ((), 8, compared.mcnemar)


def test_gains_of_an_error_rate_are_where_it_falls() -> None:
    compared = compare_answers([answer("bxs", "bus", id="1")], [answer("bus", "bus", id="1")], "cer")
    assert compared.gained == ("1",)
    assert compared.mcnemar is None  # not right or wrong


def test_only_answers_to_the_same_questions_are_compared() -> None:
    one, other = answer("1", "1", id="a"), answer("1", "1", id="b")
    with pytest.raises(DataError, match="2 of the questions are answered by one side only"):
        compare_answers([one], [other], "exact")
    with pytest.raises(DataError, match="the references of 'a' differ"):
        compare_answers([one], [replace(one, references=("2",))], "exact")
    with pytest.raises(DataError, match="same id"):
        compare_answers([one, one], [one, one], "exact")


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(7, 3, 0.34375), (0, 0, 1), (1, 0, 1), (6, 0, 2 / 64), (5, 5, 1)]
)
def test_mcnemar_is_the_sign_test_of_the_flips(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(p)


def test_mcnemar_of_many_flips_agrees_with_the_normal_limit() -> None:
    z = (1050 - 950 - 1) / math.sqrt(2000)
    assert mcnemar(1050, 950) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.02)
    assert 0 <= mcnemar(5000, 0) < 1e-300
