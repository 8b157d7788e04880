"""The stage ``decontaminate``: pictures of evaluation sets, and edited copies of them, stay out of a corpus.

An evaluation set is known by the hashes of its pictures (``llavar corpus hashes``), so that nobody has to
hand the pictures around. Equal files and equal pixels are rejected, and so is what looks alike: other than
among duplicates no texts are compared, since a picture too few costs less than a question known beforehand.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from llavar.corpus.crew import Crew, Lost
from llavar.corpus.dedup import alike
from llavar.corpus.item import Item
from llavar.corpus.opening import fingerprint
from llavar.corpus.shards import Corpus
from llavar.corpus.sources import scan_folder
from llavar.corpus.stage import Judge
from llavar.errors import ConfigError, DataError, ImageError, NotFoundError
from llavar.images import open_image
from llavar.records import Reject

STAGE = "decontaminate"
_BYTES = 32


class LeakReason(StrEnum):
    """How a picture is known from an evaluation set."""

    FILE = "same file as a picture of an evaluation set"
    PIXELS = "same pixels as a picture of an evaluation set"
    NEAR = "looks like a picture of an evaluation set"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalHash:
    """One picture of an evaluation set, as hexadecimal digits."""

    set: str
    sha256: str
    pixels: str
    perceptual: str

    def __post_init__(self) -> None:
        for digits in (self.sha256, self.pixels, self.perceptual):
            if len(bytes.fromhex(digits)) != _BYTES:
                raise ValueError(f"{digits!r} are not 64 hexadecimal digits")


_HASH = TypeAdapter(EvalHash)


def read_hashes(path: Path) -> list[EvalHash]:
    """The lines of a file of hashes.

    Raises:
        NotFoundError: there is no such file.
        DataError: a line is none.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file of hashes {path}; make one with  llavar corpus hashes FOLDER")
    found: list[EvalHash] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                found.append(_HASH.validate_json(line))
            except ValidationError as error:
                said = error.errors()[0]["msg"]
                raise DataError(f"line {number} of {path} is no hash ({said}); make the file anew") from None
    if not found:
        raise DataError(f"{path} holds no hashes, so that nothing would be kept out; make the file anew")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakChoice:
    """What a recipe says of it."""

    hashes: tuple[Path, ...]
    """Files of hashes, one or more sets in each."""
    max_bits: int = 20
    """Bits of 256 in which the fingerprints of copies may differ."""

    def __post_init__(self) -> None:
        if not self.hashes or not 0 <= self.max_bits <= 60:
            raise ConfigError(
                f"decontaminate has {len(self.hashes)} files of hashes and max_bits {self.max_bits}; name at "
                "least one file, and give 0 to 60 bits of 256"
            )

    def within(self, base: Path) -> LeakChoice:
        """With whole paths, those given being relative to ``base``."""
        return replace(self, hashes=tuple((base / path).absolute() for path in self.hashes))

    def stage(self) -> DecontaminateStage:
        """Reads the hashes. Raises NotFoundError, DataError."""
        known = tuple(one for path in self.hashes for one in read_hashes(path))
        return DecontaminateStage(known=known, max_bits=self.max_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakSettings:
    """The hashes, as one hash, and what counts as alike."""

    digest: str
    max_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecontaminateStage:
    """Rejects pictures of evaluation sets."""

    known: tuple[EvalHash, ...] = field(repr=False)
    max_bits: int = 20
    name: ClassVar[str] = STAGE
    version: ClassVar[int] = 1

    @property
    def settings(self) -> LeakSettings:
        digest = hashlib.sha256()
        for one in sorted(self.known, key=lambda one: (one.set, one.sha256)):
            digest.update(_HASH.dump_json(one))
        return LeakSettings(digest=digest.hexdigest(), max_bits=self.max_bits)

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        """Which pictures are known, as JSON: id -> (set, reason, detail)."""
        files = {one.sha256: one.set for one in self.known}
        pixels = {one.pixels: one.set for one in self.known}
        found: dict[str, tuple[str, str, str]] = {}
        prints: list[tuple[str, bytes]] = []
        for items in shards:
            for item in items:
                equal = _equal(item, files, pixels)
                if equal is not None:
                    found[item.id] = equal
                elif item.fingerprint is not None:
                    prints.append((item.id, bytes.fromhex(item.fingerprint.perceptual)))
            # As many as are known at once: each search goes through those as well.
            if len(prints) >= len(self.known):
                found.update(self._alike(prints))
                prints = []
        found.update(self._alike(prints))
        return json.dumps(found, sort_keys=True).encode()

    def _alike(self, prints: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, tuple[str, str, str]]]:
        """Ids of fingerprints like a known picture's; of several pictures the most alike names the set."""
        if not prints:
            return
        rows = [bytes.fromhex(one.perceptual) for one in self.known] + [one for _, one in prints]
        bits = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), _BYTES)
        first = len(self.known)
        best: dict[int, tuple[int, int]] = {}
        for later, earlier, count in alike(bits, self.max_bits):
            if later >= first > earlier:
                best[later - first] = min(best.get(later - first, (count, earlier)), (count, earlier))
        for place, (count, earlier) in best.items():
            yield prints[place][0], (self.known[earlier].set, LeakReason.NEAR, f"{count} of 256 bits differ")

    def judge(self, decision: bytes) -> Judge:
        found = json.loads(decision)
        return lambda items: [
            _rejected(item, *found[item.id]) if item.id in found else item for item in items
        ]


