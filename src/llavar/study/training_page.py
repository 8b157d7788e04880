"""The page of a training run: loss and its company step by step, looks at the model, what was left out.

Reads what a run writes while it works (``metrics.jsonl``, ``validation.jsonl``, ``samples.jsonl``,
``config.json`` and the rejects), as data alone, so that runs of other versions and runs that are still going
can be looked at.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llavar import html
from llavar.errors import DataError
from llavar.html import Child, Markup
from llavar.study import cards
from llavar.study.report import duration

LOG, CONFIG, REJECTS = "metrics.jsonl", "config.json", "rejects.jsonl"
LOOKS, SAMPLES, HELD_OUT_REJECTS = "validation.jsonl", "samples.jsonl", "validation_rejects.jsonl"
WATCHED = "watch"
"""Holds the pictures that were drawn to ask about, where the run names no folder of its own."""

_LISTED = 100
"""Rows left out that the page names one by one."""

_CARDS, _CHANGES = 8, 6
"""Questions whose answers are shown, and answers to each of them; all others are counted."""

_MOST = 1e30
"""A larger value of the log counts as not finite: charts cannot be drawn near the end of what floats hold."""

_CHARTS = (
    ("lr", "Learning rate", ""),
    ("grad_norm", "Gradient norm, before clipping", ""),
    ("samples_per_second", "Throughput", "samples/s"),
    ("useful_tokens_per_second", "Throughput without padding", "tokens/s"),
    ("padding", "Padding, share of the tokens", ""),
    ("wait", "Waiting for data, share of the time", ""),
    ("mfu", "Share of the peak arithmetic", ""),
    ("memory_gb", "Memory, most that was held", "GB"),
)
"""Field of the log, title, unit. Those that are never above zero are left out."""

Entry = Mapping[str, float]


Rejects = tuple[tuple[str, str, str, str], ...]
"""(id, stage, reason, detail) of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer that did not change from step ``first`` to step ``last``."""

    first: float
    last: float
    answer: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """A question and what the model said to it in the course of its training."""

    image: str
    question: str
    references: tuple[str, ...]
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """A run's folder as read. ``settings`` are (name, value), ``metric`` is what scores the answers."""

    path: Path
    log: tuple[Entry, ...]
    settings: tuple[tuple[str, str], ...]
    rejects: Rejects
    notes: tuple[str, ...] = ()
    looks: tuple[Entry, ...] = ()
    metric: str = ""
    followed: tuple[Followed, ...] = ()
    held_out_rejects: Rejects = ()

    def setting(self, name: str) -> str:
        return dict(self.settings).get(name, "")


def is_training(path: Path) -> bool:
    """Whether ``llavar train`` made the folder."""
    return all((path / name).is_file() for name in (LOG, CONFIG))


def read_training(path: Path) -> TrainingRun:
    """What the folder holds.

    Raises:
        DataError: a file is no text, the settings are no JSON object, or a line of the log is none.
    """
    notes: list[str] = []
    log = _logged(path / LOG, "the log", notes)
    looks = _logged(path / LOOKS, LOOKS, notes)
    samples = _logged(path / SAMPLES, SAMPLES, notes)
    return TrainingRun(
        path=path,
        log=tuple(_numbers(entry) for entry in log),
        settings=tuple(_flat(_object(path / CONFIG))),
        rejects=_left_out(path / REJECTS),
        notes=tuple(notes),
        looks=tuple(_numbers(entry) for entry in looks),
        metric=next((str(entry["metric"]) for entry in looks if entry.get("metric")), ""),
        followed=tuple(_followed(samples)),
        held_out_rejects=_left_out(path / HELD_OUT_REJECTS),
    )


def training_page(run: TrainingRun, *, images: int = _CARDS, pictures: Path | None = None) -> str:
    """The page as text.

    ``images`` are the questions whose answers are shown; ``pictures`` is where their pictures are now, if not
    where the run had them.
    """
    recipe = run.setting("recipe") or "Training"
    return html.page(
        f"{recipe}: {run.path.absolute().name}",
        html.grid(_tiles(run.log)) if run.log else html.paragraph("No step is logged yet.", kind="verdict"),
        html.bullets(run.notes) if run.notes else None,
        _looks(run) if run.looks else None,
        _answers(run, images, pictures) if run.followed and images else None,
        _curves(run.log) if run.log else None,
        _rejects(run.rejects, "Left out"),
        _rejects(run.held_out_rejects, "Left out of the held-out rows") if run.held_out_rejects else None,
        html.section("Settings", html.facts((name, value) for name, value in run.settings if value)),
        lead=f"From {run.setting('model') or 'an unnamed model'} on {run.setting('data') or 'unnamed data'}.",
        footer="Written by llavar report. Nothing on this page is loaded from elsewhere.",
    )


# --- reading --------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; it was not written by a run") from None


