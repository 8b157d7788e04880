from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, DataError
from llavar.evals import metrics
from llavar.evals.metrics import mmocr, tables, vqa

NAMES = (
    "mmocr",
    "mmocr-strict",
    "mmocr-recognition",
    "mmocr-rects",
    "mmocr-hme",
    "ocrbench",
    "ocrbench-hme",
    "textvqa",
    "stvqa",
    "anls",
    "anls-raw",
    "exact",
    "relaxed",
    "cer",
    "wer",
    "token-f1",
    "textvqa-vlmevalkit",
    "relaxed-vlmevalkit",
    "exact-vlmevalkit",
    "ocrbench-lmms",
    "mme",
    "mme-lmms",
    "mme-vlmevalkit",
)
PLAIN = [name for name in NAMES if not name.startswith("mme")]
MESSY = st.text(alphabet="aA theone.,5$%'s-_\n\t!é中ß？ＡİΣ", max_size=24)


def score(name: str, prediction: str, *references: str) -> float:
    return metrics.score(name, prediction, references)


def test_the_names() -> None:
    assert set(NAMES) <= set(metrics.NAMES)
    assert len(set(metrics.NAMES)) == len(metrics.NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_metric_tells_whose_it_is(name: str) -> None:
    assert "\n" not in metrics.about(name)
    assert len(metrics.about(name)) > 20
    assert metrics.higher_is_better(name) is (name not in ("cer", "wer"))
    assert metrics.full_name(name).partition("@")[0] == name
    assert metrics.full_name(metrics.full_name(name)) == metrics.full_name(name)


def test_a_version_may_be_named() -> None:
    assert metrics.full_name("mmocr") == "mmocr@9f0ffdf"
    assert metrics.score("mmocr@9f0ffdf", "it says SALE", "sale") == 1
    assert metrics.full_name("token-f1") == "token-f1"


@pytest.mark.parametrize("name", ["", "mmocr@", "mmocr@9f0ffd", "token-f1@", "MMOCR", "bleu"])
def test_an_unknown_metric_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="mmocr@9f0ffdf.*token-f1"):
        metrics.score(name, "a", "a")
    with pytest.raises(ConfigError, match=re.escape(repr(name))):
        metrics.about(name)


@pytest.mark.parametrize("references", [[], (), None, 5, ["a", None], [["a"]], b"a", {"a": 1}])
def test_references_that_are_no_texts_are_refused(references: object) -> None:
    with pytest.raises(DataError, match="at least 1 text"):
        metrics.score("exact", "a", references)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at least 1 text"):
        metrics.score_all("exact", [("a", references)])  # type: ignore[list-item]


@pytest.mark.parametrize("prediction", [None, 5, float("nan"), ["a"], b"a"])
def test_a_prediction_that_is_no_text_is_refused(prediction: object) -> None:
    with pytest.raises(DataError, match="a prediction must be text"):
        metrics.score("exact", prediction, "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=25)
@given(prediction=MESSY | st.text(max_size=20), references=st.lists(MESSY, min_size=1, max_size=4))
def test_scores_stay_between_0_and_1_and_heed_no_order(
    name: str, prediction: str, references: list[str]
) -> None:
    before = list(references)
    found = metrics.score(name, prediction, references)
    assert 0 <= found <= 1
    assert references == before
    for other in permutations(references):
        assert metrics.score(name, prediction, other) == found
    assert metrics.score_all(name, [(prediction, references)] * 2) == [found] * 2
    assert metrics.score(name, prediction, references[0]) == metrics.score(name, prediction, references[:1])


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith("textvqa")])
@settings(deadline=None, max_examples=25)
@given(prediction=MESSY, references=st.lists(MESSY, min_size=1, max_size=3), more=MESSY)
def test_another_reference_never_harms(name: str, prediction: str, references: list[str], more: str) -> None:
    old, new = (
        metrics.score(name, prediction, references),
        metrics.score(name, prediction, [*references, more]),
    )
    assert new >= old if metrics.higher_is_better(name) else new <= old


# --- normalisers -----------------------------------------------------------------------------------


