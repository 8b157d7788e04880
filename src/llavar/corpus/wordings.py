"""What pictures are asked: every wording of every kind of question, in one place.

The wordings are ours. The paper fixes only that stage 1 has ten of "which text is visible" (section 3.1). For
each kind there are wordings to train with and *held-out* ones that no training row may use, so that an
evaluation can tell reading from remembering a question. All are ASCII and short, because nano's tokenizer
spends one token on a character.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from llavar.chat import escape_special
from llavar.errors import ConfigError, NotFoundError

REQUESTS = Path(__file__).parent / "requests.txt"
"""Ten wordings of "which text is visible", a line each; a recipe may name another such file."""
_LONGEST, _MOST = 500, 1000


def read_requests(path: Path) -> tuple[str, ...]:
    """Wordings from a text file, a line each; empty lines are passed over.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no text, holds no wording or too many, or one that cannot stand in a row.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {str(path)!r} of wordings; name a text file, one in each line")
    try:
        found = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text; save it as such") from error
    try:
        return checked_requests(tuple(line for line in found if line))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def checked_requests(wordings: tuple[str, ...]) -> tuple[str, ...]:
    """The same. Raises ConfigError: there are none or too many, or one cannot stand in a row."""
    if not 1 <= len(wordings) <= _MOST:
        raise ConfigError(f"there are {len(wordings)} wordings of the request; give 1 to {_MOST}")
    for wording in wordings:
        if not wording.strip() or len(wording) > _LONGEST or escape_special(wording) != wording:
            raise ConfigError(
                f"the wording {wording!r:.60} has {len(wording)} characters or holds control strings; give "
                f"1 to {_LONGEST} characters without <image>, ### and the like"
            )
    if len(set(wordings)) < len(wordings):
        raise ConfigError("a wording of the request is there twice; leave it once")
    return wordings


STAGE1_WORDINGS = read_requests(REQUESTS)
"""Those of the package; the answer is the text alone."""


class QuestionKind(StrEnum):
    """What a question is about; each has one definite answer."""

    TRANSCRIBE = "transcribe"
    FIRST_LINE = "first_line"
    SECOND_LINE = "second_line"
    LAST_LINE = "last_line"
    WORD_PRESENT = "word_present"
    NUMBER = "number"
    LINE_COUNT = "line_count"
    DESCRIBE = "describe"
    GROUND_COLOUR = "ground_colour"
    SHAPE_COLOUR = "shape_colour"
    SHAPE_COUNT = "shape_count"
    SHAPE_PRESENT = "shape_present"

    @property
    def about_text(self) -> bool:
        """Whether the answer has to be read (control rows must hold no such question)."""
        return self in _TEXT_KINDS


