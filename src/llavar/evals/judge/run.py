"""Ask a judge for every review that an earlier run does not hold yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from llavar.errors import BudgetError, ConfigError, DataError, FetchError, LlavarError
from llavar.evals.judge.files import Case
from llavar.evals.judge.log import Log
from llavar.evals.judge.parse import parse_scores, usable
from llavar.evals.judge.prompt import DEFAULT, SYSTEM, Rule, review_prompt, rule_for
from llavar.evals.judge.reviews import Order, Review, ReviewStatus, read_reviews
from llavar.llm import Client, Message, Reply, many

Progress = Callable[[int, int], None]
"""Called with (reviews there are, reviews there will be), first with what an earlier run left."""

HOPELESS = 10
"""If the first so many requests all fail, so would the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to ask: temperature and length as in LLaVA. ``strict``: read scores as LLaVA does."""

    both_orders: bool = False
    strict: bool = False
    temperature: float = 0.2
    max_tokens: int = 1024
    workers: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"a temperature of {self.temperature} cannot work; use 0 to 2")
        if self.max_tokens < 1 or self.workers < 1:
            raise ConfigError(
                f"{self.max_tokens} tokens and {self.workers} workers cannot work; use at least 1 of each"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a run did, in requests: ``asked`` now, ``kept`` from an earlier run, ``failed`` of those asked.

    ``error`` is what the last of those that failed said.
    """

    asked: int
    kept: int
    failed: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request to the judge, and the review as far as it is known before."""

    prompt: str
    draft: Review
    again: bool = False
    """An earlier reply held no scores, so one from a cache will not do."""


def judge(
    cases: Sequence[Case],
    client: Client,
    rules: Mapping[str, Rule],
    *,
    out: Path,
    settings: Settings = Settings(),
    progress: Progress | None = None,
) -> Judged:
    """Append a review of each comparison to ``out``, for each order, as soon as there is one.

    Reviews that ``out`` already holds are not asked for again. A request that failed and a reply without
    scores are recorded as such, and asked again by the next run.

    Raises:
        DataError: ``out`` holds reviews by another judge, or of other answers, rules or contexts.
        BudgetError: The client's budget is used up; what was answered is in ``out``.
        FetchError: The first ten requests all failed.
    """
    planned = list(_requests(cases, client.endpoint.model, rules, settings))
    earlier = {(str(r.question_id), r.order): r for r in read_reviews(out)} if _has_content(out) else {}
    _check_earlier(earlier, planned, out)
    todo = list(_open(planned, earlier))
    report = progress or silent
    kept, failed, error = len(planned) - len(todo), 0, ""
    with Log(out) as log:
        report(kept, len(planned))

        def work(request: _Request) -> Review:
            review = _ask(client, request, settings)
            log.append(review.document())
            return review

        for number, done in enumerate(many(work, todo, workers=settings.workers), 1):
            if done.error or done.result is None:
                raise done.error or AssertionError("work without a result")
            failed += done.result.status is not ReviewStatus.OK
            error = done.result.error or error
            if number == failed == HOPELESS and done.result.status is ReviewStatus.FAILED:
                raise FetchError(f"the first {HOPELESS} requests all failed, the last so: {error}")
            report(kept + number, len(planned))
    return Judged(asked=len(todo), kept=kept, failed=failed, error=error)


def silent(_done: int, _total: int) -> None: ...


def _has_content(path: Path) -> bool:
    return path.is_file() and b"\n" in path.read_bytes()


def _requests(
    cases: Sequence[Case], model: str, rules: Mapping[str, Rule], settings: Settings
) -> Iterator[_Request]:
    orders = tuple(Order) if settings.both_orders else (Order.REFERENCE_FIRST,)
    for item in cases:
        category = item.question.category
        rule = rule_for(rules, category)
        for order in orders:
            answers = (item.reference.text, item.answer.text)
            shown = answers if order is Order.REFERENCE_FIRST else answers[::-1]
            prompt = review_prompt(item.question.context, item.question.text, shown, rule)
            asked = [SYSTEM, prompt, model, settings.temperature, settings.max_tokens]
            draft = Review(
                question_id=item.question.id,
                category=category,
                status=ReviewStatus.FAILED,
                order=order,
                key=hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24],
                rule=category if category in rules else DEFAULT,
                asked=model,
                answer1_id=item.reference.id,
                answer2_id=item.answer.id,
                temperature=settings.temperature,
            )
            yield _Request(prompt=prompt, draft=draft)


def _check_earlier(
    earlier: Mapping[tuple[str, Order], Review], planned: Sequence[_Request], out: Path
) -> None:
    """A file holds reviews by one judge of one pair of answers; a mixture could not be summed up."""
    remedy = "name another file with --out, or delete this one"
    drafts = {(str(request.draft.question_id), request.draft.order): request.draft for request in planned}
    for place, review in earlier.items():
        draft = drafts.get(place)
        if not review.key:
            raise DataError(f"{out} was written by another tool; {remedy}")
        if planned and review.asked != planned[0].draft.asked:
            raise DataError(
                f"{out} holds reviews by {review.asked!r}, not {planned[0].draft.asked!r}; {remedy}"
            )
        if draft and draft.key != review.key:
            raise DataError(
                f"{out} holds a review of question {review.question_id!r} with another answer, reference, "
                f"context, rule or setting; {remedy}"
            )


def _open(planned: Sequence[_Request], earlier: Mapping[tuple[str, Order], Review]) -> Iterator[_Request]:
    for request in planned:
        review = earlier.get((str(request.draft.question_id), request.draft.order))
        if review is None or review.status is not ReviewStatus.OK:
            yield replace(request, again=review is not None and review.status is ReviewStatus.UNPARSED)


def _ask(client: Client, request: _Request, settings: Settings) -> Review:
    messages = [Message(role="system", text=SYSTEM), Message(role="user", text=request.prompt)]
    try:
        reply = client.chat(
            messages,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            fresh=request.again,
        )
    except BudgetError:
        raise
    except LlavarError as error:
        return replace(request.draft, error=str(error), date=_now())
    return _read(reply, request.draft, settings)


def _read(reply: Reply, draft: Review, settings: Settings) -> Review:
    scores = parse_scores(reply.text, settings.strict)
    known = scores is not None and usable(scores)
    if scores and draft.order is Order.MODEL_FIRST:
        scores = scores[::-1]
    return replace(
        draft,
        status=ReviewStatus.OK if known else ReviewStatus.UNPARSED,
        scores=scores if known else None,
        content=reply.text,
        model=reply.model,
        date=_now(),
        finish=reply.finish,
        error="" if known else "the reply does not begin with two scores from 0 to 10",
        seconds=reply.seconds,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
