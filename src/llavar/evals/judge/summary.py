"""Mean scores by category, as LLaVA sums them up (``summarize_gpt_review.py``), and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from llavar.evals.judge.parse import usable
from llavar.evals.judge.reviews import Order, Review, ReviewStatus, Scores
from llavar.evals.stats import bootstrap, ratio

ALL = "all"
_USUAL = ("conv", "detail", "complex", "read")
"""LLaVA's categories and LLaVAR's, in the order of their papers' tables."""
_FAILURE = (-1.0, -1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of one question: the mean over its orders, or ``None`` if one of them failed."""

    question_id: str
    category: str
    scores: Scores | None
    advantage: float | None = None
    """How much more an answer got for standing first, in points; known only where both orders are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategorySummary:
    """Means of one category over ``n - failed`` questions.

    ``reference`` and ``model`` are rounded to 3 decimals and ``relative``, 100 x model / reference, is
    computed from those and rounded to 1, as the original does. ``low`` and ``high`` bound ``relative`` at
    95 % (bootstrap over questions). ``None`` where there is nothing to average. ``advantage``: points that an
    answer got for standing first.
    """

    n: int
    failed: int
    reference: float | None
    model: float | None
    relative: float | None
    low: float | None
    high: float | None
    advantage: float | None = None

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        known = self.low is not None
        document: dict[str, Any] = {
            "n": self.n,
            "failed": self.failed,
            "reference": self.reference,
            "model": self.model,
            "relative": self.relative,
            "interval": [self.low, self.high] if known else None,
        }
        return document | ({} if self.advantage is None else {"advantage_of_first": self.advantage})


def summarise(reviews: Sequence[Review], *, compatible: bool = False) -> Mapping[str, CategorySummary]:
    """By category, and ``all``: first LLaVA's and LLaVAR's in their order, then others by name.

    Not in order of appearance, since replies come in another order each time.

    ``compatible``: as the original, average a failed review in as scores of -1 and take every number for a
    score; no intervals. It hides failures: where every review failed, the relative score is 100.
    """
    found = verdicts(reviews, compatible=compatible)
    names = [*sorted({verdict.category for verdict in found}, key=_place), ALL]
    return {
        name: _summary([v for v in found if name in (ALL, v.category)], interval=not compatible)
        for name in names
    }


def _place(category: str) -> tuple[int, str]:
    return (_USUAL.index(category) if category in _USUAL else len(_USUAL)), category


def verdicts(reviews: Sequence[Review], *, compatible: bool = False) -> tuple[Verdict, ...]:
    """One for each question; in files that other tools wrote every line is a question."""
    groups: dict[object, list[Review]] = {}
    for number, review in enumerate(reviews):
        groups.setdefault(str(review.question_id) if review.key else number, []).append(review)
    return tuple(_verdict(group, compatible) for group in groups.values())


def _verdict(group: Sequence[Review], compatible: bool) -> Verdict:
    scores = [_scores(review, compatible) for review in group]
    known = [found for found in scores if found is not None]
    by_order = {review.order: found for review, found in zip(group, scores, strict=True) if found}
    first, second = by_order.get(Order.REFERENCE_FIRST), by_order.get(Order.MODEL_FIRST)
    advantage = None
    if first and second:
        # The reference stood first in the one and the model in the other.
        advantage = ((first[0] - second[0]) + (second[1] - first[1])) / 2
    return Verdict(
        question_id=str(group[0].question_id),
        category=group[0].category,
        scores=_mean(known) if len(known) == len(group) else None,
        advantage=advantage,
    )


def _scores(review: Review, compatible: bool) -> Scores | None:
    if compatible:
        return review.scores or _FAILURE
    return review.scores if review.status is ReviewStatus.OK and usable(review.scores) else None


def _mean(scores: Sequence[Scores]) -> Scores:
    return fmean(pair[0] for pair in scores), fmean(pair[1] for pair in scores)


def _summary(found: Sequence[Verdict], *, interval: bool) -> CategorySummary:
    scores = [verdict.scores for verdict in found if verdict.scores is not None]
    means = _mean(scores) if scores else None
    reference, model = (round(mean, 3) for mean in means) if means else (None, None)
    relative = round(model / reference * 100, 1) if reference and model is not None else None
    low, high = relative_interval(scores) if scores and interval else (None, None)
    advantages = [verdict.advantage for verdict in found if verdict.advantage is not None]
    return CategorySummary(
        n=len(found),
        failed=len(found) - len(scores),
        reference=reference if _finite(reference) else None,
        model=model if _finite(model) else None,
        relative=relative if _finite(relative) else None,
        low=low,
        high=high,
        advantage=round(fmean(advantages), 3) if advantages else None,
    )


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def relative_interval(scores: Sequence[Scores]) -> tuple[float, float] | tuple[None, None]:
    """95 % bounds of 100 x model / reference over questions, rounded to 1 decimal.

    The order of the scores, which is that in which replies came, does not matter.
    (None, None) if a resample can have a reference score of 0, which nothing is relative to.
    """
    table = np.array([(model, reference) for reference, model in sorted(scores)])
    with np.errstate(divide="ignore", invalid="ignore"):
        found = bootstrap(table, ratio)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None, None
    return round(100 * found.low, 1), round(100 * found.high, 1)
