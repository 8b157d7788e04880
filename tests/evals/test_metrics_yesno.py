from __future__ import annotations

import pytest

from llavar.errors import ConfigError, DataError
from llavar.evals import metrics
from llavar.evals.metrics import MmeScore, YesNo, mme_score, parse_yes_no

MME_PARSERS = ("mme", "mme-lmms", "mme-vlmevalkit")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("y", "other yes other"),
        ("N.", "other no other"),
        ("  yes", "other yes yes"),
        (" yes", "yes yes yes"),
        ("nope", "no no other"),
        ("not sure", "no no other"),
        ("Nothing", "no no other"),
        ("Answer: yes", "other other yes"),
        ("Yes, not no", "yes yes other"),
        ("No\nYes", "no no other"),
        ("n.o", "other no no"),
        ("**No**", "no no other"),
        ("**Yes**", "other other other"),
        ('"No"', "no no no"),
        ("", "other other other"),
        ("x", "other other other"),
        ("I know", "other other other"),
    ],
)
def test_the_three_parsers_of_mme(reply: str, said: str) -> None:
    assert [str(parse_yes_no(reply, parser)) for parser in MME_PARSERS] == said.split()


def test_an_unknown_parser_is_refused() -> None:
    with pytest.raises(ConfigError, match="'otter'.*mme-lmms"):
        parse_yes_no("yes", "otter")
    with pytest.raises(ConfigError, match="'otter'"):
        mme_score([("a", "yes", "yes")], "otter")


@pytest.mark.parametrize("parser", MME_PARSERS)
def test_one_question(parser: str) -> None:
    assert metrics.score(parser, "Yes, it is.", "Yes") == 1
    assert metrics.score(parser, "No.", ["yes"]) == 0
    assert metrics.score(parser, "maybe", " No. ") == 0
    assert metrics.score_all(parser, [("yes", "Yes"), ("yes", "No"), ("", "No")]) == [1, 0, 0]


@pytest.mark.parametrize("reference", ["", "maybe", "y", "yes, it is", "other"])
def test_a_reference_must_say_yes_or_no(reference: str) -> None:
    with pytest.raises(DataError, match="must be yes or no"):
        metrics.score("mme", "yes", reference)
    with pytest.raises(DataError, match="must be yes or no"):
        mme_score([("a", "yes", reference)])


def test_references_must_agree() -> None:
    assert metrics.score("mme", "yes", ["Yes", "yes"]) == 1
    with pytest.raises(DataError, match="must agree"):
        metrics.score("mme", "yes", ["yes", "no"])


def test_the_score_of_a_task() -> None:
    rows = [
        ("1.jpg", "Yes.", "Yes"),
        ("2.jpg", "yes", "Yes"),
        ("1.jpg", "No", "No"),
        ("2.jpg", "hm", "No"),
    ]
    assert mme_score(rows) == MmeScore(right=3, n=4, pairs_right=1, pairs=2, other=1, score=125.0)


def test_always_yes_scores_50() -> None:
    rows = [(str(i // 2), "Yes", "No" if i % 2 else "Yes") for i in range(40)]
    for parser in MME_PARSERS:
        score = mme_score(iter(rows), parser)
        assert (score.right, score.pairs_right, score.score) == (20, 0, 50.0)


def test_groups_of_any_size_and_none_at_all() -> None:
    assert mme_score([("a", "yes", "yes")]).score == 200
    assert mme_score([("a", "yes", "yes")] * 2 + [("a", "yes", "no")]).pairs_right == 0
    with pytest.raises(DataError, match="at least 1"):
        mme_score([])


def test_the_answer_is_a_plain_string_too() -> None:
    assert parse_yes_no("Yes") == "yes"
    assert parse_yes_no("what?") is YesNo.OTHER
    assert parse_yes_no("Answer: yes", parser="tolerant") is YesNo.YES