_TEXT_KINDS = frozenset(
    {
        QuestionKind.TRANSCRIBE,
        QuestionKind.FIRST_LINE,
        QuestionKind.SECOND_LINE,
        QuestionKind.LAST_LINE,
        QuestionKind.WORD_PRESENT,
        QuestionKind.NUMBER,
        QuestionKind.LINE_COUNT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Equal shapes of one colour, ``Shape(name="circle", colour="red", count=2)``; the name is singular."""

    name: str
    colour: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFacts:
    """What is known of a picture beside its text: colour of the ground, shapes with colour and count."""

    ground: str
    shapes: tuple[Shape, ...] = ()


class Wordings(NamedTuple):
    """Templates in :meth:`str.format` style: those to train with, and those kept for evaluation."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


WORDINGS: Mapping[QuestionKind, Wordings] = MappingProxyType(
    {
        QuestionKind.TRANSCRIBE: Wordings(
            train=(
                "What does the picture say?",
                "What text is in the picture?",
                "Read everything that is written.",
                "Write out the whole text.",
                "What is written here?",
                "Please read all of the text.",
                "What does this say?",
                "Read this.",
                "What can be read here?",
                "Which words are written in the image?",
                "Tell me the words in this picture.",
                "What text do you see?",
            ),
            held_out=("What does it say?", "Tell me what the text reads.", "What can you read in the image?"),
        ),
        QuestionKind.FIRST_LINE: Wordings(
            train=(
                "What is written in the first line?",
                "What does the first line say?",
                "Read the first line.",
                "Which words are in line one?",
                "What is the top line of text?",
                "Tell me the first line.",
                "What can be read in the first line?",
            ),
            held_out=("What stands in the first line?", "Tell me the text of the first line."),
        ),
        QuestionKind.SECOND_LINE: Wordings(
            train=(
                "What is written in the second line?",
                "What does the second line say?",
                "Read the second line.",
                "Which words are in line two?",
                "Tell me the second line.",
                "What can be read in the second line?",
            ),
            held_out=("What stands in the second line?", "Tell me the text of the second line."),
        ),
        QuestionKind.LAST_LINE: Wordings(
            train=(
                "What is written in the last line?",
                "What does the last line say?",
                "Read the last line.",
                "What is the bottom line of text?",
                "Tell me the last line.",
                "What can be read in the last line?",
            ),
            held_out=("What stands in the last line?", "Tell me the text of the last line."),
        ),
        QuestionKind.WORD_PRESENT: Wordings(
            train=(
                'Is the word "{word}" in the picture?',
                'Is "{word}" written here?',
                'Does the text contain "{word}"?',
                'Can you read "{word}" here?',
                'Do you see the word "{word}"?',
                'Does the image show "{word}"?',
                'Is "{word}" one of the words?',
            ),
            held_out=('Does "{word}" appear in the text?', 'Is there the word "{word}"?'),
        ),
        QuestionKind.NUMBER: Wordings(
            train=(
                "What number is shown?",
                "Which number is in the picture?",
                "What is the number in the text?",
                "Read the number.",
                "Tell me the number.",
                "What number do you see?",
            ),
            held_out=("What number can you see?", "Which number is written here?"),
        ),
        QuestionKind.LINE_COUNT: Wordings(
            train=(
                "How many lines of text are there?",
                "How many lines does the text have?",
                "Count the lines of text.",
                "How many text lines are shown?",
            ),
            held_out=("How many lines can be read?", "What is the number of text lines?"),
        ),
        QuestionKind.DESCRIBE: Wordings(
            train=(
                "Describe the picture.",
                "What is in the picture?",
                "What do you see?",
                "Give a short description.",
                "What is shown in this image?",
                "Tell me what is in the image.",
            ),
            held_out=("What does the image show?", "Describe what you see."),
        ),
        QuestionKind.GROUND_COLOUR: Wordings(
            train=(
                "What colour is the background?",
                "Which colour does the background have?",
                "Name the colour of the background.",
                "The background has which colour?",
            ),
            held_out=("What is the background colour?", "In which colour is the background?"),
        ),
        QuestionKind.SHAPE_COLOUR: Wordings(
            train=(
                "What colour is the {shape}?",
                "Which colour does the {shape} have?",
                "Name the colour of the {shape}.",
                "The {shape} has which colour?",
            ),
            held_out=("What is the colour of the {shape}?", "In which colour is the {shape}?"),
        ),
        QuestionKind.SHAPE_COUNT: Wordings(
            train=(
                "How many {shapes} are there?",
                "How many {shapes} do you see?",
                "Count the {shapes}.",
                "How many {shapes} are shown?",
            ),
            held_out=("What is the number of {shapes}?", "How many {shapes} can be seen?"),
        ),
        QuestionKind.SHAPE_PRESENT: Wordings(
            train=(
                "Is there a {shape}?",
                "Is a {shape} in the picture?",
                "Do you see a {shape}?",
                "Does the picture have a {shape}?",
            ),
            held_out=("Is a {shape} shown?", "Can a {shape} be seen?"),
        ),
    }
)


def question(kind: QuestionKind, rng: random.Random, *, held_out: bool = False, **slots: str) -> str:
    """One wording of ``kind`` with its slots filled, chosen by ``rng``.

    Slots: ``word`` (WORD_PRESENT), ``shape`` (SHAPE_COLOUR, SHAPE_PRESENT), ``shapes`` (SHAPE_COUNT, plural,
    see :func:`plural`). Raises ConfigError if the slots given are not the slots of the kind.
    """
    wordings = WORDINGS[kind]
    template = rng.choice(wordings.held_out if held_out else wordings.train)
    wanted = slots_of(template)
    if wanted != set(slots):
        raise ConfigError(
            f"a question of kind {kind.value!r} needs the slots {sorted(wanted)} but was given "
            f"{sorted(slots)}: pass exactly those as keyword arguments"
        )
    return template.format(**slots)


def rng_for(seed: int, *parts: str) -> random.Random:
    """A generator that depends on ``seed`` and ``parts`` alone: equal on every machine and in every order."""
    digest = hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


def slots_of(template: str) -> set[str]:
    """Names in braces in a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def plural(shape: str) -> str:
    """``circle`` -> ``circles``, ``cross`` -> ``crosses``."""
    return shape + ("es" if shape.endswith(("s", "x", "z", "ch", "sh")) else "s")


def describe(facts: SceneFacts) -> str:
    """A short description of the facts alone, never of the text: ``2 red circles on a white background``.

    Shapes are named in the order of ``facts``; one shape has the article, several have digits.
    """
    named = [_named(shape) for shape in facts.shapes]
    ground = f"{_article(facts.ground)} {facts.ground} background"
    return f"{_listed(named)} on {ground}" if named else ground


def _named(shape: Shape) -> str:
    if shape.count == 1:
        return f"{_article(shape.colour)} {shape.colour} {shape.name}"
    return f"{shape.count} {shape.colour} {plural(shape.name)}"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in tuple("aeiou") else "a"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