def _parsed(text: str, place: str) -> dict[str, object]:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not valid JSON ({error!s:.100}); remove it") from None
    if not isinstance(found, dict):
        raise DataError(f"{place} is {found!r:.40}, not an object; remove it")
    return cast("dict[str, object]", found)


def _object(path: Path) -> dict[str, object]:
    return _parsed(_text(path), str(path))


def _lines(path: Path) -> tuple[list[dict[str, object]], bool]:
    """The objects of a file of lines, and whether a kill tore the last one."""
    if not path.is_file():
        return [], False
    # Not splitlines: JSON strings may hold U+2028 and its like.
    whole, _, rest = _text(path).rpartition("\n")
    numbered = enumerate(whole.split("\n"), start=1)
    return [_parsed(line, f"line {n} of {path}") for n, line in numbered if line.strip()], bool(rest.strip())


def _logged(path: Path, name: str, notes: list[str]) -> list[dict[str, object]]:
    """The entries of a log that name a step; what is wrong with the others is added to ``notes``."""
    entries, torn = _lines(path)
    kept = [entry for entry in entries if math.isfinite(_number(entry.get("step")))]
    if torn:
        notes.append(f"The last line of {name} is torn and left out.")
    if len(kept) < len(entries):
        notes.append(f"{len(entries) - len(kept)} lines of {name} name no step and are left out.")
    return kept


def _numbers(entry: Mapping[str, object]) -> Entry:
    return {key: _number(value) for key, value in entry.items()}


def _left_out(path: Path) -> Rejects:
    rows, _ = _lines(path)
    fields = ("id", "stage", "reason", "detail")
    return tuple(
        cast("tuple[str, str, str, str]", tuple(str(row.get(name, "")) for name in fields)) for row in rows
    )


def _followed(samples: Sequence[Mapping[str, object]]) -> Iterator[Followed]:
    """The questions in the order in which they were asked first, each with its answers by step."""
    asked: dict[str, list[Mapping[str, object]]] = {}
    for sample in samples:
        asked.setdefault(str(sample.get("id", "")), []).append(sample)
    for answers in asked.values():
        first = answers[0]
        references = first.get("references")
        right = cast("list[object]", references) if isinstance(references, list) else []
        yield Followed(
            image=str(first.get("image") or ""),
            question=str(first.get("question", "")),
            references=tuple(map(str, right)),
            said=tuple(_said(sorted(answers, key=_step))),
        )


def _step(entry: Mapping[str, object]) -> float:
    return _number(entry.get("step"))


def _said(answers: Sequence[Mapping[str, object]]) -> Iterator[Said]:
    for answer, same in itertools.groupby(answers, lambda sample: str(sample.get("answer", ""))):
        kept = list(same)
        score = _number(kept[0].get("score"))
        yield Said(first=_step(kept[0]), last=_step(kept[-1]), answer=answer, score=score)


def _number(value: object) -> float:
    """NaN for everything that cannot be drawn: no number, or one beyond all reason."""
    if isinstance(value, int | float) and abs(value) <= _MOST:
        return float(value)
    return math.nan


