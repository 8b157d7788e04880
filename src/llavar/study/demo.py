"""``llavar demo``: the paper's claim re-run in miniature, from pictures to a page, on two cores.

Pictures are rendered and read by a real OCR engine; what it read becomes instruction data; the same base
model goes through both stages without and with these rows, at equal steps; both models sit an exam of words,
fonts and layouts that no training picture holds; the outcome is written down as JSON and as a page
(:mod:`llavar.study.demo_page`).

Every step leaves its result in the folder of the run, so a demo that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import files
from llavar.corpus import build as corpus
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import QuestionKind, describe, question, rng_for
from llavar.errors import ConfigError, LlavarError
from llavar.evals import run as evals
from llavar.generate.base import Generator, Request
from llavar.recipes import nano as recipe
from llavar.records import IMAGE_TAG, Conversation, Example, Prediction, Reading, Reject
from llavar.render.layouts import Style, scene
from llavar.render.layouts import page as full_page
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study import report as page
from llavar.study.demo_page import (
    OWN_QUESTION,
    SHOWN_OWN,
    Arms,
    Finished,
    Own,
    Rows,
    Scenes,
    demo_report,
    write_result,
)
from llavar.study.nano import weights
from llavar.study.nano.questions import Exam, exam, write_pictures
from llavar.study.nano.scenes import SHAPE_NAMES, facts
from llavar.study.progress import Watch

if TYPE_CHECKING:
    pass

READ_BY_OCR = Style(random_text=0.35, min_lines=2, max_lines=4, wild=0.2)
"""The text-rich corpus: many lines, and a third of them without meaning, so that no letter is rare."""

PLAIN = Style(random_text=0.35, max_lines=2, shapes=0.9)
"""Pictures of the control rows. They hold text too; nobody asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """How much of everything; the defaults take eight to nine minutes on two cores."""

    text_pictures: int = 900
    control_pictures: int = 1200
    exam_pictures: int = 100
    stage1_steps: int = 140
    stage2_steps: int = 160
    picture_size: int = 384
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 2 are needed")
        if self.text_pictures > self.control_pictures:
            raise ConfigError(
                f"text_pictures is {self.text_pictures}, more than control_pictures, "
                f"{self.control_pictures}; text-rich rows take the place of control rows, so lower it or "
                "raise the other"
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
    found = _own_files(own, out) if own else None
    _same_run(out, settings, own, found[0] if found else ())
    watch = Watch(out / "seconds.json", quiet=quiet)
    watch.say(
        f"Demo in {out}: render, read, train twice, compare. Stop it any time; the same command goes on."
    )

    with watch.step("Render pictures"):
        scenes = _render(out, settings)
    with watch.step("Read them (OCR) and make rows"):
        built = _read(out, scenes, settings, watch)
        theirs = _read_own(out, *found, watch) if found else None
    rows = mix(scenes, built, theirs, settings.seed)
    arms = _train(out, rows, settings, watch)
    answers = _ask(out, scenes.exam, arms, watch)
    own_answers = _ask_own(theirs, arms, watch) if theirs else {}
    with watch.step("Write the report"):
        made = Finished(
            out=out,
            settings=tuple((name, str(value)) for name, value in asdict(settings).items()),
            scenes=scenes,
            built=built,
            theirs=theirs,
            rows=rows,
            arms=arms,
            answers=answers,
            own_answers=own_answers,
            seconds=watch.seconds,
        )
        shown = demo_report(made)
        page.write_demo_report(shown, out / "report.html")
    report, result, verdict = out / "report.html", out / "result.json", page.verdict(shown)
    write_result(shown, watch.seconds, result)
    watch.say(f"{verdict}\nReport: {report}   numbers: {result}   model: {arms.with_.model}")
    return Outcome(report=report, result=result, verdict=verdict, seconds=watch.total)


# --- pictures and rows -----------------------------------------------------------------------------------


def _own_files(own: Path, out: Path) -> tuple[list[corpus.Picture], list[Reject]]:
    """The pictures of the user's folder, named by their places in it, and everything else as rejects."""
    paths, rejects = corpus.scan_folder(own)
    if out.resolve().is_relative_to(own.resolve()):
        raise ConfigError(
            f"the run folder {str(out)!r} lies inside the folder of pictures {str(own)!r}, and would be read "
            "as part of it; use another --out"
        )
    return corpus.as_pictures(paths, own), rejects


def _same_run(
    out: Path, settings: DemoSettings, own: Path | None, pictures: Sequence[corpus.Picture]
) -> None:
    """Refuse to mix two demos in one folder."""
    wanted = {
        **asdict(settings),
        "images": str(own.resolve()) if own else None,
        "content of images": _digest([picture.path for picture in pictures]),
        "base": _digest([weights.folder("nano") / "model.safetensors"]),
    }
    path = out / "demo.json"
    if path.exists():
        earlier = _earlier(path)
        odd = [name for name in wanted if earlier.get(name) != wanted[name]]
        if odd:
            raise ConfigError(
                f"{out} holds a demo with another {odd[0]} ({earlier.get(odd[0])!r}, now "
                f"{wanted[odd[0]]!r}); use another --out, or remove the folder to begin anew"
            )
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{str(out)!r} is a file and a folder is needed; use another --out")
    out.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(wanted, indent=1))


