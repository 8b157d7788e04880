"""What the page of ``llavar demo`` is made of: from what a finished demo holds to a report and a result."""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import files
from llavar.evals import run as evals
from llavar.evals.exam import compare_runs, summarise_runs
from llavar.evals.metrics import transcription_counts
from llavar.evals.stats import bootstrap, ratio
from llavar.records import Prediction, Question, Reject, Score, Status, Task
from llavar.render.scene import Scene
from llavar.study import report as page
from llavar.study import report_parts as parts
from llavar.study.demo_corpus import Built
from llavar.study.nano.questions import Exam

if TYPE_CHECKING:
    from llavar.study.arms import ArmRows
    from llavar.study.trial import Runs

OWN_QUESTION = "What does the picture say?"
SHOWN_OWN = 24
"""The user's pictures that the page shows; all of them take part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """Every rendered scene by file name: to be read by OCR, of the control rows, of the exam."""

    text: dict[str, Scene]
    control: dict[str, Scene]
    exam: Exam


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The user's pictures by id: rows at the scale of a full-size tower, and those that nano can see."""

    pictures: Mapping[str, Path]
    full: Built
    nano: Built


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of both arms. ``text_rich`` counts those of stage 1 and 2 that took the place of control rows."""

    without: ArmRows
    with_: ArmRows
    text_rich: tuple[int, int]
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All that a demo in the folder ``out`` has made when its page is written.

    ``without`` and ``with_`` are the arms at all ``seeds``; ``own_answers`` are by arm and picture id, and
    those of the first seed, as everything that is shown of a single model.
    """

    out: Path
    settings: tuple[tuple[str, str], ...]
    scenes: Scenes
    built: Built
    theirs: Own | None
    rows: Rows
    seeds: tuple[int, ...]
    without: Runs
    with_: Runs
    own_answers: Mapping[tuple[str, str], page.Answer]
    seconds: Mapping[str, float]


def demo_report(made: Finished) -> page.DemoReport:
    """The content of ``report.html``."""
    scenes, questions = made.scenes, made.scenes.exam.questions
    share = made.rows.text_rich[0] / len(made.rows.with_.stage1)
    return page.DemoReport(
        title="Does text-rich data teach a model to read?",
        done=(
            f"{len(scenes.text)} rendered pictures were read by an OCR engine and turned into instruction "
            "data. One base model was trained through both stages of LLaVAR, without and with these rows"
            f"{_times(len(made.seeds))}, and asked {len(questions)} questions about "
            f"{len(scenes.exam.scenes)} pictures whose words, fonts and layouts no training picture has."
        ),
        control=(
            "The control (without) starts from the same base and takes the same number of steps on the same "
            "number of rows, in each run with the seed of the other. Its rows are rendered pictures with "
            "captions and questions on colours, shapes and counts, never on text. "
            f"With: {share:.0%} of these rows are replaced by text-rich ones. The "
            "base is the shipped nano with the matrix of its projector reset to random numbers: its vision "
            "tower can tell letters apart and its decoder can answer questions about what a projector gives "
            "it, but nothing connects the two, so it cannot read. (The projector's bias, the same for all "
            "patches, is kept where the decoder expects pictures.) What is compared is which rows teach the "
            "connection."
        ),
        held_out=(
            "Held out: a fifth of the word list, three fonts, three layouts. Question wordings are shared."
        ),
        without=summarise_runs(questions, made.without.answers, "nano without text-rich rows"),
        with_=summarise_runs(questions, made.with_.answers, "nano with text-rich rows"),
        comparisons=compare_runs(questions, made.without.answers, made.with_.answers).comparisons,
        runs=tuple(_runs(made)),
        machine=_machine(),
        settings=made.settings,
        timings=tuple(page.Timing(step=step, seconds=seconds) for step, seconds in made.seconds.items()),
        curves=_curves(made),
        samples=_samples(made),
        samples_chosen="Pictures in the order in which they were drawn by lot; nothing was picked by hand."
        + (" Answers are those of the first training runs." if len(made.seeds) > 1 else ""),
        corpus=_summary(made),
        own=_own_pictures(made.theirs, made.own_answers) if made.theirs else (),
        limits=(
            "It sees 96 x 96 pixels: text lower than an eighth of the picture is lost, and so is most of a "
            "photograph.",
            "It knows printable ASCII in upright, printed lines; no handwriting, no other scripts, no strong "
            "rotation.",
            "It answers the kinds of questions it was trained on. It is no substitute for a full-size "
            "checkpoint; the same commands take one with --model.",
        ),
    )


def _machine() -> tuple[tuple[str, str], ...]:
    import torch

    from llavar.study.arms import processors

    return (
        ("Machine", f"{platform.machine()}, {processors()} processors, one thread for each model"),
        ("Software", f"Python {platform.python_version()}, torch {torch.__version__}"),
    )


def _times(runs: int) -> str:
    return f", {runs} times each at different seeds" if runs > 1 else ""


