"""Reviews on disk: one line for every request, in a superset of LLaVA's format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from llavar.errors import DataError
from llavar.evals.judge.files import Id, Row, read_rows
from llavar.evals.judge.parse import parse_scores
from llavar.llm import whole

Scores = tuple[float, float]

_NONE = (-1.0, -1.0)
"""What the original writes where it found no scores."""


class ReviewStatus(StrEnum):
    """How a request for a review ended."""

    OK = "ok"
    UNPARSED = "unparsed"
    """The judge answered, but not with two scores."""
    FAILED = "failed"
    """There is no answer."""


class Order(StrEnum):
    """Who was Assistant 1; in the original always the reference."""

    REFERENCE_FIRST = "reference-first"
    MODEL_FIRST = "model-first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One review. ``scores`` are (reference, model) in either order; ``content`` is the judge's own text.

    ``key`` is a digest of all that was asked, empty in files that other tools wrote; ``asked`` the judge that
    was asked, ``model`` the one that the server says answered; ``date`` in UTC.
    """

    question_id: Id
    category: str
    status: ReviewStatus
    scores: Scores | None = None
    content: str = ""
    order: Order = Order.REFERENCE_FIRST
    key: str = ""
    rule: str = ""
    asked: str = ""
    model: str = ""
    date: str = ""
    finish: str = ""
    error: str = ""
    answer1_id: Id = ""
    answer2_id: Id = ""
    temperature: float = 0.0
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """The line of the file. Names and meaning of the first six are LLaVA's."""
        return {
            "question_id": self.question_id,
            "answer1_id": self.answer1_id,
            "answer2_id": self.answer2_id,
            "category": self.category,
            "content": self.content,
            "tuple": list(self.scores) if self.scores else None,
            "status": self.status.value,
            "order": self.order.value,
            "rule": self.rule,
            "asked": self.asked,
            "model": self.model,
            "temperature": self.temperature,
            "date": self.date,
            "finish": self.finish,
            "seconds": round(self.seconds, 3),
            "error": self.error,
            "key": self.key,
        }


def read_reviews(path: Path) -> tuple[Review, ...]:
    """The reviews of a file of ours, LLaVA's or LLaVAR's, the newest of each request, in order of the first.

    A line that a crash tore at the end of the file is passed over. Raises :class:`DataError` for a file that
    holds no reviews.
    """
    found = newest(_review(row, place) for row, place in read_rows(path, log=True))
    if not found:
        raise DataError(f"{path} holds no reviews; give JSON lines, or one whole list, of reviews")
    return found


def newest(reviews: Iterable[Review]) -> tuple[Review, ...]:
    """One review for each question and order; all of them where another tool wrote the file."""
    kept: dict[object, Review] = {}
    for number, review in enumerate(reviews):
        kept[(str(review.question_id), review.order) if review.key else number] = review
    return tuple(kept.values())


def _review(row: Row, place: str) -> Review:
    def word(name: str) -> str:
        return whole(str(row.get(name) or ""))

    def name(field: str) -> Id:
        found = row.get(field)
        return found if isinstance(found, int | str) else ""

    try:
        content = word("content")
        given = row.get("tuple", row.get("score"))
        if given is None and "status" not in row and "content" not in row:
            raise KeyError("content")
        scores = parse_scores(content) if given is None and "status" not in row else _scores(given)
        usual = ReviewStatus.OK if scores and scores != _NONE else ReviewStatus.UNPARSED
        return Review(
            question_id=row["question_id"],
            category=word("category") or "default",
            status=ReviewStatus(row.get("status", usual)),
            scores=scores,
            content=content,
            order=Order(row.get("order", Order.REFERENCE_FIRST)),
            key=word("key"),
            rule=word("rule"),
            asked=word("asked"),
            model=word("model"),
            date=word("date"),
            finish=word("finish"),
            error=word("error"),
            answer1_id=name("answer1_id"),
            answer2_id=name("answer2_id"),
            temperature=float(row.get("temperature") or 0),
            seconds=float(row.get("seconds") or 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is no review ({error!r}); it must have question_id, category and content or tuple"
        ) from error


def _scores(given: object) -> Scores | None:
    if given is None:
        return None
    first, second = cast(list[Any], given)
    if not all(isinstance(score, int | float) for score in (first, second)):
        raise TypeError("a score is no number")
    return float(first), float(second)
