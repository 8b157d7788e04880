"""What the page of ``llavar demo`` is made of: from what a finished demo holds to a report and a result."""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import files
from llavar.corpus import build as corpus
from llavar.evals import run as evals
from llavar.evals.metrics import transcription_counts
from llavar.evals.stats import bootstrap, ratio
from llavar.records import Prediction, Question, Reject, Score, Status, Task
from llavar.render.scene import Scene
from llavar.study import report as page
from llavar.study.nano.questions import Exam

if TYPE_CHECKING:
    from llavar.study.arms import Arm, ArmRows

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
    """The user's pictures: rows at the scale of a full-size tower, and those that nano can see."""

    pictures: tuple[corpus.Picture, ...]
    full: corpus.Built
    nano: corpus.Built


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of both arms. ``text_rich`` counts those of stage 1 and 2 that took the place of control rows."""

    without: ArmRows
    with_: ArmRows
    text_rich: tuple[int, int]
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Both trained arms."""

    without: Arm
    with_: Arm

    def named(self) -> tuple[tuple[str, Arm], ...]:
        return ("without", self.without), ("with", self.with_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All that a demo in the folder ``out`` has made when its page is written.

    ``answers`` are to the exam, by arm; ``own_answers`` by arm and picture id.
    """

    out: Path
    settings: tuple[tuple[str, str], ...]
    scenes: Scenes
    built: corpus.Built
    theirs: Own | None
    rows: Rows
    arms: Arms
    answers: Mapping[str, tuple[Prediction, ...]]
    own_answers: Mapping[tuple[str, str], page.Answer]
    seconds: Mapping[str, float]


def demo_report(made: Finished) -> page.DemoReport:
    """The content of ``report.html``."""
    scenes, answers, questions = made.scenes, made.answers, made.scenes.exam.questions
    share = made.rows.text_rich[0] / len(made.rows.with_.stage1)
    return page.DemoReport(
        title="Does text-rich data teach a model to read?",
        done=(
            f"{len(scenes.text)} rendered pictures were read by an OCR engine and turned into instruction "
            "data. One base model was trained twice through both stages of LLaVAR, without and with these "
            f"rows, and asked {len(questions)} questions about {len(scenes.exam.scenes)} pictures whose "
            "words, fonts and layouts no training picture has."
        ),
        control=(
            "The control (without) starts from the same base and takes the same number of steps on the same "
            "number of rows. Its rows are rendered pictures with captions and questions on colours, shapes "
            f"and counts, never on text. With: {share:.0%} of these rows are replaced by text-rich ones. The "
            "base is the shipped nano with its projector reset to random numbers: its vision tower can tell "
            "letters apart and its decoder can answer questions about what a projector gives it, but nothing "
            "connects the two, so it cannot read. What is compared is which rows teach the connection."
        ),
        held_out=(
            "Held out: a fifth of the word list, three fonts, three layouts. Question wordings are shared."
        ),
        without=evals.summarise(questions, answers["without"], "nano without text-rich rows"),
        with_=evals.summarise(questions, answers["with"], "nano with text-rich rows"),
        comparisons=evals.compare(questions, answers["without"], answers["with"]).comparisons,
        machine=_machine(),
        settings=made.settings,
        timings=tuple(page.Timing(step=step, seconds=seconds) for step, seconds in made.seconds.items()),
        curves=_curves(made.arms),
        samples=_samples(made),
        samples_chosen="Pictures in the order in which they were drawn by lot; nothing was picked by hand.",
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

    return (
        ("Machine", f"{platform.machine()}, {torch.get_num_threads()} threads, no accelerator used"),
        ("Software", f"Python {platform.python_version()}, torch {torch.__version__}"),
    )


def _curves(arms: Arms) -> tuple[page.Curve, ...]:
    curves: list[page.Curve] = []
    for name, arm in arms.named():
        for stage, fitted in (("stage 1", arm.stage1), ("stage 2", arm.stage2)):
            points = tuple((tick.step, tick.loss) for tick in fitted.ticks)
            curves.append(page.Curve(arm=name, stage=stage, points=points))
    return tuple(curves)


def _samples(made: Finished) -> tuple[page.Sample, ...]:
    """Some questions of each task, drawn by lot."""
    rng = random.Random("samples")
    said = {name: {p.question: p for p in predictions} for name, predictions in made.answers.items()}
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
            without=_answer(q, said["without"][q.id]),
            with_=_answer(q, said["with"][q.id]),
        )
        for q in chosen
    )


def _answer(asked: Question, said: Prediction) -> page.Answer:
    failed = said.error if said.status is Status.FAILED else ""
    return page.Answer(text=said.text, right=evals.is_right(asked, said), failed=failed)


def _summary(made: Finished) -> page.CorpusSummary:
    scenes, built = made.scenes, made.built
    examples = tuple(
        _made(made.out / "pictures" / id, built, id, truth=scenes.text[Path(id).name].text)
        for id in list(built.readings)[:6]
    )
    engine = next((reading.engine for reading in built.readings.values()), "none")
    return page.CorpusSummary(
        pictures=len(scenes.text),
        kept=len({row.id for row in (*built.stage1, *built.stage2)}),
        rejects=made.rows.rejects,
        rows=(("stage 1", len(built.stage1)), ("stage 2", len(built.stage2))),
        engine=engine,
        ocr_cer=_ocr_error(scenes, built),
        examples=examples,
    )


def _ocr_error(scenes: Scenes, built: corpus.Built) -> Score:
    """How well the engine read the rendered pictures. Those it gave up on count in full."""
    counts: list[tuple[int, int]] = []
    for name, shown in scenes.text.items():
        reading = built.readings.get(f"text/{name}")
        counts.append(transcription_counts(reading.text if reading else "", (shown.text,)))
    return bootstrap(counts, ratio)


def _made(path: Path, built: corpus.Built, id: str, truth: str = "") -> page.MadeRows:
    return page.MadeRows(
        image=path,
        reading=built.readings[id],
        stage1=tuple(row for row in built.stage1 if row.id == id),
        stage2=tuple(row for row in built.stage2 if row.id == id),
        rejects=tuple(reject for reject in built.rejects if reject.id == id),
        truth=truth,
    )


def _own_pictures(theirs: Own, said: Mapping[tuple[str, str], page.Answer]) -> tuple[page.OwnPicture, ...]:
    return tuple(_own_picture(picture, theirs.full, said) for picture in theirs.pictures[:SHOWN_OWN])


def _own_picture(
    picture: corpus.Picture, built: corpus.Built, said: Mapping[tuple[str, str], page.Answer]
) -> page.OwnPicture:
    why = (reject.detail or reject.reason for reject in built.rejects if reject.id == picture.id)
    read = picture.id in built.readings
    asked = page.OwnAnswer(
        question=OWN_QUESTION, without=said["without", picture.id], with_=said["with", picture.id]
    )
    return page.OwnPicture(
        image=picture.path,
        made=_made(picture.path, built, picture.id) if read else None,
        answers=(asked,),
        problem="" if read else next(why, "not read"),
    )


def write_result(shown: page.DemoReport, seconds: Mapping[str, float], path: Path) -> None:
    """``result.json``: scores of both arms with 95 % intervals, paired differences, and seconds in all."""
    document = {
        "without": _scores(shown.without),
        "with": _scores(shown.with_),
        "paired": {
            name: {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p, "n": c.n}
            for name, c in shown.comparisons.items()
        },
        "seconds": round(sum(seconds.values()), 1),
        "steps": {name: round(value, 1) for name, value in seconds.items()},
    }
    files.write_text(path, json.dumps(document, indent=1) + "\n")


def _scores(report: page.Report) -> dict[str, object]:
    named = {
        name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n} for name, s in report.scores.items()
    }
    return {"n": report.n, **named}
