"""What benchmarks/nano.py asks about a picture, and how answers are scored. Nothing here loads a model.

A transcription counts by its characters (edits over length, at most all of it; runs of white space are one
blank) and by being exact, case included. A short answer has to be equal to the reference, apart from case and
a full stop at its end. A question without an answer has to be answered by saying so: see :func:`declines`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import nano_scenes
import numpy as np
from nano_scenes import Drawn
from numpy.typing import NDArray

from llavar.corpus.wordings import QuestionKind, question
from llavar.evals.exam import recites
from llavar.evals.metrics import normalise, parse_yes_no, transcription_counts, vqa_match
from llavar.evals.stats import bootstrap, ratio


class About(StrEnum):
    """What is asked. The last three have no answer."""

    TEXT = "transcription"
    FIRST_LINE = "first line"
    WORD = "word in the picture"
    NUMBER = "number"
    GROUND = "colour of the ground"
    NO_NUMBER = "number where there is none"
    NO_SECOND_LINE = "second line of one"
    NO_TEXT = "text where there is none"

    @property
    def unanswerable(self) -> bool:
        return self in (About.NO_NUMBER, About.NO_SECOND_LINE, About.NO_TEXT)


SHORT = (About.FIRST_LINE, About.WORD, About.NUMBER, About.GROUND)
"""Questions with a short answer."""

WORDINGS: Mapping[About, str] = {
    About.TEXT: "What does the picture say?",
    About.FIRST_LINE: "What is written in the first line?",
    About.WORD: 'Is the word "{word}" in the picture?',
    About.NUMBER: "What number is shown?",
    About.GROUND: "What colour is the ground?",
    About.NO_NUMBER: "What number is shown?",
    About.NO_SECOND_LINE: "What is written in the second line?",
    About.NO_TEXT: "What does the picture say?",
}
"""One for each, as people would ask; the other ones are those that llavar.corpus holds out."""

_HELD_OUT = {
    About.TEXT: QuestionKind.TRANSCRIBE,
    About.FIRST_LINE: QuestionKind.FIRST_LINE,
    About.WORD: QuestionKind.WORD_PRESENT,
    About.NUMBER: QuestionKind.NUMBER,
    About.GROUND: QuestionKind.GROUND_COLOUR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A question on a picture. ``answer`` is empty where there is none."""

    picture: str
    about: About
    question: str
    answer: str


def items(drawn: Drawn) -> list[Item]:
    """All that is asked about a picture: yes and no to words in it and not in it."""
    if not drawn.lines:
        return [_item(drawn, About.NO_TEXT)]
    rng = random.Random(f"asked {drawn.name}")
    there = [word for word in drawn.text.split() if word.isalpha()]
    found = [_item(drawn, About.TEXT, drawn.text)]
    if len(drawn.lines) > 1:
        found.append(_item(drawn, About.FIRST_LINE, drawn.lines[0]))
    else:
        found.append(_item(drawn, About.NO_SECOND_LINE))
    if there:
        chosen = rng.choice(there)
        found.append(_item(drawn, About.WORD, "yes", word=chosen))
        found.append(_item(drawn, About.WORD, "no", word=_absent(chosen, drawn, rng)))
    found.append(_item(drawn, About.NUMBER, drawn.number) if drawn.number else _item(drawn, About.NO_NUMBER))
    if drawn.ground:
        found.append(_item(drawn, About.GROUND, drawn.ground))
    return found


def reworded(given: Sequence[Item]) -> list[Item]:
    """The same questions in words that no training row has."""
    found: list[Item] = []
    for item in given:
        if item.about in _HELD_OUT:
            rng = random.Random(f"reworded {item.picture} {item.question}")
            word = re.search('"(.*)"', item.question)
            slots = {"word": word[1]} if word else {}
            asked = question(_HELD_OUT[item.about], rng, held_out=True, **slots)
            found.append(Item(picture=item.picture, about=item.about, question=asked, answer=item.answer))
    return found


def _item(drawn: Drawn, about: About, answer: str = "", **slots: str) -> Item:
    return Item(picture=drawn.name, about=about, question=WORDINGS[about].format(**slots), answer=answer)


def _absent(there: str, drawn: Drawn, rng: random.Random) -> str:
    """A word of the list that the picture does not have, about as long, in the same case."""
    taken = drawn.text.lower()
    free = [word for word in nano_scenes.WORDS if word not in taken and abs(len(word) - len(there)) <= 1]
    other = rng.choice(free)
    if there.isupper():
        return other.upper()
    return other.capitalize() if there[0].isupper() else other


_DECLINES = re.compile(
    r"\b(no|not|none|nothing|neither|cannot|can't|without|unanswerable|unknown|blank|empty)\b", re.IGNORECASE
)


def declines(answer: str) -> bool:
    """Whether an answer says that there is none. A bare no does not: it answers another question."""
    return bool(_DECLINES.search(answer)) and normalise(answer).casefold().rstrip(".") != "no"


def is_right(item: Item, said: str) -> bool:
    match item.about:
        case About.TEXT:
            return normalise(said) == normalise(item.answer)
        case About.WORD:
            return parse_yes_no(said).value == item.answer
        case _ if item.about.unanswerable:
            return declines(said)
        case _:
            return bool(vqa_match(said, (item.answer,)))


# --- figures ---------------------------------------------------------------------------------------------


