"""Summaries of reviews, and their agreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import DataError, NotFoundError
from llavar.evals.judge import Review, ReviewStatus, agree, read_reviews, summarise
from llavar.evals.judge.agreement import spearman

SCORES = st.tuples(*[st.integers(1, 20).map(lambda n: n / 2)] * 2)


def reviews(*pairs: tuple[float, float] | None, category: str = "conv") -> list[Review]:
    return [
        Review(
            question_id=number,
            category=category,
            status=ReviewStatus.OK if pair else ReviewStatus.FAILED,
            scores=pair,
        )
        for number, pair in enumerate(pairs)
    ]


def test_means_and_their_ratio_are_rounded_as_in_the_original() -> None:
    found = summarise([*reviews((8, 7), (9, 7), (8, 6)), *reviews((5, 10), category="read")])
    assert list(found) == ["conv", "read", "all"]
    conv = found["conv"]
    assert (conv.n, conv.failed, conv.reference, conv.model, conv.relative) == (3, 0, 8.333, 6.667, 80.0)
    assert found["read"].relative == 200.0
    assert found["all"].n == 4
    assert found["all"].advantage is None
    assert "advantage_of_first" not in found["all"].document()


def test_a_failure_is_counted_and_not_averaged() -> None:
    half = reviews(*[(8.0, 4.0)] * 15, *[None] * 15)
    plain, compatible = (summarise(half, compatible=c)["conv"] for c in (False, True))
    assert (plain.n, plain.failed, plain.relative) == (30, 15, 50.0)
    assert (compatible.n, compatible.failed, compatible.relative) == (30, 0, 42.9)
    assert compatible.low is None


def test_nothing_to_average() -> None:
    found = summarise(reviews(None, None))["all"]
    assert (found.n, found.failed, found.reference, found.relative, found.low) == (2, 2, None, None, None)
    assert found.document()["interval"] is None
    assert summarise(reviews(None, None), compatible=True)["all"].relative == 100.0


@pytest.mark.parametrize("pair", [(float("nan"), 5.0), (float("inf"), 8.0), (80.0, 90.0), (-1.0, 5.0)])
def test_a_score_outside_the_scale_is_a_failure(pair: tuple[float, float]) -> None:
    found = summarise(reviews((8, 4), pair))["all"]
    assert (found.failed, found.relative) == (1, 50.0)
    document = {name: row.document() for name, row in summarise(reviews(pair), compatible=True).items()}
    json.dumps(document, allow_nan=False)


def test_a_reference_of_nothing_has_no_ratio() -> None:
    found = summarise(reviews((0, 5), (0, 4)))["all"]
    assert (found.reference, found.model, found.relative, found.low) == (0.0, 4.5, None, None)
    assert summarise(reviews((0, 5), (8, 4)))["all"].low is None  # a resample may hold zeros only


@settings(deadline=None, max_examples=40)
@given(st.lists(SCORES, min_size=1, max_size=20))
def test_the_interval_holds_the_value(pairs: list[tuple[float, float]]) -> None:
    found = summarise(reviews(*pairs))["all"]
    ratios = [100 * model / reference for reference, model in pairs]
    assert found.relative is not None
    assert found.low is not None
    assert found.high is not None
    assert min(ratios) - 0.2 <= found.low <= found.high <= max(ratios) + 0.2


def test_the_order_of_replies_does_not_matter() -> None:
    rows = reviews((8, 7), (9, 6), (7, 8), (8, 3), (5, 5))
    assert summarise(rows) == summarise(rows[::-1])


# --- files ----------------------------------------------------------------------------------------------


def test_files_of_the_original_are_read(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "question_id": 0, "category": "conv", "content": "8 9\nx", "tuple": [8.0, 9.0]},
        {"question_id": 1, "category": "conv", "content": "8, 9", "tuple": [-1, -1]},
        {"question_id": 2, "category": "conv", "content": "7 6"},
        {"question_id": 2, "category": "conv", "score": [5, 5]},
        {"question_id": 4, "content": "sorry"},
    ]
    path = tmp_path / "review.json"
    for content in ("\n".join(map(json.dumps, rows)), json.dumps(rows)):
        path.write_text(content)
        found = read_reviews(path)
        assert [review.scores for review in found] == [(8, 9), (-1, -1), (7, 6), (5, 5), None]
        assert [review.status == "ok" for review in found] == [True, False, True, True, False]
    assert [(name, row.n, row.failed) for name, row in summarise(found).items()] == [
        ("conv", 4, 1),
        ("default", 1, 1),
        ("all", 5, 2),
    ]


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "", "{}\n", '{"content": "8 9"}', '{"question_id": 1}', '{"question_id": 1, "tuple": [1]}'),
        *('{"question_id": 1, "tuple": ["8", "9"]}', '{"question_id": 1, "tuple": 5}', "3\n"),
        '{"question_id": 1, "content": "8 9", "status": "fine"}',
    ],
)
def test_files_that_hold_no_reviews(tmp_path: Path, content: str) -> None:
    path = tmp_path / "review.json"
    path.write_text(content)
    with pytest.raises(DataError, match="no review|no object"):
        read_reviews(path)
    with pytest.raises(NotFoundError):
        read_reviews(tmp_path / "none")


# --- agreement ------------------------------------------------------------------------------------------


def test_files_that_agree_and_files_that_do_not() -> None:
    first = reviews((8, 7), (9, 6), (8, 5), (7, 4))
    second = reviews((8, 5), (8, 6), (10, 7), (7, 8))
    found = agree([("a", first), ("b", second), ("c", first)])
    assert (found.reference.n, found.reference.differ, found.reference.largest) == (4, 2, 2)
    assert found.reference.mean == pytest.approx(3 / 4)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    mixed, same, _ = found.pairs
    assert (same.reference.equal, same.model.distance, same.model.spearman) == (1.0, 0.0, pytest.approx(1))
    assert (mixed.reference.equal, mixed.model.equal) == (0.5, 0.25)
    assert mixed.model.spearman == pytest.approx(-1)
    difference = mixed.relative["all"]
    assert difference is not None
    assert difference.difference == pytest.approx(100 * 26 / 33 - 100 * 22 / 32)
    assert difference.low < difference.difference < difference.high
    json.dumps(found.document(), allow_nan=False)


def test_only_common_questions_with_scores_are_compared() -> None:
    first, second = reviews((8, 7), (9, 6), None), reviews((8, 7), None, (7, 7), (5, 5))
    (pair,) = agree([("a", first), ("b", second)]).pairs
    assert (pair.n, pair.unmatched) == (1, 3)
    assert pair.model.spearman is None
    assert list(pair.relative) == ["conv", "all"]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="at least 2"):
        agree([("a", reviews((8, 7)))])
    with pytest.raises(DataError, match="no question in common"):
        agree([("a", reviews((8, 7))), ("b", reviews(None))])
    with pytest.raises(DataError, match="a reviews question '0' twice"):
        agree([("a", reviews((8, 7)) * 2), ("b", reviews((8, 7)))])
    (pair,) = agree([("a", reviews((0, 7))), ("b", reviews((8, 7)))]).pairs
    assert pair.relative["all"] is None


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 45], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486832980505138),  # ties share rank 2.5
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_rank_correlation(a: list[float], b: list[float], expected: float | None) -> None:
    assert spearman(a, b) == (None if expected is None else pytest.approx(expected))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_rank_correlation_does_not_change_with_the_scale(pairs: list[tuple[int, int]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = spearman(a, b)
    assert spearman(b, a) == (None if found is None else pytest.approx(found))
    assert spearman([value**3 for value in a], b) == (None if found is None else pytest.approx(found))
    assert found is None or -1 - 1e-9 <= found <= 1 + 1e-9


def test_the_order_of_the_categories_is_not_that_of_the_replies() -> None:
    given_ = [found for name in ("zoo", "read", "conv", "art") for found in reviews((8, 7), category=name)]
    assert list(summarise(given_)) == list(summarise(given_[::-1])) == ["conv", "read", "art", "zoo", "all"]


def test_a_torn_line_alone_is_no_file_of_reviews(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text('[{"question_id": 1')
    with pytest.raises(DataError, match="holds no reviews; give JSON lines"):
        read_reviews(path)
