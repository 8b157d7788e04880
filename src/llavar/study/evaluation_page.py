"""The page of an evaluation: scores with what is needed to believe them, and answers with their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llavar import html
from llavar.errors import LlavarError
from llavar.evals.score import answer_values, score_answers
from llavar.html import Child, Markup
from llavar.records import Answered, Score, Status
from llavar.study import cards
from llavar.study.report import duration
from llavar.study.stored_run import Result, StoredRun, StoredTask

_LENGTHS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
"""Longest answers of each bar but the last, in words."""

_ERRORS = 20
"""Different errors of a task that the page lists."""

_MARKS = 40
"""Categories of a task that are drawn; the table has all."""


def evaluation_page(run: StoredRun, *, images: int = 8, pictures: Path | None = None) -> str:
    """The page as text.

    Args:
        images: answers of each kind (best, worst) and task that are shown with their picture.
        pictures: where the pictures are now; by default where they were when the run was made.
    """
    n = sum(task.result.n for task in run.tasks)
    failed = sum(task.result.failed for task in run.tasks)
    lead = (
        f"{cards.numbered(n, 'question')} of {cards.numbered(len(run.tasks), 'task')}"
        f"{f', {failed:,} of them without an answer' if failed else ''}."
    )
    return html.page(
        f"Evaluation of {run.model or run.path.name}",
        _facts(run),
        _open_ends(run),
        _scores(run.tasks) if run.tasks else html.paragraph("No task is finished.", kind="verdict"),
        *(_task(task, images, pictures) for task in run.tasks),
        lead=lead,
        footer="Written by llavar report. Nothing on this page is loaded from elsewhere.",
    )


# --- the whole run --------------------------------------------------------------------------------------


def _facts(run: StoredRun) -> Markup:
    """What all tasks share; each task names the rest."""
    shared = _shared(run.tasks)
    dates = sorted(_date(task) for task in run.tasks)
    span = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else ""
    facts = [("Model", run.model), ("Date", span), *shared.items(), ("Folder", str(run.path.absolute()))]
    return html.facts((name, value) for name, value in dict(facts).items() if value)


def _shared(tasks: Sequence[StoredTask]) -> dict[str, str]:
    hows = [task.result.how() for task in tasks]
    return (
        {name: value for name, value in hows[0].items() if all(how.get(name) == value for how in hows)}
        if hows
        else {}
    )


def _date(task: StoredTask) -> str:
    if task.result.date:
        return task.result.date[:16].replace("T", " ")
    written = (task.folder / "result.json").stat().st_mtime
    return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M")


def _open_ends(run: StoredRun) -> Markup | None:
    """What the page cannot show, and why."""
    told = [
        f"{name} is not finished: {replies:,} replies to {n:,} questions so far; the same llavar eval "
        "command goes on."
        for name, n, replies in run.unfinished
    ]
    told += [f"Left out: {problem}" for problem in run.problems]
    return html.bullets(told) if told else None


def _scores(tasks: Sequence[StoredTask]) -> Markup:
    header = (
        "Task",
        "Metric",
        "n",
        "Score",
        "95% interval",
        "Best without looking",
        "Failed",
        "Empty",
        "Words",
        "Time",
    )
    return html.section(
        "Scores",
        html.table(header, map(_row, tasks), numeric=(2, 3, 4, 6, 7, 8, 9)),
        *_charts(tasks),
        _totals(tasks),
        intro="Next to each score: its interval from resampling pictures, and the best of some replies that "
        "look at no picture, scored by the same metric. Failed answers count as wrong. Words: of an answer, "
        "on average. Time: of the model.",
    )


def _row(task: StoredTask) -> Sequence[Child]:
    result = task.result
    score = result.whole
    name = html.tag("a", task.name, href=f"#{cards.anchor(task.name)}")
    rest = (f"{result.failed:,}", f"{result.empty:,}", f"{result.mean_length:.1f}", duration(result.seconds))
    if score is None:
        return (name, result.metric, f"{result.n:,}", "no score", "", "", *rest)
    top = _top(result)
    lower = "" if result.higher_is_better else ", lower is better"
    return (
        name,
        f"{result.metric_version or result.metric}{lower}",
        f"{result.n:,}",
        html.tag("b", cards.shown(score.value, top=top)),
        f"{cards.shown(score.low, top=top)} to {cards.shown(score.high, top=top)}",
        _trivial(result),
        *rest,
    )


def _trivial(result: Result) -> Child:
    if result.best_baseline is None:
        return "not computed"
    name, value = result.best_baseline
    text = f"{cards.shown(value, top=_top(result))} ({name})"
    if result.beats_baselines:
        return text
    return html.join(text, " ", html.badge("not beaten", good=False))


def _top(result: Result) -> float:
    """The scale of the scores: MME's go to 200, the others' to 1 (error rates may exceed it)."""
    return 200.0 if result.metric.startswith("mme") else 1.0


def _charts(tasks: Sequence[StoredTask]) -> Iterator[Markup]:
    """All scores of one scale on one axis, where there are several."""
    kinds = (
        ("Scores, higher is better", 1.0, True),
        ("Error rates, lower is better", 1.0, False),
        ("MME, 0 to 200", 200.0, True),
    )
    for title, top, higher in kinds:
        scores = [
            (task.name, score)
            for task in tasks
            if (score := task.result.whole)
            and _top(task.result) == top
            and task.result.higher_is_better == higher
        ]
        if len(scores) > 1:
            yield _intervals(scores, top, title)


def _intervals(scores: Sequence[tuple[str, Score]], top: float, title: str = "") -> Markup:
    # A file may say anything; the chart takes values in order only.
    marks = [
        html.Mark(label=name, value=s.value, low=min(s.low, s.value), high=max(s.high, s.value))
        for name, s in scores
    ]
    limits = min(0.0, *(mark.low for mark in marks)), max(top, *(mark.high for mark in marks))
    return html.interval_chart(marks, limits=limits, title=title, show=_short if top > 1 else _three)


def _short(value: float) -> str:
    return f"{value:.4g}"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _totals(tasks: Sequence[StoredTask]) -> Markup | None:
    rows: list[Sequence[Child]] = [
        (
            f"{task.name}, {name}",
            f"{part.n:,}",
            cards.shown(part.score, top=200),
            " to ".join(cards.shown(v, top=200) for v in part.interval),
        )
        for task in tasks
        for name, part in task.result.totals.items()
    ]
    if not rows:
        return None
    return html.table(
        ("Sum over subtasks", "n", "Score", "95% interval"), rows, numeric=(1, 2, 3), caption="MME's totals"
    )


# --- one task -------------------------------------------------------------------------------------------


def _task(task: StoredTask, images: int, pictures: Path | None) -> Markup:
    result, score = task.result, task.result.whole
    shown = cards.Pictures(root=pictures or task.pictures)
    values, remarks = _values(task)
    notes = [*result.notes, *remarks]
    return html.tag(
        "div",
        html.section(
            task.name,
            html.grid(list(_figures(task, score)), across=2),
            html.bullets(notes) if notes else None,
            _categories(result),
            html.paragraph(shown.missing, kind="note") if shown.missing and images else None,
            *_answers(task, values, images, shown),
            _errors(task),
            _how(result),
            intro=_summary(result, score),
        ),
        id=cards.anchor(task.name),
    )


def _summary(result: Result, score: Score | None) -> str:
    asked = cards.numbered(result.n, "question")
    if score is None:
        return (
            f"{asked}. A judge compares these answers (llavar judge run); there is no score here."
            if result.metric == "judge"
            else f"{asked} without references, and so without a score."
        )
    top = _top(result)
    value, low, high = (cards.shown(v, top=top) for v in (score.value, score.low, score.high))
    direction = "" if result.higher_is_better else " (lower is better)"
    also = "".join(f"; {name} {cards.shown(part.score, top=top)}" for name, part in result.also.items())
    return f"{asked}. {result.metric}{direction} {value}, 95% interval {low} to {high}{also}."


def _values(task: StoredTask) -> tuple[list[float] | None, list[str]]:
    """The score of each answer by itself, and remarks if the files no longer give the recorded score."""
    result = task.result
    if result.score is None:
        return None, []
    try:
        values = answer_values(task.answers, result.metric, metric_of=result.metric_of)
        again = score_answers(task.answers, result.metric, metric_of=result.metric_of, baselines=False)
    except LlavarError as error:
        return None, [f"The answers cannot be scored again: {error}"]
    if abs(again.score.value - result.score) < 1e-6:
        return values, []
    return values, [
        f"The answers in the folder give {cards.shown(again.score.value, top=_top(result))} now, not what "
        "was recorded: files or code have changed since."
    ]


def _figures(task: StoredTask, score: Score | None) -> Iterator[Markup]:
    result = task.result
    values = [*result.baselines.values(), score.value if score else 0.0]
    if score and result.baselines and min(values) >= 0:
        items = [("the answers themselves", score.value), *result.baselines.items()]
        title = "The same metric for replies that look at no picture"
        yield html.bars(items, title=title, show=_short if _top(result) > 1 else _three)
    lengths = _lengths(task.answers)
    if lengths:
        yield html.bars(lengths, title="Answers by number of words", show=lambda n: f"{n:,.0f}")


def _lengths(answers: Sequence[Answered]) -> list[tuple[str, float]]:
    """How many answers have how many words, up to the longest."""
    counts = [0] * (len(_LENGTHS) + 1)
    for answer in answers:
        if answer.status is Status.OK:
            words = len(answer.prediction.split())
            counts[sum(words > most for most in _LENGTHS)] += 1
    names = [
        str(most) if most <= before + 1 else f"{before + 1} to {most}"
        for before, most in zip((-1, *_LENGTHS), _LENGTHS, strict=False)
    ]
    used = max((i for i, count in enumerate(counts) if count), default=-1)
    named = zip([*names, f"more than {_LENGTHS[-1]}"], counts, strict=True)
    return [(name, float(count)) for name, count in named][: used + 1]


def _categories(result: Result) -> Markup | None:
    if len(result.categories) < 2:
        return None
    top = _top(result)
    named = [(name or "(none)", part.whole) for name, part in result.categories.items()]
    rows = [
        (
            name,
            f"{s.n:,}",
            cards.shown(s.value, top=top),
            f"{cards.shown(s.low, top=top)} to {cards.shown(s.high, top=top)}",
        )
        for name, s in named
    ]
    table = html.table(("Category", "n", "Score", "95% interval"), rows, numeric=(1, 2, 3))
    more = f", the first {_MARKS} of {len(named)}" if len(named) > _MARKS else ""
    chart = _intervals(named[:_MARKS], top, f"By category, with 95% intervals{more}")
    return html.join(chart, html.details("The categories as a table", table))


def _how(result: Result) -> Markup:
    verified = result.verified
    repeated = (
        f"{verified.equal} of {verified.n} as before"
        + "".join(f"; not {name}" for name in verified.unequal[:5])
        if verified
        else ""
    )
    facts = [
        ("Metric", result.metric_version or result.metric),
        *result.how().items(),
        ("Asked again alone", repeated),
        ("Time in all", duration(result.wall_seconds)),
        *((f"sha256 of {name}", value) for name, value in result.data.items()),
    ]
    return html.details(
        "How the answers came about", html.facts((name, value) for name, value in facts if value)
    )


# --- answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Answers to be shown under one heading; ``values`` are None where nothing is scored."""

    title: str
    answers: Sequence[tuple[Answered, float | None]]


