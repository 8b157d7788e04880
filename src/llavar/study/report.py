"""The page that ``llavar demo`` ends in: did text-rich data help, by how much, and what was it made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llavar import html
from llavar.errors import DataError
from llavar.html import Child, Markup
from llavar.records import Comparison, Report, Score, Task
from llavar.study.report_parts import (
    Answer,
    CorpusSummary,
    OwnPicture,
    asked,
    corpus_section,
    opened,
    own_section,
)

SIGNIFICANT = 0.05
"""Below this p a difference is called one."""

_SIGNS = ("", "+", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one step took, in seconds."""

    step: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The training loss of one arm in one stage as (step, loss)."""

    arm: str
    stage: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A held-out question with both models' answers."""

    image: Path
    task: Task
    question: str
    reference: str
    without: Answer
    with_: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of each arm, at one seed: values by metric."""

    seed: int
    without: Mapping[str, float]
    with_: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Everything that the page shows. Texts are plain; ``machine`` and ``settings`` are (name, value).

    ``without``, ``with_`` and ``comparisons`` are over all ``runs``; without any, there was one.
    """

    title: str
    done: str
    control: str
    without: Report
    with_: Report
    comparisons: Mapping[str, Comparison]
    runs: tuple[Run, ...] = ()
    held_out: str = ""
    machine: tuple[tuple[str, str], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    timings: tuple[Timing, ...] = ()
    curves: tuple[Curve, ...] = ()
    samples: tuple[Sample, ...] = ()
    samples_chosen: str = ""
    corpus: CorpusSummary | None = None
    own: tuple[OwnPicture, ...] = ()
    limits: tuple[str, ...] = ()


def write_demo_report(report: DemoReport, path: Path) -> None:
    """Writes the page as one self-contained file, whole or not at all.

    A picture that cannot be opened is shown as the sentence that says why. Raises :class:`DataError` if the
    scores and comparisons do not name the same metrics, or one that the page knows nothing about.
    """
    html.write(demo_page(report), path)


def demo_page(report: DemoReport) -> str:
    """The page as text."""
    return html.page(
        report.title,
        _result(report),
        _compared(report),
        _samples(report) if report.samples else None,
        _training(report.curves) if report.curves else None,
        corpus_section(report.corpus) if report.corpus else None,
        own_section(report.own) if report.own else None,
        times_section(report.timings) if report.timings else None,
        html.section("What this model cannot do", html.bullets(report.limits)) if report.limits else None,
        lead=report.done,
        footer="Written by llavar demo. Nothing on this page is loaded from elsewhere.",
    )


# --- the result -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a metric is shown: a share in per cent, or a number up to ``limit``."""

    name: str
    title: str
    explained: str
    limit: float
    lower_is_better: bool = False
    percent: bool = False
    about_text: bool = True
    """Whether it measures reading; the verdict is about that alone."""

    def show(self, value: float) -> str:
        return f"{100 * value:.1f}%" if self.percent else f"{value:.1f}"

    def show_change(self, value: float) -> str:
        text = f"{abs(100 * value if self.percent else value):.1f}"
        return f"{_SIGNS[(value > 0) - (value < 0)]}{text}"

    def better(self, difference: float) -> bool:
        return difference < 0 if self.lower_is_better else difference > 0


_METRICS = (
    Measure(
        name="transcription_cer",
        title="Transcription error",
        explained="Character error rate, lower is better: edits to the true text, over its length.",
        limit=1,
        lower_is_better=True,
        percent=True,
    ),
    Measure(
        name="vqa_accuracy",
        title="Questions answered",
        explained="Share of questions on the text whose answer matches exactly, higher is better.",
        limit=1,
        percent=True,
    ),
    Measure(
        name="yes_no_score",
        title="Yes/no pairs",
        explained="MME's score, 0 to 200, higher is better: % of questions right + % of pairs right. "
        "Always yes gives 50.",
        limit=200,
    ),
    Measure(
        name="scene_accuracy",
        title="Colours, shapes, counts",
        explained="Share of questions on what is shown, not written, that are answered right: what both "
        "models were taught.",
        limit=1,
        percent=True,
        about_text=False,
    ),
)


def _measured(report: DemoReport) -> list[Measure]:
    known = {metric.name for metric in _METRICS}
    named = [set(names) for names in (report.without.scores, report.with_.scores, report.comparisons)]
    if not named[0] == named[1] == named[2] or not named[0] or named[0] - known:
        raise DataError(
            f"the scores name the metrics {sorted(named[0])} and {sorted(named[1])}, the comparisons "
            f"{sorted(named[2])}; all must name the same, out of {sorted(known)}"
        )
    return [metric for metric in _METRICS if metric.name in named[0]]


def is_clear(found: Comparison) -> bool:
    """Whether a difference is called one: by p over pictures, and by its interval over pictures and runs."""
    return found.p < SIGNIFICANT and not found.low <= 0 <= found.high


def verdict(report: DemoReport) -> str:
    """One sentence: whether text-rich data helped, judged by every metric's direction, p and interval."""
    told: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for metric in _measured(report):
        if not metric.about_text:
            continue
        found = report.comparisons[metric.name]
        told[metric.better(found.difference) if is_clear(found) else None].append(metric.title.lower())
    helped, hurt, unclear = (" and ".join(told[key]) for key in (True, False, None))
    if hurt:
        return f"Text-rich data hurt {hurt}" + (f", though it helped {helped}." if helped else ".")
    if not helped:
        return "No effect of text-rich data can be told from chance in this run."
    if not unclear:
        return "Text-rich data helped, on every measure of reading."
    return f"Text-rich data helped {helped}; for {unclear} no difference can be told from chance."


def _result(report: DemoReport) -> Markup:
    measured = _measured(report)
    notes = [f"{r.model}: {note}." for r in (report.without, report.with_) for note in r.notes]
    return html.join(
        html.paragraph(verdict(report), kind="verdict"),
        html.grid([_tile(metric, report) for metric in measured], across=4 if len(measured) > 3 else 3),
        html.paragraph(_meant(report), kind="note"),
        html.details("All numbers", _numbers(measured, report)),
        html.details("Each training run", _each_run(measured, report)) if len(report.runs) > 1 else None,
        html.bullets(notes) if notes else None,
    )


def _meant(report: DemoReport) -> str:
    """What the numbers are taken over."""
    runs = len(report.runs)
    if runs > 1:
        return (
            f"Scores of {report.with_.n} held-out questions to each of {runs} models per arm, which differ "
            "in the start of the projector and in the order of the rows. Dots are means, bars their 95% "
            "intervals from resampling pictures and runs; so few runs make them too narrow rather than too "
            "wide. p comes from swapping the two arms' answers picture by picture, in all runs at once, is "
            "two-sided, and is not corrected for the number of measures."
        )
    return (
        f"Scores of {report.with_.n} held-out questions per model. Dots are scores, bars their 95% "
        "intervals from resampling pictures; p comes from swapping the two models' answers picture by "
        "picture, is two-sided, and is not corrected for the number of measures. One training run per "
        "arm: the intervals do not cover what another seed would change."
    )


def _each_run(measured: Sequence[Measure], report: DemoReport) -> Markup:
    """Both arms at every seed, one measure below the other."""
    rows: list[Sequence[Child]] = []
    for metric in measured:
        for place, run in enumerate(report.runs):
            before, after = run.without[metric.name], run.with_[metric.name]
            cells = (metric.show(before), metric.show(after), metric.show_change(after - before))
            rows.append(("" if place else metric.title, run.seed, *cells))
    return html.table(("Measure", "Seed", "Without", "With", "Difference"), rows, numeric=range(1, 5))


def p_text(p: float) -> str:
    """``p = 0.03``, which does not break at the end of a line."""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _tile(metric: Measure, report: DemoReport) -> Markup:
    scores = report.without.scores[metric.name], report.with_.scores[metric.name]
    return measure_tile(metric, scores, report.comparisons[metric.name], ("without", "with"))


def measure_tile(
    measure: Measure, scores: tuple[Score, Score], found: Comparison, labels: tuple[str, str]
) -> Markup:
    """Both scores, how far they are apart, and whether that is called a difference."""
    unit = " points" if measure.percent else ""
    before, after = (measure.show(score.value) for score in scores)
    if not is_clear(found):
        told: Child = "no clear difference"
    else:
        good = measure.better(found.difference)
        told = html.badge("better" if good else "worse", good=good)
    span = f"{measure.show_change(found.low)} to {measure.show_change(found.high)}"
    return html.tile(
        measure.title,
        f"{before} \N{RIGHTWARDS ARROW} {after}",
        html.join(f"{measure.show_change(found.difference)}{unit} ({span}), {p_text(found.p)}: ", told),
        measure.explained,
        chart=_chart(measure, scores, labels),
    )


def _chart(measure: Measure, scores: tuple[Score, Score], labels: tuple[str, str]) -> Markup:
    marks = [
        html.Mark(label=label, value=score.value, low=score.low, high=score.high)
        for label, score in zip(labels, scores, strict=True)
    ]
    show = _percent if measure.percent else _short
    return html.interval_chart(marks, limits=(0, measure.limit), show=show)


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _short(value: float) -> str:
    return f"{value:.0f}"


def _numbers(measured: Sequence[Measure], report: DemoReport) -> Markup:
    rows: list[Sequence[Child]] = []
    for metric in measured:
        scores = [r.scores[metric.name] for r in (report.without, report.with_)]
        cells = [f"{metric.show(s.value)} [{metric.show(s.low)}, {metric.show(s.high)}]" for s in scores]
        found = report.comparisons[metric.name]
        span = " to ".join(map(metric.show_change, (found.low, found.high)))
        change = f"{metric.show_change(found.difference)} [{span}]"
        rows.append((metric.name, *cells, change, f"{found.p:.4f}", found.n))
    rows.append(("answers that failed", report.without.failed, report.with_.failed, "", "", report.with_.n))
    return html.table(("Measure", "Without", "With", "Difference", "p", "n"), rows, numeric=range(1, 6))


def _compared(report: DemoReport) -> Markup:
    return html.section(
        "What was compared",
        html.paragraph(report.control),
        html.paragraph(report.held_out) if report.held_out else None,
        html.facts(
            [("Model without", report.without.model), ("Model with", report.with_.model), *report.machine]
        ),
        html.details("Settings", html.facts(report.settings)) if report.settings else None,
    )


# --- pictures and answers -------------------------------------------------------------------------------


def _samples(report: DemoReport) -> Markup:
    cards = [
        html.card(
            asked(s.question, s.without, s.with_, s.reference),
            head=opened(s.image, f"held-out picture, {s.task}", 384),
        )
        for s in report.samples
    ]
    title = "The same questions to both models"
    return html.section(title, html.grid(cards), intro=report.samples_chosen or None)


# --- training and time ----------------------------------------------------------------------------------


def _training(curves: Sequence[Curve]) -> Markup:
    stages = dict.fromkeys(curve.stage for curve in curves)
    charts: list[Child] = []
    for stage in stages:
        mine = [curve for curve in curves if curve.stage == stage]
        series = [html.Series(label=c.arm, points=tuple((float(x), y) for x, y in c.points)) for c in mine]
        smooth = max(1, max(len(c.points) for c in mine) // 20)
        charts.append(html.line_chart(series, title=stage, y_label="loss", smooth=smooth))
    return html.section(
        "Training",
        html.grid(charts, across=2),
        intro="Loss on each arm's own rows: the arms learn different answers, so the two curves show that "
        "training went well, not which arm is better.",
    )


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def times_section(timings: Sequence[Timing]) -> Markup:
    total = duration(sum(timing.seconds for timing in timings))
    return html.section(
        "How long it took",
        html.bars(
            [(timing.step, timing.seconds) for timing in timings], title=f"{total} in all", show=duration
        ),
    )
