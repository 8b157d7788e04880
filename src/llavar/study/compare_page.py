"""The page of a comparison: how far apart two models are, and the answers that make the difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from llavar import html
from llavar.evals import metrics
from llavar.evals.score import PAIRWISE
from llavar.html import Child, Markup
from llavar.records import Answered, Score, Status
from llavar.study import cards
from llavar.study.compare import SIGNIFICANT, Flip, RunComparison, Side, TaskComparison
from llavar.study.report import p_text


def compare_page(found: RunComparison, *, images: int = 8, pictures: Path | None = None) -> str:
    """The page as text.

    Args:
        images: answers of each direction and task that are shown with their picture.
        pictures: where the pictures are now; by default where they were when A was made.
    """
    a, b = names(found)
    return html.page(
        f"{b} against {a}",
        html.paragraph(verdict(found.tasks), kind="verdict"),
        html.facts([("A", _side(found.first)), ("B", _side(found.second))]),
        html.bullets(found.notes) if found.notes else None,
        _differences(found.tasks),
        *(_task(task, images, pictures, (f"A, {a}", f"B, {b}")) for task in found.tasks),
        footer="Written by llavar compare. Nothing on this page is loaded from elsewhere.",
    )


def names(found: RunComparison) -> tuple[str, str]:
    """Short names of both sides: the models' if they differ, else those of the folders or files."""
    a, b = found.first, found.second
    for one, other in ((a.model, b.model), (a.path.name, b.path.name)):
        if one and other and one != other:
            return one, other
    return str(a.path), str(b.path)


def verdict(tasks: Sequence[TaskComparison]) -> str:
    """One sentence: where B is better or worse, as far as chance allows to say."""
    told: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for task in tasks:
        told[task.better].append(task.task)
    parts = [
        f"B is {word} on {', '.join(told[key])}"
        for key, word in ((True, "better"), (False, "worse"))
        if told[key]
    ]
    if not parts:
        return "No difference between A and B can be told from chance."
    if told[None]:
        parts.append(f"on {', '.join(told[None])} no difference can be told from chance")
    return "; ".join(parts) + "."


def _side(side: Side) -> str:
    return f"{side.model}, {side.path}" if side.model else str(side.path)


def scale(task: TaskComparison) -> float:
    """200 for MME's score, else 1."""
    return 200.0 if task.compared.metric.partition("@")[0] in PAIRWISE else 1.0


def change(value: float, top: float) -> str:
    """A difference with its sign."""
    text = cards.shown(value, top=top)
    return f"+{text}" if value > 0 else text


# --- numbers --------------------------------------------------------------------------------------------


def _differences(tasks: Sequence[TaskComparison]) -> Markup:
    many = len(tasks) > 1
    header = [
        "Task",
        "n",
        "A",
        "B",
        "B \N{MINUS SIGN} A",
        "p",
        "p, Holm",
        "p, McNemar",
        "B better",
        "B worse",
    ]
    rows = [_row(task) for task in tasks]
    dropped = () if many else (6,)
    keep = [i for i in range(len(header)) if i not in dropped]
    holm = (
        f" Among {len(tasks)} tasks some small p comes by chance alone; Holm's correction allows for that, "
        f"and the verdict takes p below {SIGNIFICANT} after it."
        if many
        else f" The verdict takes p below {SIGNIFICANT}."
    )
    return html.section(
        "Differences",
        html.table([header[i] for i in keep], [[row[i] for i in keep] for row in rows], numeric=range(1, 10)),
        intro="Both sides answered the same questions. Intervals (95%) come from resampling pictures, the "
        "same for A and B; p is two-sided, from swapping the two sides' answers picture by picture. "
        f"McNemar's exact test counts right and wrong answers only and takes questions as independent.{holm}",
    )


