"""The held-out exam: scenes of unseen words, fonts and layouts, and definite questions about them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llavar.corpus.teach import QuestionAnswer, TemplateTeacher
from llavar.corpus.wordings import QuestionKind, question
from llavar.records import Question, Task
from llavar.render.layouts import Style, scene
from llavar.render.paint import paint
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study.nano.scenes import SHAPE_NAMES, facts, reading

HELD_OUT = Style(
    held_out_words=True, held_out_fonts=True, held_out_layouts=True, random_text=0.15, max_lines=3, wild=0.2
)
"""What the exam's scenes are made of: nothing in it is shown in training."""

ABOUT_LINES = (QuestionKind.FIRST_LINE, QuestionKind.LAST_LINE, QuestionKind.SECOND_LINE, QuestionKind.NUMBER)
_SCENE = (QuestionKind.GROUND_COLOUR, QuestionKind.SHAPE_COUNT, QuestionKind.SHAPE_COLOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """Questions about pictures; image names are relative to the folder of the pictures."""

    questions: tuple[Question, ...]
    scenes: dict[str, Scene]


def exam(pictures: int, *, seed: str = "exam", style: Style = HELD_OUT) -> Exam:
    """Questions on ``pictures`` scenes: the whole text, lines, numbers, yes/no pairs, what is shown."""
    drawn = {f"{index:04d}.png": scene(f"{seed}:{index}", style) for index in range(pictures)}
    asked = [item for image, shown in drawn.items() for item in _questions(shown, image, seed)]
    return Exam(questions=tuple(asked), scenes=drawn)


def write_pictures(scenes: dict[str, Scene], folder: Path, size: int) -> None:
    """Draw every scene into ``folder``, in ``size`` x ``size`` pixels; pictures that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, shown) in enumerate(scenes.items()):
        path = folder / name
        if not path.exists():
            aside = path.with_suffix(".part")
            paint(shown, size, noise_seed=index).save(aside, format="PNG")
            aside.replace(path)


def _questions(shown: Scene, image: str, seed: str) -> Iterator[Question]:
    rng = random.Random(f"{seed}:{image}")
    teacher = TemplateTeacher(words=vocabulary(held_out=True), shape_names=SHAPE_NAMES)
    items = [
        *teacher.about_text(reading(shown, image, 384), (), rng),
        *teacher.about_scene(facts(shown), rng),
    ]
    yield from some(items, (QuestionKind.TRANSCRIBE,), Task.TRANSCRIPTION, image, rng, most=1)
    yield from some(items, ABOUT_LINES, Task.VQA, image, rng, most=2)
    yield from some(items, (QuestionKind.WORD_PRESENT,), Task.YES_NO, image, rng, most=2)
    yield from some(items, _SCENE, Task.SCENE, image, rng, most=1)


def some(
    items: Sequence[QuestionAnswer],
    kinds: tuple[QuestionKind, ...],
    task: Task,
    image: str,
    rng: random.Random,
    most: int,
    *,
    held_out: bool = False,
) -> Iterator[Question]:
    """At most so many of ``items`` of the ``kinds``; ``held_out`` are wordings that no training row has."""
    fitting = [item for item in items if item.kind in kinds]
    for index, item in enumerate(rng.sample(fitting, min(most, len(fitting)))):
        yield Question(
            id=f"{image}/{task.value}/{index}",
            task=task,
            image=image,
            text=question(item.kind, rng, held_out=held_out, **item.slots),
            references=(item.answer,),
            group=image,
            category=item.kind.value,
        )