def _flat(settings: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as ``stage batch``."""
    # What is nested comes last.
    for name, value in sorted(settings.items(), key=lambda item: isinstance(item[1], dict)):
        label = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, object]", value), f"{label} ")
        elif isinstance(value, list):
            yield label, ", ".join(map(str, cast("list[object]", value)))
        elif isinstance(value, bool):
            yield label, "yes" if value else "no"
        else:
            yield label, "" if value is None else str(value)


# --- parts of the page ----------------------------------------------------------------------------------


def _tiles(log: Sequence[Entry]) -> Iterator[Markup]:
    last = log[-1]
    left = last.get("left", math.nan)
    going = f"about {duration(left)} left when it was logged" if left > 0 else None
    state = "the last step is done" if left == 0 else going
    yield html.tile("Steps", f"{last['step']:,.0f}", state)
    some = max(1, len(log) // 20)
    begun, ended = _mean(log[:some], "loss"), _mean(log[-some:], "loss")
    if begun is not None and ended is not None:
        change = f"{begun:.3g} \N{RIGHTWARDS ARROW} {ended:.3g}"
        yield html.tile(
            "Loss", change, f"mean of the first and of the last {cards.numbered(some, 'logged step')}"
        )
    if last.get("seconds", 0.0) > 0:
        yield html.tile("Time", duration(last["seconds"]), "since the last start")
    rate = _mean(log, "samples_per_second")
    if rate is not None:
        wait = _mean(log, "wait")
        note = f"{wait:.0%} of the time spent waiting for data" if wait is not None else ""
        yield html.tile("Samples a second", html.number(round(rate, 2)), note or None)


def _mean(log: Sequence[Entry], field: str) -> float | None:
    values = [entry[field] for entry in log if math.isfinite(entry.get(field, math.nan))]
    return sum(values) / len(values) if values else None


def _curves(log: Sequence[Entry]) -> Markup:
    smooth = max(1, len(log) // 20)
    charts = [_chart(log, "loss", "Loss", "", smooth)]
    for field, title, unit in _CHARTS:
        if any(entry.get(field, 0) > 0 for entry in log):
            charts.append(_chart(log, field, title, unit, 1 if field == "lr" else smooth))
    return html.section(
        "Step by step",
        html.grid(charts, across=2),
        intro="Bold: a running mean; thin: as logged. Loss is the mean over the supervised tokens since the "
        "entry before.",
    )


def _chart(log: Sequence[Entry], field: str, title: str, unit: str, smooth: int) -> Markup:
    points = tuple((entry["step"], entry[field]) for entry in log if field in entry)
    return html.line_chart([html.Series(label="", points=points)], title=title, y_label=unit, smooth=smooth)


def _looks(run: TrainingRun) -> Markup:
    """Held-out loss beside that of training, and the score of the questions."""
    charts: list[Markup] = []
    losses = _points(run.looks, "loss")
    if losses:
        trained = tuple(_between([step for step, _ in losses], run.log))
        series = [
            html.Series(label="held-out rows", points=losses),
            html.Series(label="rows trained on, mean since the look before", points=trained),
        ]
        charts.append(html.line_chart(series[: 2 if trained else 1], title="Loss"))
    scores = _points(run.looks, "score")
    if scores:
        title = f"Score of the questions, {run.metric}" if run.metric else "Score of the questions"
        charts.append(html.line_chart([html.Series(label="", points=scores)], title=title))
    return html.section(
        "Looks at the model",
        html.grid(charts, across=2) if charts else html.paragraph("Nothing was measured yet.", kind="note"),
        intro="What is not trained on: loss of the held-out rows, the mean over their supervised tokens, and "
        "answers to a few questions.",
    )


def _points(entries: Sequence[Entry], field: str) -> tuple[tuple[float, float], ...]:
    return tuple((e["step"], e[field]) for e in entries if math.isfinite(e.get(field, math.nan)))


def _between(steps: Sequence[float], log: Sequence[Entry]) -> Iterator[tuple[float, float]]:
    """The mean training loss since the step before, at each of ``steps`` that has a log since."""
    for before, step in itertools.pairwise(steps):
        mean = _mean([entry for entry in log if before < entry["step"] <= step], "loss")
        if mean is not None:
            yield step, mean


def _answers(run: TrainingRun, images: int, where: Path | None) -> Markup:
    """What was said to some of the questions, chosen by lot, as training went on."""
    scores = {said.score for followed in run.followed for said in followed.said}
    binary = scores <= {0.0, 1.0}
    named = run.setting("watch data")
    pictures = cards.Pictures(root=where or (Path(named) if named else run.path / WATCHED))
    drawn = cards.by_lot(run.followed, "answers over time")[:images]
    all_of = len(run.followed)
    which = "All questions" if all_of <= images else f"{images} of {all_of} questions, chosen by lot"
    return html.section(
        "Answers over time",
        html.paragraph(pictures.missing, kind="note") if pictures.missing else None,
        html.grid(_card(followed, pictures, binary) for followed in drawn),
        intro=f"{which}. An answer that stayed the same is written once, with its first and last step.",
    )


def _card(followed: Followed, pictures: cards.Pictures, binary: bool) -> Markup:
    shown = _spread(followed.said, _CHANGES)
    pairs: list[tuple[str, Child]] = [
        ("Question", cards.answer(followed.question)),
        ("Right", cards.references(followed.references)),
    ]
    for said in shown:
        at = f"Step {html.number(said.first)}"
        at += f" to {html.number(said.last)}" if said.last > said.first else ""
        marked = cards.mark(said.score, binary=binary) if math.isfinite(said.score) else None
        pairs.append((at, html.join(cards.answer(said.answer), " ", marked)))
    left = len(followed.said) - len(shown)
    about = f"{cards.numbered(left, 'more answer')} between them" if left else followed.image
    return cards.card(pictures.show(followed.image, followed.question), pairs, about=about)


def _spread(said: Sequence[Said], most: int) -> list[Said]:
    """At most ``most``, the first and the last among them."""
    if len(said) <= most:
        return list(said)
    return [said[round(place * (len(said) - 1) / (most - 1))] for place in range(most)]


def _rejects(rejects: Rejects, title: str) -> Markup:
    if not rejects:
        return html.section(title, html.paragraph("No row was left out.", kind="note"))
    counts = Counter(f"{stage}: {reason}" for _, stage, reason, _ in rejects)
    more = f" (the first {_LISTED} of {len(rejects):,})" if len(rejects) > _LISTED else ""
    listed: list[Sequence[Child]] = list(rejects[:_LISTED])
    return html.section(
        title,
        html.bars(
            [(name, float(n)) for name, n in counts.most_common(20)],
            title=f"{cards.numbered(len(rejects), 'row')} by step and reason",
        ),
        html.details(f"Each of them{more}", html.table(("Id", "Step", "Reason", "Detail"), listed)),
    )