def _answers(
    task: StoredTask, values: Sequence[float] | None, images: int, pictures: cards.Pictures
) -> Iterator[Markup]:
    binary = values is not None and set(values) <= {0.0, 1.0}
    for group in _groups(task, values, images, binary=binary):
        yield html.heading(group.title)
        yield html.grid(_card(answer, value, pictures, binary) for answer, value in group.answers)


def _groups(
    task: StoredTask, values: Sequence[float] | None, images: int, *, binary: bool
) -> Iterator[_Group]:
    """The best and the worst; among equals, and where nothing tells them apart, by lot."""
    right = [i for i, answer in enumerate(task.answers) if answer.status is Status.OK]
    order = cards.by_lot(right, f"answers of {task.name}")
    if not images or not order:
        return
    if values is None or len({values[i] for i in order}) < 2:
        every = "" if values is None else f", all of which score {values[order[0]]:.2f}"
        title = f"{cards.numbered(len(order), 'answer')}{every}"
        chosen = [(task.answers[i], None if values is None else values[i]) for i in order[:images]]
        yield _Group(title=_titled(title, len(chosen), len(order)), answers=chosen)
        return
    sign = 1 if task.result.higher_is_better else -1
    ranked = sorted(order, key=lambda i: -sign * values[i])
    best, worst = values[ranked[0]], values[ranked[-1]]
    better = [i for i in ranked if values[i] != worst]
    rest = [i for i in reversed(ranked) if values[i] != best]
    names = ("Right", "Wrong") if binary and sign > 0 else ("Best", "Worst")
    for name, candidates, edge in ((names[0], better, best), (names[1], rest, worst)):
        alike = sum(values[i] == edge for i in candidates)
        shown = candidates[:images]
        title = f"{name}: {cards.numbered(alike, 'answer')}"
        if not binary:
            title += f" with {edge:.2f}"
        many = _titled(title, len(shown), alike)
        yield _Group(title=many, answers=[(task.answers[i], values[i]) for i in shown])


