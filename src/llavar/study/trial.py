"""Arms of a comparison at several seeds: trained from the same rows, and examined with the same questions.

What does not depend on the seed is done once: the pictures, the rows, the tower's features of all pictures.
A seed decides the random numbers that the projector starts from and the order of the rows. The folder of a
trial has a folder for each arm, as ``with``, which is that of the first seed; those of the others lie in
``seed-1``, ``seed-2`` and so on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llavar.data.vision import FeatureStore, PixelFolder
from llavar.evals import run as evals
from llavar.generate.local import LocalGenerator
from llavar.images import Transform
from llavar.models._hf import load_llava
from llavar.models.loss import features
from llavar.recipes import nano as recipe
from llavar.records import Prediction, Question, Task
from llavar.study.arms import Arm, ArmRows, Plan, train_arms
from llavar.study.nano import weights
from llavar.study.progress import Watch
from llavar.train.metrics import Tick

ANSWERS = "answers.jsonl"

_NEW_TOKENS = 48
_PICTURES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """An arm at every seed, in their order, and the answers that each of these models gave."""

    arms: tuple[Arm, ...]
    answers: tuple[tuple[Prediction, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Puts questions about the pictures of a folder to finished arms; in the process of an arm, or later."""

    questions: tuple[Question, ...]
    pictures: Path
    out: Path

    def __call__(self, name: str, arm: Arm) -> None:
        self.answers(name, arm)

    def answers(self, name: str, arm: Arm) -> tuple[Prediction, ...]:
        """What the arm says, in the order of the questions; what it has said before is not asked again."""
        # Stored answers are taken up only by the weights that gave them.
        digest = hashlib.sha256((arm.model / "model.safetensors").read_bytes()).hexdigest()[:16]
        generator = LocalGenerator.load(arm.model, name=f"nano {name} ({digest})")
        for alike in _alike(self.questions):
            self._ask(generator, name, alike)
        return self._ask(generator, name, self.questions)

    def _ask(self, generator: LocalGenerator, name: str, asked: Sequence[Question]) -> tuple[Prediction, ...]:
        return evals.evaluate(
            generator,
            asked,
            image_root=self.pictures,
            out=self.out / name / ANSWERS,
            batch_size=32,
            max_new_tokens=_NEW_TOKENS,
        )


def _alike(questions: Sequence[Question]) -> Iterator[list[Question]]:
    """Questions whose answers are about as long, on as many pictures as a generator remembers.

    A batch takes as many steps as its longest answer has tokens: a yes should not wait for a page of text.
    """
    pictures = list(dict.fromkeys(question.image for question in questions))
    for start in range(0, len(pictures), _PICTURES):
        here = frozenset(pictures[start : start + _PICTURES])
        for task in Task:
            alike = [q for q in questions if q.task is task and q.image in here]
            if alike:
                yield alike


def run_trial(
    out: Path,
    rows: Mapping[str, ArmRows],
    questions: Sequence[Question],
    *,
    steps: tuple[int, int],
    seeds: Sequence[int],
    watch: Watch,
) -> dict[str, Runs]:
    """Train every arm at every seed for ``steps`` of each stage and examine it; called again, it goes on.

    Pictures lie in ``out/pictures``: images of the rows are named from there, those of the questions from
    ``exam`` in it.
    """
    torch.set_num_threads(1)
    plans = {
        place(name, number): Plan(base=base, rows=arm, stages=_stages(steps, seed))
        for number, (seed, base) in enumerate(_bases(out, seeds))
        for name, arm in rows.items()
    }
    examination = Examination(questions=tuple(questions), pictures=out / "pictures" / "exam", out=out)
    with watch.step("See the pictures (vision tower)"):
        store = _seen(next(iter(plans.values())).base, out / "pictures", rows.values())
    count = len(plans)
    with watch.step(f"Train and examine {count} models, side by side"):
        telling = _Telling(watch, steps, count)
        trained = train_arms(plans, store, out, then=examination, on_tick=telling)
        answers = {name: examination.answers(name, arm) for name, arm in trained.items()}
    names = {name: [place(name, number) for number in range(len(seeds))] for name in rows}
    return {
        name: Runs(arms=tuple(trained[p] for p in places), answers=tuple(answers[p] for p in places))
        for name, places in names.items()
    }


def place(name: str, number: int) -> str:
    """Where the arm of a name lies below the folder of its trial, at the seed of a number."""
    return f"seed-{number}/{name}" if number else name


def _bases(out: Path, seeds: Sequence[int]) -> Iterator[tuple[int, Path]]:
    """Every seed with the model that its arms start from."""
    for number, seed in enumerate(seeds):
        yield seed, weights.base_folder(out / place("base", number), seed=seed)


def _stages(steps: tuple[int, int], seed: int) -> tuple[recipe.Stage, recipe.Stage]:
    first, second = (
        recipe.nano_stage1(steps=steps[0], seed=seed),
        recipe.nano_stage2(steps=steps[1], seed=seed),
    )
    # From random numbers a projector alone overshoots at rates that both parts together bear.
    return _in_small_steps(first, 0.35), _in_small_steps(second, 0.7)


def _in_small_steps(stage: recipe.Stage, rate: float) -> recipe.Stage:
    """A fourth of the recipe's rows in each step, at ``rate`` times its rates.

    In a few minutes it is the number of updates that decides how much is learned: from equally many rows, an
    arm with text-rich rows gets much further like this.
    """
    parts = {name: replace(part, lr=rate * part.lr) for name, part in stage.loop.parts.items()}
    loop = replace(stage.loop, parts=parts, save_every=100)
    return replace(stage, loop=loop, feed=replace(stage.feed, batch=stage.feed.batch // 4, parts=1))


def _seen(base: Path, pictures: Path, arms: Iterable[ArmRows]) -> FeatureStore:
    """Features of all pictures of the arms, by the tower that all bases share."""
    model = load_llava(base)
    source = PixelFolder(pictures, transform=Transform.PAD, size=recipe.SIZE)
    store = FeatureStore(lambda pixels: features(model, pixels), source)
    store.add([name for arm in arms for row in (*arm.stage1, *arm.stage2) for name in row.images])
    return store


class _Telling:
    """Counts the steps of all arms together."""

    def __init__(self, watch: Watch, steps: tuple[int, int], arms: int) -> None:
        self._watch, self._first, self._total = watch, steps[0], arms * sum(steps)
        self._done: dict[str, int] = {}

    def __call__(self, arm: str, stage: int, tick: Tick) -> None:
        self._done[arm] = tick.step + (stage - 1) * self._first
        note = f"{arm}: stage {stage}, loss {tick.loss:.3f}"
        self._watch.count(sum(self._done.values()), self._total, note)
