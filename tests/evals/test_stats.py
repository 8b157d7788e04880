from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import DataError
from llavar.evals import metrics, stats
from llavar.evals.stats import bootstrap, double_ratio, paired, ratio


def test_a_mean_and_its_interval_agree_with_theory() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    score = bootstrap(values)
    half = 1.96 * values.std() / 20
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(values.mean() - half, abs=0.03)
    assert score.high == pytest.approx(values.mean() + half, abs=0.03)
    assert score.n == 400


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    scores = [bootstrap(rng.random(80) < 0.4, n=400, seed=i) for i in range(200)]
    covered = sum(score.low <= 0.4 <= score.high for score in scores)
    assert 178 <= covered <= 199


def test_micro_average_is_a_ratio_of_sums() -> None:
    score = bootstrap([(1, 10), (9, 10), (0, 80)], ratio)
    assert score.value == pytest.approx(0.1)
    assert score.low < 0.1 < score.high


def test_double_ratio_is_the_yes_no_score() -> None:
    rights = [(True, True), (True, False), (False, False), (True, True)]
    rows = [(sum(right), 2, all(right), 1) for right in rights]
    pairs = [(str(i), right) for i, pair in enumerate(rights) for right in pair]
    assert bootstrap(rows, double_ratio).value == pytest.approx(metrics.yes_no_score(pairs))


def test_questions_on_one_picture_move_together() -> None:
    """Ten copies of each answer carry no more information than one: the interval must not shrink."""
    answers = np.random.default_rng(3).random(40) < 0.5
    copies, pictures = np.repeat(answers, 10), np.repeat(np.arange(40), 10).tolist()
    alone, grouped, naive = bootstrap(answers), bootstrap(copies, ratio, pictures), bootstrap(copies)
    assert (grouped.low, grouped.high) == (alone.low, alone.high)
    assert grouped.n == 400
    assert naive.high - naive.low < 0.5 * (grouped.high - grouped.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(4).random(30)
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)


def test_blocks_do_not_change_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_CELLS", 70)
    assert paired([0.0] * 20 + [1.0], [1.0] * 20 + [0.0], permutations=101).p >= 1 / 102
    score = bootstrap([0.0, 1.0] * 10, n=11)
    assert 0 <= score.low < score.high <= 1


def test_one_group_or_equal_values_give_no_width() -> None:
    assert bootstrap([0.0, 1.0], ratio, ["a", "a"]).low == 0.5
    score = bootstrap([1.0] * 9)
    assert (score.low, score.value, score.high) == (1, 1, 1)


def test_exact_p_is_the_share_of_all_swaps() -> None:
    a, b = np.array([0.1, 0.5, 0.2, 0.7, 0.3]), np.array([0.4, 0.6, 0.1, 0.9, 0.8])
    differences = [abs(np.mean(np.where(swap, a - b, b - a))) for swap in itertools.product((0, 1), repeat=5)]
    expected = np.mean(np.array(differences) >= abs((b - a).mean()) - 1e-12)
    result = paired(a, b)
    assert result.p == pytest.approx(expected)
    assert result.difference == pytest.approx((b - a).mean())
    assert result.low <= result.difference <= result.high


def test_equal_results_are_no_difference() -> None:
    values = np.random.default_rng(6).random(50)
    result = paired(values, values)
    assert (result.difference, result.low, result.high, result.p, result.n) == (0, 0, 0, 1, 50)


def test_p_is_never_zero_even_for_an_overwhelming_difference() -> None:
    result = paired([0.0] * 300, [1.0] * 300, permutations=999)
    assert result.p == pytest.approx(1 / 1000)


def test_direction_is_with_minus_without() -> None:
    low = paired([(9, 10)] * 30, [(2, 10)] * 30, ratio)
    assert low.difference == pytest.approx(-0.7)
    assert low.p < 0.01


def test_no_real_difference_is_rarely_significant() -> None:
    rng = np.random.default_rng(7)
    found = [
        paired(rng.random(40), rng.random(40), n=10, permutations=200, seed=i).p < 0.05 for i in range(200)
    ]
    assert sum(found) <= 20


def test_groups_matter_for_p() -> None:
    """One picture on which 20 questions flipped is one piece of evidence, not twenty."""
    without, with_ = [0.0] * 20 + [1.0] * 5, [1.0] * 25
    assert paired(without, with_).p < 0.01
    assert paired(without, with_, ratio, ["one"] * 20 + list("abcde")).p == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_swapping_the_models_turns_the_sign(rows: list[tuple[float, float, int]]) -> None:
    a, b, groups = (list(column) for column in zip(*rows, strict=True))
    one, other = (paired(*pair, ratio, groups, n=50, permutations=50) for pair in ((a, b), (b, a)))
    assert one.difference == pytest.approx(-other.difference)
    assert one.low == pytest.approx(-other.high)
    assert 0 < one.p <= 1


@pytest.mark.parametrize("values", [[], [float("nan")], [1.0, float("inf")], np.zeros((2, 2, 2))])
def test_bad_scores_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError):
        bootstrap(values)


def test_mismatches_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be paired"):
        paired([1.0, 0.0], [1.0])
    with pytest.raises(DataError, match="3 group keys do not fit 2 items"):
        bootstrap([1.0, 0.0], ratio, ["a", "b", "c"])
