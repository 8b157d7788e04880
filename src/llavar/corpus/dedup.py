"""Duplicates: the same file, the same pixels, and edited copies.

Two stages. ``exact`` compares hashes and stands before OCR, since nobody wants to pay for reading a picture
twice. ``near`` compares perceptual fingerprints of 256 bits and drops a picture only where the texts that
were read agree as well: quote cards of one template look alike to any such fingerprint and say different
things. A picture whose edges were cut off, or that got a frame, has another fingerprint: pictures with nearly
one text are compared part by part (:mod:`llavar.corpus.likeness`). The first one in the order of the source
stays.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llavar.corpus.item import Item
from llavar.corpus.likeness import KEYS, equal_rows, fewest_bits, keys_of, same_words
from llavar.corpus.stage import Judge
from llavar.errors import ConfigError
from llavar.records import Reject

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT, NEAR = "exact", "near"
_BITS = 256
_NUMBER, _WORD = re.compile(r"\d+"), re.compile(r"[^\W\d_]{4,}|\d{2,}")
_SHORTEST, _ADDED = 6, 24
"""Letters of a text that may be within another one, and how many that has besides at most."""
_SURE, _MISREAD = 0.8, 0.6
"""Confidence of lines whose words count, and how alike a word is to what it was misread for."""


class DuplicateReason(StrEnum):
    """Why a picture is one too many."""

    FILE = "same file as another"
    PIXELS = "same pixels as another"
    NEAR = "edited copy of another"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactSettings:
    """There is nothing to set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactStage:
    """Rejects pictures whose file or pixels came before."""

    settings: ExactSettings = ExactSettings()
    name: ClassVar[str] = EXACT
    version: ClassVar[int] = 1

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """Who is a duplicate of whom, as JSON: id -> (id of the first, reason)."""
        first: dict[bytes, str] = {}
        found: dict[str, tuple[str, str]] = {}
        for item in (item for items in shards for item in items):
            for reason, digest in _digests(item):
                before = first.setdefault(digest, item.id)
                if before != item.id:
                    found.setdefault(item.id, (before, reason))
        return json.dumps(found).encode()

    def judge(self, decision: bytes) -> Judge:
        found = json.loads(decision)
        return lambda items: [
            _rejected(item, self.name, found[item.id]) if item.id in found else item for item in items
        ]


def _digests(item: Item) -> Iterator[tuple[DuplicateReason, bytes]]:
    """Half of each hash: 128 bits cannot collide by chance, and a million of them have to lie in memory."""
    if item.file is not None:
        yield DuplicateReason.FILE, bytes.fromhex(item.file.sha256)[:16]
    if item.fingerprint is not None:
        yield DuplicateReason.PIXELS, bytes.fromhex(item.fingerprint.pixels)[:16]


def _rejected(item: Item, stage: str, found: Sequence[str]) -> Reject:
    before, reason, *detail = found
    return Reject(id=item.id, stage=stage, reason=reason, detail=", ".join([before, *detail]))