def _runs(made: Finished) -> Iterator[page.Run]:
    """What each seed alone would say."""
    questions, pairs = made.scenes.exam.questions, zip(made.without.answers, made.with_.answers, strict=True)
    for seed, (without, with_) in zip(made.seeds, pairs, strict=True):
        yield page.Run(
            seed=seed,
            without=_values(evals.summarise(questions, without, "")),
            with_=_values(evals.summarise(questions, with_, "")),
        )


def _values(report: page.Report) -> dict[str, float]:
    return {name: score.value for name, score in report.scores.items()}


def _curves(made: Finished) -> tuple[page.Curve, ...]:
    curves: list[page.Curve] = []
    for name, arm in (("without", made.without.arms[0]), ("with", made.with_.arms[0])):
        for stage, fitted in (("stage 1", arm.stage1), ("stage 2", arm.stage2)):
            points = tuple((tick.step, tick.loss) for tick in fitted.ticks)
            curves.append(page.Curve(arm=name, stage=stage, points=points))
    return tuple(curves)


def _samples(made: Finished) -> tuple[page.Sample, ...]:
    """Some questions of each task, drawn by lot."""
    rng = random.Random("samples")
    without, with_ = ({p.question: p for p in arm.answers[0]} for arm in (made.without, made.with_))
    chosen: list[Question] = []
    for task, count in ((Task.TRANSCRIPTION, 6), (Task.VQA, 4), (Task.YES_NO, 3), (Task.SCENE, 3)):
        fitting = [q for q in made.scenes.exam.questions if q.task is task]
        chosen += rng.sample(fitting, min(count, len(fitting)))
    return tuple(
        page.Sample(
            image=made.out / "pictures" / "exam" / q.image,
            task=q.task,
            question=q.text,
            reference=q.references[0],
            without=_answer(q, without[q.id]),
            with_=_answer(q, with_[q.id]),
        )
        for q in chosen
    )


def _answer(asked: Question, said: Prediction) -> page.Answer:
    failed = said.error if said.status is Status.FAILED else ""
    return page.Answer(text=said.text, right=evals.is_right(asked, said), failed=failed)


def _summary(made: Finished) -> parts.CorpusSummary:
    scenes, built = made.scenes, made.built
    examples = tuple(
        _made(made.out / "pictures" / id, built, id, truth=scenes.text[Path(id).name].text)
        for id in list(built.readings)[:6]
    )
    engine = next((reading.engine for reading in built.readings.values()), "none")
    return parts.CorpusSummary(
        pictures=len(scenes.text),
        kept=len({row.id for row in (*built.stage1, *built.stage2)}),
        rejects=made.rows.rejects,
        rows=(("Rows of stage 1", len(built.stage1)), ("Rows of stage 2", len(built.stage2))),
        engine=engine,
        ocr_cer=_ocr_error(scenes, built),
        examples=examples,
    )


def _ocr_error(scenes: Scenes, built: Built) -> Score:
    """How well the engine read the rendered pictures. Those it gave up on count in full."""
    counts: list[tuple[int, int]] = []
    for name, shown in scenes.text.items():
        reading = built.readings.get(f"text/{name}")
        counts.append(transcription_counts(reading.text if reading else "", (shown.text,)))
    return bootstrap(counts, ratio)


def _made(path: Path, built: Built, id: str, truth: str = "") -> parts.MadeRows:
    return parts.MadeRows(
        image=path,
        reading=built.readings[id],
        stage1=tuple(row for row in built.stage1 if row.id == id),
        stage2=tuple(row for row in built.stage2 if row.id == id),
        rejects=tuple(reject for reject in built.rejects if reject.id == id),
        truth=truth,
    )


def _own_pictures(theirs: Own, said: Mapping[tuple[str, str], page.Answer]) -> tuple[parts.OwnPicture, ...]:
    return tuple(
        _own_picture(id, path, theirs.full, said) for id, path in islice(theirs.pictures.items(), SHOWN_OWN)
    )


def _own_picture(
    id: str, path: Path, built: Built, said: Mapping[tuple[str, str], page.Answer]
) -> parts.OwnPicture:
    why = (f"{one.reason}: {one.detail}" for one in built.rejects if one.id == id)
    read = id in built.readings
    asked = parts.OwnAnswer(question=OWN_QUESTION, without=said["without", id], with_=said["with", id])
    return parts.OwnPicture(
        image=path,
        made=_made(path, built, id) if read else None,
        answers=(asked,),
        problem="" if read else next(why, "not read"),
    )


def write_result(shown: page.DemoReport, seconds: Mapping[str, float], path: Path) -> None:
    """``result.json``: scores of both arms with 95 % intervals, paired differences, every run, seconds."""
    document = {
        "without": _scores(shown.without),
        "with": _scores(shown.with_),
        "paired": {
            name: {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p, "n": c.n}
            for name, c in shown.comparisons.items()
        },
        "runs": [
            {"seed": run.seed, "without": dict(run.without), "with": dict(run.with_)} for run in shown.runs
        ],
        "seconds": round(sum(seconds.values()), 1),
        "steps": {name: round(value, 1) for name, value in seconds.items()},
    }
    files.write_text(path, json.dumps(document, indent=1) + "\n")


def _scores(report: page.Report) -> dict[str, object]:
    named = {
        name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n} for name, s in report.scores.items()
    }
    return {"n": report.n, **named}