def slow_normalise(text: str, comma: str, period: str) -> str:
    """The rule as its authors state it, mark by mark and word by word."""
    text = text.replace("\n", " ").replace("\t", " ").strip()
    out = text
    for mark in tables.PUNCTUATION:
        if mark + " " in text or " " + mark in text or re.search(comma, text):
            out = out.replace(mark, "")
        else:
            out = out.replace(mark, " ")
    out = re.sub(period, "", out, count=32)
    words = [tables.NUMBERS.get(word, word) for word in out.lower().split()]
    words = [word for word in words if word not in tables.ARTICLES]
    return " ".join(tables.CONTRACTIONS.get(word, word) for word in words)


TANGLED = st.text(alphabet="a5٣.,;-? \n'\"$", max_size=30) | st.lists(
    st.sampled_from(
        ["None", "the", "Ten", "dont", "Im", "1,000", "3.5", "e-mail", "...", " - ", "\t", "it's"]
    ),
    max_size=8,
).map(" ".join)


@settings(deadline=None)
@given(TANGLED)
def test_the_normalisers_do_what_the_slow_rule_does(text: str) -> None:
    period = r"(?!<=\d)(\.)(?!\d)"
    assert vqa.mmocr_normalise(text) == slow_normalise(text, r"(\d)(\,)(\d)", period)
    assert vqa.vlmevalkit_normalise(text) == slow_normalise(text, r"(\d)(,)(\d)", r"(?<!\d)\.(?!\d)")
    split = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    assert vqa.m4c_normalise(text) == slow_normalise(split, r"(?<=\d)(\,)+(?=\d)", period)


def test_tables_can_be_looked_up_in_one_go() -> None:
    """``reword`` merges three tables, which holds only while none produces a word of a later one."""
    later = {*tables.ARTICLES, *tables.CONTRACTIONS}
    assert not later & set(tables.NUMBERS.values())
    assert not {*tables.NUMBERS, *tables.ARTICLES} & set(tables.CONTRACTIONS)
    assert len(tables.CONTRACTIONS) == 120
    assert len(tables.PUNCTUATION) == 21


@pytest.mark.parametrize(
    ("text", "mmocr_text", "m4c_text", "vlmevalkit_text"),
    [
        ("5.", "5", "5", "5."),
        ("The dog's 1,000", "dog's 1000", "dog 's 1000", "dog's 1000"),
        ("(555) 123-4567", "555 123 4567", "555 123 4567", "555 123 4567"),
        ("1,0 a-b", "10 ab", "10 b", "10 ab"),
        ("." * 40, "." * 8, "." * 8, "." * 8),
        ("$5 50%", "$5 50%", "$5 50%", "$5 50%"),
        ("Dont, none!", "don't 0", "don't 0", "don't 0"),
    ],
)
def test_normaliser_examples(text: str, mmocr_text: str, m4c_text: str, vlmevalkit_text: str) -> None:
    assert vqa.mmocr_normalise(text) == mmocr_text
    assert vqa.m4c_normalise(text) == m4c_text
    assert vqa.vlmevalkit_normalise(text) == vlmevalkit_text


# --- MultimodalOCR ---------------------------------------------------------------------------------

EDGY = st.text(alphabet="ab_5$ .é中²", max_size=12)


@settings(deadline=None, max_examples=300)
@given(EDGY, EDGY)
def test_has_word_is_the_regular_expression(sentence: str, word: str) -> None:
    assert mmocr.has_word(sentence, word) == bool(re.search(rf"\b{re.escape(word)}\b", sentence))
    strict = bool(word) and bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence))
    assert mmocr.has_word_strict(sentence, word) == strict


@given(st.text(max_size=3))
def test_word_characters_are_those_of_regular_expressions(text: str) -> None:
    assert mmocr.has_word(text, "") == bool(re.search(r"\b\b", text))
    for character in text:
        assert (character.isalnum() or character == "_") == bool(re.match(r"\w", character))


