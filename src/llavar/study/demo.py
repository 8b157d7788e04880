"""``llavar demo``: the paper's claim re-run in miniature, from pictures to a page, on two cores.

Pictures are rendered and read by a real OCR engine; what it read becomes instruction data; the same base model goes
through both stages without and with these rows, at equal steps; both models sit an exam of words, fonts and layouts
that no training picture holds; the outcome is written down as JSON and as a page.

Every step leaves its result in the folder of the run, so a demo that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import images
from llavar.corpus import build as corpus
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import QuestionKind, describe, question, rng_for
from llavar.errors import ConfigError, LlavarError
from llavar.evals import run as evals
from llavar.evals.metrics import transcription_counts
from llavar.evals.stats import bootstrap, ratio
from llavar.records import IMAGE_TAG, Conversation, Example, Prediction, Question, Reading, Reject, Score, Status, Task
from llavar.recipes import nano as recipe
from llavar.render.layouts import Style, scene
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study import report as page
from llavar.study.nano import weights
from llavar.study.nano.questions import Exam, exam, write_pictures
from llavar.study.nano.scenes import SHAPE_NAMES, facts
from llavar.study.progress import Watch

if TYPE_CHECKING:
    from llavar.study.arms import Arm, ArmRows

READ_BY_OCR = Style(random_text=0.35, min_lines=2, max_lines=4, wild=0.2)
"""The text-rich corpus: more lines than elsewhere, and a third of them without meaning, so that no letter is rare."""

PLAIN = Style(random_text=0.35, max_lines=2, shapes=0.9)
"""Pictures of the control rows. They hold text too; nobody asks for it."""

_OWN_QUESTION = "What does the picture say?"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """How much of everything; the defaults take a few minutes on two cores."""

    text_pictures: int = 300
    control_pictures: int = 600
    exam_pictures: int = 120
    stage1_steps: int = 110
    stage2_steps: int = 110
    picture_size: int = 384
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 2 are needed")
        if self.text_pictures > self.control_pictures:
            raise ConfigError(
                f"text_pictures is {self.text_pictures}, more than control_pictures ({self.control_pictures}); "
                "text-rich rows take the place of control rows, so there must be as many"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a finished demo left its results, and its scores in one sentence."""

    report: Path
    result: Path
    verdict: str
    seconds: float


def run(out: Path, settings: DemoSettings, *, own: Path | None = None, quiet: bool = False) -> Outcome:
    """The whole demo into ``out``; with ``own``, the pictures of that folder take part as well.

    Raises:
        LlavarError: ``own`` holds no pictures, or ``out`` a demo with other settings.
    """
    found = corpus.scan_folder(own) if own else ([], [])
    out.mkdir(parents=True, exist_ok=True)
    _same_run(out, settings, own)
    watch = Watch(out / "seconds.json", quiet=quiet)
    watch.say(f"Demo in {out}: render, read, train twice, compare. Stop it any time; the same command goes on.")

    with watch.step("Render pictures"):
        scenes = _render(out, settings)
    with watch.step("Read them (OCR) and make rows"):
        built = _read(out, scenes, settings, watch)
        theirs = _read_own(out, own, found, watch) if own else None
    rows = _mix(scenes, built, theirs, settings)
    arms = _train(out, rows, settings, watch)
    answers = _ask(out, scenes.exam, arms, watch)
    own_answers = _ask_own(out, theirs, arms, watch) if theirs else {}
    with watch.step("Write the report"):
        shown = _shown(out, settings, scenes, built, theirs, rows, arms, answers, own_answers, watch)
        page.write_demo_report(shown, out / "report.html")
    result = _write_result(out, shown, watch)
    verdict = page.verdict(shown)
    watch.say(f"{verdict}\nReport: {out / 'report.html'}   numbers: {result}   model: {arms.with_.model}")
    return Outcome(report=out / "report.html", result=result, verdict=verdict, seconds=watch.total)


# --- pictures and rows -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scenes:
    text: dict[str, Scene]
    control: dict[str, Scene]
    exam: Exam


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """The user's pictures: rows at the scale of a full-size tower, and those that nano can see."""

    paths: tuple[Path, ...]
    full: corpus.Built
    nano: corpus.Built


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    without: ArmRows
    with_: ArmRows
    text_rich: tuple[int, int]
    rejects: tuple[Reject, ...]


