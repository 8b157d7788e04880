"""The page that ``llavar tune`` ends in: is the model better, by what is that known, and what did it cost."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llavar import files, html
from llavar.corpus.item import Item
from llavar.evals import rows as tables
from llavar.html import Child, Markup
from llavar.records import Answered, Reject, Score, Status
from llavar.study import cards
from llavar.study.report import Timing, duration, is_clear, measure_tile, p_text, times_section
from llavar.study.report_parts import CorpusSummary, MadeRows, corpus_section, opened
from llavar.study.tune_answers import Measured, measured
from llavar.study.tune_model import device_name
from llavar.study.tune_rows import Part, rows_of
from llavar.train.estimate import gigabytes
from llavar.train.home import REJECTS

if TYPE_CHECKING:
    from llavar.study.tune import Made

_WORST, _CHANGED, _BY_LOT, _EXAMPLES = 10, 6, 8, 4
_SIDE = 384

_FEW = 20
"""Pictures below which the page says that only large differences can be told."""

_REFERENCE = {Part.OWN: "Your answer", Part.TEXT: "OCR read", Part.FACTS: "By OCR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page shows. ``rejects`` are those of pictures, rows and training."""

    made: Made
    measured: tuple[Measured, ...]
    rejects: tuple[Reject, ...]
    memory: float
    disk: int


class _Place(NamedTuple):
    """An answer: its measure, and its place among those of that."""

    of: Measured
    number: int

    @property
    def gain(self) -> float:
        """How much better it got; below 0 where it got worse."""
        before, after = self.of.values[self.number]
        return before - after if self.of.measure.lower_is_better else after - before

    @property
    def badness(self) -> float:
        after = self.of.values[self.number][1]
        return after if self.of.measure.lower_is_better else -after


def shown(made: Made) -> Shown:
    """Everything is counted and compared here."""
    left_out = _rejects(made.settings.out / "train" / REJECTS)
    return Shown(
        made=made,
        measured=measured(made.before, made.after),
        rejects=(*made.sides.rejects, *left_out),
        memory=max((tick.memory_gb for tick in made.fitted.ticks), default=0.0),
        disk=sum(p.lstat().st_size for p in made.settings.out.rglob("*") if p.is_file() or p.is_symlink()),
    )


def _rejects(path: Path) -> Iterator[Reject]:
    """Rows that training could not use."""
    if path.is_file() and path.stat().st_size:
        for row in tables.parse(path.read_text("utf-8"), path):
            yield Reject(**{name: row.text(name) for name in ("id", "stage", "reason", "detail")})


def write(report: Shown, path: Path) -> None:
    """Writes the page as one self-contained file, whole or not at all."""
    html.write(page_of(report), path)


def page_of(report: Shown) -> str:
    """The page as text."""
    made = report.made
    return html.page(
        f"{made.base.name}, tuned on your pictures",
        _result(report),
        _truth(report),
        _worst(report),
        _changed(report),
        _by_lot(report),
        _data(report),
        _training(report),
        times_section([Timing(step=name, seconds=seconds) for name, seconds in made.seconds.items()]),
        _costs(report),
        html.section("Use it", html.verbatim("\n".join(made.commands))),
        html.section("What this does not tell", html.bullets(_limits(report))),
        lead=_lead(made),
        footer="Written by llavar tune. Nothing on this page is loaded from elsewhere.",
    )


def _lead(made: Made) -> str:
    asked = len(
        {made.exam.picture(part, q).resolve() for part, asked in made.exam.parts.items() for q in asked}
    )
    return (
        f"{cards.numbered(len(made.sides.rows), 'row')} made of "
        f"{cards.numbered(len(made.sides.training), 'picture')} trained an adapter on {made.base.name} for "
        f"{cards.numbered(made.stage.steps, 'step')}. The model answered {made.exam.count:,} questions about "
        f"{cards.numbered(asked, 'picture')} that it was not trained on, before and after."
    )


# --- the result -----------------------------------------------------------------------------------------