def _earlier(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}); use another --out or remove the folder") from error


def _digest(paths: Sequence[Path]) -> str:
    """What files hold, in 16 digits; one that cannot be read counts as empty, and its reader says so."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            content = b""
        digest.update(path.name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return digest.hexdigest()[:16]


def _render(out: Path, settings: DemoSettings) -> Scenes:
    seed = settings.seed
    text = {
        f"{i:04d}.png": (full_page if i % 2 else scene)(f"demo-text:{seed}:{i}", READ_BY_OCR)
        for i in range(settings.text_pictures)
    }
    control = {
        f"{i:04d}.png": scene(f"demo-control:{seed}:{i}", PLAIN) for i in range(settings.control_pictures)
    }
    scenes = Scenes(text=text, control=control, exam=exam(settings.exam_pictures, seed=f"exam:{seed}"))
    write_pictures(text, out / "pictures" / "text", settings.picture_size)
    write_pictures(control, out / "pictures" / "control", settings.picture_size)
    write_pictures(scenes.exam.scenes, out / "pictures" / "exam", settings.picture_size)
    return scenes


def _read(out: Path, scenes: Scenes, settings: DemoSettings, watch: Watch) -> corpus.Built:
    """OCR over the text-rich pictures, for a tower of nano's size."""
    folder = out / "pictures"
    pictures = [
        corpus.Picture(id=f"text/{name}", path=folder / "text" / name, facts=facts(shown))
        for name, shown in scenes.text.items()
    ]
    build = corpus.BuildSettings(layout=_nano_layout(), teacher=_teacher(settings.seed))
    return corpus.build(pictures, out / "corpus", settings=build, image_root=folder, report=_progress(watch))


def _read_own(out: Path, pictures: Sequence[corpus.Picture], rejects: Sequence[Reject], watch: Watch) -> Own:
    """OCR over the user's pictures: rows for a tower of full size to show, and rows that nano can see."""
    progress = _progress(watch)
    settings = corpus.BuildSettings()
    full = corpus.build(pictures, out / "own", settings=settings, report=progress, rejects=rejects)
    small = replace(settings, layout=_nano_layout())
    # The same readings, seen at nano's scale.
    (out / "own-nano").mkdir(exist_ok=True)
    journal = (out / "own" / corpus.READINGS).read_bytes()
    (out / "own-nano" / corpus.READINGS).write_bytes(journal)
    nano = corpus.build(pictures, out / "own-nano", settings=small, report=progress)
    return Own(pictures=tuple(pictures), full=full, nano=nano)


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


def mix(scenes: Scenes, built: corpus.Built, theirs: Own | None, seed: int) -> Rows:
    """Rows of both arms: control rows throughout, or text-rich rows in the place of as many of them."""
    from llavar.study.arms import ArmRows

    control1, control2 = control_rows(scenes.control, seed)
    # The user's folder may have names that the rendered pictures have as well.
    stage1 = [*built.stage1, *(_named(row, "own") for row in (theirs.nano.stage1 if theirs else ()))]
    stage2 = [*built.stage2, *(_named(row, "own") for row in (theirs.nano.stage2 if theirs else ()))]
    text1, odd1 = _usable(stage1, len(control1))
    text2, odd2 = _usable(stage2, len(control2))
    return Rows(
        without=ArmRows(stage1=tuple(control1), stage2=tuple(control2)),
        with_=ArmRows(
            stage1=(*control1[len(text1) :], *text1),
            stage2=(*control2[len(text2) :], *text2),
        ),
        text_rich=(len(text1), len(text2)),
        rejects=(*built.rejects, *odd1, *odd2),
    )


def _named(row: Example, where: str) -> Example:
    return replace(row, id=f"{where}/{row.id}")


