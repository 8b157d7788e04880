"""Rules of one benchmark each: ScienceQA's letters, POPE's yes or no, OCRBench v2's short answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llavar.errors import DataError
from llavar.evals.metrics.rule import Rule, equal
from llavar.evals.metrics.text import edit_distance
from llavar.evals.metrics.yesno import YesNo, expected_answer

_STATED = re.compile(r"The answer is ([A-E])")
_STATED_AND_ENDED = re.compile(r"The answer is ([A-E])\.")
_FEW_WORDS = 5
"""From this many words on, OCRBench v2 compares by edit distance."""


def choice_letter(reply: str) -> str:
    """The letter that a reply chooses, or an empty string (LLaVA's ``eval_science_qa.py``).

    A letter alone; a letter, a full stop and a blank or line break first; or ``The answer is X`` anywhere.
    So ``B.`` and ``(B)`` choose nothing.
    """
    text = reply.replace("\n", ". ")
    if len(alone := text.strip()) == 1 and alone in "ABCDE":
        return alone
    if text[:1] and text[0] in "ABCDE" and text[1:3] == ". ":
        return text[0]
    stated = _STATED_AND_ENDED.search(text) or _STATED.search(text)
    return stated[1] if stated else ""


def pope_answer(reply: str) -> YesNo:
    """What POPE's ``evaluate.py`` reads: no if the first sentence holds No, no or not, and yes otherwise."""
    words = reply.split(".")[0].replace(",", "").split(" ")
    return YesNo.NO if {"No", "no", "not"} & set(words) else YesNo.YES


@dataclass(frozen=True, slots=True, kw_only=True)
class PopeScore:
    """POPE's figures, from 0 to 1, "yes" being the positive class; a ratio of nothing is 0."""

    n: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_ratio: float


def pope_score(rows: Iterable[tuple[str, str]]) -> PopeScore:
    """POPE's figures from (reply, reference); POPE reports them for each kind of absent objects.

    Raises :class:`DataError` without a row and for references that are not yes or no.
    """
    pairs = [(pope_answer(reply), expected_answer(reference)) for reply, reference in rows]
    if not pairs:
        raise DataError("no answer to score; POPE's figures need at least 1")
    said = sum(answer is YesNo.YES for answer, _ in pairs)
    true = sum(wanted is YesNo.YES for _, wanted in pairs)
    hits = sum(answer is wanted is YesNo.YES for answer, wanted in pairs)
    return PopeScore(
        n=len(pairs),
        accuracy=sum(answer is wanted for answer, wanted in pairs) / len(pairs),
        precision=hits / max(said, 1),
        recall=hits / max(true, 1),
        f1=2 * hits / max(said + true, 1),
        yes_ratio=said / len(pairs),
    )


def _plain(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _short(prediction: str, references: Sequence[str]) -> float:
    return max(_one(prediction, reference) for reference in references)


def _one(prediction: str, reference: str) -> float:
    if len(reference.split()) < _FEW_WORDS:
        return float(reference in prediction)
    longer = max(len(prediction), len(reference))
    similarity = 1 - edit_distance(prediction, reference) / longer
    return similarity if similarity >= 0.5 else 0.0


def _chosen(prediction: str, references: Sequence[str]) -> float:
    return float(bool(prediction) and prediction in references)


RULES = (
    Rule(
        name="scienceqa",
        about="LLaVA's eval_science_qa.py: the letter that the reply states is the reference",
        prediction=choice_letter,
        reference=str.strip,
        compare=_chosen,
    ),
    Rule(
        name="pope",
        about="POPE's evaluate.py: no if the first sentence holds No, no or not, else yes; accuracy",
        prediction=pope_answer,
        reference=expected_answer,
        compare=equal,
    ),
    Rule(
        name="ocrbench-v2",
        version="161c6df",
        about="OCRBench v2, vqa_metric.py @161c6df: substring for references below five words, else edit "
        "similarity from 0.5 on",
        prediction=_plain,
        reference=_plain,
        compare=_short,
    ),
)
