"""The shape that every metric has: prepare both sides, then compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from llavar.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One named, versioned metric.

    ``prediction`` and ``reference`` turn the raw texts into what ``compare`` looks at. The two are apart from
    ``compare`` so that a file in which references repeat has each of them prepared once.

    ``compare`` gets the prepared prediction and all prepared references (at least one) and returns the score
    of the item. ``about`` says in one line whose rule it is; ``version`` is the commit it was taken from,
    empty for rules of this project.
    """

    name: str
    about: str
    prediction: Callable[[str], str]
    reference: Callable[[str], str]
    compare: Callable[[str, Sequence[str]], float]
    version: str = ""
    higher_is_better: bool = True


def same(text: str) -> str:
    """For sides that need no preparation."""
    return text


def any_of(match: Callable[[str, str], bool]) -> Callable[[str, Sequence[str]], float]:
    """1 if one of the references matches, else 0; ``match`` takes (prediction, reference)."""

    def compare(prediction: str, references: Sequence[str]) -> float:
        return float(any(match(prediction, reference) for reference in references))

    return compare


def equal(prediction: str, references: Sequence[str]) -> float:
    """1 if the prepared prediction is one of the prepared references, else 0."""
    return float(prediction in references)


def inside(prediction: str, references: Sequence[str]) -> float:
    """1 if a prepared reference is a substring of the prepared prediction, else 0; an empty one always is."""
    return float(any(reference in prediction for reference in references))


def checked(prediction: object, references: object) -> tuple[str, tuple[str, ...]]:
    """The arguments of ``score`` as text and a tuple of texts, or :class:`DataError`."""
    if not isinstance(prediction, str):
        raise DataError(
            f"a prediction must be text, but got {prediction!r} ({type(prediction).__name__}); "
            "give an empty string for a reply without text"
        )
    if isinstance(references, str):
        return prediction, (references,)
    found = tuple(cast(Sequence[object], references)) if _is_list(references) else ()
    if set(map(type, found)) == {str}:
        return prediction, cast("tuple[str, ...]", found)  # nearly always, and quickly checked
    texts = tuple(text for text in found if isinstance(text, str))
    if not texts or len(texts) < len(found):
        raise DataError(
            "the references of a prediction must be one text or a list of at least 1 text, "
            f"but got {references!r}; leave out questions without a reference"
        )
    return prediction, texts


def _is_list(references: object) -> bool:
    return isinstance(references, Sequence) and not isinstance(references, bytes)
