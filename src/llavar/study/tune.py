"""``llavar tune``: from a folder of the user's own pictures to a tuned model and an honest page about it.

Pictures are read by an OCR engine; some are kept aside; rows made of the others train an adapter on the
model; it answers the same questions before and after; a page says whether it got better, and what it cost.
Nothing leaves the machine unless a teacher behind an endpoint is named.

Every step leaves its result in the folder of the run, so that the same call goes on where it was stopped::

    tune.json, plan.json      which run it is, and what was chosen for it
    corpus/                   the pictures as they were read (``llavar corpus status|explain``)
    rows.jsonl                what is learned
    exam/PART/questions.jsonl what is asked (``llavar eval --tasks folder``)
    before/, after/           the answers
    train/                    the training run; ``train/model`` is the tuned model
    rejects.jsonl, result.json, report.html
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.errors import ConfigError
from llavar.study.progress import Watch
from llavar.study.same_run import claim
from llavar.study.tune_questions import OwnQuestion, digest_of, read_questions

if TYPE_CHECKING:
    from llavar.corpus.recipe import CorpusRecipe
    from llavar.corpus.teaching.teacher import EndpointTeacher
    from llavar.study.tune_answers import Replies
    from llavar.study.tune_model import Base
    from llavar.study.tune_plan import Plan
    from llavar.study.tune_rows import Exam, Gathered, Sides
    from llavar.train.config import StageConfig
    from llavar.train.loop import Fitted

MARKER = "tune.json"
"""File of a run's folder that says which run it holds."""

TRAIN = "train"
_TRIAL = "trial"
_TRIAL_STEPS = 3
_TRIAL_PICTURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One tuning. ``model``: nano, a folder, or a hub id. ``hours``: a budget, None for as long as it takes.

    ``held_out``: pictures kept aside (None: a fifth, at most 100); ``steps``: of training (0: by the rows);
    ``mask``: personal data is masked in all rows; ``teacher``: who makes the conversations, None for the
    templates, which ask nobody.
    """

    pictures: Path
    out: Path
    model: str = "nano"
    questions: Path | None = None
    hours: float | None = None
    held_out: int | None = None
    steps: int = 0
    seed: int = 0
    mask: bool = False
    teacher: EndpointTeacher | None = None

    def __post_init__(self) -> None:
        if self.hours is not None and not 0 < self.hours <= 10_000:
            raise ConfigError(f"--hours is {self.hours}; give a number above 0, or leave it out for no limit")
        if self.held_out is not None and self.held_out < 1:
            raise ConfigError(f"--held-out is {self.held_out}; at least 1 picture has to be kept aside")
        if self.steps < 0:
            raise ConfigError(f"--steps is {self.steps}; give at least 1, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where a finished tuning left what, its scores in one sentence, and commands to go on with."""

    report: Path
    result: Path
    model: Path
    verdict: str
    commands: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """All that a finished tuning holds when its page is written. ``rejects`` counts training's too."""

    settings: Settings
    base: Base
    plan: Plan
    source: Gathered
    sides: Sides
    exam: Exam
    before: Replies
    after: Replies
    stage: StageConfig
    fitted: Fitted
    commands: tuple[str, ...]
    seconds: Mapping[str, float]


def run(settings: Settings, *, quiet: bool = False) -> Outcome:
    """The whole of it; called again with the same settings, it goes on.

    Raises:
        LlavarError: pictures, questions or model cannot be used, or the folder holds another run.
    """
    folder = Path(os.path.abspath(settings.pictures))  # noqa: PTH100 - links stay usable, ".." goes
    settings = replace(settings, pictures=folder)
    own = read_questions(settings.questions, folder) if settings.questions else ()
    tuning = _begun(settings, own, quiet)
    tuning.read()
    made = tuning.compared()
    return tuning.finished(made)


def _begun(settings: Settings, own: tuple[OwnQuestion, ...], quiet: bool) -> _Tuning:
    """Everything that can be refused at once is refused here."""
    from llavar.study import tune_plan as plans
    from llavar.study import tune_rows as rows
    from llavar.study.tune_model import base_of, stage_of
    from llavar.train import home

    names, others = rows.found_in(settings.pictures, settings.out)
    ids = rows.asked_about(own, settings.pictures)
    asked = tuple((id, path) for path, id in ids.items())
    source = rows.Gathered(folder=settings.pictures, names=names, asked=asked, rejects=others)
    base = base_of(settings.model)
    needs = plans.needs_of(base, stage_of(base, 2 * len(names)), len(names), settings.out)
    claim(settings.out / MARKER, _identity(settings, base, own), "tuning")
    begun = home.has_begun(settings.out / TRAIN)
    plan = plans.load(settings.out, settings.hours, source.fingerprint(), begun=begun)
    watch = Watch(settings.out / "seconds.json", quiet=quiet)
    watch.say(f"Tuning in {settings.out}. Stop it any time; the same command goes on.")
    for line in plans.told(base, needs, names, settings.pictures, settings.out):
        watch.say(line)
    return _Tuning(settings=settings, own=own, base=base, source=source, plan=plan, watch=watch)


