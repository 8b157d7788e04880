"""Questions that people ask and the template teacher does not: about what is not there, and plain words.

The teacher's words that are not in a picture look like those that are, one letter apart: a model that cannot
read well yet learns from them to say yes to all. Here such a word is any other of the list.
"""

from __future__ import annotations

import random

from llavar.corpus.pairs import with_image
from llavar.corpus.teach import NO, YES, words_of
from llavar.corpus.wordings import QuestionKind, question
from llavar.records import Conversation
from llavar.render.scene import Scene
from llavar.render.words import cased, vocabulary
from llavar.study.nano.scenes import SHAPE_NAMES

NOTHING = "none"
"""The answer to a question that has none."""

_GROUND = ("What colour is the ground?", "Which colour does the ground have?")

Pair = tuple[str, str]
"""A question and its answer."""


def without_answer(drawn: Scene, rng: random.Random) -> list[Pair]:
    """All questions of a few kinds that a scene leaves without an answer."""
    asked: list[str] = []
    if not any(char.isdigit() for char in drawn.text):
        asked.append(question(QuestionKind.NUMBER, rng))
    if len(drawn.lines) == 1:
        asked.append(question(QuestionKind.SECOND_LINE, rng))
    if not drawn.lines:
        asked.append(question(QuestionKind.TRANSCRIBE, rng))
    there = {shape.kind.value for shape in drawn.shapes}
    absent = [name for name in SHAPE_NAMES if name not in there]
    if absent:
        asked.append(question(QuestionKind.SHAPE_COLOUR, rng, shape=rng.choice(absent)))
    return [(text, NOTHING) for text in asked]


def plain(drawn: Scene, rng: random.Random, words: int = 1) -> list[Pair]:
    """The colour of the ground, up to ``words`` words of the scene, and as many that are not in it."""
    pairs: list[Pair] = [(rng.choice(_GROUND), drawn.ground.value)]
    there = words_of(drawn.text)
    asked = rng.sample(there, min(words, len(there)))
    if asked:
        taken = drawn.text.casefold()
        others = rng.sample([word for word in vocabulary(held_out=False) if word not in taken], len(asked))
        pairs += [(question(QuestionKind.WORD_PRESENT, rng, word=word), YES) for word in asked]
        pairs += [(question(QuestionKind.WORD_PRESENT, rng, word=cased(rng, word)), NO) for word in others]
    return pairs


def enriched(talk: Conversation, drawn: Scene, rng: random.Random) -> Conversation:
    """A conversation with one or two such questions at its end."""
    known = [*without_answer(drawn, rng), *plain(drawn, rng)]
    texts = [turn.text for turn in talk.turns]
    return Conversation.of(*texts, *_some(known, rng.randint(1, 2), rng))


def quiz(drawn: Scene, rng: random.Random) -> Conversation:
    """Such questions alone, up to eight: no earlier answer spells what the picture holds."""
    known = [*without_answer(drawn, rng), *plain(drawn, rng, words=3)]
    first, *rest = _some(known, 8, rng)
    return Conversation.of(with_image(first, rng), *rest)


def _some(known: list[Pair], most: int, rng: random.Random) -> list[str]:
    """Questions and answers in turns, in any order."""
    return [text for pair in rng.sample(known, min(most, len(known))) for text in pair]
