"""How far reviews of the same questions agree, and whether two models differ by more than that.

LLaVAR's five released files hold the same reference answers, yet the judge gave 46 of the 90 another score in
another run. Two relative scores that differ by less than such noise say nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from llavar.errors import DataError
from llavar.evals.judge.reviews import Review, Scores
from llavar.evals.judge.summary import ALL, Verdict, verdicts
from llavar.evals.stats import paired, ratio
from llavar.records import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Two columns of scores: the share of equal ones, the mean distance in points, the rank correlation.

    ``spearman`` is ``None`` where one column is constant.
    """

    equal: float
    distance: float
    spearman: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two files on the ``n`` questions that both have scores for.

    ``relative``: by category, the relative score (in percent) of the second file less that of the first;
    ``None`` where no interval can be had. ``unmatched``: questions that only one of them has scores for.
    """

    first: str
    second: str
    n: int
    unmatched: int
    reference: Match
    model: Match
    relative: Mapping[str, Comparison | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The scores of one reference answer in all files: in how many questions they differ, and by how much."""

    n: int
    differ: int
    largest: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """All files together, and every two of them."""

    reference: Spread
    pairs: tuple[Pair, ...]

    def document(self) -> dict[str, Any]:
        """What goes into JSON."""
        spread = self.reference
        return {
            "reference_spread": {
                "n": spread.n,
                "differ": spread.differ,
                "largest": spread.largest,
                "mean": round(spread.mean, 3),
            },
            "pairs": [_pair_document(pair) for pair in self.pairs],
        }


def agree(files: Sequence[tuple[str, Sequence[Review]]]) -> Agreement:
    """Compare two or more files of reviews, given with their names, by question id.

    Raises :class:`DataError` for fewer than two files, doubled questions, or files without a common one.
    """
    if len(files) < 2:
        raise DataError(f"agreement needs at least 2 files of reviews, not {len(files)}")
    tables = [(name, _table(name, reviews)) for name, reviews in files]
    pairs = tuple(_pair(a, b) for a, b in itertools.combinations(tables, 2))
    return Agreement(reference=_spread([table for _, table in tables]), pairs=pairs)


Table = Mapping[str, tuple[Scores, str]]
"""Scores and category by question id."""


def _table(name: str, reviews: Sequence[Review]) -> Table:
    table: dict[str, tuple[Scores, str]] = {}
    seen: set[str] = set()
    found: Sequence[Verdict] = verdicts(reviews)
    for verdict in found:
        if verdict.question_id in seen:
            raise DataError(f"{name} reviews question {verdict.question_id!r} twice; keep one review of each")
        seen.add(verdict.question_id)
        if verdict.scores is not None:
            table[verdict.question_id] = verdict.scores, verdict.category
    return table


def _pair(one: tuple[str, Table], other: tuple[str, Table]) -> Pair:
    (first, a), (second, b) = one, other
    common = sorted(name for name in a if name in b)
    if not common:
        raise DataError(
            f"{first} and {second} have no question in common; compare files of the same questions"
        )
    categories = dict.fromkeys(a[name][1] for name in common)
    members = {kind: [name for name in common if a[name][1] == kind] for kind in categories} | {ALL: common}
    columns = [np.array([table[name][0] for name in common]) for table in (a, b)]
    return Pair(
        first=first,
        second=second,
        n=len(common),
        unmatched=len(a.keys() ^ b.keys()),
        reference=_match(columns[0][:, 0], columns[1][:, 0]),
        model=_match(columns[0][:, 1], columns[1][:, 1]),
        relative={kind: _difference(a, b, names) for kind, names in members.items()},
    )


def _difference(a: Table, b: Table, names: Sequence[str]) -> Comparison | None:
    """``paired`` of 100 x model / reference."""
    first, second = (np.array([table[name][0][::-1] for name in names]) * (100, 1) for table in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = paired(first, second, ratio)
    return found if np.isfinite([found.difference, found.low, found.high]).all() else None


def _match(a: np.ndarray[Any, np.dtype[np.float64]], b: np.ndarray[Any, np.dtype[np.float64]]) -> Match:
    return Match(equal=float((a == b).mean()), distance=float(np.abs(a - b).mean()), spearman=spearman(a, b))


def spearman(
    a: Sequence[float] | np.ndarray[Any, Any], b: Sequence[float] | np.ndarray[Any, Any]
) -> float | None:
    """Correlation of ranks, equal values sharing their mean rank; ``None`` if one side is constant."""
    first, second = _ranks(a), _ranks(b)
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale else None


def _ranks(values: Sequence[float] | np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place].astype(np.float64)


def _spread(tables: Sequence[Table]) -> Spread:
    common = [name for name in tables[0] if all(name in table for table in tables)]
    scores = [[table[name][0][0] for table in tables] for name in common]
    widths = [max(row) - min(row) for row in scores]
    return Spread(
        n=len(common),
        differ=sum(width > 0 for width in widths),
        largest=max(widths, default=0.0),
        mean=fmean(widths) if widths else 0.0,
    )


def _pair_document(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "n": pair.n,
        "unmatched": pair.unmatched,
        "reference": _match_document(pair.reference),
        "model": _match_document(pair.model),
        "relative": {name: _difference_document(found) for name, found in pair.relative.items()},
    }


def _match_document(match: Match) -> dict[str, Any]:
    correlation = None if match.spearman is None else round(match.spearman, 3)
    return {"equal": round(match.equal, 4), "distance": round(match.distance, 3), "spearman": correlation}


def _difference_document(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "difference": round(found.difference, 1),
        "interval": [round(found.low, 1), round(found.high, 1)],
        "p": round(found.p, 4),
        "n": found.n,
    }
