"""The normalisers of the VQA codes, and the metrics of M4C (MMF): TextVQA, ST-VQA, ANLS.

Source of the rules: facebookresearch/mmf, ``mmf/utils/m4c_evaluators.py`` (lmms-eval carries a copy), and for
the two other normalisers MultimodalOCR's ``VQAEval`` and VLMEvalKit's ``process_answer``. All three work in
the same two steps and differ in small things:

=====================  ==========================  ==========================  =====================
step                   MultimodalOCR               M4C                         VLMEvalKit
=====================  ==========================  ==========================  =====================
before                                             lower case; ``,`` and ``?``
                                                   go; ``'s`` is split off
a digit,digit anywhere every mark goes             (no comma is left)          every mark goes
full stops that go     not before a digit          not before a digit          not beside a digit
=====================  ==========================  ==========================  =====================

Two accidents of the original are part of the rule: whether a mark becomes nothing or a space is decided on
the whole text, and only the first 32 full stops go (``re.UNICODE``, which is 32, was passed as the count).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from re import Pattern
from types import MappingProxyType

from llavar.evals.metrics.rule import Rule, equal
from llavar.evals.metrics.tables import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION
from llavar.evals.metrics.text import edit_distance

PERIOD = re.compile(r"\.(?!\d)")
"""Full stops that MultimodalOCR and M4C remove. They write ``(?!<=\\d)(\\.)(?!\\d)``; the first group is a
look-behind with a slip of the pen and holds before every full stop."""

PERIOD_VLMEVALKIT = re.compile(r"(?<!\d)\.(?!\d)")

_MARK = re.compile(f"[{re.escape(PUNCTUATION)}]")
_GROUPED = re.compile(r"\d,\d")
_PERIODS = 32

# Numbers, then articles, then contractions, as one look-up: nothing that an earlier table produces occurs in
# a later one. An empty value drops the word.
_WORDS = MappingProxyType({**CONTRACTIONS, **NUMBERS, **dict.fromkeys(ARTICLES, "")})


def unmark(text: str, period: Pattern[str]) -> str:
    """``text`` without punctuation: the first of the two steps (``processPunctuation`` in the peers)."""
    out = text
    marks = set(_MARK.findall(text))
    if marks:
        grouped = "," in marks and _GROUPED.search(text) is not None
        for mark in marks:
            gone = grouped or f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if gone else " ")
    return period.sub("", out, count=_PERIODS) if "." in out else out


def reword(text: str) -> str:
    """``text`` in lower case, numbers as digits, without articles, contractions with their apostrophe."""
    return " ".join(word for found in text.lower().split() if (word := _WORDS.get(found, found)))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def mmocr_normalise(text: str) -> str:
    """As MultimodalOCR (``VQAEval`` in ``eval.py``)."""
    return reword(unmark(_one_line(text), PERIOD))


def m4c_normalise(text: str) -> str:
    """As M4C's and lmms-eval's ``EvalAIAnswerProcessor``."""
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return reword(unmark(_one_line(words), PERIOD))


def vlmevalkit_normalise(text: str) -> str:
    """As VLMEvalKit's ``process_answer``."""
    return reword(unmark(_one_line(text), PERIOD_VLMEVALKIT))


def soft_accuracy(prediction: str, references: Sequence[str]) -> float:
    """VQA accuracy: the mean over all ways to leave one reference out of min(1, matches among the rest / 3).

    M4C refuses anything but 10 references; here, as in lmms-eval and VLMEvalKit, any number will do. With
    one reference the score is always 0, since nothing is left to match.
    """
    n, hits = len(references), references.count(prediction)
    return (hits * min(1.0, (hits - 1) / 3) + (n - hits) * min(1.0, hits / 3)) / n if hits else 0.0


def similarity(a: str, b: str, length: int) -> float:
    """1 - edit distance / ``length``, or 0 if that is below 0.5; 1 for a length of 0.

    The difference of the two lengths bounds the distance from below, which settles most pairs.
    """
    if a == b:
        return 1.0
    if 2 * abs(len(a) - len(b)) > length:
        return 0.0
    found = 1 - edit_distance(a, b) / length
    return found if found >= 0.5 else 0.0


def _anls(prediction: str, references: Sequence[str]) -> float:
    long = len(prediction)
    return max(similarity(prediction, text, max(long, len(text))) for text in set(references))


def _lower_strip(text: str) -> str:
    return text.lower().strip()


TEXTVQA = Rule(
    name="textvqa",
    version="2dc099a",
    about="TextVQA soft accuracy with the EvalAI normaliser, as MMF's m4c_evaluators.py and lmms-eval",
    prediction=m4c_normalise,
    reference=m4c_normalise,
    compare=soft_accuracy,
)
STVQA = Rule(
    name="stvqa",
    version="2dc099a",
    about="ST-VQA accuracy: equal to a reference after the EvalAI normaliser, as MMF's m4c_evaluators.py",
    prediction=m4c_normalise,
    reference=m4c_normalise,
    compare=equal,
)
ANLS = Rule(
    name="anls",
    version="2dc099a",
    about="ANLS, threshold 0.5, over the length of the stripped strings, as MMF's m4c_evaluators.py",
    prediction=_lower_strip,
    reference=_lower_strip,
    compare=_anls,
)
RULES = (TEXTVQA, STVQA, ANLS)