@dataclass(frozen=True, slots=True, kw_only=True)
class NearSettings:
    """What counts as a copy."""

    max_bits: int = 20
    """Bits of 256 in which the fingerprints of copies may differ."""
    min_text: float = 0.8
    """How alike the texts of both must be (share of characters in common order); 0 compares no texts."""
    max_crop: int = 10
    """Per cent of a side that may be cut off or added at each edge, where the texts agree; 0 to 20."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bits <= 60:
            raise ConfigError(
                f"max_bits is {self.max_bits} of 256; give 0 to 60, unrelated ones differ in 128"
            )
        if not 0 <= self.min_text <= 1:
            raise ConfigError(f"min_text is {self.min_text}; give a share from 0 to 1")
        if not 0 <= self.max_crop <= 20:
            raise ConfigError(f"max_crop is {self.max_crop} per cent of a side; give 0 to 20")


@dataclass(frozen=True, slots=True, kw_only=True)
class NearStage:
    """Rejects edited copies of a picture that stays.

    In memory lie some 250 bytes of every picture, and 2 KB of each that looks or reads like another one.
    """

    settings: NearSettings = NearSettings()
    name: ClassVar[str] = NEAR
    version: ClassVar[int] = 2

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """As for :class:`ExactStage`, with the number of bits."""
        bits, keys = self._summed_up(shards)
        near = {(later, earlier): count for later, earlier, count in alike(bits, self.settings.max_bits)}
        worded = ((int(later), int(earlier)) for later, earlier in same_words(keys))
        pairs = sorted({*near, *worded})
        wanted = {place for pair in pairs for place in pair}
        again = enumerate(_printed(shards) if wanted else ())
        seen = {place: _Seen.of(item) for place, item in again if place in wanted}
        found: dict[str, tuple[str, str, str]] = {}
        for later, earlier in pairs:
            one, other = seen[later], seen[earlier]
            # Only a picture that stays makes another one its copy: chains of small edits do not run away.
            if one.id not in found and other.id not in found:
                detail = self._copied(one, other, near.get((later, earlier)))
                if detail:
                    found[one.id] = (other.id, DuplicateReason.NEAR, detail)
        return json.dumps(found).encode()

    def _summed_up(self, shards: Iterable[list[Item]]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Fingerprints (N, 32), and keys of the texts (N, 16) where they are needed."""
        bits, keys = bytearray(), bytearray()
        for item in _printed(shards):
            if item.fingerprint is not None:
                bits += bytes.fromhex(item.fingerprint.perceptual)
                keys += keys_of(text_of(item)).tobytes() if self.settings.max_crop else b""
        prints = np.frombuffer(bits, dtype=np.uint8).reshape(-1, _BITS // 8)
        return prints, np.frombuffer(keys, dtype=np.uint64).reshape(-1, KEYS)

    def _copied(self, one: _Seen, other: _Seen, bits: int | None) -> str:
        """What the bits say of a copy; nothing if it is none. ``bits`` is of the whole pictures, if few."""
        if not agree(one.text, other.text, self.settings.min_text) or self._tell_apart(one, other):
            return ""
        if bits is not None:
            return f"{bits} of {_BITS} bits differ"
        bits = fewest_bits(one.content, other.content, self.settings.max_crop)
        return f"{bits} of {_BITS} bits differ where they overlap" if bits <= self.settings.max_bits else ""

    def _tell_apart(self, one: _Seen, other: _Seen) -> bool:
        """Whether each says something that the other does not: one name for another. A copy may lose words
        at its edges, or get some, but hardly both."""
        if not self.settings.min_text:
            return False
        return _has_others(one.words, other.text) and _has_others(other.words, one.text)

    def judge(self, decision: bytes) -> Judge:
        found = json.loads(decision)
        return lambda items: [
            _rejected(item, self.name, found[item.id]) if item.id in found else _looked_at(item)
            for item in items
        ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of a picture is compared with others."""

    id: str
    text: str
    words: tuple[str, ...]
    content: str

    @classmethod
    def of(cls, item: Item) -> _Seen:
        content = item.fingerprint.content if item.fingerprint is not None else ""
        return cls(item.id, text_of(item), sure_words(item), content)


def _printed(shards: Iterable[list[Item]]) -> Iterator[Item]:
    """All items that have a fingerprint: the places of the others are nobody's."""
    return (item for items in shards for item in items if item.fingerprint is not None)


def _looked_at(item: Item) -> Item:
    """Without what was needed until here."""
    return (
        item if item.fingerprint is None else replace(item, fingerprint=replace(item.fingerprint, content=""))
    )


def alike(bits: NDArray[np.uint8], limit: int) -> list[tuple[int, int, int]]:
    """Pairs of rows of ``bits`` (N, 32) that differ in at most ``limit`` bits: (later, earlier, how many).

    Rows that differ in k bits agree entirely in one of k + 1 parts of theirs, whichever parts one takes: so
    only rows with an equal part are compared. Sorted by the later row, then the earlier one.
    """
    found: dict[tuple[int, int], int] = {}
    for part in np.array_split(np.arange(_BITS), limit + 1):
        first = int(part[0]) // 8
        spread = np.unpackbits(bits[:, first : int(part[-1]) // 8 + 1], axis=1)
        for group in equal_rows(np.packbits(spread[:, part - 8 * first], axis=1)):
            for place in range(1, len(group)):
                later, earlier = group[place], group[:place]
                differ = np.bitwise_count(bits[earlier] ^ bits[later]).sum(axis=1, dtype=np.int64)
                for index in np.flatnonzero(differ <= limit):
                    found[int(later), int(earlier[index])] = int(differ[index])
    return sorted((later, earlier, count) for (later, earlier), count in found.items())


def text_of(item: Item) -> str:
    """What the first engine read, without differences of case and white space; at most 2000 characters."""
    if not item.readings:
        return ""
    return " ".join(item.readings[0].text.casefold().split())[:2000]


def agree(one: str, other: str, share: float) -> bool:
    """Whether two texts are those of copies: alike to this share, or one is the other with a little more.

    Neither holds where their numbers differ: a price may be all that tells two cards apart. Two empty texts
    agree, and with a share of 0 all do.
    """
    if one == other or share == 0:
        return True
    numbers, others = _NUMBER.findall(one), _NUMBER.findall(other)
    if _in_common(numbers, others) < share * min(len(numbers), len(others)):
        return False
    return _is_alike(one, other, share) or _is_within(one, other)


def _in_common(one: Iterable[str], other: Iterable[str]) -> int:
    return (Counter(one) & Counter(other)).total()


def _is_alike(one: str, other: str, share: float) -> bool:
    """By what they have in common as sequences of characters, or of words that moved as their lines did."""
    words, others = one.split(), other.split()
    if 2 * _in_common(words, others) >= share * (len(words) + len(others)) > 0:
        return True
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() >= share and matcher.quick_ratio() >= share and matcher.ratio() >= share


def _is_within(one: str, other: str) -> bool:
    """Whether a text is there in the other one, as under a watermark; three letters in a row count."""
    short, long = sorted((one, other), key=len)
    if len(short) < _SHORTEST or len(long) - len(short) > _ADDED:
        return False
    blocks = SequenceMatcher(None, short, long, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= 3) >= 0.9 * len(short)


def sure_words(item: Item) -> tuple[str, ...]:
    """Words of four letters and numbers of two digits or more that the first engine is sure of."""
    lines = item.readings[0].lines if item.readings else ()
    sure = (line.text.casefold() for line in lines if line.confidence >= _SURE)
    return tuple(word for text in sure for word in _WORD.findall(text))


def _has_others(words: Sequence[str], text: str) -> bool:
    """Whether one of the words is not in a text, nor anything that it may have been misread for."""
    missing = [word for word in words if word not in text]
    found = _WORD.findall(text) if missing else []
    return any(not get_close_matches(word, found, n=1, cutoff=_MISREAD) for word in missing)
