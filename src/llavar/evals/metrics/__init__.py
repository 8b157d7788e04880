"""Metrics on plain strings: those behind published numbers, bit by bit, and this project's own.

``score("mmocr", answer, references)`` scores one answer, :func:`score_all` many; :data:`NAMES` lists the
metrics and :func:`about` says whose each is. A metric whose peer has a version may be named with it:
``mmocr@9f0ffdf``. Two answers can only be compared under one metric: on the same long answers the substring
rules give 0.5 where the exact ones give 0.

Where a peer's code raises an error, there is a value here:

- ``anls`` of two empty texts is 1 (M4C divides by zero; lmms-eval and VLMEvalKit give 1).
- ``textvqa`` takes any number of references (M4C asserts 10; the others do as here). One alone scores 0.
- the metrics of MultimodalOCR take several references wherever it takes one text only; the best counts.
- groups of another size than two count as right in MME if all their questions are (lmms-eval asserts two).

A missing reference and a text that is not text are errors here too (:class:`~llavar.errors.DataError`).
"""

from __future__ import annotations

from llavar.evals.metrics.registry import NAMES, about, full_name, higher_is_better, score, score_all
from llavar.evals.metrics.text import (
    cer,
    contains,
    edit_distance,
    normalise,
    token_f1,
    transcription_cer,
    transcription_counts,
    vqa_match,
    wer,
)
from llavar.evals.metrics.yesno import PARSERS, MmeScore, YesNo, mme_score, parse_yes_no, yes_no_score

__all__ = [
    "NAMES",
    "PARSERS",
    "MmeScore",
    "YesNo",
    "about",
    "cer",
    "contains",
    "edit_distance",
    "full_name",
    "higher_is_better",
    "mme_score",
    "normalise",
    "parse_yes_no",
    "score",
    "score_all",
    "token_f1",
    "transcription_cer",
    "transcription_counts",
    "vqa_match",
    "wer",
    "yes_no_score",
]