def _titled(title: str, shown: int, alike: int) -> str:
    return f"{title}; {shown} shown, drawn by lot" if shown < alike else title


def _card(answer: Answered, value: float | None, pictures: cards.Pictures, binary: bool) -> Markup:
    said = cards.answer(answer.prediction)
    marked = said if value is None else html.join(said, " ", cards.mark(value, binary=binary))
    pairs: list[tuple[str, Child]] = [("Question", cards.answer(answer.question)), ("Answer", marked)]
    if answer.references:
        pairs.append(("Right answer", cards.references(answer.references)))
    about = f"{answer.id}{f', {answer.category}' if answer.category else ''}"
    return cards.card(pictures.show(answer.image, f"picture of question {answer.id}"), pairs, about=about)


def _errors(task: StoredTask) -> Markup | None:
    """Questions without an answer, by why."""
    failed = [answer for answer in task.answers if answer.status is not Status.OK]
    if not failed:
        return None
    first = {task.errors.get(answer.id, ""): answer.id for answer in reversed(failed)}
    counts = Counter(task.errors.get(answer.id, "") for answer in failed).most_common()
    rows = [(error or "no reason is recorded", f"{n:,}", first[error]) for error, n in counts[:_ERRORS]]
    more = f"; the first {_ERRORS} of {len(counts)} errors" if len(counts) > _ERRORS else ""
    return html.join(
        html.heading(f"Failed: {cards.numbered(len(failed), 'question')} without an answer{more}"),
        html.table(("Error", "Questions", "The first"), rows, numeric=(1,)),
    )
