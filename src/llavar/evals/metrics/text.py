"""Plain text metrics of this project: error rates, token F1, match, and the edit distance under them.

``cer`` and ``wer`` are errors, so lower is better. Named as metrics (``score("cer", ...)``) they are taken
against the best reference and clipped to 1: an item costs at most what an empty answer to it would, so that
one reply that repeats itself for ever cannot outweigh the rest of a mean.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence, Set
from itertools import groupby

from llavar.errors import DataError
from llavar.evals.metrics.rule import Rule

# A number with its separators, a single Chinese or Japanese character, or a run of other letters and digits.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"\d+(?:[.,]\d+)+|[{_CJK}]|[^\W_{_CJK}]+")

_LONG = 2000
"""From this many characters on, a text of nothing but combining marks would take long to normalise."""


def normalise(text: str) -> str:
    """NFKC, runs of white space (line breaks too) become one space, none at the ends. Case is kept.

    Case stays because a transcription that loses it has lost something that stands in the picture; metrics
    that do not care fold it themselves.
    """
    if text.isascii():
        return " ".join(text.split())
    if len(text) > _LONG:
        text = _ordered(text)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _ordered(text: str) -> str:
    """Every run of combining marks in the order of NFKC, which takes :mod:`unicodedata` quadratic time."""
    runs = groupby(text, key=lambda character: unicodedata.combining(character) > 0)
    return "".join("".join(sorted(run, key=unicodedata.combining)) for _, run in runs)


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein distance with unit costs: in code points for strings, in words for lists of words.

    Bit-parallel (Myers 1999 in the form of Hyyro 2003); Python's integers serve as bit vectors of any width,
    so a step costs one operation per 30 characters of the shorter string.
    """
    if len(a) > len(b):
        a, b = b, a
    if not a:
        return len(b)
    where: dict[Hashable, int] = {}
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


def wer(prediction: str, reference: str, *, clip: bool = False) -> float:
    """Word error rate of one text: edits in words / words of the reference, both normalised.

    Words are what stands between white space, so ``sale!`` and ``sale`` differ, as in :func:`cer`. Beyond 1
    and for an empty reference it behaves as :func:`cer` does.
    """
    said, wanted = normalise(prediction).split(), normalise(reference).split()
    if not wanted:
        return float(bool(said))
    rate = edit_distance(said, wanted) / len(wanted)
    return min(rate, 1.0) if clip else rate


def _tokens(text: str) -> str:
    folded = normalise(text).casefold()
    if folded.isascii() and folded.replace(" ", "").isalnum():
        return folded  # words with nothing between
    found: list[str] = _TOKEN.findall(folded)
    if "," in folded:
        found = [token.replace(",", "") for token in found]
    return " ".join(found) or folded


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the tokens that two texts share, counted with repetition; order, case and punctuation aside.

    Tokens are words and numbers (``1,000`` is ``1000``); each Chinese or Japanese character is one. A text of
    signs only is compared as a whole. Unlike the substring metrics it falls with every needless word: the
    right word in an answer of nine earns 2 / (9 + 1) = 0.2.
    """
    return _shared(_tokens(prediction), [_tokens(reference)])


def _shared(prediction: str, references: Sequence[str]) -> float:
    said = prediction.split()
    known = set(said)
    return max(_f1(said, known, reference.split()) for reference in set(references))


def _f1(said: Sequence[str], known: Set[str], wanted: Sequence[str]) -> float:
    """``known``: the words of ``said``. Most pairs share none, which is found without counting."""
    if known.isdisjoint(wanted):
        return 0.0 if said or wanted else 1.0
    if len(wanted) == 1:
        return 2 / (len(said) + 1)
    return 2 * (Counter(said) & Counter(wanted)).total() / (len(said) + len(wanted))


def _lowest(said: Sequence[Hashable], references: Iterable[Sequence[Hashable]]) -> float:
    """The lowest clipped error rate."""
    return min(_clipped(said, wanted) for wanted in references)


def _clipped(said: Sequence[Hashable], wanted: Sequence[Hashable]) -> float:
    # The difference of the lengths is a lower bound of the edits, which spares very long replies.
    if not wanted or len(said) >= 2 * len(wanted):
        return float(len(said) > 0)
    return min(edit_distance(said, wanted) / len(wanted), 1.0)


def _best_cer(prediction: str, references: Sequence[str]) -> float:
    return _lowest(prediction, set(references))


def _best_wer(prediction: str, references: Sequence[str]) -> float:
    return _lowest(prediction.split(), (reference.split() for reference in set(references)))


RULES = (
    Rule(
        name="cer",
        about="character error rate against the best reference, clipped to 1, case kept (this project's); "
        "lower is better",
        prediction=normalise,
        reference=normalise,
        compare=_best_cer,
        higher_is_better=False,
    ),
    Rule(
        name="wer",
        about="word error rate against the best reference, clipped to 1, case kept (this project's); "
        "lower is better",
        prediction=normalise,
        reference=normalise,
        compare=_best_wer,
        higher_is_better=False,
    ),
    Rule(
        name="token-f1",
        about="F1 of shared words and numbers against the best reference, which needless words lower "
        "(this project's)",
        prediction=_tokens,
        reference=_tokens,
        compare=_shared,
    ),
)
