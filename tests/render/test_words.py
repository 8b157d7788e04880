from __future__ import annotations

import random
import re
import string
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.render import words

SEEDS = st.integers(0, 2**32)
NUMBER = re.compile(r"\d+|\$\d+\.\d\d|\d+%")


def test_the_two_parts_share_no_word_and_are_stable():
    shown, held = (words.vocabulary(held_out=part) for part in (False, True))
    assert not set(shown) & set(held)
    assert len(shown) == len(set(shown))
    assert 0.15 < len(held) / len(shown + held) < 0.25
    # A word that changes sides would make every earlier result on held-out words worthless.
    assert (held[:3], len(held)) == (("able", "actor", "agent"), 165)
    assert (shown[:3], shown[-1]) == (("acre", "album", "alley"), "zenith")


def test_the_case_of_a_word_does_not_change_its_part():
    for word in words.vocabulary(held_out=True):
        assert words.is_held_out(word.upper())
        assert words.is_held_out(word.title())


def test_words_can_be_spelled_by_every_tokenizer():
    for word in words.vocabulary(held_out=True) + words.vocabulary(held_out=False):
        assert re.fullmatch("[a-z]{3,9}", word)


@given(seed=SEEDS, held_out=st.booleans(), length=st.integers(3, 30))
@settings(deadline=None)
def test_phrases_hold_words_of_one_part_only(seed: int, held_out: bool, length: int):
    text = words.phrase(random.Random(seed), held_out=held_out, length=length)
    first, *rest = text.split(" ")
    assert first.lower() in words.vocabulary(held_out=held_out)
    for part in rest:
        assert NUMBER.fullmatch(part) or part.lower() in words.vocabulary(held_out=held_out)
    assert len(text) <= max(length, len(first))


def test_phrases_come_in_several_cases_and_with_numbers():
    texts = [words.phrase(random.Random(seed), held_out=False, length=20) for seed in range(200)]
    assert any(text.isupper() for text in texts)
    assert any(text.islower() for text in texts)
    assert any(text.istitle() for text in texts)
    assert any(char.isdigit() for text in texts for char in text)


@given(seed=SEEDS)
@settings(deadline=None)
def test_numbers_look_as_they_are_printed(seed: int):
    assert NUMBER.fullmatch(words.number(random.Random(seed)))


@given(seed=SEEDS, length=st.integers(1, 20))
@settings(deadline=None)
def test_random_strings_have_their_length_and_no_spaces(seed: int, length: int):
    text = words.random_string(random.Random(seed), length)
    assert len(text) == length
    assert set(text) <= set(string.printable) - set(string.whitespace)


@pytest.mark.parametrize("pool", [string.ascii_lowercase, string.ascii_uppercase, string.digits, "!?#/"])
def test_random_strings_use_every_kind_of_character(pool: str):
    drawn = "".join(words.random_string(random.Random(seed), 8) for seed in range(1000))
    assert set(pool) <= set(drawn)


def test_random_strings_can_have_characters_twice_in_a_row():
    def pairs(doubled: float) -> float:
        drawn = [words.random_string(random.Random(seed), 20, doubled=doubled) for seed in range(300)]
        return sum(a == b for text in drawn for a, b in pairwise(text)) / (19 * len(drawn))

    assert pairs(0.0) < 0.06
    assert pairs(0.3) == pytest.approx(0.3 + 0.7 * pairs(0.0), abs=0.03)
    assert words.random_string(random.Random(0), 0, doubled=0.5) == ""


def test_equal_seeds_give_equal_words():
    def draw() -> list[str]:
        rng = random.Random(3)
        return [words.word(rng, held_out=False), words.number(rng), words.random_string(rng, 9)]

    assert draw() == draw()
