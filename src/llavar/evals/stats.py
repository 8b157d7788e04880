"""How far a score, or the difference of two, can be trusted.

Questions on one picture are not independent, so everything here resamples whole groups (pictures). To
stay vectorised, a metric is given as columns per question plus a *statistic* that turns column sums into
the value: micro CER is edits and lengths with :func:`ratio`, MME's score is four columns with
:func:`double_ratio`. The cost is one matrix product per thousand resamples, whatever the metric.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llavar.errors import DataError
from llavar.records import Comparison, Score

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Column sums of shape (..., columns) -> values of shape (...)."""

_EXACT = 13
"""Up to this many groups that differ, all 2**n sign flips are tried."""

_MANY = 1000
"""From this many groups on, it pays to look for groups that are alike."""

_CELLS = 200_000
"""Resamples are drawn in blocks of at most this many (resample, group) cells, which fit into a processor's
cache: ten times as many take twice as long."""


def ratio(sums: Array) -> Array:
    """First column over second: a mean (values and ones), or a micro average (edits and lengths)."""
    return sums[..., 0] / sums[..., 1]


def double_ratio(sums: Array) -> Array:
    """100 x first/second + 100 x third/fourth: MME's score (right questions, all, right groups, all)."""
    return 100 * sums[..., 0] / sums[..., 1] + 100 * sums[..., 2] / sums[..., 3]


def bootstrap(
    values: ArrayLike,
    statistic: Statistic = ratio,
    groups: Sequence[Hashable] | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
) -> Score:
    """The statistic of all items, with its percentile bootstrap interval (95 %) over groups.

    ``values``: shape (items, columns), or (items,) for a plain mean. ``groups``: a key per item, default
    every item its own. If all groups score alike, the interval has no width and says too little.
    """
    table = _table(values)
    sums = _by_group(table, groups)
    draws = np.concatenate([statistic(drawn) for drawn in _drawn_sums(sums, n, seed)])
    low, high = np.percentile(draws, (2.5, 97.5))
    return Score(value=float(statistic(sums.sum(0))), low=float(low), high=float(high), n=len(table))


