"""The stage ``agree``: how far two OCR engines say the same of one picture.

A reading that a second engine confirms is hardly wrong; where they differ, one of them is. The measure is of
characters: both readings are put into reading order, and twice the length of their longest common
subsequence is divided by the length of both together (1 for equal texts, 0 for texts with nothing in
common). Blanks count nothing, since engines break lines and words in different places; case counts. Lines
that an engine is unsure of take no part, as they do not become answers either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from llavar.corpus.item import Item
from llavar.corpus.layout import merge_rows
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError
from llavar.records import Reading, Reject

STAGE = "agree"
_LONGEST = 4000
"""Characters of a text that are compared; time grows with their square."""


class AgreementReason(StrEnum):
    """Why a picture is not taken."""

    DISAGREE = "the OCR engines disagree"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementSettings:
    """What is compared, and what it takes to go on."""

    min_agreement: float | None = None
    """Items with less are rejected, 0 to 1; None measures and rejects none."""
    min_confidence: float = 0.5
    """Lines that their engine is less sure of take no part."""

    def __post_init__(self) -> None:
        for name in ("min_agreement", "min_confidence"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value} but must lie in 0 to 1; use 0.7, say")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementStage:
    """Adds the agreement of the first engine with the one that agrees with it least."""

    settings: AgreementSettings = AgreementSettings()
    time_limit: None = None
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1

    def maker(self) -> AgreementStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.compared

    def compared(self, item: Item) -> Outcome:
        """The item with its agreement; without one where fewer than two engines have read it."""
        if len(item.readings) < 2:
            return item
        first, *others = item.readings
        value, other = min((self.agreement(first, other), other.engine) for other in others)
        least = self.settings.min_agreement
        if least is not None and value < least:
            detail = f"{value:.3f} with {other}, at least {least:g} is wanted"
            return Reject(id=item.id, stage=STAGE, reason=AgreementReason.DISAGREE, detail=detail)
        return replace(item, agreement=round(value, 4))

    def agreement(self, one: Reading, other: Reading) -> float:
        """Of two readings, 0 to 1."""
        return likeness(self._text(one), self._text(other))

    def _text(self, reading: Reading) -> str:
        sure = [line for line in reading.lines if line.confidence >= self.settings.min_confidence]
        return "".join("".join(line.text.split()) for line in merge_rows(sure))[:_LONGEST]


def likeness(one: str, other: str) -> float:
    """Twice the length of the longest common subsequence over the length of both; 1 for two empty texts.

    The subsequence is found bit by bit (Crochemore and others, 2001), Python's integers being the vectors.
    """
    if not one and not other:
        return 1.0
    where: dict[str, int] = {}
    for place, char in enumerate(one):
        where[char] = where.get(char, 0) | 1 << place
    full = (1 << len(one)) - 1
    column = full
    for char in other:
        equal = column & where.get(char, 0)
        column = ((column + equal) | (column - equal)) & full
    return 2 * (len(one) - column.bit_count()) / (len(one) + len(other))
