"""What pictures are called in the products: like LLaVA's own, so that both lie in one folder and one file.

LLaVAR's data files call its pictures as if they were CC3M's (``GCC_train_002582585``) or COCO's
(``000000033471``). The names given here begin where no real one is, ``GCC_train_9........`` and
``9...........``. A name follows from the hash of the picture's file: it stays the same when other pictures
come or go.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePath

from llavar.corpus.item import Item
from llavar.corpus.rows import path_of


class Naming(StrEnum):
    """How pictures and rows are called."""

    FAKE = "fake"
    """Like CC3M's and COCO's."""
    OWN = "own"
    """A row by the id of its item, a picture by the hash of its file."""


class Set(StrEnum):
    """The two sets of instruction data: to align the projector, and to tune the decoder."""

    STAGE1 = "stage1"
    STAGE2 = "stage2"


_PREFIX = {Set.STAGE1: "GCC_train_9", Set.STAGE2: "9"}
_DIGITS = {Set.STAGE1: 8, Set.STAGE2: 11}
_FAKE = re.compile(r"GCC_train_9\d{8}|9\d{11}")
_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What an item is called: its row, and its picture with its ending."""

    row: str
    image: str


@dataclass(slots=True)
class Names:
    """Gives names, none of them twice and none that is ``taken`` (without ending)."""

    naming: Naming
    taken: Container[str] = ()
    _given: set[str] = field(default_factory=set[str])

    def of(self, item: Item, kind: Set) -> Named:
        """The name depends on the items before only where two hashes fall on one number (1 in 500)."""
        path = path_of(item)
        ending = PurePath(path).suffix.lower()
        ending = ending if ending in _ENDINGS else ".jpg"
        digest = item.file.sha256 if item.file is not None else hashlib.sha256(path.encode()).hexdigest()
        if self.naming is Naming.OWN:
            return Named(row=item.id, image=digest[:32] + ending)
        stem = next(name for name in _candidates(digest, kind) if self._is_free(name))
        self._given.add(stem)
        return Named(row=stem, image=stem + ending)

    def _is_free(self, stem: str) -> bool:
        return stem not in self._given and stem not in self.taken


def _candidates(digest: str, kind: Set) -> Iterable[str]:
    digits = _DIGITS[kind]
    attempt = 0
    while True:
        hashed = hashlib.sha256(f"name {digest} {attempt}".encode()).digest()
        yield f"{_PREFIX[kind]}{int.from_bytes(hashed) % 10**digits:0{digits}}"
        attempt += 1


def fakes_in(names: Iterable[str]) -> Iterable[str]:
    """Those of ``names``, paths and endings taken off, that could be given here."""
    for name in names:
        stem = PurePath(name).name.partition(".")[0]
        if _FAKE.fullmatch(stem):
            yield stem