def _identity(settings: Settings, base: Base, own: tuple[OwnQuestion, ...]) -> dict[str, object]:
    """What decides the result, by what it is called in a sentence; the budget is the plan's."""
    teacher = settings.teacher
    return {
        "folder of pictures": str(settings.pictures),
        "model": base.model,
        "state of the model": base.identity,
        "set of questions": digest_of(own) if own else "",
        "number of pictures held out": settings.held_out,
        "number of steps": settings.steps,
        "seed": settings.seed,
        "mask": settings.mask,
        "teacher": f"{teacher.model} at {teacher.url}" if teacher else "",
    }


@dataclass(slots=True, kw_only=True)
class _Tuning:
    """One call of :func:`run`: what is settled so far."""

    settings: Settings
    own: tuple[OwnQuestion, ...]
    base: Base
    source: Gathered
    plan: Plan
    watch: Watch
    sides: Sides | None = None

    @property
    def out(self) -> Path:
        return self.settings.out

    def _choose(self, plan: Plan) -> None:
        """Keep what was chosen, and say the reason that is new."""
        from llavar.study import tune_plan as plans

        for reason in plan.reasons[len(self.plan.reasons) :]:
            self.watch.say(reason)
        self.plan = plans.save(plan, self.out)

    # -------------------------------------------------------------------------------------- pictures

    def read(self) -> None:
        """Read the pictures, make rows of them, and put each on one side."""
        from llavar.data.source import write_rows
        from llavar.study import tune_rows as rows
        from llavar.study.demo_corpus import write_rejects

        settings = self.settings
        teacher = settings.teacher
        if teacher:
            self.watch.say(f"The text of the pictures, not the pictures, goes to {teacher.url}.")
        recipe = rows.recipe_of(
            self.base, settings.pictures, seed=settings.seed, mask=settings.mask, teacher=teacher
        )
        self._choose_pictures(recipe)
        with self.watch.step("Read your pictures (OCR) and make rows"):
            made = rows.compute(self.out / "corpus", self.source, recipe, self.watch)
            asked = [id for id, _ in self.source.asked]
            sides = rows.divided(made, self.base, asked, held_out=settings.held_out, seed=settings.seed)
            write_rows(sides.rows, self.out / "rows.jsonl")
            write_rejects(sides.rejects, self.out / "rejects.jsonl")
        self.sides = sides
        for line in _told_sides(sides, self.base, len(made.read)):
            self.watch.say(line)

    def _choose_pictures(self, recipe: CorpusRecipe) -> None:
        from llavar.study import tune_plan as plans

        names = self.source.names
        if not self.plan.read and plans.many(len(names)):
            with self.watch.step("Read a few pictures to know how long all take"):
                each = plans.reading_speed(self.out / _TRIAL, self.source, recipe)
            self._choose(plans.choose_reading(self.plan, names, each))
        elif not self.plan.read:
            self._choose(replace(self.plan, read=len(names)))
        chosen = plans.drawn(names, self.plan.read, self.settings.seed)
        self.source = replace(self.source, names=chosen)

    # -------------------------------------------------------------------------------------- answers

    def compared(self) -> Made:
        """The model before, its training, and the model after."""
        exam = self._exam()
        before = self._ask(exam, "before", "Ask the model as it is")
        spent = self.watch.seconds.get("Ask the model as it is", 0.0)
        stage, fitted = self._train(spent)
        after = self._ask(exam, "after", "Ask the tuned model")
        assert self.sides is not None
        return Made(
            settings=self.settings,
            base=self.base,
            plan=self.plan,
            source=self.source,
            sides=self.sides,
            exam=exam,
            before=before,
            after=after,
            stage=stage,
            fitted=fitted,
            commands=commands_of(self.base, self.out, exam),
            seconds=self.watch.seconds,
        )

    def _exam(self) -> Exam:
        from llavar.study import tune_plan as plans
        from llavar.study import tune_rows as rows
        from llavar.study.tune_model import forget

        assert self.sides is not None
        held_out, layout = self.sides.held_out, rows.layout_of(self.base)
        root, seed = self.out / "exam", self.settings.seed
        if not self.plan.asked and self.plan.hours is not None and held_out:
            whole = rows.exam_of(root, held_out, (), layout, seed)
            each = self._asking_speed(whole, min(len(held_out), _TRIAL_PICTURES))
            forget()
            self._choose(plans.choose_asking(self.plan, len(held_out), each))
        asked = held_out[: self.plan.asked or None]
        return rows.exam_of(root, asked, self.own, layout, seed)

    def _asking_speed(self, exam: Exam, pictures: int) -> float:
        """Seconds for a picture, without loading the model; what is asked here is not asked again."""
        from llavar.study.tune_answers import ask, first_pictures
        from llavar.study.tune_model import generator_of

        with self.watch.step("Ask about a few pictures to know how long all take"):
            generator = generator_of(self.base.folder, "before")
            started = time.monotonic()
            ask(
                first_pictures(exam, pictures),
                lambda: generator,
                self.out / "before",
                self.watch,
                identity=self.base.identity,
                by_letter=self.base.is_small,
            )
            return (time.monotonic() - started) / pictures

    def _ask(self, exam: Exam, name: str, title: str) -> Replies:
        from llavar.study.tune_answers import ask
        from llavar.study.tune_model import forget, generator_of
        from llavar.train.home import MODEL
        from llavar.train.material import identity_of

        folder = self.base.folder if name == "before" else self.out / TRAIN / MODEL
        with self.watch.step(title):
            said = ask(
                exam,
                lambda: generator_of(folder, name),
                self.out / name,
                self.watch,
                identity=identity_of(folder),
                by_letter=self.base.is_small,
            )
            forget()
        return said

    # -------------------------------------------------------------------------------------- training

    def _train(self, asking: float) -> tuple[StageConfig, Fitted]:
        from llavar.study.tune_model import forget, job_of, stage_of
        from llavar.train.job import run as train

        assert self.sides is not None
        steps, seed = self.settings.steps, self.settings.seed
        stage = stage_of(self.base, len(self.sides.rows), steps=steps, seed=seed)
        if self.plan.hours is not None:
            if not self.plan.steps:
                self._choose_steps(stage, asking)
            stage = stage_of(self.base, len(self.sides.rows), steps=self.plan.steps, seed=seed)
        job = job_of(
            self.base, (self.out / "rows.jsonl").absolute(), self.settings.pictures.absolute(), stage
        )
        with self.watch.step("Train"):
            fitted = train(job, self.out / TRAIN, say=lambda text: self.watch.say(_indented(text)))
            forget()
        return stage, fitted

    def _choose_steps(self, stage: StageConfig, asking: float) -> None:
        """A run of a few steps tells what one takes."""
        from llavar.study import tune_plan as plans
        from llavar.study.tune_model import forget, job_of
        from llavar.train.job import run as train

        trial = replace(stage, steps=_TRIAL_STEPS, log_every=1)
        data, images = (self.out / "rows.jsonl").absolute(), self.settings.pictures.absolute()
        with self.watch.step("Train a few steps to know how long all take"):
            shutil.rmtree(self.out / _TRIAL, ignore_errors=True)
            fitted = train(replace(job_of(self.base, data, images, trial), merge=False), self.out / _TRIAL)
            shutil.rmtree(self.out / _TRIAL, ignore_errors=True)
            forget()
        rate = fitted.ticks[-1].samples_per_second
        each = stage.batch / max(rate, 1e-9)
        self._choose(plans.choose_steps(self.plan, stage.steps, each, self.watch.total, asking))

    # -------------------------------------------------------------------------------------- the end

    def finished(self, made: Made) -> Outcome:
        """Write the page, and say how it went."""
        from llavar.study import tune_page as page
        from llavar.train.home import MODEL

        report, result = self.out / "report.html", self.out / "result.json"
        with self.watch.step("Write the page"):
            shown = page.shown(made)
            page.write(shown, report)
            page.write_result(shown, result)
        verdict = page.verdict(shown.measured)
        self.watch.say(f"{verdict}\nPage: {report}   numbers: {result}")
        for command in made.commands:
            self.watch.say(f"  {command}")
        return Outcome(
            report=report,
            result=result,
            model=self.out / TRAIN / MODEL,
            verdict=verdict,
            commands=made.commands,
            seconds=self.watch.total,
        )


