"""Several training runs of two arms on one exam: intervals over pictures and runs, and who recites."""

from __future__ import annotations

import numpy as np
import pytest

from llavar.errors import DataError
from llavar.evals.exam import compare, compare_runs, recites, summarise, summarise_runs
from llavar.evals.stats import bootstrap, bootstrap_runs, double_ratio, paired, paired_runs, ratio
from llavar.records import Prediction, Question, Status, Task

GROUPS = [f"picture {i // 2}" for i in range(60)]


def answers(seed: int, share: float) -> np.ndarray:
    return (np.random.default_rng(seed).random(60) < share).astype(float)


def test_one_run_is_what_it_was_without_runs() -> None:
    values, better = answers(1, 0.4), answers(2, 0.7)
    assert bootstrap_runs([values], ratio, GROUPS) == bootstrap(values, ratio, GROUPS)
    assert paired_runs([values], [better], ratio, GROUPS) == paired(values, better, ratio, GROUPS)


def test_equal_runs_add_nothing() -> None:
    values, better = answers(1, 0.4), answers(2, 0.7)
    one, many = bootstrap(values, ratio, GROUPS), bootstrap_runs([values] * 4, ratio, GROUPS)
    assert (many.value, many.low, many.high, many.n) == pytest.approx((one.value, one.low, one.high, 60))
    alone, together = (
        paired(values, better, ratio, GROUPS),
        paired_runs([values] * 4, [better] * 4, ratio, GROUPS),
    )
    assert together.difference == pytest.approx(alone.difference)
    assert together.p == alone.p
    assert together.n == 60


def test_runs_that_differ_widen_the_interval() -> None:
    """The mean over runs is that of three alike ones, but what another run would give is open."""
    alike = [np.full(60, 0.5)] * 3
    apart = [np.full(60, 0.1), np.full(60, 0.5), np.full(60, 0.9)]
    calm, wide = bootstrap_runs(alike, ratio, GROUPS), bootstrap_runs(apart, ratio, GROUPS)
    assert calm.value == pytest.approx(wide.value)
    assert calm.high - calm.low == pytest.approx(0)
    assert wide.high - wide.low > 0.4


def test_the_interval_of_a_difference_covers_runs_that_disagree() -> None:
    base = [answers(i, 0.5) for i in range(3)]
    unsteady = [np.clip(run + shift, 0, 1) for run, shift in zip(base, (0.0, 0.0, 0.5), strict=True)]
    found = paired_runs(base, unsteady, ratio, GROUPS)
    assert found.low == 0
    assert found.high > found.difference > 0
    assert found.p < 0.05  # these runs do differ; that others would is what the interval doubts


def test_runs_of_equal_seed_are_paired() -> None:
    """What both arms share in a run, a lucky seed, takes no part in the difference."""
    luck = (0.0, 0.3, 0.6)
    first = [np.full(60, 0.1 + one) for one in luck]
    second = [np.full(60, 0.2 + one) for one in luck]
    found = paired_runs(first, second, ratio, GROUPS)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_other_statistics_take_all_runs_together() -> None:
    rows = np.array([(2, 2, 1, 1), (1, 2, 0, 1)], float)
    assert bootstrap_runs([rows, rows[::-1]], double_ratio).value == pytest.approx(75 + 50)


def test_runs_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="there is no run"):
        bootstrap_runs([])
    with pytest.raises(DataError, match="ask all the same"):
        bootstrap_runs([np.ones(4), np.ones(5)])
    with pytest.raises(DataError, match="as many runs"):
        paired_runs([np.ones(4)], [np.ones(4)] * 2)


# --- the exam -------------------------------------------------------------------------------------------

QUESTIONS = tuple(
    Question(
        id=f"{i}/{task.value}",
        task=task,
        image=f"{i}.png",
        text="?",
        references=("yes",) if task is Task.YES_NO else (f"text {i}",),
    )
    for i in range(12)
    for task in (Task.TRANSCRIPTION, Task.VQA, Task.YES_NO)
)


def run(right: int) -> list[Prediction]:
    """All questions on the first ``right`` pictures answered, the others wrongly."""
    return [
        Prediction(
            question=q.id,
            status=Status.OK,
            text=q.references[0] if int(q.image.removesuffix(".png")) < right else "something else",
        )
        for q in QUESTIONS
    ]


def test_scores_are_means_over_runs() -> None:
    report = summarise_runs(QUESTIONS, [run(3), run(9)], "m")
    assert report.n == len(QUESTIONS)
    assert report.scores["vqa_accuracy"].value == pytest.approx(0.5)
    assert report.scores["vqa_accuracy"].n == 12
    singles = [summarise(QUESTIONS, run(n), "m").scores["yes_no_score"].value for n in (3, 9)]
    assert report.scores["yes_no_score"].value == pytest.approx(sum(singles) / 2)


def test_failures_of_all_runs_are_counted() -> None:
    failed = [Prediction(question=q.id, status=Status.FAILED, error="e") for q in QUESTIONS]
    report = summarise_runs(QUESTIONS, [run(12), failed], "m")
    assert report.failed == len(QUESTIONS)
    assert f"{len(QUESTIONS)} of {2 * len(QUESTIONS)} questions have no answer" in report.notes[0]


def test_a_comparison_of_runs() -> None:
    found = compare_runs(QUESTIONS, [run(0), run(1)], [run(11), run(12)]).comparisons["vqa_accuracy"]
    assert found.difference == pytest.approx(11 / 12)
    assert found.low > 0.5
    single = compare(QUESTIONS, run(0), run(12)).comparisons["vqa_accuracy"]
    assert single.difference == 1


@pytest.mark.parametrize(
    ("answer", "transcription", "reference", "expected"),
    [
        ("GRAND SALE\nSUNDAY", "GRAND SALE\nSUNDAY", "SUNDAY", True),
        ("GRAND SALE SUNDAI", "GRAND SALE\nSUNDAY", "red", True),
        ("SUNDAY", "GRAND SALE\nSUNDAY", "SUNDAY", False),
        ("", "GRAND SALE\nSUNDAY", "SUNDAY", False),
        ("SUNDAY", "SUNDAY", "SUNDAY", None),
        ("red", "", "red", None),
    ],
)
def test_reciting(answer: str, transcription: str, reference: str, expected: bool | None) -> None:
    assert recites(answer, transcription, reference) is expected
