"""The exam of the shipped studies: transcriptions, questions, yes/no pairs, what is shown; and its report.

Benchmarks are scored by :mod:`llavar.evals.score`. Here a model without and with text-rich rows is compared
on one set of questions of four kinds, each with this project's own rule for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llavar.errors import DataError
from llavar.evals import metrics
from llavar.evals.stats import Array, Statistic, bootstrap_runs, double_ratio, paired_runs, ratio
from llavar.records import Comparison, Prediction, Question, Report, Score, Status, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedReport:
    """Two models on the same questions: by metric name, how much ``with_`` differs from ``without``."""

    comparisons: Mapping[str, Comparison]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """One metric of one model, per question: what :mod:`llavar.evals.stats` resamples, grouped by picture."""

    values: Array
    groups: tuple[str, ...]
    statistic: Statistic


def summarise(questions: Sequence[Question], predictions: Sequence[Prediction], model: str) -> Report:
    """``transcription_cer`` (0-1, lower is better), ``vqa_accuracy`` (0-1), ``yes_no_score`` (0-200),
    ``scene_accuracy`` (0-1).

    Each is computed over the questions of its task and is absent if there are none. A question that failed
    or has no prediction counts as wrong. Intervals resample pictures.
    """
    return summarise_runs(questions, [predictions], model)


def summarise_runs(questions: Sequence[Question], runs: Sequence[Sequence[Prediction]], model: str) -> Report:
    """:func:`summarise` of models that were trained alike but for a seed: all their answers together.

    Intervals resample pictures and runs. ``n`` counts the questions, ``failed`` the failures of all runs.
    """
    answers = [_answers(questions, predictions) for predictions in runs]
    scores: dict[str, Score] = {}
    for name, columns in _by_metric(questions, answers).items():
        first = columns[0]
        scores[name] = bootstrap_runs([run.values for run in columns], first.statistic, first.groups)
    failed = sum(answer is None for run in answers for answer in run.values())
    asked = len(questions) * len(runs)
    notes = [f"{failed} of {asked} questions have no answer and count as wrong"] if failed else []
    notes += [
        f"{name}: every picture scored alike, so its interval has no width and understates the uncertainty"
        for name, score in scores.items()
        if score.low == score.high
    ]
    return Report(model=model, n=len(questions), scores=scores, failed=failed, notes=tuple(notes))


def compare(
    questions: Sequence[Question], without: Sequence[Prediction], with_: Sequence[Prediction]
) -> PairedReport:
    """Every metric of :func:`summarise` as a paired difference, ``with_ - without``."""
    return compare_runs(questions, [without], [with_])


def compare_runs(
    questions: Sequence[Question],
    without: Sequence[Sequence[Prediction]],
    with_: Sequence[Sequence[Prediction]],
) -> PairedReport:
    """:func:`compare` of several runs of both, the ones of equal seed paired."""
    first = _by_metric(questions, [_answers(questions, run) for run in without])
    second = _by_metric(questions, [_answers(questions, run) for run in with_])
    comparisons = {
        name: paired_runs(
            [run.values for run in runs],
            [run.values for run in second[name]],
            runs[0].statistic,
            runs[0].groups,
        )
        for name, runs in first.items()
    }
    return PairedReport(comparisons=comparisons, n=len(questions))


def recites(answer: str, transcription: str, reference: str) -> bool | None:
    """Whether a model answers a question as if it had been asked for all of the text.

    It does if its answer is within a fifth of its own transcription of the same picture. None where that says
    nothing: there is no transcription, or the right answer is as near to it.
    """
    own = metrics.normalise(transcription)
    if not own or _near(metrics.normalise(reference), own):
        return None
    return _near(metrics.normalise(answer), own)


def _near(text: str, other: str) -> bool:
    return 5 * metrics.edit_distance(text, other) <= len(other)


def is_right(question: Question, prediction: Prediction | None) -> bool:
    """Whether an answer is fully right: a transcription without an error, a match, the expected yes or no."""
    text = prediction.text if prediction and prediction.status is Status.OK else None
    match question.task:
        case Task.TRANSCRIPTION:
            return text is not None and metrics.transcription_counts(text, question.references)[0] == 0
        case Task.VQA | Task.SCENE:
            return text is not None and bool(metrics.vqa_match(text, question.references))
        case Task.YES_NO:
            return _expected(question) is metrics.parse_yes_no(text or "")
        case Task.OPEN:
            return False  # only a judge can tell


def _expected(question: Question) -> metrics.YesNo:
    parsed = {metrics.parse_yes_no(reference) for reference in question.references}
    if parsed not in ({metrics.YesNo.YES}, {metrics.YesNo.NO}):
        raise DataError(
            f"yes/no question {question.id!r} has the references {list(question.references)!r}; "
            "they must say yes or no, and only one of them"
        )
    return parsed.pop()


def _answers(
    questions: Sequence[Question], predictions: Sequence[Prediction]
) -> dict[str, Prediction | None]:
    """By question id; ``None`` where there is no answer. Raises for ids that are doubled or unknown."""
    answers: dict[str, Prediction | None] = {question.id: None for question in questions}
    if len(answers) != len(questions):
        doubled = Counter(question.id for question in questions).most_common(1)[0][0]
        raise DataError(f"two questions have the id {doubled!r}; every question needs its own")
    for prediction in predictions:
        if prediction.question not in answers:
            raise DataError(f"a prediction answers {prediction.question!r}, which is not among the questions")
        if prediction.status is Status.OK:
            answers[prediction.question] = prediction
    return answers


def _by_metric(
    questions: Sequence[Question], runs: Sequence[Mapping[str, Prediction | None]]
) -> dict[str, list[_Columns]]:
    """The columns of every run, by metric."""
    made = [_metrics(questions, answers) for answers in runs]
    return {name: [run[name] for run in made] for name in made[0]}


def _metrics(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> dict[str, _Columns]:
    """The metrics whose task occurs, by name."""
    makers = (
        ("transcription_cer", Task.TRANSCRIPTION, _transcription),
        ("vqa_accuracy", Task.VQA, _vqa),
        ("yes_no_score", Task.YES_NO, _yes_no),
        ("scene_accuracy", Task.SCENE, _vqa),
    )
    found: dict[str, _Columns] = {}
    for name, task, make in makers:
        mine = [question for question in questions if question.task is task]
        if mine:
            found[name] = make(mine, answers)
    return found


def _transcription(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    texts = [answer.text if (answer := answers[q.id]) else "" for q in questions]
    counts = [metrics.transcription_counts(t, q.references) for t, q in zip(texts, questions, strict=True)]
    return _Columns(values=np.array(counts, float), groups=tuple(q.image for q in questions), statistic=ratio)


def _vqa(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    counts = [(is_right(q, answers[q.id]), 1) for q in questions]
    return _Columns(values=np.array(counts, float), groups=tuple(q.image for q in questions), statistic=ratio)


def _yes_no(questions: Sequence[Question], answers: Mapping[str, Prediction | None]) -> _Columns:
    """A row per scored group; without a group name the questions on one picture are one."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.group or question.image, []).append(question)
    rights = [[is_right(q, answers[q.id]) for q in group] for group in groups.values()]
    counts = [(sum(right), len(right), all(right), 1) for right in rights]
    pictures = tuple(group[0].image for group in groups.values())
    return _Columns(values=np.array(counts, float), groups=pictures, statistic=double_ratio)
