"""The two scores in a judge's reply."""

from __future__ import annotations

import re
import unicodedata
from typing import cast

from llavar.errors import DataError

_LOWEST, _HIGHEST = 0.0, 10.0
_SCORE = r"(\d{1,2}(?:\.\d{1,4})?)(?:\s{0,3}/\s{0,3}10)?"
_BETWEEN = r"(?:\s{0,9}[,;|]\s{0,9}|\s{1,9}(?:and\s{1,9})?)"
_PAIR = re.compile(
    rf"(?:(?:scores?|ratings?)\s{{0,3}}[:=]\s{{0,3}})?{_SCORE}{_BETWEEN}{_SCORE}", re.IGNORECASE
)
_LABEL = r"assistant\s{0,3}%d(?:'s\s(?:score|rating))?\s{0,3}[:=-]\s{0,3}"
_LABELLED = re.compile(rf"{_LABEL % 1}{_SCORE}(?:{_BETWEEN}){_LABEL % 2}{_SCORE}\.?", re.IGNORECASE)
_DECORATION = re.compile(r"[*_`\[\](){}<>]")


def parse_scores(reply: str, strict: bool = True) -> tuple[float, float] | None:
    """The scores of Assistant 1 and 2 in ``reply``, or ``None`` if it does not hold exactly two.

    Strict reads what LLaVA's parser reads (``parse_score`` of ``eval_gpt_review_visual.py``): two numbers on
    the first line with one blank or comma between them. What Python takes for a number is one there, so
    ``nan 5`` gives a value that would poison a mean (:mod:`~llavar.evals.judge.summary` counts it as failed).
    ``None`` stands for the original's [-1, -1], also where a judge wrote just that.

    Otherwise it also takes ``8, 9``, ``8/10 9/10``, tabs, brackets and emphasis around the scores, blank
    lines before them, and ``Assistant 1: 8`` with ``Assistant 2: 9`` beside or below it. It takes nothing
    that can be read in two ways (``8 9 10``, ``8-9``, ``8/9``), and no score outside 0 to 10.

    Raises :class:`DataError` for a reply that is not text.
    """
    if not isinstance(cast("object", reply), str):
        raise DataError(f"a judge's reply must be text, but got {reply!r:.40}; give an empty string for none")
    exact = _strict(reply)
    if strict:
        return exact
    found = exact or _tolerant(reply)
    return found if usable(found) else None


def _strict(reply: str) -> tuple[float, float] | None:
    parts = reply.split("\n")[0].replace(",", " ").split(" ")
    if len(parts) != 2:
        return None
    try:
        scores = float(parts[0]), float(parts[1])
    except ValueError:
        return None
    return None if scores == (-1.0, -1.0) else scores


def _tolerant(reply: str) -> tuple[float, float] | None:
    lines = [" ".join(_DECORATION.sub(" ", line).split()) for line in reply[:4000].splitlines()]
    lines = [unicodedata.normalize("NFKC", line) for line in lines if line][:2]
    if not lines:
        return None
    found = _PAIR.fullmatch(lines[0].removesuffix("."))
    found = found or _LABELLED.fullmatch(lines[0]) or _LABELLED.fullmatch(" ".join(lines))
    return (float(found[1]), float(found[2])) if found else None


def usable(scores: tuple[float, float] | None) -> bool:
    """Whether ``scores`` may enter a mean: both from 0 to 10, which no NaN is."""
    return scores is not None and all(_LOWEST <= score <= _HIGHEST for score in scores)
