"""Stage-2 conversations: questions with definite answers about what is written and shown in a picture.

:class:`TemplateTeacher` works offline and gives the same conversation for the same reading on every machine.
:mod:`llavar.corpus.teaching` asks a language model behind an OpenAI-compatible endpoint instead.

What a teacher may ask follows from what is known for certain. A line that was read without confidence, or
that is too small for the vision tower, is no answer, but it is still in the picture: no question may rest on
its absence. Such lines are handed over as ``dropped``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from llavar.chat import escape_special
from llavar.corpus.pairs import transcription, with_image
from llavar.corpus.wordings import (
    QuestionKind,
    SceneFacts,
    Shape,
    describe,
    plural,
    question,
    rng_for,
)
from llavar.errors import ConfigError
from llavar.records import Conversation, Line, Reading, Reject, Turn

STAGE = "teach"
YES = "yes"
NO = "no"

WORD = re.compile(r"[^\W\d_]{3,16}")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


class TeachReason(StrEnum):
    """Why a picture gives no conversation."""

    NOTHING_KNOWN = "nothing to ask about"


class Teacher(Protocol):
    """Makes a conversation out of what was read in a picture and what else is known of it."""

    def teach(
        self, reading: Reading, facts: SceneFacts | None = None, *, dropped: Sequence[Line] = ()
    ) -> Conversation | Reject:
        """``reading`` has its lines in reading order; ``dropped`` are further lines of the same picture."""
        ...


class QuestionAnswer(NamedTuple):
    """One thing that can be asked; the wording is chosen later from ``kind`` and ``slots``."""

    kind: QuestionKind
    answer: str
    slots: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTeacher:
    """Conversations of one to ``max_pairs`` questions out of a fixed table of wordings."""

    kind: Literal["template"] = "template"
    """What a recipe says to get this teacher."""
    seed: int = 0
    """Decides what is asked, in which order, and in which words."""
    max_pairs: int = 4
    """Most questions in one conversation (1 to 8)."""
    max_chars: int = 1000
    """Longest answer in characters; questions with longer ones are not asked."""
    separator: str = "\n"
    """What stands between lines in a transcription."""
    words: tuple[str, ...] = ()
    """Words to ask for that are not in the picture, besides altered words of the picture."""
    shape_names: tuple[str, ...] = ()
    """Every shape that a picture may hold; without them nobody is asked whether a shape is there."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_pairs <= 8:
            raise ConfigError(f"max_pairs is {self.max_pairs} but must lie in 1 to 8: use 4, for example")

    def teach(
        self, reading: Reading, facts: SceneFacts | None = None, *, dropped: Sequence[Line] = ()
    ) -> Conversation | Reject:
        """A conversation with the image tag in its first turn, or a Reject if there is nothing to ask."""
        rng = rng_for(self.seed, STAGE, PurePath(reading.image).name, reading.text)
        known = [*self.about_text(reading, dropped, rng), *(self.about_scene(facts, rng) if facts else ())]
        usable = [item for item in known if 0 < len(item.answer) <= self.max_chars]
        if not usable:
            detail = f"{len(reading.lines)} lines, {len(known)} questions, none with a usable answer"
            return Reject(id=reading.image, stage=STAGE, reason=TeachReason.NOTHING_KNOWN, detail=detail)
        chosen = rng.sample(usable, rng.randint(1, min(self.max_pairs, len(usable))))
        return _conversation(chosen, rng)

    def about_text(
        self, reading: Reading, dropped: Sequence[Line], rng: random.Random
    ) -> Iterator[QuestionAnswer]:
        """What can be asked about the text: each kind once, but a word that is there and one that is not."""
        lines = tuple(line for line in reading.lines if line.text.strip())
        if not lines:
            return
        yield QuestionAnswer(QuestionKind.TRANSCRIBE, transcription(reading, self.separator))
        yield from _about_places(lines, dropped)
        yield from self._about_words(lines, dropped, rng)
        everything = "\n".join(line.text for line in (*lines, *dropped))
        number = only_number(everything)
        if number is not None and any(number in line.text for line in lines):
            yield QuestionAnswer(QuestionKind.NUMBER, number)
        if not dropped:
            yield QuestionAnswer(QuestionKind.LINE_COUNT, str(len(lines)))

    def _about_words(
        self, lines: Sequence[Line], dropped: Sequence[Line], rng: random.Random
    ) -> Iterator[QuestionAnswer]:
        there = words_of("\n".join(line.text for line in lines))
        if not there:
            return
        everything = "\n".join(line.text for line in (*lines, *dropped))
        other = absent_word(rng.choice(there), rng, text=everything, words=self.words)
        if other is None:  # asking only for what is there would teach to say yes
            return
        yield QuestionAnswer(QuestionKind.WORD_PRESENT, YES, {"word": rng.choice(there)})
        yield QuestionAnswer(QuestionKind.WORD_PRESENT, NO, {"word": other})

    def about_scene(self, facts: SceneFacts, rng: random.Random) -> Iterator[QuestionAnswer]:
        """All that can be asked about the ground and the shapes, each kind once."""
        yield QuestionAnswer(QuestionKind.DESCRIBE, describe(facts))
        yield QuestionAnswer(QuestionKind.GROUND_COLOUR, facts.ground)
        there = sorted({shape.name for shape in facts.shapes if shape.count > 0})
        absent = sorted(set(self.shape_names).difference(there))
        if there:
            yield from _about_shapes(facts, rng)
        if there and absent:
            yield QuestionAnswer(QuestionKind.SHAPE_PRESENT, YES, {"shape": rng.choice(there)})
            yield QuestionAnswer(QuestionKind.SHAPE_PRESENT, NO, {"shape": rng.choice(absent)})