def _same_run(out: Path, settings: DemoSettings, own: Path | None) -> None:
    """Refuse to mix two demos in one folder."""
    wanted = {**asdict(settings), "images": str(own.resolve()) if own else None, "base": _base_digest()}
    path = out / "demo.json"
    if path.exists():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is damaged ({error}); use another --out or remove the folder") from error
        odd = [name for name in wanted if earlier.get(name) != wanted[name]]
        if odd:
            raise ConfigError(
                f"{out} holds a demo with another {odd[0]} ({earlier.get(odd[0])!r}, now {wanted[odd[0]]!r}); "
                "use another --out, or remove the folder to begin anew"
            )
    else:
        path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def _base_digest() -> str:
    folder = weights.folder("nano-base")
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _render(out: Path, settings: DemoSettings) -> _Scenes:
    seed = settings.seed
    text = {f"{i:04d}.png": scene(f"demo-text:{seed}:{i}", READ_BY_OCR) for i in range(settings.text_pictures)}
    control = {f"{i:04d}.png": scene(f"demo-control:{seed}:{i}", PLAIN) for i in range(settings.control_pictures)}
    scenes = _Scenes(text=text, control=control, exam=exam(settings.exam_pictures, seed=f"exam:{seed}"))
    write_pictures(text, out / "pictures" / "text", settings.picture_size)
    write_pictures(control, out / "pictures" / "control", settings.picture_size)
    write_pictures(scenes.exam.scenes, out / "pictures" / "exam", settings.picture_size)
    return scenes


def _read(out: Path, scenes: _Scenes, settings: DemoSettings, watch: Watch) -> corpus.Built:
    """OCR over the text-rich pictures, for a tower of nano's size."""
    folder = out / "pictures"
    pictures = [
        corpus.Picture(id=f"text/{name}", path=folder / "text" / name, facts=facts(shown))
        for name, shown in scenes.text.items()
    ]
    build = corpus.BuildSettings(layout=_nano_layout(), teacher=_teacher(settings.seed))
    return corpus.build(pictures, out / "corpus", settings=build, image_root=folder, report=_progress(watch))


def _read_own(
    out: Path, own: Path, found: tuple[list[Path], list[Reject]], watch: Watch
) -> _Own:
    paths, rejects = found
    pictures = corpus.as_pictures(paths, own)
    progress = _progress(watch)
    settings = corpus.BuildSettings()
    full = corpus.build(pictures, out / "own", settings=settings, report=progress, rejects=rejects)
    small = replace(settings, layout=_nano_layout())
    # The same readings, seen at nano's scale.
    (out / "own-nano").mkdir(exist_ok=True)
    journal = (out / "own" / corpus.READINGS).read_bytes()
    (out / "own-nano" / corpus.READINGS).write_bytes(journal)
    nano = corpus.build(pictures, out / "own-nano", settings=small, report=progress)
    return _Own(paths=tuple(paths), full=full, nano=nano)


def _nano_layout() -> LayoutSettings:
    return LayoutSettings(target_size=recipe.SIZE, min_height=8.0)


def _teacher(seed: int) -> TemplateTeacher:
    return TemplateTeacher(seed=seed, words=vocabulary(held_out=False), shape_names=SHAPE_NAMES)


def _progress(watch: Watch) -> corpus.Report:
    def tell(progress: corpus.Progress) -> None:
        if progress.note:
            watch.say(f"  {progress.note}")
        if progress.step is corpus.Step.READ:
            watch.count(progress.done, progress.total)

    return tell


