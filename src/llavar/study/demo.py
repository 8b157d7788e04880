"""``llavar demo``: the paper's claim re-run in miniature, from pictures to a page, on two cores.

Pictures are rendered and read by a real OCR engine; what it read becomes instruction data; the same base
model goes through both stages without and with these rows, at equal steps and at several seeds
(:mod:`llavar.study.trial`); all models sit an exam of words, fonts and layouts that no training picture
holds; the outcome is written down as JSON and as a page (:mod:`llavar.study.demo_page`).

Every step leaves its result in the folder of the run, so a demo that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.corpus.layout import LayoutSettings
from llavar.corpus.sources import scan_folder
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import QuestionKind, describe, question, rng_for
from llavar.errors import ConfigError, LlavarError
from llavar.generate.base import Generator, Request
from llavar.recipes import nano as recipe
from llavar.records import IMAGE_TAG, Conversation, Example, Reading, Reject
from llavar.render.layouts import Style, scene
from llavar.render.layouts import page as full_page
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study import report as page
from llavar.study.demo_corpus import Built, Drawn, SceneTeacher, read_drawn, read_own
from llavar.study.demo_page import (
    OWN_QUESTION,
    SHOWN_OWN,
    Finished,
    Own,
    Rows,
    Scenes,
    demo_report,
    write_result,
)
from llavar.study.nano import weights
from llavar.study.nano.questions import exam, write_pictures
from llavar.study.nano.scenes import SHAPE_NAMES, facts
from llavar.study.progress import Watch
from llavar.study.same_run import claim, digest

if TYPE_CHECKING:
    from llavar.study.trial import Runs

MARKER = "demo.json"
"""File of a run's folder that says which run it holds."""

READ_BY_OCR = Style(random_text=0.35, min_lines=2, max_lines=4, wild=0.2)
"""The text-rich corpus: many lines, and a third of them without meaning, so that no letter is rare."""

PLAIN = Style(random_text=0.35, max_lines=2, shapes=0.9)
"""Pictures of the control rows. They hold text too; nobody asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """How much of everything; the defaults are to take less than ten minutes on two cores.

    Pictures and rows are those of ``seed``; training runs at ``seeds`` seeds, from this one on.
    """

    text_pictures: int = 500
    control_pictures: int = 700
    exam_pictures: int = 100
    stage1_steps: int = 280
    stage2_steps: int = 260
    picture_size: int = 384
    seed: int = 0
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; each arm needs at least one training run")
        for name in ("text_pictures", "control_pictures", "exam_pictures", "stage1_steps", "stage2_steps"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 2 are needed")
        if self.text_pictures > self.control_pictures:
            raise ConfigError(
                f"text_pictures is {self.text_pictures}, more than control_pictures, "
                f"{self.control_pictures}; text-rich rows take the place of control rows, so lower it or "
                "raise the other"
            )

    @property
    def steps(self) -> tuple[int, int]:
        """Of stage 1 and of stage 2."""
        return self.stage1_steps, self.stage2_steps

    @property
    def runs(self) -> tuple[int, ...]:
        """The seeds at which every arm is trained."""
        return tuple(range(self.seed, self.seed + self.seeds))


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
    found = _own_files(own, out) if own else {}
    wanted = {"images": str(own.resolve()) if own else None, "content of images": digest([*found.values()])}
    same_run(out / MARKER, settings, wanted)
    watch = Watch(out / "seconds.json", quiet=quiet)
    watch.say(f"Demo in {out}: render, read, train, compare. Stop it any time; the same command goes on.")

    scenes, built = prepare(out, settings, watch)
    theirs = _read_own(out, own, found, watch) if own and found else None
    from llavar.study.trial import run_trial  # torch, which nothing needed so far

    rows = mix(scenes, built, theirs, settings.seed)
    arms = {"without": rows.without, "with": rows.with_}
    runs = run_trial(out, arms, scenes.exam.questions, steps=settings.steps, seeds=settings.runs, watch=watch)
    own_answers = _ask_own(theirs, runs, watch) if theirs else {}
    with watch.step("Write the report"):
        made = Finished(
            out=out,
            settings=tuple((name, str(value)) for name, value in asdict(settings).items()),
            scenes=scenes,
            built=built,
            theirs=theirs,
            rows=rows,
            seeds=settings.runs,
            without=runs["without"],
            with_=runs["with"],
            own_answers=own_answers,
            seconds=watch.seconds,
        )
        shown = demo_report(made)
        page.write_demo_report(shown, out / "report.html")
    report, result, verdict = out / "report.html", out / "result.json", page.verdict(shown)
    write_result(shown, watch.seconds, result)
    watch.say(f"{verdict}\nReport: {report}   numbers: {result}   model: {runs['with'].arms[0].model}")
    return Outcome(report=report, result=result, verdict=verdict, seconds=watch.total)


def prepare(out: Path, settings: DemoSettings, watch: Watch) -> tuple[Scenes, Built]:
    """Draw all pictures into ``out``, and make text-rich rows of what an OCR engine reads in theirs."""
    with watch.step("Render pictures"):
        scenes = _render(out, settings)
    with watch.step("Read them (OCR) and make rows"):
        return scenes, _read(out, scenes, settings, watch)


# --- pictures and rows -----------------------------------------------------------------------------------


def _own_files(own: Path, out: Path) -> dict[str, Path]:
    """The pictures of the user's folder, named by their places in it."""
    paths, _ = scan_folder(own)
    if out.resolve().is_relative_to(own.resolve()):
        raise ConfigError(
            f"the run folder {str(out)!r} lies inside the folder of pictures {str(own)!r}, and would be read "
            "as part of it; use another --out"
        )
    return {path.relative_to(own).as_posix(): path for path in paths}


