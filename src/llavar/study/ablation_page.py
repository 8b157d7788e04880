"""The page of ``llavar demo --ablation``: every arm beside the paper's figure, and how the order differs."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from llavar import files, html
from llavar.evals.exam import is_right
from llavar.html import Child, Markup
from llavar.records import Question, Score, Status, Task
from llavar.study.ablation_scores import VARIANTS, Ablated, Kind, Measure, Order, Pair, result
from llavar.study.report import Timing, times_section
from llavar.study.report_parts import Answer, answer_row, opened, rejects_part

_TITLES = {
    Measure.HELD: "holds the answer",
    Measure.EXACT: "exact",
    Measure.ERROR: "text errors",
    Measure.RECITED: "recites",
    Measure.YES_NO: "yes or no",
    Measure.SHOWN: "colours, counts",
}

_EXPLAINED = (
    (
        "holds the answer",
        "Questions on the text whose answer holds the right one: the paper's rule for TextVQA.",
    ),
    ("exact", "The same questions answered exactly."),
    ("text errors", "Character error rate when all of the text is asked for; lower is better."),
    ("recites", "Answers to other questions that are the model's own transcription of the picture."),
    ("yes or no", "Yes/no questions answered with yes or no, rightly or not."),
    ("colours, counts", "Questions on colours, shapes and counts answered rightly."),
)

_APART = (
    "The paper's control, LLaVA, reads a little before any text-rich row: CLIP and Vicuna have seen text. "
    "The control here cannot read at all, so whatever teaches a first connection gains much.",
    "In the paper text-rich rows are added to 595,000 and 158,000 others; here they take the place of "
    "others, of most of them, so that all arms take equal steps on equally many rows.",
    "The paper's captions come from the web. Here a caption is the highest line that the OCR engine read, "
    "and what is drawn beside the text.",
    "Stage 2 trains all of a decoder of three million parameters on a thousand rows; what stage 1 has "
    "taught it is forgotten more easily than by thirteen billion.",
    "The paper gives no intervals. Where two of its arms are within a point or so, their order may be "
    "chance.",
)


def write(made: Ablated, report: Path, numbers: Path) -> None:
    """The page and ``result.json``."""
    html.write(page(made), report)
    files.write_text(numbers, json.dumps(result(made), indent=1) + "\n")


def verdict(made: Ablated) -> str:
    """One sentence: how many pairs of arms come out in the paper's order."""
    counts = Counter(pair.order for pair in made.pairs)
    told = [f"{counts[Order.SAME]} of {len(made.pairs)} pairs of arms differ as in the paper"]
    if counts[Order.OTHER]:
        told.append(f"{counts[Order.OTHER]} the other way round")
    if counts[Order.OPEN]:
        told.append(f"{counts[Order.OPEN]} cannot be told apart")
    return f"{', '.join(told)}."