def _mix(scenes: _Scenes, built: corpus.Built, theirs: _Own | None, settings: DemoSettings) -> _Rows:
    """Rows of both arms: control rows throughout, or text-rich rows in the place of as many of them."""
    from llavar.models.tokenizer import load_tokenizer
    from llavar.study.arms import ArmRows, encode_rows

    control1, control2 = _control_rows(scenes.control, settings.seed)
    stage1 = [*built.stage1, *(theirs.nano.stage1 if theirs else ())]
    stage2 = [*built.stage2, *(theirs.nano.stage2 if theirs else ())]
    tokenizer = load_tokenizer(weights.folder("nano"))
    tokens = recipe.PATCHES**2
    usable1, odd1 = encode_rows(stage1, tokenizer, image_tokens=tokens)
    usable2, odd2 = encode_rows(stage2, tokenizer, image_tokens=tokens)
    kept1, kept2 = {row.id for row in usable1}, {row.id for row in usable2}
    text1 = [row for row in stage1 if row.id in kept1][: len(control1)]
    text2 = [row for row in stage2 if row.id in kept2][: len(control2)]
    return _Rows(
        without=ArmRows(stage1=tuple(control1), stage2=tuple(control2)),
        with_=ArmRows(
            stage1=tuple([*control1[len(text1) :], *text1]), stage2=tuple([*control2[len(text2) :], *text2])
        ),
        text_rich=(len(text1), len(text2)),
        rejects=(*built.rejects, *odd1, *odd2),
    )


def _control_rows(scenes: dict[str, Scene], seed: int) -> tuple[list[Example], list[Example]]:
    """A caption for stage 1 and a conversation for stage 2 of every picture; never a word about its text."""
    captions: list[Example] = []
    talks: list[Example] = []
    for name, shown in scenes.items():
        image, known = f"control/{name}", facts(shown)
        rng = rng_for(seed, "caption", name)
        asked = question(QuestionKind.DESCRIBE, rng)
        tagged = f"{IMAGE_TAG}\n{asked}" if rng.random() < 0.5 else f"{asked}\n{IMAGE_TAG}"
        captions.append(Example(id=image, images=(image,), conversation=Conversation.of(tagged, describe(known))))
        nothing = Reading(image=image, size=(1, 1), lines=(), engine="none")
        talk = _teacher(seed).teach(nothing, known)
        assert not isinstance(talk, Reject), "every scene has a ground to ask about"
        talks.append(Example(id=image, images=(image,), conversation=talk))
    return captions, talks


# --- training and answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arms:
    without: Arm
    with_: Arm

    def named(self) -> tuple[tuple[str, Arm], ...]:
        return ("without", self.without), ("with", self.with_)


def _train(out: Path, rows: _Rows, settings: DemoSettings, watch: Watch) -> _Arms:
    """Both arms from the same base, with the same steps, seeds and tower features."""
    import torch

    from llavar.data.vision import FeatureStore, PixelFolder
    from llavar.images import Transform
    from llavar.models._hf import load_llava
    from llavar.models.loss import features
    from llavar.study.arms import Arm, train_arm
    from llavar.train.metrics import Tick

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    base = weights.base_folder(out / "base")
    with watch.step("See the pictures (vision tower)"):
        model = load_llava(base)
        source = PixelFolder(out / "pictures", transform=Transform.PAD, size=recipe.SIZE)
        store = FeatureStore(lambda pixels: features(model, pixels), source)
        arms = (rows.without, rows.with_)
        names = [n for arm in arms for row in (*arm.stage1, *arm.stage2) for n in row.images]
        store.add(names)
        del model
    stages = (
        recipe.nano_stage1(steps=settings.stage1_steps, seed=settings.seed),
        recipe.nano_stage2(steps=settings.stage2_steps, seed=settings.seed),
    )
    total = settings.stage1_steps + settings.stage2_steps
    trained: list[Arm] = []
    for name, arm_rows in (("without", rows.without), ("with", rows.with_)):
        with watch.step(f"Train {name} text-rich rows"):

            def tell(stage: int, tick: Tick) -> None:
                done = tick.step + (stage - 1) * settings.stage1_steps
                watch.count(done, total, f"stage {stage} loss {tick.loss:.3f}")

            trained.append(train_arm(base, arm_rows, stages, store, out / name, on_tick=tell))
    return _Arms(without=trained[0], with_=trained[1])