def verdict(found: Sequence[Measured]) -> str:
    """A few sentences; what got worse is said first."""
    told: dict[bool | None, list[Measured]] = {True: [], False: [], None: []}
    for one in found:
        difference = one.comparison.difference
        told[one.measure.better(difference) if is_clear(one.comparison) else None].append(one)
    better, worse = ("; ".join(map(_change, told[key])) for key in (True, False))
    said: list[str] = []
    if worse:
        said.append(f"Tuning made it worse: {worse}.")
    if better:
        said.append(f"{'It got better in this' if worse else 'Tuning made it better'}: {better}.")
    if not said:
        return f"Whether tuning helped cannot be told from chance: {_change(found[0])}."
    if told[None]:
        said.append(f"No clear difference: {'; '.join(_title(one) for one in told[None])}.")
    return " ".join(said)


def _change(one: Measured) -> str:
    before, after = (one.measure.show(score.value) for score in one.scores)
    return f"{_title(one)} {before} before, {after} after"


def _title(one: Measured) -> str:
    title = one.measure.title
    return f"{title[0].lower()}{title[1:]}"


def _result(report: Shown) -> Markup:
    found = report.measured
    tiles = [measure_tile(one.measure, one.scores, one.comparison, ("before", "after")) for one in found]
    return html.join(
        html.paragraph(verdict(found), kind="verdict"),
        html.grid(tiles, across=4 if len(tiles) > 3 else 3),
        html.paragraph(_meant(report), kind="note"),
        html.details("All numbers", _numbers(found)),
    )


def _meant(report: Shown) -> str:
    made = report.made
    pictures = max(len({q.image for q in questions}) for questions in made.exam.parts.values())
    be = "is" if pictures == 1 else "are"
    few = (
        f" {cards.numbered(pictures, 'picture')} {be} few: only large differences can be told from chance"
        + (", and with fewer than six none at all." if pictures < 6 else ".")
        if pictures < _FEW
        else ""
    )
    failed = made.before.failed, made.after.failed
    lost = (
        f" {failed[0]} answers before and {failed[1]} after failed and count as wrong." if any(failed) else ""
    )
    return (
        "Dots are scores, bars their 95% intervals from resampling pictures; p comes from swapping the "
        "answers before and after picture by picture, is two-sided, and is not corrected for the number of "
        f"measures. One training run: the intervals do not cover what another seed would change.{few}{lost}"
    )


def _numbers(found: Sequence[Measured]) -> Markup:
    rows: list[Sequence[Child]] = []
    for one in found:
        show, change, pair = one.measure.show, one.measure.show_change, one.comparison
        cells = [f"{show(s.value)} [{show(s.low)}, {show(s.high)}]" for s in one.scores]
        span = f"{change(pair.difference)} [{change(pair.low)} to {change(pair.high)}]"
        moved = f"{len(one.compared.gained)}, {len(one.compared.lost)}"
        rows.append(
            (f"{one.measure.title} ({one.measure.name})", *cells, span, p_text(pair.p), moved, pair.n)
        )
    header = ("Measure", "Before", "After", "Difference", "p", "Better, worse", "n")
    return html.table(header, rows, numeric=range(1, 7))


def _truth(report: Shown) -> Markup:
    """What the scores are against: said before anybody believes them."""
    made = report.made
    said: list[str] = []
    if Part.OWN in made.exam.parts:
        count = len(made.exam.parts[Part.OWN])
        said.append(
            f"Your {cards.numbered(count, 'question')} are scored against your answers. Their pictures, and "
            "copies of them, took no part in training."
        )
    if Part.TEXT in made.exam.parts:
        said.append(
            f"Of the {cards.numbered(len(made.exam.parts[Part.TEXT]), 'held-out picture')} nobody has told "
            f"what they say. The truth is not known: what stands in for it is what {_engine(made)} read in "
            "them. These scores are agreement with OCR, not accuracy. Where OCR erred, a model that agrees "
            "erred with it, and one that read rightly counts as wrong. The rows that were learned are of the "
            "same OCR engine, so that some of the agreement may be its habits."
        )
    return html.section("What the scores are against", *map(html.paragraph, said))


def _engine(made: Made) -> str:
    items = (*made.sides.training, *made.sides.held_out)
    return next((item.readings[0].engine for item in items if item.readings), "OCR")


