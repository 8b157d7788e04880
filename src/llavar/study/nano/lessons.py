"""Questions that people ask and the template teacher does not: about what is not there, and plain words.

The teacher's words that are not in a picture look like those that are, one letter apart: a model that cannot
read well yet learns from them to say yes to all. Here such a word is any other of the list.
"""

from __future__ import annotations

import random

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


def plain(drawn: Scene, rng: random.Random) -> list[Pair]:
    """The colour of the ground, a word of the scene, and one that is not in it."""
    pairs: list[Pair] = [(rng.choice(_GROUND), drawn.ground.value)]
    there = words_of(drawn.text)
    if there:
        taken = drawn.text.casefold()
        other = rng.choice([word for word in vocabulary(held_out=False) if word not in taken])
        pairs.append((question(QuestionKind.WORD_PRESENT, rng, word=rng.choice(there)), YES))
        pairs.append((question(QuestionKind.WORD_PRESENT, rng, word=cased(rng, other)), NO))
    return pairs


def enriched(talk: Conversation, drawn: Scene, rng: random.Random) -> Conversation:
    """A conversation with one or two such questions at its end."""
    known = [*without_answer(drawn, rng), *plain(drawn, rng)]
    chosen = rng.sample(known, min(rng.randint(1, 2), len(known)))
    texts = [turn.text for turn in talk.turns]
    return Conversation.of(*texts, *(text for pair in chosen for text in pair))
