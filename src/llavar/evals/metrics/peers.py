"""Metrics of lmms-eval and VLMEvalKit that have no original elsewhere, or where a kit departs from it.

Sources: lmms-eval 75571cf (``api/metrics.py``, ``tasks/chartqa/utils.py``) and VLMEvalKit e8e78f0
(``vlmeval/dataset/utils/vqa_eval.py``).
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from llavar.evals.metrics.rule import Rule, any_of, equal, same
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


def _number(text: str) -> float | None:
    """``text`` as a number, ``5%`` as 0.05; ``None`` if it is none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed(prediction: str, target: str) -> bool:
    """ChartQA's relaxed correctness: numbers within 5 % of the target, other texts equal but for case.

    A target of 0 is compared as text, and ``inf`` and ``nan`` equal nothing (as in both kits).
    """
    found, wanted = _number(prediction), _number(target)
    if found is None or not wanted:
        return prediction.lower() == target.lower()
    return abs(found - wanted) / abs(wanted) <= _TOLERANCE


def _relaxed_swapped(prediction: str, target: str) -> bool:
    # VLMEvalKit hands the two over in the wrong order (its issue 584): within 5 % of the prediction.
    return relaxed(target, prediction)


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
        compare=any_of(relaxed),
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
        compare=any_of(_relaxed_swapped),
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
