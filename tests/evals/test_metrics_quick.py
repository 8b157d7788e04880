"""Short cuts in the metrics: each must give what the plain way gives, and none may take long."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, DataError
from llavar.evals import metrics
from llavar.evals.metrics import parse_yes_no, text

PIECES = (
    "cat",
    "Cat",
    "the ",
    " ",
    "5",
    "%",
    "1,000",
    "1_0",
    ".5",
    "-",
    "e3",
    "inf",
    "nan",
    "\u0660",
    "\u65e5",
)
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), st.text(max_size=8))
REFERENCES = st.lists(TEXT, min_size=1, max_size=4)
MARKS = st.lists(st.sampled_from("\u0300\u0316\u0334\u0327\u0344e\u00e9\uff21 "), max_size=30).map("".join)


def plain_f1(prediction: str, reference: str) -> float:
    said, wanted = (Counter(text._tokens(each).split()) for each in (prediction, reference))  # pyright: ignore[reportPrivateUsage]
    both = said.total() + wanted.total()
    return 2 * (said & wanted).total() / both if both else 1.0


def number(value: str) -> float | None:
    try:
        return float(value.rstrip("%")) / 100 if value.endswith("%") else float(value)
    except ValueError:
        return None


def plain_relaxed(prediction: str, target: str) -> bool:
    """``relaxed_correctness`` of both kits, in their words and order."""
    found, wanted = number(prediction), number(target)
    if found is not None and wanted:
        return abs(found - wanted) / abs(wanted) <= 0.05
    return prediction.lower() == target.lower()


@settings(deadline=None)
@given(TEXT, REFERENCES)
@example("", [""])
@example("cat cat 5", ["cat", "cat 5", "dog"])
def test_token_f1_counts_as_counters_do(prediction: str, references: Sequence[str]) -> None:
    expected = max(plain_f1(prediction, each) for each in references)
    assert metrics.score("token-f1", prediction, references) == expected


@settings(deadline=None)
@given(TEXT, REFERENCES)
@example("5", ["5.2", "x"])
@example("0", ["0", "00"])
@example("\u0665", ["5"])
@example(" INF ", [" inf "])
@example("\u2005.5", [".51"])
def test_relaxed_is_what_both_kits_compute(prediction: str, references: Sequence[str]) -> None:
    as_lmms = any(plain_relaxed(prediction, each) for each in references)
    assert metrics.score("relaxed", prediction, references) == as_lmms
    as_vlmevalkit = any(plain_relaxed(each, prediction.strip()) for each in references)
    assert metrics.score("relaxed-vlmevalkit", prediction, references) == as_vlmevalkit


@settings(deadline=None)
@given(MARKS)
def test_marks_put_in_order_beforehand_normalise_alike(marks: str) -> None:
    ordered = text._ordered(marks)  # pyright: ignore[reportPrivateUsage]
    assert unicodedata.normalize("NFKC", ordered) == unicodedata.normalize("NFKC", marks)


def test_a_long_run_of_combining_marks_is_normalised_at_once() -> None:
    marks = "e" + "\u0300\u0316" * 500_000  # unicodedata alone would take half an hour
    assert metrics.score("token-f1", marks, "e") == 0
    assert text.normalise(marks) == "\u00e8" + "\u0316" * 500_000 + "\u0300" * 499_999


@pytest.mark.parametrize(
    "references", [("a", 1), (), ("a", None), ("a", ["b"]), ("a", b"b"), b"a", {"a": 1}, [["a"]], None]
)
def test_references_that_are_no_texts_are_refused_one_by_one_and_in_rows(references: Any) -> None:
    with pytest.raises(DataError, match="must be one text or a list of at least 1 text"):
        metrics.score("exact", "a", references)
    with pytest.raises(DataError, match="must be one text or a list of at least 1 text"):
        metrics.score_all("exact", [("a", ("a",)), ("a", references)])


def test_a_list_a_tuple_and_texts_of_another_class_are_texts() -> None:
    class Name(str): ...

    for references in ("a", ["a"], ("a",), [Name("a"), "b"]):
        assert metrics.score("exact", "a", references) == 1


@pytest.mark.parametrize("name", [None, 5, [], b"mmocr", "MMOCR", "mmocr@", ""])
def test_what_is_no_name_of_a_metric_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="there is no metric"):
        metrics.score(name, "a", "a")


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("official", "mme"),
        ("lmms", "mme-lmms"),
        ("lmms-eval", "mme-lmms"),
        ("vlmevalkit", "mme-vlmevalkit"),
    ],
)
def test_parsers_have_the_names_of_their_kits_too(name: str, parser: str) -> None:
    for reply in ("y", "nope", "Answer: yes", "  yes", "Yes, not no"):
        assert parse_yes_no(reply, name) is parse_yes_no(reply, parser)


@pytest.mark.parametrize("reply", [None, 5, b"yes", ["yes"]])
def test_a_reply_that_is_no_text_is_refused(reply: Any) -> None:
    with pytest.raises(DataError, match="must be text"):
        parse_yes_no(reply, "mme")