def paired(
    without: ArrayLike,
    with_: ArrayLike,
    statistic: Statistic = ratio,
    groups: Sequence[Hashable] | None = None,
    *,
    n: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """The difference ``with_ - without`` on the same items in the same order.

    Interval: both are resampled with the same groups. p: two-sided, by swapping the two models' results
    within groups at random; all swaps are tried if few groups differ, otherwise the observed
    one is counted in, (k + 1) / (permutations + 1), so that p is never 0.
    """
    a, b = _table(without), _table(with_)
    if a.shape != b.shape:
        raise DataError(f"results of shapes {a.shape} and {b.shape} cannot be paired; use the same questions")
    first, second = _by_group(a, groups), _by_group(b, groups)
    draws = np.concatenate(
        [statistic(counts @ second) - statistic(counts @ first) for counts in _resamples(len(first), n, seed)]
    )
    low, high = np.percentile(draws, (2.5, 97.5))
    return Comparison(
        difference=float(statistic(second.sum(0)) - statistic(first.sum(0))),
        low=float(low),
        high=float(high),
        p=_swap_p(first, second, statistic, permutations, seed),
        n=len(a),
    )


def bootstrap_runs(
    runs: Sequence[ArrayLike],
    statistic: Statistic = ratio,
    groups: Sequence[Hashable] | None = None,
    *,
    n: int = 2000,
    seed: int = 0,
) -> Score:
    """The statistic of several runs on the same items, all results taken together.

    The interval is over runs and groups: both are drawn with replacement, each independently of the other
    (Owen 2007, "the pigeonhole bootstrap"), so that it covers what another training and what other pictures
    would change. Of a handful of runs it still says too little. One run gives what :func:`bootstrap` gives.
    """
    if len(runs) == 1:
        return bootstrap(runs[0], statistic, groups, n=n, seed=seed)
    sums = _runs_by_group(runs, groups)
    draws = np.concatenate([statistic(drawn) for (drawn,) in _drawn_runs((sums,), n, seed)])
    low, high = np.percentile(draws, (2.5, 97.5))
    value = float(statistic(sums.sum((0, 1))))
    return Score(value=value, low=float(low), high=float(high), n=len(_table(runs[0])))


def paired_runs(
    without: Sequence[ArrayLike],
    with_: Sequence[ArrayLike],
    statistic: Statistic = ratio,
    groups: Sequence[Hashable] | None = None,
    *,
    n: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """The difference ``with_ - without`` of runs that belong together in pairs (equal seeds), on equal items.

    The interval is that of :func:`bootstrap_runs`. p is that of :func:`paired`, with the two results of a
    group swapped in all runs at once: it asks whether these runs differ beyond what the choice of pictures
    explains, and cannot say how other runs would come out.
    """
    first, second = _runs_by_group(without, groups), _runs_by_group(with_, groups)
    if first.shape != second.shape:
        raise DataError(
            f"results of shapes {first.shape} and {second.shape} (runs, groups, columns) cannot be paired; "
            "use the same questions and as many runs"
        )
    drawn = _drawn_runs((first, second), n, seed)
    draws = np.concatenate([statistic(b) - statistic(a) for a, b in drawn])
    low, high = np.percentile(draws, (2.5, 97.5))
    return Comparison(
        difference=float(statistic(second.sum((0, 1))) - statistic(first.sum((0, 1)))),
        low=float(low),
        high=float(high),
        p=_swap_p(first.sum(0), second.sum(0), statistic, permutations, seed),
        n=len(_table(without[0])),
    )


def _runs_by_group(runs: Sequence[ArrayLike], groups: Sequence[Hashable] | None) -> Array:
    """Column sums of every run and group, shape (runs, groups, columns)."""
    if not runs:
        raise DataError("there is no run to take an interval of; give at least one")
    tables = [_by_group(_table(run), groups) for run in runs]
    if len({table.shape for table in tables}) > 1:
        raise DataError(f"runs have results of shapes {[table.shape for table in tables]}; ask all the same")
    return np.stack(tables)


def _drawn_runs(arms: Sequence[Array], n: int, seed: int) -> Iterator[tuple[Array, ...]]:
    """Column sums of n resamples of runs and of groups, a block for each of ``arms``, drawn alike for all."""
    runs, groups, _ = arms[0].shape
    rng = np.random.default_rng((seed, runs))
    for counts in _resamples(groups, n, seed):
        chosen = rng.multinomial(runs, np.full(runs, 1 / runs), size=len(counts)).astype(np.float64)
        yield tuple(
            np.einsum("dr,drc->dc", chosen, np.stack([counts @ table for table in arm], axis=1))
            for arm in arms
        )


def _table(values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 1:
        table = np.stack([table, np.ones_like(table)], axis=1)
    if table.ndim != 2 or not len(table):
        raise DataError(f"scores of shape {table.shape} are not (items, columns) with at least 1 item")
    if not np.isfinite(table).all():
        raise DataError(f"{int((~np.isfinite(table)).sum())} of {table.size} scores are not finite numbers")
    return table


def _by_group(table: Array, groups: Sequence[Hashable] | None) -> Array:
    """Column sums per group, shape (groups, columns), groups in order of first appearance."""
    if groups is None:
        return table
    if len(groups) != len(table):
        raise DataError(f"{len(groups)} group keys do not fit {len(table)} items; give one key for each item")
    index: dict[Hashable, int] = {}
    rows = [index.setdefault(key, len(index)) for key in groups]
    sums = np.zeros((len(index), table.shape[1]))
    np.add.at(sums, rows, table)
    return sums


def _blocks(total: int, width: int) -> list[int]:
    size = max(1, _CELLS // width)
    return [min(size, total - start) for start in range(0, total, size)]


def _resamples(groups: int, n: int, seed: int) -> Iterator[Array]:
    """How often each group is drawn, blocks of shape (resamples, groups); n resamples in all."""
    rng = np.random.default_rng(seed)
    for size in _blocks(n, groups):
        drawn = rng.integers(groups, size=(size, groups)) + groups * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float64)


def _drawn_sums(sums: Array, n: int, seed: int) -> Iterator[Array]:
    """Column sums of n resamples of the groups, blocks of shape (resamples, columns).

    Where answers are right or wrong, thousands of groups are of a few kinds. How often each kind is drawn is
    multinomial: the same distribution as drawing the groups, for a hundredth of the numbers.
    """
    if len(sums) >= _MANY:
        kinds, sizes = np.unique(sums, axis=0, return_counts=True)
        if len(kinds) * 16 < len(sums):
            rng = np.random.default_rng(seed)
            yield rng.multinomial(len(sums), sizes / len(sums), size=n) @ kinds
            return
    for counts in _resamples(len(sums), n, seed):
        yield counts @ sums


def _all_swaps(groups: int) -> Iterator[Array]:
    yield np.array(list(itertools.product((0.0, 1.0), repeat=groups)), np.float64).reshape(2**groups, groups)


def _random_swaps(groups: int, n: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for size in _blocks(n, groups):
        yield rng.integers(2, size=(size, groups)).astype(np.float64)


def _swap_p(first: Array, second: Array, statistic: Statistic, permutations: int, seed: int) -> float:
    moved = second - first
    moved = moved[np.any(moved != 0, axis=1)]  # a group on which both agree has nothing to swap
    a, b = first.sum(0), second.sum(0)
    observed = abs(float(statistic(b) - statistic(a)))
    exact = len(moved) <= _EXACT
    extreme = total = 0
    for swap in _all_swaps(len(moved)) if exact else _random_swaps(len(moved), permutations, seed):
        shift = swap @ moved
        differences = np.abs(statistic(b - shift) - statistic(a + shift))
        extreme += int((differences >= observed - 1e-9 * max(1.0, observed)).sum())
        total += len(swap)
    return extreme / total if exact else (extreme + 1) / (total + 1)
