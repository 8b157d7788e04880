"""Personal data goes, everything that only looks like it stays."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.corpus.item import Item, Masked, Origin
from llavar.corpus.privacy import (
    IBAN_LENGTHS,
    Personal,
    is_iban,
    is_luhn,
    mask_conversation,
    mask_item,
    mask_text,
)
from llavar.records import Box, Conversation, Line, Reading


def line(text: str) -> Line:
    return Line(text=text, box=Box(left=0, top=0, right=100, bottom=15))


def with_check_digit(digits: str) -> str:
    return next(digits + last for last in "0123456789" if is_luhn(digits + last))


def iban(country: str, rest: str) -> str:
    number = int("".join(str(int(char, 36)) for char in f"{rest}{country}00"))
    return f"{country}{98 - number % 97:02d}{rest}"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jo.doe+x@mail.example.co.uk today", "Write to [email] today"),
        ("INFO@EXAMPLE.COM", "[email]"),
        ("müller@straße.example", "[email]"),
        ("a@b.co, c_d@e.org.", "[email], [email]."),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN [iban] BIC COBADEFF"),
        ("gb82WEST12345698765432", "[iban]"),
        ("DE89370400440532013000 GB82WEST12345698765432", "[iban] [iban]"),
        ("Card 4111 1111 1111 1111 exp 12/27", "Card [card] exp 12/27"),
        ("3782-822463-10005", "[card]"),
        ("5555555555554444", "[card]"),
        ("Call +1 (212) 555-0123!", "Call [phone]!"),
        ("+49 30 1234567", "[phone]"),
        ("(212) 555-0123", "[phone]"),
        ("212.555.0123", "[phone]"),
        ("1-800-555-0199", "[phone]"),
        ("Tel: 1-800-555-0199", "Tel: [phone]"),
        ("Tel. 555-0123", "Tel. [phone]"),
        ("call us at 5550123", "call us at [phone]"),
        ("☎ 030 / 123 45 67", "☎ [phone]"),
        ("06 12 34 56 78", "[phone]"),
        ("0171 2345678", "[phone]"),
        ("020 7946 0958", "[phone]"),
        ("Fax (030) 123 45-67", "Fax [phone]"),
        ("+44 20 7946 0958 / +44 20 7946 0959", "[phone] / [phone]"),
        ("call 555-0123, or mail a@b.co", "call [phone], or mail [email]"),
    ],
)
def test_what_is_personal_is_masked(text: str, masked: str) -> None:
    assert mask_text(text).text == masked


@pytest.mark.parametrize(
    "text",
    [
        "since 1984",
        "1914-1918",
        "2019 2020 2021 2022",
        "01.02.2023",
        "2023-01-15 10:30",
        "15/01/2023 - 17/01/2023",
        "01.02.2023 10.30",
        "open 09:00 - 17:30",
        "09.00 - 12.00 13.00 - 18.00",
        "Mon-Fri 8-18, Sat 9-13",
        "$1,234,567.00",
        "€ 1.299.000",
        "99.99",
        "1.234.567,89",
        "$2125550123",
        "ISBN 978-0-306-40615-7",
        "978-3-16-148410-0",
        "ISBN 0-306-40615-2",
        "0-306-40615-2",
        "0306406152",
        "4006381333931",
        "9780306406157",
        "No. 12345678",
        "123456789",
        "192.168.100.200",
        "0.123456789",
        "3.14159265358979",
        "10 000 000 copies sold",
        "1 2 3 4 5 6 7 8 9",
        "007",
        "Apollo 11",
        "50% off 1000 items",
        "follow @llavar, #2125550123",
        "meet me @ the mall",
        "Call 911",
        "Tel Aviv 1909 2009",
        "Chapter 12, Phone 15 Pro",
        "4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "411 11 111 1111 1 111",
        "DEMO-04159-00201",
        "DE89 3704 0044 0532 0130 02",
        "52.5200, 13.4050",
        "Wilhelm Example, Novelist",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask_text(text) == (text, {})


@pytest.mark.parametrize("piece", ["1 ", "a", "12-", "DE89 ", "a@", "4111 ", "(1"])
def test_long_lines_are_no_trap(piece: str) -> None:
    """Repeated a hundred thousand times, with an end that fits nothing: a slow pattern would not return."""
    assert mask_text(piece * 100_000 + "x").text.endswith("x")


def test_counts_say_how_much_of_what_was_there() -> None:
    counts = mask_text("a@b.co c@d.co tel 5550123").counts
    assert counts == {Personal.EMAIL: 2, Personal.PHONE: 1}


@given(st.text(max_size=200))
@settings(deadline=None)
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = mask_text(text).text
    assert mask_text(once) == (once, {})


@given(st.text(alphabet="0123456789 +-()./@a.e:[]x", max_size=80))
@settings(deadline=None, max_examples=300)
def test_masking_twice_changes_nothing_more_of_numbers_either(text: str) -> None:
    once = mask_text(text).text
    assert mask_text(once) == (once, {})


@given(st.integers(0, 10**9), st.sampled_from(["", " ", "-"]), st.sampled_from(["paid {}", "{}", "({})"]))
@settings(deadline=None)
def test_every_card_number_is_found(seed: int, gap: str, around: str) -> None:
    rng = random.Random(seed)
    digits = with_check_digit("4" + "".join(rng.choices("0123456789", k=13)) + rng.choice("123"))
    assert len(digits) == 16
    number = gap.join(digits[start : start + 4] for start in range(0, 16, 4))
    assert mask_text(around.format(number)).text == around.format("[card]")
    last = str((int(digits[-1]) + 1) % 10)
    assert "[card]" not in mask_text(around.format(number[:-1] + last)).text


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.integers(0, 10**9), st.booleans())
@settings(deadline=None)
def test_every_iban_is_found_whatever_follows(country: str, seed: int, grouped: bool) -> None:
    rng = random.Random(seed)
    rest = "".join(rng.choices(string.digits, k=IBAN_LENGTHS[country] - 4))
    number = iban(country, rest)
    assert is_iban(number)
    shown = " ".join(number[start : start + 4] for start in range(0, len(number), 4)) if grouped else number
    assert mask_text(f"pay to {shown} THANK YOU").text == "pay to [iban] THANK YOU"
    swapped = number[:-2] + number[-1] + number[-2]
    assert is_iban(swapped) == (swapped == number)


@given(
    st.text(string.ascii_lowercase + string.digits + "._-+", min_size=1, max_size=20).filter(str.strip),
    st.text(string.ascii_lowercase, min_size=1, max_size=10),
    st.sampled_from(["com", "org", "co.uk", "museum"]),
)
@settings(deadline=None)
def test_no_mail_address_is_left(user: str, host: str, ending: str) -> None:
    assert mask_text(f"write to {user}@{host}.{ending} now").text == "write to [email] now"


def test_an_item_is_masked_as_a_whole_and_says_how_much_once() -> None:
    reading = Reading(image="a.png", size=(9, 9), lines=(line("a@b.co"), line("NAME")), engine="e")
    item = Item(id="a", origin=Origin(source="s"), readings=(reading, reading), description="tel 5550123")
    masked = mask_item(item)
    assert [one.text for one in masked.readings[1].lines] == ["[email]", "NAME"]
    assert masked.description == "tel [phone]"
    assert masked.masked == Masked(email=2, phone=1)
    assert mask_item(masked) == masked


def test_a_conversation_is_masked_in_questions_and_answers() -> None:
    said, counts = mask_conversation(Conversation.of("Is a@b.co right?", "Yes, and +49 30 1234567."))
    assert [turn.text for turn in said.turns] == ["Is [email] right?", "Yes, and [phone]."]
    assert counts == Masked(email=1, phone=1)