def _about_places(lines: Sequence[Line], dropped: Sequence[Line]) -> Iterator[QuestionAnswer]:
    """First, second and last line, where no dropped line may be the true one."""
    if len(lines) < 2:
        return
    if _all_below(dropped, lines[0]):
        yield QuestionAnswer(QuestionKind.FIRST_LINE, _answer(lines[0]))
    if _all_below(dropped, lines[1]):
        yield QuestionAnswer(QuestionKind.SECOND_LINE, _answer(lines[1]))
    if all(line.box.bottom <= _middle(lines[-1]) for line in dropped):
        yield QuestionAnswer(QuestionKind.LAST_LINE, _answer(lines[-1]))


def _all_below(dropped: Sequence[Line], line: Line) -> bool:
    return all(other.box.top >= _middle(line) for other in dropped)


def _middle(line: Line) -> float:
    return (line.box.top + line.box.bottom) / 2


def _answer(line: Line) -> str:
    return escape_special(line.text.strip())


def _about_shapes(facts: SceneFacts, rng: random.Random) -> Iterator[QuestionAnswer]:
    """Count of the shapes of one name, chosen by ``rng``, and the colour where there is one of them."""
    name = rng.choice(sorted({shape.name for shape in facts.shapes}))
    same: list[Shape] = [shape for shape in facts.shapes if shape.name == name]
    count = sum(shape.count for shape in same)
    yield QuestionAnswer(QuestionKind.SHAPE_COUNT, str(count), {"shapes": plural(name)})
    if count == 1:
        yield QuestionAnswer(QuestionKind.SHAPE_COLOUR, same[0].colour, {"shape": name})


def _conversation(chosen: Sequence[QuestionAnswer], rng: random.Random) -> Conversation:
    texts: list[str] = []
    for item in chosen:
        asked = question(item.kind, rng, held_out=False, **item.slots)
        texts += [asked if texts else with_image(asked, rng), item.answer]
    return Conversation.of(*texts)


def words_of(text: str) -> tuple[str, ...]:
    """Different words of 3 to 16 letters, in order of appearance; pieces of mixed tokens (B2B4) are none."""
    tokens = (token.strip(".,;:!?()[]\"'") for token in text.split())
    return tuple(dict.fromkeys(token for token in tokens if WORD.fullmatch(token)))


def only_number(text: str) -> str | None:
    """The number of a text that holds exactly one, as it is written; None if digits also stand elsewhere."""
    if any(char.isnumeric() and not char.isascii() for char in text):
        return None
    found = list(NUMBER.finditer(text))
    if len(found) != 1:
        return None
    start, end = found[0].span()
    around = text[max(0, start - 1) : start] + text[end : end + 1]
    return None if any(char.isalpha() or char in "-/" for char in around) else found[0][0]


def absent_word(word: str, rng: random.Random, *, text: str, words: Sequence[str] = ()) -> str | None:
    """A word that looks like ``word`` but is nowhere in ``text``, whatever the case; None if none was found.

    Half the time it is among the eight most similar of some ``words`` (if any), in the case of ``word``;
    otherwise one or two letters of ``word`` are changed.
    """
    taken = text.casefold()
    # A hundred of a long list are enough to find one alike; sorting all of it would cost milliseconds.
    some = rng.sample(words, min(len(words), 100))
    free = [other for other in some if WORD.fullmatch(other) and other.casefold() not in taken]
    if free and rng.random() < 0.5:
        nearest = sorted(set(free), key=lambda other: (_difference(word, other), other))[:8]
        return _in_case_of(word, rng.choice(nearest))
    for _ in range(20):
        altered = _altered(word, rng)
        if altered.casefold() not in taken:
            return altered
    return None


def _difference(one: str, other: str) -> int:
    """Places in which two words differ, and twice what one of them is longer."""
    different = sum(a != b for a, b in zip(one.casefold(), other.casefold(), strict=False))
    return different + 2 * abs(len(one) - len(other))


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word.lower()


_VOWELS = "aeiou"
_CONSONANTS = "bcdfghklmnprstvwz"


def _altered(word: str, rng: random.Random) -> str:
    """One Latin letter changed, or two in longer words; vowels to vowels, so that it looks like a word."""
    letters = list(word)
    latin = [place for place, letter in enumerate(letters) if letter.isascii()]
    wanted = 2 if len(latin) >= 6 and rng.random() < 0.5 else 1
    for place in rng.sample(latin, min(wanted, len(latin))):
        old = letters[place]
        pool = _VOWELS if old.lower() in _VOWELS else _CONSONANTS
        new = rng.choice([letter for letter in pool if letter != old.lower()])
        letters[place] = new.upper() if old.isupper() else new
    return "".join(letters)


def turns_of(conversation: Conversation) -> tuple[tuple[Turn, Turn], ...]:
    """Question and answer turns as pairs. The conversation has to alternate, as those of a teacher do."""
    return tuple(zip(conversation.turns[::2], conversation.turns[1::2], strict=True))
