"""Personal data in text: e-mail addresses, telephone numbers, card numbers and IBANs, masked by default.

What is masked becomes a word in brackets, ``[email]`` for example, so that a row still reads well and a model
learns to give nobody's number away. Names stay: on covers and posters they are the content. Doing it twice
changes nothing more.

Numbers are masked where their form leaves little doubt: cards by Luhn's check digit, IBANs by length and
remainder (ISO 13616), telephone numbers by an international prefix, a national form, or a word before them
that says what they are. Years, prices, dates, times and ISBNs stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from llavar.corpus.item import Item, Masked
from llavar.records import Conversation, Reading, Turn


class Personal(StrEnum):
    """Kinds of personal data; the value stands in the brackets."""

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    PHONE = "phone"

    @property
    def mask(self) -> str:
        """What stands in the text instead."""
        return f"[{self.value}]"


class MaskedText(NamedTuple):
    """A text without personal data, and how much of which kind was in it."""

    text: str
    counts: Counter[Personal]


_ANY = re.compile(r"[\d@\uff20]")
"""Without one of these there is nothing of all this in a text."""


def mask_text(text: str) -> MaskedText:
    """``text`` with personal data replaced by words in brackets; the rest is left as it is."""
    counts: Counter[Personal] = Counter()
    if not _ANY.search(text):  # most lines, of which there are many
        return MaskedText(text, counts)
    for kind, replaced in _MASKS.items():
        text, count = replaced(text)
        counts[kind] += count
    return MaskedText(text, +counts)


def is_masked(text: str) -> bool:
    """Whether something was masked in a text."""
    return any(kind.mask in text for kind in Personal)


def mask_reading(reading: Reading) -> tuple[Reading, Masked]:
    """A reading with its lines masked, and what was in them."""
    found = [mask_text(line.text) for line in reading.lines]
    if not any(one.counts for one in found):
        return reading, Masked()
    lines = tuple(replace(line, text=one.text) for line, one in zip(reading.lines, found, strict=True))
    return replace(reading, lines=lines), masked_of(one.counts for one in found)


def mask_conversation(conversation: Conversation) -> tuple[Conversation, Masked]:
    """A conversation with all its turns masked, and what was in them."""
    found = [mask_text(turn.text) for turn in conversation.turns]
    turns = (Turn(role=turn.role, text=one.text) for turn, one in zip(conversation.turns, found, strict=True))
    return Conversation(turns=tuple(turns)), masked_of(one.counts for one in found)


def mask_item(item: Item) -> Item:
    """An item whose readings and description are masked; ``masked`` says how much, added to what was."""
    readings = [mask_reading(reading) for reading in item.readings]
    description = mask_text(item.description)
    found = [masked for _, masked in readings]
    if not description.counts and all(masked == Masked() for masked in found):
        return item
    return replace(
        item,
        readings=tuple(reading for reading, _ in readings),
        description=description.text,
        masked=_sum([item.masked, *found, masked_of([description.counts])]),
    )


def with_masked(item: Item, more: Masked) -> Item:
    """An item in which some more was masked."""
    return replace(item, masked=_sum([item.masked, more]))


def masked_of(counts: Iterable[Counter[Personal]]) -> Masked:
    """Counts of several texts as one record."""
    total: Counter[Personal] = Counter()
    for count in counts:
        total += count
    return Masked(**{kind.value: total[kind] for kind in Personal})


def _sum(parts: list[Masked]) -> Masked:
    return Masked(**{kind.value: sum(getattr(part, kind.value) for part in parts) for kind in Personal})


# ------------------------------------------------------------------------------------------ e-mail

_EMAIL = re.compile(r"[\w.+%-]{1,64}[@\uff20](?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,24}")


def _emails(text: str) -> tuple[str, int]:
    return _EMAIL.subn(Personal.EMAIL.mask, text)


# ------------------------------------------------------------------------------------------ IBAN

_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})(\d{2})((?:[ -]?[A-Za-z0-9]){11,40})")

IBAN_LENGTHS: Mapping[str, int] = MappingProxyType(
    {
        country: length
        for length, countries in {
            15: "NO",
            16: "BE",
            18: "DK FI FO GL NL SD",
            19: "MK SI",
            20: "AT BA EE KZ LT LU XK",
            21: "CH HR LI LV",
            22: "BG BH CR DE GB GE IE ME RS VA",
            23: "AE GI IL IQ TL",
            24: "AD CZ ES MD PK RO SA SE SK TN VG",
            25: "LY PT ST",
            26: "IS TR",
            27: "FR GR IT MC MR SM",
            28: "AL AZ BY CY DO GT HU LB PL SV",
            29: "BR EG PS QA UA",
            30: "JO KW MU",
            31: "MT SC",
            32: "LC",
        }.items()
        for country in countries.split()
    }
)
"""Characters of an IBAN by country (the registry of ISO 13616)."""


def is_iban(compact: str) -> bool:
    """Whether an IBAN without blanks is right by its length and its remainder by 97."""
    compact = compact.upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", compact, re.ASCII):
        return False
    if IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _ibans(text: str) -> tuple[str, int]:
    def one(match: re.Match[str]) -> str:
        # The words that follow may look like more of it: the country says where it ends.
        length, taken = IBAN_LENGTHS.get(match[1].upper(), 0), 0
        for end, char in enumerate(match[0], start=1):
            taken += char.isalnum()
            if taken == length:
                compact = "".join(filter(str.isalnum, match[0][:end]))
                inside_word = match.string[match.start() + end :][:1].isalnum()
                found = is_iban(compact) and not inside_word
                return Personal.IBAN.mask + _ibans(match[0][end:])[0] if found else match[0]
        return match[0]

    return _replaced(_IBAN, text, Personal.IBAN, one)


# ------------------------------------------------------------------------------------------ cards

# In one piece, or in the groups that are printed on cards: numbers of a table side by side are none.
_CARD = re.compile(
    r"(?<![\w.,+])(?:[2-6]\d{12,18}|[2-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?"
    r"|3\d{3}([ -])\d{6}\2\d{4,5})(?!\w)(?![.,]\d)",
    re.ASCII,
)


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others, as on payment cards (ISO/IEC 7812)."""
    doubled = [int(digit) for digit in reversed(digits)]
    doubled[1::2] = [digit * 2 - 9 * (digit > 4) for digit in doubled[1::2]]
    return sum(doubled) % 10 == 0