def _told_sides(sides: Sides, base: Base, read: int) -> list[str]:
    """What became of the pictures, and what a user of a small model has to know."""
    from llavar.study.cards import numbered
    from llavar.study.tune_rows import reasons_of

    said = [
        f"{numbered(read, 'picture')} read; {numbered(len(sides.rows), 'row')} of {len(sides.training)} of "
        f"them to learn, {len(sides.held_out)} held out."
    ]
    if sides.rejects:
        said.append(f"Left out (rejects.jsonl has each): {reasons_of(sides.rejects)}.")
    if sides.unwritable:
        said.append(
            f"{sides.unwritable} rows hold characters that the tokenizer of {base.name} lacks ({sides.odd}) "
            "and are left out; name another --model to learn them."
        )
    return said


def commands_of(base: Base, out: Path, exam: Exam) -> tuple[str, ...]:
    """How to ask, evaluate and serve what is left."""
    run, part = shlex.quote(str(out)), next(iter(exam.parts))
    model = shlex.quote(str(out / TRAIN / "model"))
    again = shlex.quote(str(out / "again"))
    return (
        f'llavar ask PICTURE "What does it say?" --model {run}',
        f"llavar eval {run} --tasks folder --data {shlex.quote(str(exam.root / part))} --out {again}",
        f"vllm serve {model}" if base.own_processor else f"llavar serve {run}",
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