def _score(values: Any, groups: Sequence[str], statistic: Any = ratio) -> dict[str, float]:
    found = asdict(bootstrap(values, statistic, groups))
    return {name: round(value, 4) for name, value in found.items()}


def transcriptions(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of (truth, said) for each picture: character error rate, and the share that is exact."""
    counts = [transcription_counts(said, (truth,)) for truth, said in pairs]
    exact = [float(normalise(truth) == normalise(said)) for truth, said in pairs]
    names = [str(place) for place in range(len(pairs))]
    return {"cer": _score(counts, names), "exact": _score(exact, names)}


def mean_of_kinds(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Right and asked of each kind in turn, shape (..., 2 x kinds) -> the mean of the kinds' shares.

    A kind of which a resample has no question is left out.
    """
    right, asked = sums[..., 0::2], sums[..., 1::2]
    share = np.divide(right, asked, out=np.zeros_like(right), where=asked > 0)
    return share.sum(-1) / (asked > 0).sum(-1)


def answers(given: Sequence[Item], said: Sequence[str], kinds: Sequence[About]) -> dict[str, Any]:
    """The share of right answers of each kind, and ``all``, the mean over the kinds."""
    chosen = [(item, text) for item, text in zip(given, said, strict=True) if item.about in kinds]
    if not chosen:
        return {}
    found: dict[str, Any] = {}
    table = np.zeros((len(chosen), 2 * len(kinds)))
    for row, (item, text) in enumerate(chosen):
        place = 2 * kinds.index(item.about)
        table[row, place : place + 2] = is_right(item, text), 1
    pictures = [item.picture for item, _ in chosen]
    found["all"] = _score(table, pictures, mean_of_kinds)
    for place, about in enumerate(kinds):
        asked = table[:, 2 * place + 1] > 0
        if asked.any():
            names = [name for name, is_one in zip(pictures, asked, strict=True) if is_one]
            found[about.value] = _score(table[asked, 2 * place], names)
    return found


def declined(given: Sequence[Item], said: Sequence[str]) -> dict[str, float]:
    """The share of questions with an answer that were declined all the same."""
    chosen = [(i.picture, float(declines(t))) for i, t in zip(given, said, strict=True) if i.answer]
    return _score([value for _, value in chosen], [name for name, _ in chosen])


def instructions(given: Sequence[Item], said: Sequence[str]) -> dict[str, Any]:
    """Whether one picture gets different answers to different questions.

    ``recited``: the share of answers to other questions that are the transcription (:func:`recites`).
    ``different``: the share of pictures on which all questions whose right answers differ are answered
    differently; of the two about a word, the one to be answered with yes.
    """
    by_picture: dict[str, list[tuple[Item, str]]] = {}
    for item, text in zip(given, said, strict=True):
        if item.answer:
            by_picture.setdefault(item.picture, []).append((item, text))
    recited: list[tuple[str, float]] = []
    different: list[float] = []
    for name, pairs in by_picture.items():
        own = next((text for item, text in pairs if item.about is About.TEXT), "")
        for item, text in pairs:
            found = None if item.about is About.TEXT else recites(text, own, item.answer)
            if found is not None:
                recited.append((name, float(found)))
        one_each = [(item, text) for item, text in pairs if item.answer != "no"]
        unlike = {normalise(item.answer).casefold(): normalise(text).casefold() for item, text in one_each}
        if len(unlike) > 1:
            different.append(float(len(set(unlike.values())) == len(unlike)))
    return {
        "recited": _score([value for _, value in recited], [name for name, _ in recited]),
        "different": _score(different, [str(place) for place in range(len(different))]),
    }


# --- goals -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure that is wanted, and the floor beyond which a model is not fit to be shipped."""

    name: str
    wanted: float
    floor: float | None = None
    lower_is_better: bool = False
    unit: str = "%"

    def verdict(self, value: float) -> str:
        """met, above the floor, missed; by the value, not by its interval."""
        if self._reaches(value, self.wanted):
            return "met"
        if self.floor is not None and self._reaches(value, self.floor):
            return "missed, floor kept"
        return "missed" if self.floor is None else "missed, floor too"

    def _reaches(self, value: float, limit: float) -> bool:
        return value <= limit if self.lower_is_better else value >= limit


GOALS = {
    "cer": Goal(name="character error rate", wanted=0.02, floor=0.05, lower_is_better=True),
    "exact": Goal(name="exact transcriptions", wanted=0.90, floor=0.75),
    "questions": Goal(name="questions answered", wanted=0.90, floor=0.85),
    "unanswerable": Goal(name="unanswerable ones answered as such", wanted=0.80),
    "cold": Goal(name="llavar ask, start to exit, one core", wanted=3.0, lower_is_better=True, unit="s"),
    "warm": Goal(name="a further question on one core", wanted=0.150, lower_is_better=True, unit="s"),
    "size": Goal(name="files that are shipped", wanted=20e6, lower_is_better=True, unit="bytes"),
}


def judged(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """Every goal with its figure, as the raw file keeps it."""
    return [
        {
            "what": goal.name,
            "value": figures[key],
            "goal": goal.wanted,
            "floor": goal.floor,
            "unit": goal.unit,
            "verdict": goal.verdict(figures[key]),
        }
        for key, goal in GOALS.items()
        if key in figures
    ]