def _row(task: TaskComparison) -> list[Child]:
    found, top = task.compared, scale(task)
    told: Child = ""
    if task.better is not None:
        told = html.badge("better" if task.better else "worse", good=task.better)
    lower = "" if metrics.higher_is_better(found.metric) else ", lower is better"
    return [
        html.join(
            html.tag("a", task.task, href=f"#{cards.anchor(task.task)}"),
            " ",
            cards.remark(f"{found.metric}{lower}"),
        ),
        f"{found.first.n:,}",
        _score(found.first, top),
        _score(found.second, top),
        html.join(
            html.tag("b", change(found.comparison.difference, top)),
            html.tag("br"),
            _range(change(found.comparison.low, top), change(found.comparison.high, top)),
            *((html.tag("br"), told) if told else ()),
        ),
        _p(found.comparison.p),
        _p(task.corrected),
        "" if found.mcnemar is None else _p(found.mcnemar),
        f"{len(task.up):,}",
        f"{len(task.down):,}",
    ]


def _score(score: Score, top: float) -> Markup:
    span = _range(cards.shown(score.low, top=top), cards.shown(score.high, top=top))
    return html.join(cards.shown(score.value, top=top), html.tag("br"), span)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _range(low: str, high: str) -> Markup:
    return cards.remark(f"{low} to {high}")


# --- one task -------------------------------------------------------------------------------------------


def _task(task: TaskComparison, images: int, pictures: Path | None, labels: tuple[str, str]) -> Markup:
    shown = cards.Pictures(root=pictures or task.pictures)
    flips = len(task.up) + len(task.down)
    gone = shown.missing if images and any(f.first.image for f in (*task.up, *task.down)) else ""
    return html.tag(
        "div",
        html.section(
            task.task,
            _chart(task),
            html.bullets(task.notes) if task.notes else None,
            html.table(("Setting", "A", "B"), task.settings, caption="What differs between the runs")
            if task.settings
            else None,
            html.paragraph(gone, kind="note") if gone else None,
            *_flips(task, images, shown, labels),
            intro=f"{cards.numbered(flips, 'answer')} of {task.compared.first.n:,} differ in score: "
            f"{len(task.up):,} where B is better, {len(task.down):,} where B is worse "
            f"({p_text(task.compared.comparison.p)}).",
        ),
        id=cards.anchor(task.task),
    )


def _chart(task: TaskComparison) -> Markup:
    found, top = task.compared, scale(task)
    scores = (("A", found.first), ("B", found.second))
    marks = [html.Mark(label=name, value=s.value, low=s.low, high=s.high) for name, s in scores]
    limits = 0.0, max(top, *(mark.high for mark in marks))
    return html.interval_chart(marks, limits=limits, title=found.metric)


def _flips(
    task: TaskComparison, images: int, pictures: cards.Pictures, labels: tuple[str, str]
) -> Iterator[Markup]:
    for title, flips in (("B is better", task.up), ("B is worse", task.down)):
        if not flips or not images:
            continue
        chosen = _chosen(flips, images, f"{title} on {task.task}", binary=task.binary)
        how = "drawn by lot" if task.binary else "those that differ most"
        lot = f"; {len(chosen)} shown, {how}" if len(chosen) < len(flips) else ""
        yield html.heading(f"{title}: {cards.numbered(len(flips), 'answer')}{lot}")
        yield html.grid(_card(flip, pictures, labels, binary=task.binary) for flip in chosen)


def _chosen(flips: Sequence[Flip], images: int, seed: str, *, binary: bool) -> list[Flip]:
    """Those that differ most; among equals by lot."""
    order = cards.by_lot(flips, seed)
    if not binary:
        order.sort(key=lambda flip: -abs(flip.values[1] - flip.values[0]))
    return order[:images]


def _card(flip: Flip, pictures: cards.Pictures, labels: tuple[str, str], *, binary: bool) -> Markup:
    asked = flip.first
    pairs: list[tuple[str, Child]] = [
        ("Question", cards.answer(asked.question or flip.second.question, empty="(not in the files)")),
        (labels[0], _said(flip.first, flip.values[0], binary=binary)),
        (labels[1], _said(flip.second, flip.values[1], binary=binary)),
        ("Right answer", cards.references(asked.references)),
    ]
    about = f"{asked.id}{f', {asked.category}' if asked.category else ''}"
    return cards.card(pictures.show(asked.image, f"picture of question {asked.id}"), pairs, about=about)


def _said(answer: Answered, value: float, *, binary: bool) -> Markup:
    if answer.status is not Status.OK:
        return html.badge("failed", good=False)
    return html.join(cards.answer(answer.prediction), " ", cards.mark(value, binary=binary))