def _usable(rows: Sequence[Example], places: int) -> tuple[list[Example], list[Reject]]:
    """The rows that nano can learn from, as many as there are places, and a reject for each other one."""
    from llavar.models.tokenizer import load_tokenizer
    from llavar.study.arms import encode_rows

    tokenizer = load_tokenizer(weights.folder("nano"))
    encoded, rejects = encode_rows(rows, tokenizer, image_tokens=recipe.PATCHES**2)
    ids = {row.id for row in encoded}
    usable = [row for row in rows if row.id in ids]
    detail = f"there are {places}; raise --control-pictures"
    rejects += [
        Reject(id=row.id, stage="mix", reason="no control row left to take the place of", detail=detail)
        for row in usable[places:]
    ]
    return usable[:places], rejects


def control_rows(scenes: dict[str, Scene], seed: int) -> tuple[list[Example], list[Example]]:
    """A caption for stage 1 and a conversation for stage 2 of every picture; never a word about its text."""
    captions: list[Example] = []
    talks: list[Example] = []
    for name, shown in scenes.items():
        image, known = f"control/{name}", facts(shown)
        rng = rng_for(seed, "caption", name)
        asked = question(QuestionKind.DESCRIBE, rng)
        tagged = f"{IMAGE_TAG}\n{asked}" if rng.random() < 0.5 else f"{asked}\n{IMAGE_TAG}"
        captions.append(
            Example(id=image, images=(image,), conversation=Conversation.of(tagged, describe(known)))
        )
        nothing = Reading(image=image, size=(1, 1), lines=(), engine="none")
        talk = _teacher(seed).teach(nothing, known)
        assert not isinstance(talk, Reject), "every scene has a ground to ask about"
        talks.append(Example(id=image, images=(image,), conversation=talk))
    return captions, talks


# --- training and answers --------------------------------------------------------------------------------


def _train(out: Path, rows: Rows, settings: DemoSettings, watch: Watch) -> Arms:
    """Both arms from the same base, with the same steps, seeds and tower features."""
    import torch

    from llavar.data.vision import FeatureStore, PixelFolder
    from llavar.images import Transform
    from llavar.models._hf import load_llava
    from llavar.models.loss import features
    from llavar.study.arms import train_arms
    from llavar.train.metrics import Tick

    torch.set_num_threads(1)
    base = weights.base_folder(out / "base")
    with watch.step("See the pictures (vision tower)"):
        model = load_llava(base)
        source = PixelFolder(out / "pictures", transform=Transform.PAD, size=recipe.SIZE)
        store = FeatureStore(lambda pixels: features(model, pixels), source)
        arms = (rows.without, rows.with_)
        names = [n for arm in arms for row in (*arm.stage1, *arm.stage2) for n in row.images]
        store.add(names)
    stages = (
        recipe.nano_stage1(steps=settings.stage1_steps, seed=settings.seed),
        recipe.nano_stage2(steps=settings.stage2_steps, seed=settings.seed),
    )
    done: dict[str, int] = {"without": 0, "with": 0}
    total = 2 * (settings.stage1_steps + settings.stage2_steps)

    def tell(arm: str, stage: int, tick: Tick) -> None:
        done[arm] = tick.step + (stage - 1) * settings.stage1_steps
        watch.count(sum(done.values()), total, f"{arm}: stage {stage}, loss {tick.loss:.3f}")

    with watch.step("Train without and with text-rich rows, side by side"):
        trained = train_arms(
            base, {"without": rows.without, "with": rows.with_}, stages, store, out, on_tick=tell
        )
    return Arms(without=trained["without"], with_=trained["with"])


def _ask(out: Path, asked: Exam, arms: Arms, watch: Watch) -> dict[str, tuple[Prediction, ...]]:
    """Both models' answers to the exam."""
    from llavar.generate.local import LocalGenerator

    answers: dict[str, tuple[Prediction, ...]] = {}
    for name, arm in arms.named():
        with watch.step(f"Examine the model {name}"):
            # Stored answers are taken up only by the weights that gave them.
            digest = _digest([arm.model / "model.safetensors"])
            generator = LocalGenerator.load(arm.model, name=f"nano {name} text-rich rows ({digest})")
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


def _ask_own(theirs: Own, arms: Arms, watch: Watch) -> dict[tuple[str, str], page.Answer]:
    """What both models say to the user's pictures, by arm and picture id. Nobody knows the right answers."""
    from llavar.generate.local import LocalGenerator

    said: dict[tuple[str, str], page.Answer] = {}
    with watch.step("Ask about your pictures"):
        for name, arm in arms.named():
            generator = LocalGenerator.load(arm.model)
            for picture in theirs.pictures[:SHOWN_OWN]:
                said[name, picture.id] = _said(generator, picture.path)
    return said


def _said(generator: Generator, path: Path) -> page.Answer:
    try:
        (text,) = generator.answer([Request(image=path, question=OWN_QUESTION, max_new_tokens=48)])
    except LlavarError as error:
        return page.Answer(text="", failed=str(error))
    return page.Answer(text=text)
