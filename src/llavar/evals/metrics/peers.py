"""Metrics of lmms-eval and VLMEvalKit that have no original elsewhere, or where a kit departs from it.

Sources: lmms-eval 75571cf (``api/metrics.py``, ``tasks/chartqa/utils.py``) and VLMEvalKit e8e78f0
(``vlmeval/dataset/utils/vqa_eval.py``).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from llavar.evals.metrics.rule import Rule, equal, same
from llavar.evals.metrics.vqa import similarity, soft_accuracy, vlmevalkit_normalise

_LMMS, _VLMEVALKIT = "75571cf", "e8e78f0"
_TOLERANCE = 0.05
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _raw_length(text: str) -> int:
    # Both kits measure text.upper(), which is longer where one letter becomes two ("ß").
    return len(text) if text.isascii() else len(text.upper())


def _squeezed(text: str) -> str:
    return " ".join(text.lower().split())


def _anls_raw(prediction: str, references: Sequence[str]) -> float:
    answer, long = _squeezed(prediction), _raw_length(prediction)
    return max(similarity(answer, _squeezed(text), max(long, _raw_length(text))) for text in set(references))


_PERHAPS_A_NUMBER = re.compile(r"\s*[+-]?(?:\.?\d|inf|nan)", re.IGNORECASE)
"""How every text begins that Python takes for a number; to see an error raised takes three times as long."""


def _number(text: str) -> float | None:
    """``text`` as a number, ``5%`` as 0.05; ``None`` if it is none."""
    if not _PERHAPS_A_NUMBER.match(text):
        return None
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _relaxed(prediction: str, references: Sequence[str]) -> float:
    """ChartQA's relaxed correctness: numbers within 5 % of the target, other texts equal but for case.

    A target of 0 is compared as text, and ``inf`` and ``nan`` equal nothing (as in both kits).
    """
    said, plain = _number(prediction), prediction.lower()
    for text in set(references):
        target = None if said is None else _number(text)
        if _within(said, target) if said is not None and target else plain == text.lower():
            return 1.0
    return 0.0


def _relaxed_swapped(prediction: str, references: Sequence[str]) -> float:
    """VLMEvalKit hands the two over in the wrong order (its issue 584): within 5 % of the prediction."""
    said, plain = _number(prediction), prediction.lower()
    for text in set(references):
        target = _number(text) if said else None
        if _within(target, said) if said and target is not None else plain == text.lower():
            return 1.0
    return 0.0


def _within(found: float, wanted: float) -> bool:
    return abs(found - wanted) / abs(wanted) <= _TOLERANCE


def _lower_strip(text: str) -> str:
    return text.strip().lower()


def _unpunctuated(text: str) -> str:
    return text.strip().lower().translate(_NO_PUNCTUATION)


RULES = (
    Rule(
        name="anls-raw",
        version=_LMMS,
        about="ANLS, threshold 0.5, over the length of the raw string, as lmms-eval @75571cf and VLMEvalKit "
        "@e8e78f0; the reply is stripped",
        prediction=str.strip,
        reference=same,
        compare=_anls_raw,
    ),
    Rule(
        name="exact",
        version=_LMMS,
        about="equal apart from case, ASCII punctuation and edge blanks, as lmms-eval's exact_match with "
        "ignore_case and ignore_punctuation",
        prediction=_unpunctuated,
        reference=_unpunctuated,
        compare=equal,
    ),
    Rule(
        name="relaxed",
        version=_LMMS,
        about="ChartQA's relaxed accuracy as lmms-eval @75571cf: within 5 % of a number, else equal but for "
        "case; nothing is stripped",
        prediction=same,
        reference=same,
        compare=_relaxed,
    ),
    Rule(
        name="textvqa-vlmevalkit",
        version=_VLMEVALKIT,
        about="TextVQA soft accuracy as VLMEvalKit @e8e78f0: its normaliser keeps 5. and does not split 's",
        prediction=vlmevalkit_normalise,
        reference=vlmevalkit_normalise,
        compare=soft_accuracy,
    ),
    Rule(
        name="relaxed-vlmevalkit",
        version=_VLMEVALKIT,
        about="relaxed accuracy as VLMEvalKit @e8e78f0: the reply is stripped, and the 5 % are of the reply",
        prediction=str.strip,
        reference=same,
        compare=_relaxed_swapped,
    ),
    Rule(
        name="exact-vlmevalkit",
        version=_VLMEVALKIT,
        about="equal apart from case and edge blanks, as VLMEvalKit @e8e78f0 scores OCR-VQA",
        prediction=_lower_strip,
        reference=_lower_strip,
        compare=equal,
    ),
)
