"""The arms of the paper's ablation, what is measured of each, and how every two of them compare.

A question on the text counts as in the paper, if the answer holds the right one. That credits whoever recites
all of the text for every question, so it is also measured who does.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llavar.evals import metrics
from llavar.evals.exam import is_right, recites
from llavar.evals.stats import Array, bootstrap_runs, paired_runs
from llavar.records import Comparison, Prediction, Question, Reject, Score, Status, Task
from llavar.study.demo import DemoSettings
from llavar.study.demo_page import Scenes

if TYPE_CHECKING:
    from llavar.study.trial import Runs


class Kind(StrEnum):
    """What text-rich rows of a stage are, if it has any."""

    NONE = "control rows"
    OCR = "noisy OCR"
    CAPTIONS = "captions"
    TALKS = "conversations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An arm: which text-rich rows each stage has, and the paper's accuracy on TextVQA in percent."""

    name: str
    title: str
    stage1: Kind
    stage2: Kind
    paper: float


VARIANTS = (
    Variant(name="control", title="control", stage1=Kind.NONE, stage2=Kind.NONE, paper=36.7),
    Variant(name="stage1-ocr", title="stage 1: noisy OCR", stage1=Kind.OCR, stage2=Kind.NONE, paper=46.5),
    Variant(
        name="stage1-captions", title="stage 1: captions", stage1=Kind.CAPTIONS, stage2=Kind.NONE, paper=45.6
    ),
    Variant(
        name="stage2-talks", title="stage 2: conversations", stage1=Kind.NONE, stage2=Kind.TALKS, paper=43.6
    ),
    Variant(name="stage2-ocr", title="stage 2: noisy OCR", stage1=Kind.NONE, stage2=Kind.OCR, paper=43.3),
    Variant(name="both", title="both stages", stage1=Kind.OCR, stage2=Kind.TALKS, paper=48.5),
)
"""In the order of the paper's table."""


class Measure(StrEnum):
    """What is measured of every arm, each a share from 0 to 1."""

    HELD = "held"
    """Questions on the text whose answer holds the right one, as the paper counts (MultimodalOCR's rule)."""
    EXACT = "exact"
    """The same questions answered exactly."""
    ERROR = "error"
    """Character error rate of transcriptions."""
    RECITED = "recited"
    """Answers to questions other than that for all of the text that are the model's transcription."""
    YES_NO = "yes_no"
    """Yes/no questions answered with yes or no, rightly or not."""
    SHOWN = "shown"
    """Questions on colours, shapes and counts answered rightly."""


class Order(StrEnum):
    """How a pair of arms compares with the paper."""

    SAME = "as in the paper"
    OTHER = "the other way round"
    OPEN = "not told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two arms; the paper has ``better`` above ``worse``, and ``found`` is how much they differ here."""

    better: Variant
    worse: Variant
    found: Comparison

    @property
    def order(self) -> Order:
        """By the interval over pictures and runs."""
        if self.found.low > 0:
            return Order.SAME
        return Order.OTHER if self.found.high < 0 else Order.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablated:
    """All that the page shows. Scores are by arm and measure, ``counts`` text-rich rows by kind."""

    out: Path
    scenes: Scenes
    runs: Mapping[str, Runs]
    scores: Mapping[str, Mapping[Measure, Score]]
    pairs: tuple[Pair, ...]
    recited: Comparison
    counts: Mapping[Kind, int]
    rejects: tuple[Reject, ...]
    settings: DemoSettings
    seconds: Mapping[str, float]


Answers = Sequence[Sequence[Prediction]]
"""Of one arm, at every seed."""


def scores(questions: Sequence[Question], said: Answers) -> dict[Measure, Score]:
    """Every measure of an arm over all its runs; intervals resample pictures and runs."""
    tables = [_tables(questions, run) for run in said]
    groups = [question.image for question in questions]
    return {measure: bootstrap_runs([run[measure] for run in tables], _share, groups) for measure in Measure}


def compared(measure: Measure, questions: Sequence[Question], first: Answers, second: Answers) -> Comparison:
    """``second - first`` in one measure."""
    one, other = ([_tables(questions, run)[measure] for run in arm] for arm in (first, second))
    return paired_runs(one, other, _share, [question.image for question in questions])


def pairs(questions: Sequence[Question], answers: Mapping[str, Answers]) -> tuple[Pair, ...]:
    """Every two arms, by the measure that the paper has."""
    ordered = sorted(VARIANTS, key=lambda one: -one.paper)
    return tuple(
        Pair(
            better=better,
            worse=worse,
            found=compared(Measure.HELD, questions, answers[worse.name], answers[better.name]),
        )
        for better, worse in itertools.combinations(ordered, 2)
    )


def _share(sums: Array) -> Array:
    """First column over second, 0 where nothing counts."""
    counted = sums[..., 1]
    return np.divide(sums[..., 0], counted, out=np.zeros_like(counted), where=counted > 0)


def _tables(questions: Sequence[Question], said: Sequence[Prediction]) -> dict[Measure, Array]:
    """For each measure what a question gives and what it counts, shape (questions, 2)."""
    texts = {p.question: p.text if p.status is Status.OK else "" for p in said}
    whole = {q.image: texts.get(q.id, "") for q in questions if q.task is Task.TRANSCRIPTION}
    found = {measure: np.zeros((len(questions), 2)) for measure in Measure}
    for row, asked in enumerate(questions):
        text = texts.get(asked.id, "")
        for measure, pair in _counted(asked, text, whole.get(asked.image, "")).items():
            found[measure][row] = pair
    return found


def _counted(asked: Question, text: str, transcription: str) -> dict[Measure, tuple[float, float]]:
    """What one answer adds to which measures; ``transcription`` is the model's own of the picture."""
    answered = Prediction(question=asked.id, status=Status.OK, text=text)
    if asked.task is Task.TRANSCRIPTION:
        return {Measure.ERROR: metrics.transcription_counts(text, asked.references)}
    found: dict[Measure, tuple[float, float]] = {}
    recited = recites(text, transcription, asked.references[0])
    if recited is not None:
        found[Measure.RECITED] = (recited, 1)
    if asked.task is Task.VQA:
        found[Measure.HELD] = (metrics.score("mmocr", text, asked.references), 1)
        found[Measure.EXACT] = (is_right(asked, answered), 1)
    elif asked.task is Task.YES_NO:
        found[Measure.YES_NO] = (metrics.parse_yes_no(text) is not metrics.YesNo.OTHER, 1)
    elif asked.task is Task.SCENE:
        found[Measure.SHOWN] = (is_right(asked, answered), 1)
    return found


def result(made: Ablated) -> dict[str, object]:
    """``result.json``: what was measured of every arm, and how every two of them compare."""
    return {
        "arms": {
            one.name: {
                "title": one.title,
                "stage1": one.stage1.value,
                "stage2": one.stage2.value,
                "paper_textvqa": one.paper,
                **{measure.value: asdict(score) for measure, score in made.scores[one.name].items()},
            }
            for one in VARIANTS
        },
        "pairs": [
            {
                "better_in_paper": pair.better.name,
                "worse_in_paper": pair.worse.name,
                "here": asdict(pair.found),
                "order": pair.order.value,
            }
            for pair in made.pairs
        ],
        "recited_stage2_ocr_minus_both": asdict(made.recited),
        "rows": {kind.value: count for kind, count in made.counts.items()},
        "settings": asdict(made.settings),
        "seconds": round(sum(made.seconds.values()), 1),
        "steps": {name: round(value, 1) for name, value in made.seconds.items()},
    }
