"""Duplicates: the same file, the same pixels, and edited copies.

Two stages. ``exact`` compares hashes and stands before OCR, since nobody wants to pay for reading a picture
twice. ``near`` compares perceptual fingerprints of 256 bits and drops a picture only where the texts that
were read agree as well: quote cards of one template look alike to any such fingerprint and say different
things. The first one in the order of the source stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError
from llavar.records import Reject

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT, NEAR = "exact", "near"
_BITS = 256


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

    def apply(self, decision: bytes, items: Sequence[Item]) -> list[Outcome]:
        found = json.loads(decision)
        return [_rejected(item, self.name, found[item.id]) if item.id in found else item for item in items]


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
    """How alike the texts of both must be, 0 to 1 (share of characters in common order)."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bits <= 60:
            raise ConfigError(
                f"max_bits is {self.max_bits} of 256; give 0 to 60, unrelated ones differ in 128"
            )
        if not 0 <= self.min_text <= 1:
            raise ConfigError(f"min_text is {self.min_text}; give a share from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class NearStage:
    """Rejects edited copies of a picture that stays."""

    settings: NearSettings = NearSettings()
    name: ClassVar[str] = NEAR
    version: ClassVar[int] = 1

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """As for :class:`ExactStage`, with the number of bits. Texts are read for those that look alike."""
        ids: list[str] = []
        prints: list[bytes] = []
        for item in (item for items in shards for item in items):
            if item.fingerprint is not None:
                ids.append(item.id)
                prints.append(bytes.fromhex(item.fingerprint.perceptual))
        bits = np.frombuffer(b"".join(prints), dtype=np.uint8).reshape(len(ids), _BITS // 8)
        pairs = alike(bits, self.settings.max_bits)
        wanted = {ids[place] for pair in pairs for place in pair[:2]}
        texts = {item.id: text_of(item) for items in shards for item in items if item.id in wanted}
        return json.dumps(self._copies(ids, pairs, texts)).encode()

    def _copies(
        self, ids: Sequence[str], pairs: Sequence[tuple[int, int, int]], texts: dict[str, str]
    ) -> dict[str, tuple[str, str, str]]:
        """Only a picture that stays makes another one its copy: chains of small edits do not run away."""
        found: dict[str, tuple[str, str, str]] = {}
        for later, earlier, bits in pairs:
            one, other = ids[later], ids[earlier]
            if one in found or other in found:
                continue
            if agree(texts[one], texts[other], self.settings.min_text):
                found[one] = (other, DuplicateReason.NEAR, f"{bits} of {_BITS} bits differ")
        return found

    def apply(self, decision: bytes, items: Sequence[Item]) -> list[Outcome]:
        found = json.loads(decision)
        return [_rejected(item, self.name, found[item.id]) if item.id in found else item for item in items]


def alike(bits: NDArray[np.uint8], limit: int) -> list[tuple[int, int, int]]:
    """Pairs of rows of ``bits`` (N, 32) that differ in at most ``limit`` bits: (later, earlier, how many).

    Rows that differ in k bits agree entirely in one of k + 1 parts of theirs, whichever parts one takes: so
    only rows with an equal part are compared. Sorted by the later row, then the earlier one.
    """
    parts = np.array_split(np.arange(_BITS), limit + 1)
    spread = np.unpackbits(bits, axis=1)
    found: dict[tuple[int, int], int] = {}
    for part in parts:
        for group in _equal(np.packbits(spread[:, part], axis=1)):
            for place in range(1, len(group)):
                later, earlier = group[place], group[:place]
                differ = np.bitwise_count(bits[earlier] ^ bits[later]).sum(axis=1, dtype=np.int64)
                for index in np.flatnonzero(differ <= limit):
                    found[int(later), int(earlier[index])] = int(differ[index])
    return sorted((later, earlier, count) for (later, earlier), count in found.items())


def _equal(keys: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Groups of at least two equal rows, each with its places in ascending order."""
    if len(keys) < 2:
        return
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    starts = np.flatnonzero(np.any(ordered[1:] != ordered[:-1], axis=1)) + 1
    for group in np.split(order, starts):
        if len(group) > 1:
            yield np.sort(group)


def text_of(item: Item) -> str:
    """What the first engine read, without differences of case and white space; at most 2000 characters."""
    if not item.readings:
        return ""
    return " ".join(item.readings[0].text.casefold().split())[:2000]


def agree(one: str, other: str, share: float) -> bool:
    """Whether two texts are alike to this share; two empty ones are."""
    if one == other:
        return True
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() >= share and matcher.quick_ratio() >= share and matcher.ratio() >= share
