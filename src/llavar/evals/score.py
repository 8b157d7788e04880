"""Scores of saved answers, with what is needed to believe them: interval, failures, lengths, baselines.

A score alone misleads. On OCR-VQA as LLaVAR was evaluated the constant answer "yes no" beats the model, and
MME's score of a model that says yes to everything is 50 of 200. So the same metric is also computed for
answers that look at no picture, on the same rows.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llavar.errors import ConfigError, DataError
from llavar.evals import metrics
from llavar.evals.stats import Array, Statistic, bootstrap, double_ratio, paired, ratio
from llavar.evals.tasks.mme import COGNITION, PERCEPTION
from llavar.records import Answered, Comparison, Score, Status

PAIRWISE = ("mme", "mme-lmms", "mme-vlmevalkit")
"""Metrics of yes/no pairs, 0 to 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A score and its company.

    ``score``: 0 to 1 (error rates may exceed it), or 0 to 200 for MME, over all ``n`` answers; those that
    ``failed`` count as wrong. ``empty`` answers are blank without having failed. ``mean_length``: words of an
    answer that did not fail. ``baselines``: the score of answers that look at no picture. ``totals``: MME's
    sums over tasks. ``seconds``: for everything; ``timing``: for each part.
    """

    metric: str
    n: int
    score: Score
    failed: int
    empty: int
    mean_length: float
    baselines: Mapping[str, float]
    categories: Mapping[str, Score]
    totals: Mapping[str, Score]
    notes: tuple[str, ...]
    timing: Mapping[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.timing.values())

    @property
    def higher_is_better(self) -> bool:
        return metrics.higher_is_better(self.metric)

    @property
    def pairwise(self) -> bool:
        """Whether it is MME's score, 0 to 200."""
        return _is_pairwise(self.metric)

    def document(self) -> dict[str, Any]:
        """What goes into JSON; ``interval`` is [low, high] at 95 %."""
        return {
            "metric": self.metric,
            "metric_version": metrics.full_name(self.metric),
            "better": "higher" if self.higher_is_better else "lower",
            "n": self.n,
            "score": self.score.value,
            "interval": [self.score.low, self.score.high],
            "failed": self.failed,
            "empty": self.empty,
            "mean_length": round(self.mean_length, 3),
            "baselines": dict(self.baselines),
            "categories": {name: _plain(score) for name, score in self.categories.items()},
            "totals": {name: _plain(score) for name, score in self.totals.items()},
            "notes": list(self.notes),
            "seconds": round(self.seconds, 4),
            "timing": {name: round(seconds, 4) for name, seconds in self.timing.items()},
        }


