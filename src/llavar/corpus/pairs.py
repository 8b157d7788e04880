"""Stage-1 rows: a request for the visible text, and the text that OCR found as the answer (section 3.1)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from llavar.chat import escape_special
from llavar.corpus.wordings import STAGE1_WORDINGS, checked_requests, read_requests, rng_for
from llavar.errors import ConfigError
from llavar.records import IMAGE_TAG, Conversation, Example, Reading, Reject

STAGE = "pairs"


class PairReason(StrEnum):
    """Why a picture gives no stage-1 row."""

    NO_TEXT = "no text"
    TOO_SHORT = "text too short"
    TOO_LONG = "text too long"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Which readings become rows."""

    min_confidence: float = 0.8
    """Lines that the engine is less sure of are left out (0 to 1)."""
    min_chars: int = 3
    """Fewest letters and digits that a text needs to be worth a row."""
    max_chars: int = 1000
    """Longest answer in characters; longer texts are rejected, never cut."""
    separator: str = "\n"
    """What stands between lines in the answer."""
    seed: int = 0
    """Decides on wordings, and on the place of the picture before or after the request."""
    wordings: tuple[str, ...] | Path = STAGE1_WORDINGS
    """Of the request; a recipe may name a text file of them, a line each."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence is {self.min_confidence} but must lie in 0 to 1: use 0.8, say")
        if not 1 <= self.min_chars <= self.max_chars:
            raise ConfigError(
                f"min_chars is {self.min_chars} and max_chars {self.max_chars}, but "
                f"1 <= min_chars <= max_chars has to hold: widen the limits"
            )

    def within(self, base: Path) -> PairSettings:
        """With the wordings of the file that is named, if one is, relative to ``base``.

        Raises:
            NotFoundError, ConfigError: there is no such file, or it or the recipe has wordings of no use.
        """
        if isinstance(self.wordings, Path):
            return replace(self, wordings=read_requests(base / self.wordings))
        checked_requests(self.wordings)
        return self


def confident(reading: Reading, threshold: float) -> Reading:
    """``reading`` with those lines alone that have at least ``threshold`` as their confidence."""
    return replace(reading, lines=tuple(line for line in reading.lines if line.confidence >= threshold))


def transcription(reading: Reading, separator: str = "\n") -> str:
    """The text of all lines, safe to stand in an answer: control strings in it are broken up."""
    texts = (line.text.strip() for line in reading.lines)
    return escape_special(separator.join(text for text in texts if text))


def pair(reading: Reading, *, id: str, image: str, settings: PairSettings | None = None) -> Example | Reject:
    """The stage-1 row of a reading whose lines are in reading order (see :mod:`llavar.corpus.layout`)."""
    settings = settings or PairSettings()
    sure = confident(reading, settings.min_confidence)
    text = transcription(sure, settings.separator)
    letters = sum(char.isalnum() for char in text)
    if not text:
        detail = f"{len(reading.lines)} lines, none with confidence {settings.min_confidence:g}"
        return Reject(id=id, stage=STAGE, reason=PairReason.NO_TEXT, detail=detail)
    if letters < settings.min_chars:
        detail = f"{letters} letters or digits, at least {settings.min_chars} are needed: {text[:40]!r}"
        return Reject(id=id, stage=STAGE, reason=PairReason.TOO_SHORT, detail=detail)
    if len(text) > settings.max_chars:
        detail = f"{len(text)} characters, at most {settings.max_chars} are allowed"
        return Reject(id=id, stage=STAGE, reason=PairReason.TOO_LONG, detail=detail)
    assert not isinstance(settings.wordings, Path), "a file of wordings is read with its recipe"
    rng = rng_for(settings.seed, STAGE, id)
    request = with_image(rng.choice(settings.wordings), rng)
    return Example(id=id, conversation=Conversation.of(request, text), images=(image,))


def with_image(text: str, rng: random.Random) -> str:
    """A first user turn with the image tag before or after its text, half and half, as in LLaVA's data."""
    return f"{IMAGE_TAG}\n{text}" if rng.random() < 0.5 else f"{text}\n{IMAGE_TAG}"
