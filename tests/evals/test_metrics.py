from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import DataError
from llavar.evals.metrics import (
    YesNo,
    cer,
    contains,
    edit_distance,
    normalise,
    parse_yes_no,
    transcription_cer,
    transcription_counts,
    vqa_match,
    yes_no_score,
)

SHORT = st.text(alphabet="abcé \n", max_size=12)


def plain_distance(a: str, b: str) -> int:
    """The textbook table, to check the bit-parallel one against."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


@settings(deadline=None)
@given(SHORT, SHORT)
def test_edit_distance_is_the_textbook_one(a: str, b: str) -> None:
    assert edit_distance(a, b) == plain_distance(a, b)


@settings(deadline=None, max_examples=20)
@given(st.text(alphabet="ab", min_size=65, max_size=150), st.text(alphabet="ab", min_size=65, max_size=150))
def test_edit_distance_beyond_a_machine_word(a: str, b: str) -> None:
    assert edit_distance(a, b) == plain_distance(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("x", "x", 0), ("ab", "ba", 2)],
)
def test_edit_distance_examples(a: str, b: str, expected: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == expected


@settings(deadline=None)
@given(st.text())
def test_normalise_is_idempotent_and_leaves_no_loose_space(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "  " not in once
    assert "\n" not in once


def test_normalise_keeps_case_and_folds_compatibility_forms() -> None:
    assert normalise("  \uff26ul\u00a0l \n STOP\ufb01sh ") == "Ful l STOPfish"


def test_cer() -> None:
    assert cer("grand sale", "GRAND SALE") == pytest.approx(0.9)
    assert cer("open\ndaily", " open daily") == 0
    assert cer("aaaaaa", "bb") == 3
    assert cer("aaaaaa", "bb", clip=True) == 1
    assert cer("", "") == 0
    assert cer("x", " ") == 1


def test_transcription_is_a_micro_average_with_capped_items() -> None:
    assert transcription_cer(["abcd", "x" * 500], ["abcd", "no"]) == pytest.approx(2 / 6)
    assert transcription_cer(["abcx", "no"], ["abcd", "no"]) == pytest.approx(1 / 6)


@settings(deadline=None)
@given(st.lists(st.tuples(SHORT, SHORT.filter(str.strip)), min_size=1, max_size=5))
def test_transcription_cer_stays_between_none_and_all_wrong(pairs: list[tuple[str, str]]) -> None:
    predictions, references = zip(*pairs, strict=True)
    assert 0 <= transcription_cer(predictions, references) <= 1
    assert transcription_cer(references, references) == 0
    assert transcription_cer([""] * len(pairs), references) == 1


def test_the_best_reference_counts() -> None:
    assert transcription_counts("sale now", ("for sale", "sale  now!")) == (1, 9)


@pytest.mark.parametrize("references", [(), ("",), ("text", " \n")])
def test_a_transcription_of_nothing_has_no_rate(references: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least 1 character"):
        transcription_counts("text", references)


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(DataError, match="2 predictions cannot be scored against 1"):
        transcription_cer(["a", "b"], ["a"])
    with pytest.raises(DataError, match="at least one"):
        transcription_cer([], [])


def test_vqa_match() -> None:
    assert vqa_match(" Grand  SALE. ", ("shop", "grand sale")) == 1
    assert vqa_match("grand sale!", ("grand sale",)) == 0
    assert vqa_match("the grand sale", ("grand sale",)) == 0


def test_nothing_earns_no_credit() -> None:
    assert vqa_match("", ("", ".")) == 0
    assert vqa_match(".", (".",)) == 0
    assert contains("anything", ("", ".")) == 0


def test_contains_wants_whole_words_and_copes_with_signs() -> None:
    assert contains("It costs $5 today.", ("$5",)) == 1
    assert contains("It costs $55", ("$5",)) == 0
    assert contains("about 50% off", ("50%",)) == 1
    assert contains("salesman", ("sale",)) == 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Yes", YesNo.YES),
        ("  **No**, it is not.", YesNo.NO),
        ("Answer: yes", YesNo.YES),
        ("The word is not there, so no.", YesNo.NO),
        ("Yes, not no", YesNo.YES),
        ("it is yes or no", YesNo.OTHER),
        ("not sure", YesNo.OTHER),
        ("nothing", YesNo.OTHER),
        ("I know", YesNo.OTHER),
        ("", YesNo.OTHER),
    ],
)
def test_parse_yes_no(reply: str, expected: YesNo) -> None:
    assert parse_yes_no(reply) is expected


def test_yes_no_score_has_the_known_values() -> None:
    """24 of 40 questions and 4 of 20 pairs give 80, the published score of LLaVAR; always yes gives 50."""
    rights = [(True, True)] * 4 + [(True, False)] * 16
    pairs = [(str(i), right) for i, pair in enumerate(rights) for right in pair]
    assert yes_no_score(pairs) == pytest.approx(100 * 24 / 40 + 100 * 4 / 20)
    assert yes_no_score([(str(i // 2), i % 2 == 0) for i in range(40)]) == 50
    assert yes_no_score([("a", True)]) == 200


def test_yes_no_score_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 1"):
        yes_no_score([])


def test_metrics_need_no_torch() -> None:
    code = "import sys, llavar.evals.metrics; assert not {'torch', 'transformers'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