# --- answers side by side -------------------------------------------------------------------------------


def _leading(report: Shown) -> list[Measured]:
    """The first measure of each part."""
    return list({one.part: one for one in reversed(report.measured)}.values())[::-1]


def _places(found: Sequence[Measured], seed: str) -> list[_Place]:
    return cards.by_lot([_Place(one, i) for one in found for i in range(len(one.values))], seed)


def _worst(report: Shown) -> Markup:
    first = _leading(report)[:1]
    worst = sorted(_places(first, "worst"), key=lambda place: -place.badness)[:_WORST]
    return html.section(
        f"The {_spelt(len(worst))}worst after tuning",
        html.grid([_card(report, place) for place in worst]),
        intro=f"By {_title(first[0])}; equal ones drawn by lot.",
    )


def _spelt(count: int) -> str:
    return "ten " if count == _WORST else f"{count} " if count > 1 else ""


def _changed(report: Shown) -> Markup | None:
    places = _places(_leading(report), "changed")
    down = sorted((p for p in places if p.gain < 0), key=lambda place: place.gain)
    up = sorted((p for p in places if p.gain > 0), key=lambda place: -place.gain)
    parts: list[Markup] = []
    for title, moved in (("Worse than before", down), ("Better than before", up)):
        shown = f"; the {_CHANGED} that changed most" if len(moved) > _CHANGED else ""
        parts.append(html.heading(f"{title}: {cards.numbered(len(moved), 'answer')}{shown}"))
        parts.append(html.grid([_card(report, place) for place in moved[:_CHANGED]]))
    return html.section("Where tuning changed an answer", *parts)


def _by_lot(report: Shown) -> Markup:
    drawn = _places(_leading(report), "by lot")[:_BY_LOT]
    return html.section(
        "Before and after", html.grid([_card(report, p) for p in drawn]), intro="Drawn by lot."
    )


def _card(report: Shown, place: _Place) -> Markup:
    made, part = report.made, place.of.part
    question = made.exam.parts[part][place.number]
    before, after = (side.parts[part][place.number] for side in (made.before, made.after))
    values = place.of.values[place.number]
    pairs: list[tuple[str, Child]] = [
        ("Question", cards.answer(question.text)),
        ("Before", _said(place.of, before, values[0])),
        ("After", _said(place.of, after, values[1])),
        (_REFERENCE[part], cards.references(question.references)),
    ]
    picture = made.exam.picture(part, question)
    about = picture.resolve().name if part is Part.OWN else question.id
    return cards.card(opened(picture, f"picture of {question.id}", _SIDE), pairs, about=about)


def _said(of: Measured, answer: Answered, value: float) -> Markup:
    if answer.status is not Status.OK:
        return html.badge("failed", good=False)
    if of.measure.name == "exact":
        return html.join(cards.answer(answer.prediction), " ", cards.mark(value, binary=True))
    told = f"{value:.0%} differs" if of.measure.lower_is_better else f"{value:.0%} near"
    return html.join(cards.answer(answer.prediction), " ", html.tag("span", told, class_="badge"))


# --- what it was made of, and what it cost --------------------------------------------------------------


def _data(report: Shown) -> Markup:
    made = report.made
    kinds = [row.id.rpartition("#")[2] for row in made.sides.rows]
    examples = cards.by_lot(made.sides.training, "examples")[:_EXAMPLES]
    asked = {id for id, _ in made.source.asked}
    return corpus_section(
        CorpusSummary(
            pictures=len(asked | set(made.source.names)),
            kept=len(made.sides.training) + len(made.sides.held_out) + len(asked),
            rejects=report.rejects,
            rows=(
                ("Rows of text to learn", kinds.count("text")),
                ("Conversations to learn", kinds.count("talk")),
                ("Pictures held out", len(made.sides.held_out)),
            ),
            engine=_engine(made),
            examples=tuple(map(_example, examples)),
        )
    )


def _example(item: Item) -> MadeRows:
    found = {row.id.rpartition("#")[2]: row for row in rows_of(item)}
    return MadeRows(
        image=Path(item.origin.path),
        reading=item.readings[0],
        stage1=tuple(row for kind, row in found.items() if kind == "text"),
        stage2=tuple(row for kind, row in found.items() if kind == "talk"),
    )