def same_run(marker: Path, settings: DemoSettings, more: Mapping[str, object] | None = None) -> None:
    """Refuse to mix two runs in one folder: ``marker`` in it says which one it holds.

    Raises:
        ConfigError: it holds another one, or cannot be a folder.
    """
    wanted = {
        **asdict(settings),
        **(more or {}),
        "base": digest([weights.folder("nano") / "model.safetensors"]),
    }
    claim(marker, wanted, "demo")


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


def _read(out: Path, scenes: Scenes, settings: DemoSettings, watch: Watch) -> Built:
    """OCR over the text-rich pictures, for a tower of nano's size."""
    known = {name: facts(shown) for name, shown in scenes.text.items()}
    teacher = SceneTeacher(template=_teacher(settings.seed), facts=known)
    drawn = Drawn(root=out / "corpus", folder=Path("..", "pictures"), names=tuple(f"text/{n}" for n in known))
    return read_drawn(drawn, teacher, _nano_layout(), watch)


def _read_own(out: Path, own: Path, pictures: Mapping[str, Path], watch: Watch) -> Own:
    """OCR over the user's pictures: rows for a tower of full size to show, and rows that nano can see."""
    with watch.step("Read your pictures"):
        full, nano = read_own(own, out / "own", out / "own-nano", _nano_layout(), watch)
    return Own(pictures=pictures, full=full, nano=nano)


def _nano_layout() -> LayoutSettings:
    return LayoutSettings(target_size=recipe.SIZE, min_height=8.0)


def _teacher(seed: int) -> TemplateTeacher:
    return TemplateTeacher(seed=seed, words=vocabulary(held_out=False), shape_names=SHAPE_NAMES)


def mix(scenes: Scenes, built: Built, theirs: Own | None, seed: int) -> Rows:
    """Rows of both arms: control rows throughout, or text-rich rows in the place of as many of them."""
    from llavar.study.arms import ArmRows

    control1, control2 = control_rows(scenes.control, seed)
    # The user's folder may have names that the rendered pictures have as well.
    stage1 = [*built.stage1, *(_named(row, "own") for row in (theirs.nano.stage1 if theirs else ()))]
    stage2 = [*built.stage2, *(_named(row, "own") for row in (theirs.nano.stage2 if theirs else ()))]
    text1, odd1 = usable(stage1, len(control1))
    text2, odd2 = usable(stage2, len(control2))
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


def usable(rows: Sequence[Example], places: int) -> tuple[list[Example], list[Reject]]:
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


# --- the user's pictures ---------------------------------------------------------------------------------


def _ask_own(theirs: Own, runs: Mapping[str, Runs], watch: Watch) -> dict[tuple[str, str], page.Answer]:
    """What the first models say to the user's pictures, by arm and picture id.

    Nobody knows the right answers.
    """
    from llavar.generate.local import LocalGenerator

    said: dict[tuple[str, str], page.Answer] = {}
    with watch.step("Ask about your pictures"):
        for name, arm in runs.items():
            generator = LocalGenerator.load(arm.arms[0].model)
            for id, path in islice(theirs.pictures.items(), SHOWN_OWN):
                said[name, id] = _said(generator, path)
    return said


def _said(generator: Generator, path: Path) -> page.Answer:
    try:
        (text,) = generator.answer([Request(image=path, question=OWN_QUESTION, max_new_tokens=48)])
    except LlavarError as error:
        return page.Answer(text="", failed=str(error))
    return page.Answer(text=text)