def _ask(out: Path, asked: Exam, arms: _Arms, watch: Watch) -> dict[str, tuple[Prediction, ...]]:
    """Both models' answers to the exam."""
    from llavar.generate.local import LocalGenerator

    answers: dict[str, tuple[Prediction, ...]] = {}
    for name, arm in arms.named():
        with watch.step(f"Examine the model {name}"):
            generator = LocalGenerator.load(arm.model, name=f"nano {name} text-rich rows ({_digest(arm.model)})")
            answers[name] = evals.evaluate(
                generator,
                asked.questions,
                image_root=out / "pictures" / "exam",
                out=out / name / "answers.jsonl",
                batch_size=32,
                max_new_tokens=48,
                progress=watch.count,
            )
    return answers


def _digest(model: Path) -> str:
    """Eight digits of the weights' hash: stored answers are taken up only by the model that gave them."""
    digest = hashlib.sha256()
    for path in sorted(model.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _ask_own(out: Path, theirs: _Own, arms: _Arms, watch: Watch) -> dict[tuple[str, Path], page.Answer]:
    """What both models say to the user's pictures. Nobody knows the right answers."""
    from llavar.generate.base import Request
    from llavar.generate.local import LocalGenerator

    said: dict[tuple[str, Path], page.Answer] = {}
    with watch.step("Ask about your pictures"):
        for name, arm in arms.named():
            generator = LocalGenerator.load(arm.model)
            for path in theirs.paths[:_SHOWN_OWN]:
                try:
                    (text,) = generator.answer([Request(image=path, question=_OWN_QUESTION, max_new_tokens=48)])
                    said[name, path] = page.Answer(text=text)
                except LlavarError as error:
                    said[name, path] = page.Answer(text="", failed=str(error))
    return said


_SHOWN_OWN = 24
"""The user's pictures that the page shows; all of them take part."""


# --- the page --------------------------------------------------------------------------------------------


def _shown(
    out: Path,
    settings: DemoSettings,
    scenes: _Scenes,
    built: corpus.Built,
    theirs: _Own | None,
    rows: _Rows,
    arms: _Arms,
    answers: dict[str, tuple[Prediction, ...]],
    own_answers: dict[tuple[str, Path], page.Answer],
    watch: Watch,
) -> page.DemoReport:
    questions = scenes.exam.questions
    share = rows.text_rich[0] / len(rows.with_.stage1)
    return page.DemoReport(
        title="Does text-rich data teach a model to read?",
        done=(
            f"{len(scenes.text)} rendered pictures were read by an OCR engine and turned into instruction data. One base "
            "model was trained twice through both stages of LLaVAR, without and with these rows, and asked "
            f"{len(questions)} questions about {len(scenes.exam.scenes)} pictures whose words, fonts and layouts "
            "no training picture has."
        ),
        control=(
            "The control (without) starts from the same base and takes the same number of steps on the same number of "
            "rows. Its rows are rendered pictures with captions and questions on colours, shapes and counts, never on "
            f"text. With: {share:.0%} of these rows are replaced by text-rich ones. The base is a vision tower that was "
            "taught to tell letters apart and a decoder that was taught on text alone to answer questions about grids "
            "of symbols; its projector is untrained, so it cannot read pictures yet."
        ),
        held_out="Held out: a fifth of the word list, three fonts, three layouts. Question wordings are shared.",
        without=evals.summarise(questions, answers["without"], "nano without text-rich rows"),
        with_=evals.summarise(questions, answers["with"], "nano with text-rich rows"),
        comparisons=evals.compare(questions, answers["without"], answers["with"]).comparisons,
        machine=_machine(),
        settings=tuple((name, str(value)) for name, value in asdict(settings).items()),
        timings=tuple(page.Timing(step=step, seconds=seconds) for step, seconds in watch.seconds.items()),
        curves=_curves(arms),
        samples=_samples(out, scenes.exam, answers),
        samples_chosen="Pictures in the order in which they were drawn by lot; nothing was picked by hand.",
        corpus=_summary(out, scenes, built, rows),
        own=_own_pictures(theirs, own_answers) if theirs else (),
        limits=(
            "It sees 96 x 96 pixels: text lower than an eighth of the picture is lost, and so is most of a photograph.",
            "It knows printable ASCII in upright, printed lines; no handwriting, no other scripts, no strong rotation.",
            "It answers the kinds of questions it was trained on. It is no substitute for a full-size checkpoint; "
            "the same commands take one with --model.",
        ),
    )


def _machine() -> tuple[tuple[str, str], ...]:
    import torch

    return (
        ("Machine", f"{platform.machine()}, {torch.get_num_threads()} threads, no accelerator used"),
        ("Software", f"Python {platform.python_version()}, torch {torch.__version__}"),
    )


def _curves(arms: _Arms) -> tuple[page.Curve, ...]:
    curves: list[page.Curve] = []
    for name, arm in arms.named():
        for stage, fitted in (("stage 1", arm.stage1), ("stage 2", arm.stage2)):
            points = tuple((tick.step, tick.loss) for tick in fitted.ticks)
            curves.append(page.Curve(arm=name, stage=stage, points=points))
    return tuple(curves)


def _samples(out: Path, asked: Exam, answers: dict[str, tuple[Prediction, ...]]) -> tuple[page.Sample, ...]:
    """Two questions of each kind of task from different pictures, drawn by lot."""
    rng = random.Random("samples")
    said = {name: {p.question: p for p in predictions} for name, predictions in answers.items()}
    chosen: list[Question] = []
    for task, count in ((Task.TRANSCRIPTION, 6), (Task.VQA, 4), (Task.YES_NO, 3), (Task.SCENE, 3)):
        fitting = [q for q in asked.questions if q.task is task]
        chosen += rng.sample(fitting, min(count, len(fitting)))
    return tuple(
        page.Sample(
            image=out / "pictures" / "exam" / q.image,
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


def _summary(out: Path, scenes: _Scenes, built: corpus.Built, rows: _Rows) -> page.CorpusSummary:
    examples = tuple(
        _made(out / "pictures" / id, built, id, truth=scenes.text[Path(id).name].text)
        for id in list(built.readings)[:6]
    )
    engine = next((reading.engine for reading in built.readings.values()), "none")
    return page.CorpusSummary(
        pictures=len(scenes.text),
        kept=len({row.id for row in (*built.stage1, *built.stage2)}),
        rejects=rows.rejects,
        rows=(("stage 1", len(built.stage1)), ("stage 2", len(built.stage2))),
        engine=engine,
        ocr_cer=_ocr_error(scenes, built),
        examples=examples,
    )


def _ocr_error(scenes: _Scenes, built: corpus.Built) -> Score:
    """How well the engine read the rendered pictures, against what was drawn. Pictures it gave up on count in full."""
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


def _own_pictures(theirs: _Own, said: dict[tuple[str, Path], page.Answer]) -> tuple[page.OwnPicture, ...]:
    shown: list[page.OwnPicture] = []
    ids = {Path(path): row for path, row in zip(theirs.paths, _ids(theirs), strict=True)}
    for path in theirs.paths[:_SHOWN_OWN]:
        id = ids[path]
        read = id in theirs.full.readings
        problem = "" if read else next((r.detail or r.reason for r in theirs.full.rejects if r.id == id), "not read")
        asked = page.OwnAnswer(question=_OWN_QUESTION, without=said["without", path], with_=said["with", path])
        made = _made(path, theirs.full, id) if read else None
        shown.append(page.OwnPicture(image=path, made=made, answers=(asked,), problem=problem))
    return tuple(shown)


def _ids(theirs: _Own) -> list[str]:
    root = Path(os.path.commonpath([path.parent for path in theirs.paths]))
    return [path.relative_to(root).as_posix() for path in theirs.paths]


def _write_result(out: Path, shown: page.DemoReport, watch: Watch) -> Path:
    """``result.json``: scores of both arms with 95 % intervals, paired differences, and seconds in all."""
    document = {
        "without": _scores(shown.without),
        "with": _scores(shown.with_),
        "paired": {
            name: {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p, "n": c.n}
            for name, c in shown.comparisons.items()
        },
        "seconds": round(watch.total, 1),
        "steps": {name: round(value, 1) for name, value in watch.seconds.items()},
    }
    path = out / "result.json"
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def _scores(report: page.Report) -> dict[str, object]:
    named = {name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n} for name, s in report.scores.items()}
    return {"n": report.n, **named}


__all__ = ["DemoSettings", "Outcome", "images", "run"]