def _cards(text: str) -> tuple[str, int]:
    def one(match: re.Match[str]) -> str:
        digits = _digits(match[0])
        # Of 13 digits there were only old Visa cards; most such numbers are bar codes.
        is_card = is_luhn(digits) and (len(digits) > 13 or digits[0] == "4") and len(set(digits)) > 1
        return Personal.CARD.mask if is_card else match[0]

    return _replaced(_CARD, text, Personal.CARD, one)


# ------------------------------------------------------------------------------------------ telephone

_DASH = r"\-\u2010-\u2015"
_BLANK = r"[ \u00a0]"
_GAP = rf"(?:{_BLANK}?[(] ?| ?[)]{_BLANK}?[{_DASH}/]? ?|{_BLANK}?[./{_DASH}]{_BLANK}?|{_BLANK}{{1,2}})"
_PHONE = re.compile(
    rf"(?<![\w.,:$€£¥#])(?<![A-Za-z][-_])(?:\+ ?|[(] ?\+?)?[0-9]+(?:{_GAP}[0-9]+){{0,40}}"
    r"(?![\w%€£])(?![:,][0-9])"
)
_CUE = re.compile(
    r"(?:\b(?:tele)?(?:phone|fon|fono|phon)|\btel|\bcall|\bfax|\bmob(?:ile)?|\bcell|\bwhats\s?app|\bhotline"
    r"|\btext|\bsms|\u260e|\u260f|\u2706|\U0001f4de|\U0001f4f1)"
    r"[\s.:)\-]{0,3}(?:(?:us|now|at|me|on|no|number|today)[\s.:)\-]{1,3}){0,2}$",
    re.IGNORECASE,
)
_ISBN = re.compile(r"\b(?:ISBN|ISSN|EAN|UPC|SKU|DOI|LCCN)\b", re.IGNORECASE)
_DATE = re.compile(
    r"(?<!\d)(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d|(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2})(?!\d)"
)
_AMERICAN = re.compile(r"(?:1\D{1,2})?[(]?[2-9]\d\d\D{1,3}[2-9]\d\d\D{1,3}\d{4}")
_PARTS = re.compile(r"( / |/| \| | [\u2010-\u2015-] |[ \u00a0]{2})")
_FEWEST, _MOST = 7, 15
"""Digits of a telephone number (the most by ITU's E.164)."""


def _phones(text: str) -> tuple[str, int]:
    if _ISBN.search(text):
        return text, 0
    return _replaced(_PHONE, text, Personal.PHONE, _phone)


def _phone(match: re.Match[str]) -> str:
    """A number, or several in a row, masked; or what it was."""
    cued = _CUE.search(match.string[max(0, match.start() - 30) : match.start()]) is not None
    if len(_digits(match[0])) <= _MOST:
        return Personal.PHONE.mask if is_phone(match[0], cued=cued) else match[0]
    parts = _PARTS.split(match[0])
    return "".join(Personal.PHONE.mask if is_phone(part, cued=cued) else part for part in parts)


def is_phone(number: str, *, cued: bool = False) -> bool:
    """Whether digits, blanks and dashes are a telephone number; ``cued``: a word before them says so."""
    digits, plain = _digits(number), number.strip()
    if not _FEWEST <= len(digits) <= _MOST:
        return False
    if plain.lstrip("( ").startswith("+"):
        return True
    if _DATE.search(plain) or _is_isbn(digits):
        return False
    if cued or _AMERICAN.fullmatch(plain):
        return True
    return _is_national(plain, digits)


def _is_national(plain: str, digits: str) -> bool:
    """A zero, a code and the rest, as in most of Europe and Asia: 030 / 123 45 67, 06 12 34 56 78."""
    groups = re.findall(r"\d+", plain)
    if not 9 <= len(digits) <= 14 or digits[0] != "0" or len(groups[0]) < 2:
        return False
    if all(len(group) == 2 for group in groups):  # two by two are times as well, which are not of five
        return len(groups) == 5 and len(set(re.findall(r"\D+", plain))) == 1
    return digits.startswith("00") or digits[1] != "0"


def _is_isbn(digits: str) -> bool:
    if len(digits) == 13 and digits.startswith(("978", "979")):
        return True
    return (
        len(digits) == 10 and sum((10 - place) * int(digit) for place, digit in enumerate(digits)) % 11 == 0
    )


# ------------------------------------------------------------------------------------------ all of them


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _replaced(
    pattern: re.Pattern[str], text: str, kind: Personal, one: Callable[[re.Match[str]], str]
) -> tuple[str, int]:
    """Matches replaced by what ``one`` makes of them, and how many masks that added."""
    changed = pattern.sub(one, text)
    return changed, 0 if changed == text else changed.count(kind.mask) - text.count(kind.mask)


_MASKS: Mapping[Personal, Callable[[str], tuple[str, int]]] = MappingProxyType(
    {Personal.EMAIL: _emails, Personal.IBAN: _ibans, Personal.CARD: _cards, Personal.PHONE: _phones}
)