def _plain(score: Score) -> dict[str, Any]:
    return {"n": score.n, "score": score.value, "interval": [score.low, score.high]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two sets of answers to the same questions; differences are ``second - first``.

    ``gained`` and ``lost``: ids that the second has better or worse. ``mcnemar``: exact two-sided p of those
    counts if every answer is either right or wrong, else ``None``; it takes questions as independent, while
    ``comparison.p`` swaps whole pictures.
    """

    metric: str
    first: Score
    second: Score
    comparison: Comparison
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    mcnemar: float | None


def score_answers(
    answers: Sequence[Answered],
    metric: str,
    *,
    metric_of: Mapping[str, str] | None = None,
    baselines: bool = True,
) -> Scored:
    """The score of ``answers`` by the metric, or by ``metric_of[category]`` where that names another one.

    The interval (95 %) resamples pictures; answers without one stand for themselves. MME scores pairs: the
    answers that share ``group`` (else ``image``) within one category.

    Raises:
        ConfigError: there is no such metric, or MME's is mixed with another.
        DataError: there are no answers, none has a reference, or MME's are not pairs of yes/no questions.
    """
    plan = _Plan(metric, metric_of or {})
    _check(answers, plan)
    clock = _Clock()
    with clock.part("metric"):
        table = plan.table(answers, plan.values(answers, _replies(answers)))
    with clock.part("interval"):
        score = table.score()
        categories = table.by_category()
    with clock.part("baselines"):
        trivial = _baselines(answers, plan) if baselines else {}
    right = [answer.prediction for answer in answers if answer.status is Status.OK]
    totals = _totals(categories) if plan.pairwise and len(categories) > 1 else {}
    return Scored(
        metric=metric,
        n=len(answers),
        score=score,
        failed=len(answers) - len(right),
        empty=sum(not text.strip() for text in right),
        mean_length=sum(len(text.split()) for text in right) / max(1, len(right)),
        baselines=trivial,
        categories=categories,
        totals=totals,
        notes=_notes(answers, score, totals),
        timing=clock.seconds,
    )


def compare_answers(
    first: Sequence[Answered],
    second: Sequence[Answered],
    metric: str,
    *,
    metric_of: Mapping[str, str] | None = None,
) -> Compared:
    """Paired comparison of two models on the same questions, matched by id (and category).

    Raises :class:`DataError` unless both answer the same questions with the same references.
    """
    plan = _Plan(metric, metric_of or {})
    _check(first, plan)
    second = _matched(first, second)
    before, after = plan.values(first, _replies(first)), plan.values(second, _replies(second))
    a, b = plan.table(first, before), plan.table(second, after)
    sign = 1 if metrics.higher_is_better(metric) else -1
    moves = [sign * (y - x) for x, y in zip(before, after, strict=True)]
    gained = tuple(answer.id for answer, move in zip(first, moves, strict=True) if move > 0)
    lost = tuple(answer.id for answer, move in zip(first, moves, strict=True) if move < 0)
    return Compared(
        metric=metric,
        first=a.score(),
        second=b.score(),
        comparison=paired(a.values, b.values, a.statistic, a.groups),
        gained=gained,
        lost=lost,
        mcnemar=mcnemar(len(gained), len(lost)) if {*before, *after} <= {0.0, 1.0} else None,
    )


def answer_values(
    answers: Sequence[Answered], metric: str, *, metric_of: Mapping[str, str] | None = None
) -> list[float]:
    """The metric of each answer by itself, in their order; one that failed is as wrong as can be.

    Raises :class:`ConfigError` for an unknown metric.
    """
    plan = _Plan(metric, metric_of or {})
    plan.check()
    return plan.values(answers, _replies(answers))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: a fair coin for each question on which the two differ."""
    n, k = gained + lost, min(gained, lost)
    term, total = 1, 0
    for i in range(k + 1):  # whole numbers, since 2**n leaves the range of floats at 1024 questions
        total += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * total / 2**n)