def _equal(item: Item, files: dict[str, str], pixels: dict[str, str]) -> tuple[str, str, str] | None:
    download = item.origin.download
    noted = () if download is None else (download.sha256,)
    if item.file is not None:
        for digest in (item.file.sha256, item.file.original_sha256, *noted):
            if digest in files:
                return files[digest], LeakReason.FILE, ""
    if item.fingerprint is not None and item.fingerprint.pixels in pixels:
        return pixels[item.fingerprint.pixels], LeakReason.PIXELS, ""
    return None


def _rejected(item: Item, name: str, reason: str, detail: str) -> Reject:
    return Reject(id=item.id, stage=STAGE, reason=reason, detail=f"{name}: {detail}" if detail else name)


def leaks(corpus: Corpus) -> Counter[tuple[str, str]]:
    """How many pictures were kept out of a corpus, by set and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    for one in (one for ended in corpus.rejected(STAGE) for one in ended):
        counts[set_of(one.reject), one.reject.reason] += 1
    return counts


def set_of(reject: Reject) -> str:
    """The evaluation set that a reject of this stage names."""
    return reject.detail.split(": ")[0]


# ---------------------------------------------------------------------------------------------- hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """How many pictures were hashed, and which cannot be."""

    pictures: int
    failed: tuple[Reject, ...]


def write_hashes(
    folder: Path, name: str, out: Path, *, workers: int = 1, time_limit: float = 30.0, add: bool = False
) -> Hashed:
    """Hash all pictures below ``folder`` as the set ``name``; ``add`` keeps other sets that ``out`` holds.

    Raises:
        ConfigError: the name of the set is empty, or would not be one in a report.
        NotFoundError, DataError: there is no such folder, or no picture in it.
    """
    if not name or ": " in name or len(name) > 60:
        raise ConfigError(f"the evaluation set is called {name!r:.80}; give 1 to 60 characters without ': '")
    others = [one for one in read_hashes(out) if one.set != name] if add and out.is_file() else []
    pictures, _ = scan_folder(folder)
    made: dict[int, EvalHash] = {}
    failed: dict[int, Reject] = {}
    crew = Crew[int, Path, EvalHash | str](maker=_Hasher(set=name), workers=workers, time_limit=time_limit)
    with crew:
        for place, result in crew.results(enumerate(pictures)):
            if isinstance(result, EvalHash):
                made[place] = result
                continue
            why = f"{result.why} {result.detail}".strip() if isinstance(result, Lost) else result
            id = pictures[place].relative_to(folder).as_posix()
            failed[place] = Reject(id=id, stage="hashes", reason="it cannot be hashed", detail=why)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(out.name + ".part")
    with aside.open("wb") as file:
        for one in (*others, *(made[place] for place in sorted(made))):
            file.write(_HASH.dump_json(one) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(out)
    return Hashed(pictures=len(made), failed=tuple(failed[place] for place in sorted(failed)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hasher:
    """Hashes pictures in a process of its own; a sentence for one that cannot be."""

    set: str
    name: str = "hashing pictures"

    def __call__(self) -> Callable[[Path], EvalHash | str]:
        return self.hashed

    def hashed(self, path: Path) -> EvalHash | str:
        try:
            made = fingerprint(open_image(path))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except (ImageError, OSError) as error:
            return str(error)[:300]
        return EvalHash(set=self.set, sha256=digest, pixels=made.pixels, perceptual=made.perceptual)