def test_the_two_errors_of_mmocr_and_their_repair() -> None:
    assert score("mmocr", "anything", "The") == 1
    assert score("mmocr", "...", "a") == 0
    assert score("mmocr-strict", "anything", "The", ".", "") == 0
    assert score("mmocr", "it costs $5", "$5") == 0
    assert score("mmocr-strict", "it costs $5.", "$5") == 1
    assert score("mmocr-strict", "it costs $55", "$5") == 0
    assert score("mmocr-strict", "a 50% sale", "50%") == 1


def test_mmocr_recognition_rects_and_formulas() -> None:
    assert score("mmocr-recognition", 'It says "Hello-World".', "helloworld") == 1
    assert score("mmocr-recognition", "openings", "open") == 0
    assert score("mmocr-recognition", "x", "中国") == 1  # nothing is left of the reference
    assert score("mmocr-rects", "The sign: 中国银行。", "中国!") == 1
    assert score("mmocr-rects", "中 国", "中国") == 0
    assert score("mmocr-hme", "so $x ^ 2$ it is", "x^2\n") == 1
    assert score("mmocr-hme", "X^2", "x^2") == 0


# --- OCRBench, M4C and the kits --------------------------------------------------------------------


def test_ocrbench() -> None:
    assert score("ocrbench", "The scatter", " CAT\n") == 1
    assert score("ocrbench", "new\nyork", "new york") == 1
    assert score("ocrbench", "ＡＢＣ", "abc") == 0
    assert score("ocrbench-lmms", "ＡＢＣ\u3000ｄ", "abc d") == 1
    assert score("ocrbench", "x", "") == score("ocrbench-lmms", "x", "") == 1
    assert score("ocrbench-hme", "y _ { 2 }\n= 1", "y_{2} = 1") == 1
    assert score("ocrbench-hme", "Y", "y") == 0


def leave_one_out(prediction: str, references: Sequence[str]) -> float:
    rest = [[*references[:i], *references[i + 1 :]] for i in range(len(references))]
    return sum(min(1, others.count(prediction) / 3) for others in rest) / len(references)


@settings(deadline=None)
@given(st.sampled_from("xyz"), st.lists(st.sampled_from("xyz"), min_size=1, max_size=12))
def test_soft_accuracy_is_leave_one_out(prediction: str, references: list[str]) -> None:
    assert score("textvqa", prediction, *references) == pytest.approx(leave_one_out(prediction, references))


@pytest.mark.parametrize(("hits", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_textvqa_with_ten_references(hits: int, expected: float) -> None:
    references = ["two"] * hits + ["three"] * (10 - hits)
    assert metrics.score("textvqa", "2", references) == pytest.approx(expected)
    assert metrics.score("textvqa-vlmevalkit", "2", references) == pytest.approx(expected)


def test_textvqa_takes_any_number_of_references() -> None:
    assert metrics.score("textvqa", "x", ["x"] * 11) == 1
    assert metrics.score("textvqa", "x", "x") == 0


def test_where_vlmevalkit_differs_on_textvqa() -> None:
    for answer, reference in [("dog's", "dog 's"), ("5.", "5")]:
        assert metrics.score("textvqa", answer, [reference] * 10) == 1
        assert metrics.score("textvqa-vlmevalkit", answer, [reference] * 10) == 0


def test_stvqa_is_equality_after_normalising() -> None:
    assert score("stvqa", "The Coca-Cola.", "pepsi", "coca cola") == 1
    assert score("stvqa", "a bottle of coca cola", "coca cola") == 0


@pytest.mark.parametrize("name", ["anls", "anls-raw"])
def test_anls(name: str) -> None:
    assert score(name, "Kitten", "SITTING") == pytest.approx(4 / 7)
    assert score(name, "abcd", "abxy") == 0.5  # exactly half is kept, as in all three codes
    assert score(name, "abcde", "abxyz") == 0
    assert score(name, "", "") == 1
    assert score(name, "", "x") == score(name, "x", "") == 0
    assert score(name, "cat", "dog", "cart") == 0.75
    assert score(name, "x" * 100_000, "x") == 0


def test_the_length_that_anls_divides_by() -> None:
    answer, reference = "banca transylvania", "banca transilvania "
    assert score("anls", answer, reference) == pytest.approx(1 - 1 / 18)
    assert score("anls-raw", answer, reference) == pytest.approx(1 - 1 / 19)
    assert score("anls-raw", f" {answer}\n", reference) == score("anls-raw", answer, reference)
    assert score("anls-raw", "new   york", "new york") == 1
    assert score("anls", "new   york", "new york") == 0.8
    assert score("anls-raw", "straße", "strasse") == pytest.approx(1 - 2 / 7)  # "ß" counts as two


def test_exact() -> None:
    assert score("exact", " New York! ", "new york") == 1
    assert score("exact-vlmevalkit", " New York ", "new york ") == 1
    assert score("exact-vlmevalkit", "new york!", "new york") == 0
    assert score("exact", "new york city", "new york") == 0


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("47.5", "50", 1),
        ("47.4", "50", 0),
        ("52.5", "50", 1),
        ("5%", "0.05", 1),
        ("5%", "5", 0),
        ("0.0", "0", 0),
        ("0", "0", 1),
        ("-3", "-3.1", 1),
        ("nan", "nan", 0),
        ("inf", "inf", 0),
        ("%", "%", 1),
        ("Yes", "yes", 1),
        ("1,000", "1000", 0),
        ("１２３", "123", 1),
    ],
)
def test_relaxed(answer: str, target: str, expected: int) -> None:
    assert score("relaxed", answer, target) == expected


