"""Metrics on plain strings: character error rate, exact match, yes/no pairs.

These are this project's own rules, kept simple. They are *not* the rules behind published numbers:
MultimodalOCR's ``has_word`` gives credit for any answer when a reference normalises to nothing, and MME's
own parser reads ``not sure`` as "no" (it looks at the first four characters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import StrEnum

from llavar.errors import DataError

_WORD = re.compile(r"[^\W_]+")


def normalise(text: str) -> str:
    """NFKC, runs of white space (line breaks too) become one space, none at the ends. Case is kept.

    Case stays because a transcription that loses it has lost something that stands in the picture; metrics
    that do not care fold it themselves.
    """
    return " ".join(unicodedata.normalize("NFKC", text).split())


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance in code points, unit costs.

    Bit-parallel (Myers 1999 in the form of Hyyro 2003); Python's integers serve as bit vectors of any width,
    so a step costs one operation per 30 characters of the shorter string.
    """
    if len(a) > len(b):
        a, b = b, a
    if not a:
        return len(b)
    where: dict[str, int] = {}
    for i, character in enumerate(a):
        where[character] = where.get(character, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, distance = full, 0, len(a)  # vertical differences of the current column: +1 bits, -1 bits
    for character in b:
        equal = where.get(character, 0)
        vertical = equal | down
        horizontal = (((equal & up) + up) ^ up) | equal
        grow = down | (~(horizontal | up) & full)
        shrink = up & horizontal
        distance += bool(grow & last) - bool(shrink & last)
        grow, shrink = (grow << 1 | 1) & full, (shrink << 1) & full
        up = shrink | (~(vertical | grow) & full)
        down = grow & vertical
    return distance


def cer(prediction: str, reference: str, *, clip: bool = False) -> float:
    """Character error rate of one text: edits / length of the reference, both normalised; lower is better.

    It exceeds 1 if the prediction is much longer than the reference, unless ``clip``. With an empty
    reference it is 0 for an empty prediction and otherwise 1.
    """
    prediction, reference = normalise(prediction), normalise(reference)
    if not reference:
        return float(bool(prediction))
    rate = edit_distance(prediction, reference) / len(reference)
    return min(rate, 1.0) if clip else rate


def transcription_counts(prediction: str, references: Sequence[str]) -> tuple[int, int]:
    """(edits, reference length) in characters against the best of the references, edits capped at the length.

    The cap keeps one answer that repeats itself for ever from outweighing the rest of a micro average: a
    picture costs at most what an empty answer to it would. Raises :class:`DataError` if a reference is empty
    (or there is none), since no rate is defined on it.
    """
    texts = [normalise(reference) for reference in references]
    if not texts or not all(texts):
        raise DataError(
            f"a transcription needs references of at least 1 character, but got {list(references)!r}; "
            "leave out questions on pictures without text"
        )
    answer = normalise(prediction)
    counts = [(min(edit_distance(answer, text), len(text)), len(text)) for text in texts]
    return min(counts, key=lambda pair: pair[0] / pair[1])


def transcription_cer(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Micro average in [0, 1]: capped edits of all texts / characters of all references."""
    if len(predictions) != len(references) or not references:
        raise DataError(
            f"{len(predictions)} predictions cannot be scored against {len(references)} references; "
            "give one reference for each prediction, and at least one"
        )
    counts = [transcription_counts(p, (r,)) for p, r in zip(predictions, references, strict=True)]
    return sum(edits for edits, _ in counts) / sum(length for _, length in counts)


def _short(text: str) -> str:
    return normalise(text).casefold().removesuffix(".").rstrip()


def vqa_match(prediction: str, references: Sequence[str]) -> int:
    """1 if the answer equals a reference, apart from case, spacing and one full stop at the end; else 0.

    An answer that normalises to nothing matches nothing, so an empty reference gives no credit.
    """
    answer = _short(prediction)
    return int(bool(answer) and any(answer == _short(reference) for reference in references))


def contains(prediction: str, references: Sequence[str]) -> int:
    """1 if a reference stands in the answer as whole words, apart from case and spacing; else 0.

    For models that answer in sentences. Unlike ``\\b``, the boundary also works beside ``$5`` and ``50%``.
    It can be gamed by long answers: report their length with it.
    """
    answer = _short(prediction)
    words = (_short(reference) for reference in references)
    return int(any(word and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer) for word in words))


class YesNo(StrEnum):
    """What a reply to a yes/no question says."""

    YES = "yes"
    NO = "no"
    OTHER = "other"


def parse_yes_no(reply: str) -> YesNo:
    """The first word decides if it is yes or no; else a reply that holds exactly one of the two words does.

    So ``Answer: yes`` and ``**No**`` are understood, ``not sure`` and ``nothing`` are :attr:`YesNo.OTHER`.
    """
    words = _WORD.findall(normalise(reply).casefold())
    found = [word for word in words if word in ("yes", "no")]
    if found and (words[0] == found[0] or len(set(found)) == 1):
        return YesNo(found[0])
    return YesNo.OTHER


def yes_no_score(pairs: Iterable[tuple[str, bool]]) -> float:
    """MME's score of one task, 0 to 200, from (group, answered right) of every question.

    100 x share of questions right + 100 x share of groups with every question right (MME,
    ``eval_tool/calculation.py``, where a group is the two questions on one picture). Yes to everything: 50.
    """
    groups: dict[str, list[bool]] = {}
    for group, right in pairs:
        groups.setdefault(group, []).append(right)
    if not groups:
        raise DataError("no yes/no question to score; the score needs at least 1")
    answers = [right for group in groups.values() for right in group]
    return 100 * sum(answers) / len(answers) + 100 * sum(map(all, groups.values())) / len(groups)
