from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import DataError
from llavar.evals import metrics
from llavar.evals.metrics.choice import choice_letter, pope_answer, pope_score


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" B\t", "B"),
        ("B. ice", "B"),
        ("B\nbecause", "B"),
        ("LECTURE: solids.\nThe answer is C.", "C"),
        ("The answer is D", "D"),
        ("The answer is A or rather The answer is C.", "C"),
        ("B.", ""),
        ("(B)", ""),
        ("F", ""),
        ("AB", ""),
        ("the answer is B.", ""),
        ("", ""),
    ],
)
def test_letters_are_read_as_llava_does(reply: str, letter: str) -> None:
    assert choice_letter(reply) == letter
    assert metrics.score("scienceqa", reply, "B") == (letter == "B")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Yes", "yes"),
        ("No, there is none.", "no"),
        ("There is not one.", "no"),
        ("Yes. There is no bus.", "yes"),
        ("NO", "yes"),  # the original knows only No and no
        ("nothing", "yes"),
        ("", "yes"),
    ],
)
def test_pope_reads_the_first_sentence(reply: str, said: str) -> None:
    assert pope_answer(reply) == said
    assert metrics.score("pope", reply, said) == 1


def test_popes_figures() -> None:
    found = pope_score([("Yes", "yes"), ("Yes", "no"), ("No", "yes"), ("No", "no"), ("Yes", "yes")])
    assert (found.n, found.accuracy, found.yes_ratio) == (5, 0.6, 0.6)
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3,) * 3)
    assert pope_score([("No", "no")]).f1 == 0
    with pytest.raises(DataError, match="at least 1"):
        pope_score([])
    with pytest.raises(DataError, match="must be yes or no"):
        pope_score([("No", "perhaps")])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Yes", "No"]), st.sampled_from(["yes", "no"])), min_size=1))
def test_popes_f1_is_the_harmonic_mean(rows: list[tuple[str, str]]) -> None:
    found = pope_score(rows)
    whole = found.precision + found.recall
    expected = 2 * found.precision * found.recall / whole if whole else 0
    assert found.f1 == pytest.approx(expected)
    assert found.accuracy == pytest.approx(sum(metrics.score_all("pope", rows)) / len(rows))


def test_ocrbench_v2_compares_long_references_by_edits() -> None:
    assert metrics.score("ocrbench-v2", "It says PIER\nseven", ["pier seven"]) == 1
    assert metrics.score("ocrbench-v2", "pier", ["pier seven"]) == 0
    long = "a walk along the pier"
    assert metrics.score("ocrbench-v2", long.upper(), [long]) == 1
    assert metrics.score("ocrbench-v2", f"x{long}", [long]) == pytest.approx(1 - 1 / 22)
    assert metrics.score("ocrbench-v2", "a walk", [long]) == 0
    assert metrics.score("ocrbench-v2", "a walk", [long, "walk"]) == 1