# --- values and tables ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A row per resampled unit: an answer, or a pair. ``values`` are columns for ``statistic``."""

    values: Array
    groups: Sequence[str]
    categories: Sequence[str]
    statistic: Statistic

    def score(self) -> Score:
        return self._part(range(len(self.values)))

    def by_category(self) -> dict[str, Score]:
        """In order of first appearance; nothing where no answer has a category."""
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(self.categories):
            rows.setdefault(name, []).append(i)
        return {} if set(rows) == {""} else {name: self._part(which) for name, which in rows.items()}

    def _part(self, rows: Sequence[int]) -> Score:
        """The score of some rows, with ``n`` counting answers, not pairs."""
        values = self.values[list(rows)]
        score = bootstrap(values, self.statistic, [self.groups[i] for i in rows])
        return Score(value=score.value, low=score.low, high=score.high, n=int(values[:, 1].sum()))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which metric scores which answer."""

    metric: str
    metric_of: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def pairwise(self) -> bool:
        return _is_pairwise(self.metric)

    def check(self) -> None:
        used = [self.metric, *self.metric_of.values()]
        directions = {metrics.higher_is_better(name) for name in used}  # raises for an unknown name
        if len(used) > 1 and (len(directions) > 1 or any(map(_is_pairwise, used))):
            raise ConfigError(
                f"{self.metric!r} and {', '.join(used[1:])} have no common mean; score them apart"
            )

    def table(self, answers: Sequence[Answered], values: Sequence[float]) -> _Table:
        """``values`` as :meth:`values` gives them."""
        if self.pairwise:
            return _pairs(answers, values)
        return _Table(
            values=np.stack([np.array(values, float), np.ones(len(values))], axis=1),
            groups=[a.image or a.group or f"\0{i}" for i, a in enumerate(answers)],
            categories=[a.category for a in answers],
            statistic=ratio,
        )

    def values(self, answers: Sequence[Answered], replies: Sequence[str | None]) -> list[float]:
        """The metric of ``replies`` in the place of the answers' own.

        One without a reply (``None``: it failed) or without references is as wrong as can be.
        """
        rows: dict[str, list[int]] = {}
        for i, answer in enumerate(answers):
            rows.setdefault(self.metric_of.get(answer.category, self.metric), []).append(i)
        values = [0.0] * len(answers)
        for name, which in rows.items():
            keys = [
                (reply, answers[i].references)
                if (reply := replies[i]) is not None and answers[i].references
                else None
                for i in which
            ]
            # Constant answers meet the same references again and again: each combination is scored once.
            distinct = list(dict.fromkeys(key for key in keys if key is not None))
            found = dict(zip(distinct, metrics.score_all(name, distinct), strict=True))
            worst = float(not metrics.higher_is_better(name))
            for i, key in zip(which, keys, strict=True):
                values[i] = worst if key is None else found[key]
        return values


def _replies(answers: Sequence[Answered]) -> list[str | None]:
    return [answer.prediction if answer.status is Status.OK else None for answer in answers]


def _is_pairwise(metric: str) -> bool:
    return metric.partition("@")[0] in PAIRWISE


def _is_yes_no(answer: Answered) -> bool:
    return {text.strip().lower().removesuffix(".") for text in answer.references} in ({"yes"}, {"no"})


def _pairs(answers: Sequence[Answered], values: Sequence[float]) -> _Table:
    pairs: dict[tuple[str, str], list[int]] = {}
    for i, answer in enumerate(answers):
        pairs.setdefault((answer.category, answer.group or answer.image), []).append(i)
    for (category, name), members in pairs.items():
        if len(members) != 2:
            place = f" of task {category!r}" if category else ""
            what = f"picture {name!r:.100}{place} has" if name else f"without a picture{place} there are"
            raise DataError(
                f"{what} {len(members)} answers, but MME scores pairs: give both questions on each picture, "
                "also where an answer failed"
            )
    rights = [[values[i] for i in members] for members in pairs.values()]
    return _Table(
        values=np.array([(sum(right), 2, min(right), 1) for right in rights], float),
        groups=[
            f"{category}\0{answers[members[0]].image or name}" for (category, name), members in pairs.items()
        ],
        categories=[category for category, _ in pairs],
        statistic=double_ratio,
    )


def _totals(categories: Mapping[str, Score]) -> dict[str, Score]:
    """MME's sums over tasks. Tasks are independent, so the half widths add up as squares (Zou and Donner
    2008, "Construction of confidence limits ...: the method of variance estimates recovery")."""
    found: dict[str, Score] = {}
    for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
        scores = [categories[task] for task in tasks if task in categories]
        if scores:
            value = sum(score.value for score in scores)
            below = math.hypot(*(score.value - score.low for score in scores))
            above = math.hypot(*(score.high - score.value for score in scores))
            n = sum(score.n for score in scores)
            found[name] = Score(value=value, low=value - below, high=value + above, n=n)
    return found


# --- baselines and notes --------------------------------------------------------------------------------


def _baselines(answers: Sequence[Answered], plan: _Plan) -> dict[str, float]:
    """Scores of replies that look at no picture, by what they are."""
    constants: dict[str, str] = {}
    if all(map(_is_yes_no, answers)):
        constants |= {"always yes": "yes", "always no": "no"}
    if not plan.pairwise:
        common = _common(answers, 10)
        constants |= {
            "most common reference": "".join(common[:1]),
            "ten most common references": " ".join(common),
            "yes no": "yes no",
        }
    trivial = {name: [text] * len(answers) for name, text in constants.items()}
    if not plan.pairwise and any(answer.question for answer in answers):
        trivial["repeating the question"] = [answer.question for answer in answers]
    # All at once, because each reference is prepared once a call, and that is most of the work.
    replies = [reply for each in trivial.values() for reply in each]
    values = plan.values([*answers] * len(trivial), replies)
    found: dict[str, float] = {}
    for i, name in enumerate(trivial):
        table = plan.table(answers, values[i * len(answers) : (i + 1) * len(answers)])
        found[name] = float(table.statistic(table.values.sum(0)))
    return found


def _common(answers: Sequence[Answered], n: int) -> list[str]:
    """The references that most questions share, apart from case, each in its most frequent spelling."""
    questions = Counter(
        key for answer in answers for key in dict.fromkeys(text.strip().lower() for text in answer.references)
    )
    del questions[""]
    common = [key for key, _ in questions.most_common(n)]
    wanted = set(common)
    spellings = Counter(
        text.strip() for answer in answers for text in answer.references if text.strip().lower() in wanted
    )
    usual: dict[str, str] = {}
    for spelling, _ in spellings.most_common():
        usual.setdefault(spelling.lower(), spelling)
    return [usual[key] for key in common]


def _notes(answers: Sequence[Answered], score: Score, totals: Mapping[str, Score]) -> tuple[str, ...]:
    notes: list[str] = []
    failed = sum(answer.status is not Status.OK for answer in answers)
    bare = sum(not answer.references for answer in answers)
    if failed:
        notes.append(f"{failed} of {len(answers)} answers failed and count as wrong")
    if bare:
        notes.append(f"{bare} of {len(answers)} answers have an empty list of references and count as wrong")
    if score.low == score.high:
        notes.append("every picture scored alike: the interval has no width and understates the uncertainty")
    if totals:
        present = {answer.category for answer in answers}
        for name, tasks in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if name in totals and (missing := [task for task in tasks if task not in present]):
                notes.append(f"{name} is without {', '.join(missing)}")
    return tuple(notes)


def _check(answers: Sequence[Answered], plan: _Plan) -> None:
    plan.check()
    if not answers:
        raise DataError("there are no answers to score; a score needs at least 1")
    if plan.pairwise and (odd := next((each for each in answers if not _is_yes_no(each)), None)):
        raise DataError(
            f"answer {odd.id!r} has the references {list(odd.references)!r:.80}, but {plan.metric} needs yes "
            "or no; choose another metric"
        )
    if not any(answer.references for answer in answers):
        raise DataError(
            f"none of the {len(answers)} answers has a reference; give them with --references FILE"
        )


def _matched(first: Sequence[Answered], second: Sequence[Answered]) -> list[Answered]:
    """The second's answers in the order of the first's."""
    mine = {(answer.category, answer.id): answer for answer in second}
    keys = [(answer.category, answer.id) for answer in first]
    if len(mine) != len(second) or len(set(keys)) != len(keys):
        raise DataError("two answers have the same id; answers are compared by id, so each needs its own")
    if missing := set(keys) ^ set(mine):
        raise DataError(
            f"{len(missing)} of the questions are answered by one side only (first: {min(missing)[1]!r}); "
            "compare answers to the same questions"
        )
    for answer in first:
        if mine[answer.category, answer.id].references != answer.references:
            raise DataError(f"the references of {answer.id!r} differ; compare answers to the same questions")
    return [mine[key] for key in keys]


class _Clock:
    """Seconds by part, in the order in which the parts began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