def page(made: Ablated) -> str:
    """The page as text."""
    settings = made.settings
    return html.page(
        "Which rows, at which stage, teach a model to read?",
        html.paragraph(verdict(made), kind="verdict"),
        _arms(made),
        _orders(made),
        _instructions(made),
        html.section("Why the order may differ", html.bullets(_APART)),
        _samples(made),
        _rows(made),
        times_section(tuple(Timing(step=step, seconds=taken) for step, taken in made.seconds.items())),
        lead=(
            "The arms of the paper's ablation in miniature: one base model through both stages, with "
            f"text-rich rows of {settings.text_pictures} pictures at either stage, at both or at none, "
            f"{settings.seeds} times each; asked {len(made.scenes.exam.questions)} questions about "
            f"{len(made.scenes.exam.scenes)} pictures whose words, fonts and layouts no training picture has."
        ),
        footer="Written by llavar demo --ablation. Nothing on this page is loaded from elsewhere.",
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _points(value: float) -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{abs(100 * value):.1f}"


def _arms(made: Ablated) -> Markup:
    marks = [_mark(one.title, made.scores[one.name][Measure.HELD]) for one in VARIANTS]
    paper = [(one.title, one.paper) for one in VARIANTS]
    charts = (
        html.bars(paper, title="The paper: TextVQA, % (13B)", show=lambda value: f"{value:.1f}"),
        html.interval_chart(
            marks, limits=(0, 1), title="Here: answers that hold the right one", show=_percent
        ),
    )
    return html.join(
        html.grid(charts, across=2),
        html.paragraph(
            f"Means of {made.settings.seeds} training runs; bars are 95% intervals from resampling pictures "
            "and runs. So few runs make them too narrow rather than too wide.",
            kind="note",
        ),
        _table(made),
        html.details("What is measured", html.facts(_EXPLAINED)),
    )


def _mark(label: str, score: Score) -> html.Mark:
    return html.Mark(label=label, value=score.value, low=score.low, high=score.high)


def _table(made: Ablated) -> Markup:
    rows: list[Sequence[Child]] = []
    for one in VARIANTS:
        cells = [_cell(made.scores[one.name][measure]) for measure in Measure]
        rows.append((one.title, f"{one.paper:.1f}", *cells))
    header = ("Arm", "paper", *(_TITLES[measure] for measure in Measure))
    return html.table(header, rows, numeric=range(1, len(header)))


def _cell(score: Score) -> str:
    low, high = (f"{100 * value:.0f}" for value in (score.low, score.high))
    return f"{_percent(score.value)} [{low}, {high}]"


def _orders(made: Ablated) -> Markup:
    """Pairs that contradict the paper first, then all of them."""
    odd = [pair for pair in made.pairs if pair.order is Order.OTHER]
    told = (
        html.bullets(_odd(pair) for pair in odd)
        if odd
        else html.paragraph("No pair of arms contradicts the paper beyond its interval.")
    )
    rows = [_pair(pair) for pair in made.pairs]
    header = ("Better in the paper", "than", "by, points", "here, points", "order")
    return html.section(
        "The order of the arms",
        told,
        html.details("Every pair", html.table(header, rows, numeric=(2, 3)), opened=not odd),
        intro="Two arms are told apart where the interval of their difference, over pictures and runs, "
        "leaves out zero. Fifteen pairs are looked at, and none of it is corrected for that.",
    )


def _odd(pair: Pair) -> str:
    return (
        f"{pair.worse.title} is above {pair.better.title} by {_points(-pair.found.difference)} points "
        f"[{_points(-pair.found.high)}, {_points(-pair.found.low)}]; in the paper it is below, "
        f"{pair.worse.paper:.1f} against {pair.better.paper:.1f}."
    )


def _pair(pair: Pair) -> Sequence[Child]:
    found = pair.found
    here = f"{_points(found.difference)} [{_points(found.low)}, {_points(found.high)}]"
    apart = f"+{pair.better.paper - pair.worse.paper:.1f}"
    return pair.better.title, pair.worse.title, apart, here, pair.order.value


def _instructions(made: Ablated) -> Markup:
    """The paper: noisy OCR alone in stage 2 destroys the following of instructions."""
    noisy, both, control = (made.scores[name] for name in ("stage2-ocr", "both", "control"))
    clear = made.recited.low > 0 or made.recited.high < 0
    more = made.recited
    unclear = "" if clear else ", which is no clear difference"
    told = (
        f"With noisy OCR alone in stage 2 {_percent(noisy[Measure.RECITED].value)} of the answers to other "
        "questions are the text of the picture, with conversations "
        f"{_percent(both[Measure.RECITED].value)}: {_points(more.difference)} points "
        f"[{_points(more.low)}, {_points(more.high)}]{unclear}. Asked for yes or no, it says one of them "
        f"{_percent(noisy[Measure.YES_NO].value)} of the time, the arm of both stages "
        f"{_percent(both[Measure.YES_NO].value)}; of questions on colours, shapes and counts it answers "
        f"{_percent(noisy[Measure.SHOWN].value)}, the control {_percent(control[Measure.SHOWN].value)}."
    )
    if clear and made.recited.low > 0:
        end = "So the model follows instructions less, as the paper reports (it calls the ability destroyed)."
    else:
        end = (
            "The paper reports that this destroys the following of instructions; by this measure it does not "
            "here. A control row still stands beside the text-rich ones, with questions of every other kind."
        )
    return html.section("Following instructions", html.paragraph(told), html.paragraph(end))


def _samples(made: Ablated) -> Markup:
    """Some questions to the first models of all arms, drawn by lot."""
    rng = random.Random("ablation samples")
    chosen: list[Question] = []
    for task, count in ((Task.VQA, 4), (Task.YES_NO, 1), (Task.SCENE, 1)):
        fitting = [q for q in made.scenes.exam.questions if q.task is task]
        chosen += rng.sample(fitting, min(count, len(fitting)))
    cards = [
        html.card(
            html.rows(_said(made, asked)),
            head=opened(made.out / "pictures" / "exam" / asked.image, f"held-out picture, {asked.task}", 384),
        )
        for asked in chosen
    ]
    return html.section(
        "The same questions to all arms",
        html.grid(cards, across=2),
        intro="Drawn by lot; answers are those of the first training runs. Right means exactly right.",
    )


def _said(made: Ablated, asked: Question) -> Iterator[tuple[str, Child]]:
    yield "Question", html.quote(asked.text)
    yield "Right answer", html.quote(asked.references[0])
    for one in VARIANTS:
        said = next(p for p in made.runs[one.name].answers[0] if p.question == asked.id)
        failed = said.error if said.status is Status.FAILED else ""
        yield answer_row(one.title, Answer(text=said.text, right=is_right(asked, said), failed=failed))


def _rows(made: Ablated) -> Markup:
    counts = [(kind.value, made.counts[kind]) for kind in Kind if kind in made.counts]
    tiles = [
        html.tile(f"rows of {name}", f"{count} of {made.settings.control_pictures}") for name, count in counts
    ]
    return html.section(
        "What the data was made of",
        html.grid(tiles, across=3),
        rejects_part(made.rejects),
        intro="In an arm that has them they take the place of as many control rows. A row keeps what the "
        "engine read, errors included.",
    )
