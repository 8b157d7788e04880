"""The metrics of MultimodalOCR at 9f0ffdf (``eval.py``), by which LLaVAR's published numbers were made.

They are kept bit by bit, errors included. Know two of them before you quote a number: a reference that
normalises to nothing (``a``, ``The``, ``.``) is found in every answer that holds a word, and a reference that
begins or ends with something other than a letter or digit (``$5``, ``50%``) is hardly ever found, because
``\\b`` wants a word character on its other side. ``mmocr-strict`` repairs both.
"""

from __future__ import annotations

import re

from llavar.evals.metrics.rule import Rule, any_of, inside
from llavar.evals.metrics.vqa import mmocr_normalise

_WORD_CHARACTER = re.compile(r"\w")
_SPECIAL = re.compile(r"[^a-zA-Z0-9\s]")
_NOT_CHINESE = re.compile(r"[^\u4e00-\u9fa5\s]+")
_SPACE = re.compile(r"\s+")


def _is_word(text: str, index: int) -> bool:
    """Whether ``text[index]`` is what ``\\w`` matches; outside of the text nothing is."""
    return 0 <= index < len(text) and (text[index].isalnum() or text[index] == "_")


def _is_edge(text: str, index: int) -> bool:
    """What ``\\b`` matches: a word character on exactly one side."""
    return _is_word(text, index - 1) != _is_word(text, index)


def has_word(sentence: str, word: str) -> bool:
    """Whether the regular expression ``\\b`` + word + ``\\b`` is found in the sentence.

    Done by hand, because compiling an expression for each reference takes most of the original's time.
    """
    if not word:
        return _WORD_CHARACTER.search(sentence) is not None
    start = sentence.find(word)
    while start >= 0:
        if _is_edge(sentence, start) and _is_edge(sentence, start + len(word)):
            return True
        start = sentence.find(word, start + 1)
    return False


def has_word_strict(sentence: str, word: str) -> bool:
    """Whether ``word`` stands in the sentence with no word character on either side; never if it is empty."""
    start = sentence.find(word) if word else -1
    while start >= 0:
        if not _is_word(sentence, start - 1) and not _is_word(sentence, start + len(word)):
            return True
        start = sentence.find(word, start + 1)
    return False


def plain(text: str) -> str:
    """ASCII letters, digits and white space only, in lower case."""
    return _SPECIAL.sub("", text).lower()


def _chinese(text: str) -> str:
    return _NOT_CHINESE.sub("", text)


def _unspaced(text: str) -> str:
    return _SPACE.sub("", text)


RULES = (
    Rule(
        name="mmocr",
        version="9f0ffdf",
        about="MultimodalOCR @9f0ffdf eval.py, VQA and KIE: a normalised reference stands in the answer as "
        "words; credits any answer where a reference normalises to nothing",
        prediction=mmocr_normalise,
        reference=mmocr_normalise,
        compare=any_of(has_word),
    ),
    Rule(
        name="mmocr-strict",
        about="mmocr without its two errors: no credit for references that normalise to nothing, and "
        "boundaries that work beside signs such as $5",
        prediction=mmocr_normalise,
        reference=mmocr_normalise,
        compare=any_of(has_word_strict),
    ),
    Rule(
        name="mmocr-recognition",
        version="9f0ffdf",
        about="MultimodalOCR @9f0ffdf eval.py, text recognition: only ASCII letters and digits count",
        prediction=plain,
        reference=plain,
        compare=any_of(has_word),
    ),
    Rule(
        name="mmocr-rects",
        version="9f0ffdf",
        about="MultimodalOCR @9f0ffdf eval.py, ReCTS: only Chinese characters and white space count",
        prediction=_chinese,
        reference=_chinese,
        compare=inside,
    ),
    Rule(
        name="mmocr-hme",
        version="9f0ffdf",
        about="MultimodalOCR @9f0ffdf eval.py, HME100K: substring without white space, case counts",
        prediction=_unspaced,
        reference=_unspaced,
        compare=inside,
    ),
)