def _training(report: Shown) -> Markup:
    made = report.made
    stage, ticks = made.stage, made.fitted.ticks
    points = tuple((float(tick.step), tick.loss) for tick in ticks)
    chart = html.line_chart(
        [html.Series(label="", points=points)], title="Loss", y_label="loss", smooth=max(1, len(points) // 20)
    )
    rates = ", ".join(f"{name} {part.lr:.2g}" for name, part in stage.parts.items())
    facts = [
        ("Adapter", stage.lora.describe() if stage.lora else ""),
        ("Steps", f"{stage.steps} of {stage.batch} rows"),
        ("Rates", rates),
        ("Numbers", stage.precision.value),
        ("Seed", str(stage.seed)),
    ]
    reasons = made.plan.reasons
    return html.section(
        "Training",
        html.grid([chart, html.card(html.rows(facts))], across=2),
        html.bullets(reasons) if reasons else None,
    )


def _costs(report: Shown) -> Markup:
    made = report.made
    model = made.settings.out / "train"
    return html.section(
        "What it cost",
        html.facts(
            [
                ("Time, all runs of the command", duration(sum(made.seconds.values()))),
                ("Most memory in training", f"{report.memory:.1f} GB" if report.memory else "not known"),
                ("Disk, the run's folder", gigabytes(report.disk)),
                ("Computed on", device_name()),
                ("Machine", f"{platform.machine()}, Python {platform.python_version()}"),
                ("Model before", f"{made.base.name} ({made.base.kind})"),
                ("Model after", str(model / "model")),
                ("Adapter", str(model / "adapter")),
                ("Teacher", _teacher(made)),
            ]
        ),
        intro="Measured. Memory is the GPU's, or all of the process on a CPU.",
    )


def _teacher(made: Made) -> str:
    teacher = made.settings.teacher
    if teacher is None:
        return "templates; nothing left this machine"
    return f"{teacher.model} at {teacher.url}, which was sent the text of the pictures"


def _limits(report: Shown) -> Iterator[str]:
    made = report.made
    yield "Other pictures than these: whether the model forgot something else was not asked."
    yield "The vision tower was not trained; what it cannot see, the model still cannot."
    yield f"{made.base.name} sees {made.base.sees} pixels of the longer side; smaller lines were left out."
    yield "Rows keep what the OCR engine read, its errors included, and the model learns them as well."
    if made.sides.unwritable:
        yield (
            f"{cards.numbered(made.sides.unwritable, 'row')} hold characters that its tokenizer lacks "
            f"({made.sides.odd}) and were left out."
        )


# --- numbers --------------------------------------------------------------------------------------------


def write_result(report: Shown, path: Path) -> None:
    """``result.json``: every measure with intervals, what was learned and left out, and the costs."""
    made = report.made
    document = {
        "model": made.base.name,
        "verdict": verdict(report.measured),
        "measures": [_document(one) for one in report.measured],
        "rows": len(made.sides.rows),
        "pictures": {"trained": len(made.sides.training), "held_out": len(made.sides.held_out)},
        "rejects": len(report.rejects),
        "steps": made.stage.steps,
        "memory_gb": report.memory,
        "seconds": round(sum(made.seconds.values()), 1),
        "steps_seconds": {name: round(value, 1) for name, value in made.seconds.items()},
        "commands": list(made.commands),
    }
    files.write_text(path, json.dumps(document, indent=1) + "\n")


def _document(one: Measured) -> dict[str, object]:
    found = one.comparison
    return {
        "part": one.part.value,
        "metric": one.measure.name,
        "better": "lower" if one.measure.lower_is_better else "higher",
        "truth": "your answers" if one.part is Part.OWN else "OCR",
        "before": _plain(one.compared.first),
        "after": _plain(one.compared.second),
        "difference": found.difference,
        "interval": [found.low, found.high],
        "p": found.p,
        "n": found.n,
    }


def _plain(score: Score) -> dict[str, float]:
    return {"value": score.value, "low": score.low, "high": score.high}