def test_where_vlmevalkit_differs_on_relaxed() -> None:
    assert score("relaxed", " yes ", "yes") == 0
    assert score("relaxed-vlmevalkit", " yes ", "yes") == 1
    assert score("relaxed-vlmevalkit", "47.5", "50") == 0
    assert score("relaxed-vlmevalkit", "52.6", "50") == 1


# --- this project's own ----------------------------------------------------------------------------


def test_error_rates_take_the_best_reference_and_are_clipped() -> None:
    assert score("cer", "sale", "SALE now", "sald") == 0.25
    assert score("cer", "x" * 100_000, "sale") == 1
    assert score("wer", "open every day", "open each day") == pytest.approx(1 / 3)
    assert score("wer", "now " * 50, "now") == 1
    for name in ("cer", "wer"):
        assert score(name, "", " ") == 0
        assert score(name, "x", "") == 1
        assert score(name, "", "x") == 1


@settings(deadline=None)
@given(MESSY, MESSY)
def test_named_error_rates_are_the_functions_clipped(prediction: str, reference: str) -> None:
    assert score("cer", prediction, reference) == metrics.cer(prediction, reference, clip=True)
    assert score("wer", prediction, reference) == metrics.wer(prediction, reference, clip=True)


def test_word_error_rate_may_exceed_1() -> None:
    assert metrics.wer("a b c", "d") == 3
    assert metrics.wer("a b c", "d", clip=True) == 1
    assert metrics.edit_distance(["a", "bc"], ["bc"]) == 1


def test_token_f1_falls_with_needless_words() -> None:
    assert score("token-f1", "sale", "Sale!") == 1
    assert score("token-f1", "the big blue sign up there says sale, folks", "sale") == pytest.approx(0.2)
    assert score("token-f1", "sale sale", "sale") == pytest.approx(2 / 3)
    assert score("token-f1", "closed", "open") == 0
    assert score("token-f1", "New York", "york", "new york city") == pytest.approx(4 / 5)


def test_token_f1_tokens() -> None:
    assert score("token-f1", "1,000 km", "1000 KM") == 1
    assert score("token-f1", "3.5", "35") == 0
    assert score("token-f1", "中国银行", "中国") == pytest.approx(2 / 3)
    assert score("token-f1", "№中5", "5") == pytest.approx(0.5)
    assert score("token-f1", "!", "!") == 1
    assert score("token-f1", "!", "?") == 0
    assert score("token-f1", "", "") == 1
    assert score("token-f1", "", "x") == score("token-f1", "x", "") == 0


@settings(deadline=None)
@given(MESSY, MESSY)
def test_token_f1_is_symmetric_and_1_for_itself(a: str, b: str) -> None:
    assert metrics.token_f1(a, b) == metrics.token_f1(b, a)
    assert metrics.token_f1(a, a) == 1
