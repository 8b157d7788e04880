"""Any data set in LLaVA's format looked at before a run pays for it: what is wrong, and where.

Rows are streamed, and pictures are opened in processes that may hang or die of them. Faults are what a
trainer trips over or learns wrongly; remarks are what it gets along with (a GIF that is called ``.jpg``). The
stricter rules for rows that we make ourselves are in :mod:`llavar.corpus.check`.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from llavar.chat import escape_special
from llavar.corpus.crew import Crew, Lost
from llavar.data.mixture import Entry
from llavar.data.opened import open_data
from llavar.data.pictures import PictureStore, open_pictures
from llavar.data.source import RowError
from llavar.errors import ConfigError, ImageError, NotFoundError
from llavar.images import open_image
from llavar.records import IMAGE_TAG, Example, Reject, Role, Turn

STAGE = "check"
EXAMPLES = 3
"""Faults of a kind that a summary shows."""
_STEM = re.compile(r"(?:GCC_train_\d{9}|\d{12})\.(?:jpg|jpeg|png|gif|webp)")
_FORMATS: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (rb"\xff\xd8\xff", (".jpg", ".jpeg")),
    (rb"\x89PNG", (".png",)),
    (rb"GIF8", (".gif",)),
    (rb"RIFF....WEBP", (".webp",)),
    (rb"BM", (".bmp",)),
    (rb"II\*\0|MM\0\*", (".tif", ".tiff")),
    (rb"....ftypavi[fs]", (".avif",)),
)
"""How files of a format begin, and the endings of their names."""


class Fault(StrEnum):
    """What has to be mended. Rows that cannot be read have the reasons of :mod:`llavar.data.source`."""

    COUNT = "not as many rows as the released file has"
    MISSING = "there is no such picture"
    BROKEN = "the picture cannot be opened"
    HANGS = "the picture takes too long or ends the process that opens it"
    OPENED_BY_GPT = "the conversation is opened by gpt"
    SAME_ROLE = "the same side speaks twice in a row"
    UNANSWERED = "the last turn is not answered"
    EMPTY = "a turn is empty"
    TAG_COUNT = "there are not as many image tags as pictures"
    TAG_LATER = "an image tag stands in a later turn"
    TAG_IN_ANSWER = "an image tag stands in an answer"
    SEPARATOR = "the text holds control strings of a conversation"
    ID = "the id belongs to another picture as well"
    TWICE = "the same row twice"
    NAME = "the name of the picture leads out of its folder"
    LONG = "the row is longer than the model takes"


class Remark(StrEnum):
    """What a trainer gets along with."""

    FORMAT = "the picture is of another format than its name says"
    TAG_INSIDE = "the image tag is neither first nor last in its turn"
    SAME_ID = "several conversations about one picture under one id"
    STYLE = "the picture is not named like CC3M's or COCO's"


class Expect(StrEnum):
    """What the file is held against."""

    PAPER = "paper"
    """The row counts of LLaVA's and LLaVAR's released files, by their names; and their names of pictures."""
    NONE = "none"


_PAPER = {
    "chat": (595_375, 595_375),
    "chat_llavar": (595_375 + 422_315, 595_375 + 422_315),
    "llava_instruct_150k": (157_712, 157_712),
    "llava_instruct_150k_llavar_16k": (157_712 + 15_750, 157_712 + 15_850),
    "llava_instruct_150k_llavar_20k": (157_712 + 19_800, 157_712 + 19_800),
}
"""Fewest and most rows of each released file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """What is looked at, and by what means."""

    images: Path | None = None
    """A folder, tar or zip of pictures; None takes those inside of a Parquet file or tar."""
    open_images: bool = True
    """Decode every picture; without it they only have to be there."""
    expect: Expect = Expect.NONE
    workers: int = 1
    time_limit: float = 30.0
    """Seconds for one picture."""
    tokens: Callable[[str], int] | None = None
    """Counts the tokens of a text; without it, characters are counted only."""
    picture_tokens: int = 576
    max_length: int = 2048
    """Tokens of a row; without ``tokens``, four characters count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Of texts, in characters or tokens."""

    n: int
    mean: float
    median: int
    p95: int
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found. ``faults`` and ``remarks`` count rows by kind; ``examples`` are the first of each."""

    file: str
    rows: int
    with_pictures: int
    pictures: int
    opened: int
    faults: dict[str, int]
    remarks: dict[str, int]
    examples: dict[str, tuple[Reject, ...]]
    lengths: dict[str, Lengths]
    """``instruction`` and ``response``, each in characters, and in tokens where they were counted."""

    @property
    def ok(self) -> bool:
        return not self.faults


def verify(path: Path, settings: VerifySettings, *, out: Path | None = None) -> Verified:
    """Look at a whole file; every fault and remark becomes a line of ``out`` (JSONL: row, id, kind, detail).

    Raises:
        NotFoundError: there is no such file, or no such folder of pictures.
        DataError: it is no file of rows at all.
        ConfigError: the paper says nothing about a file of this name; pictures are wanted and not named.
    """
    limits = _expected(path) if settings.expect is Expect.PAPER else None
    data = open_data(Entry(path=str(path)))
    store = open_pictures(settings.images) if settings.images is not None else data.pictures
    with _Log(out) as log:
        job = _Job(settings, log, store)
        job.go(data.rows.get, len(data.rows))
        if limits is not None and not limits[0] <= len(data.rows) <= limits[1]:
            wanted = f"{limits[0]:,}" + (f" to {limits[1]:,}" if limits[1] > limits[0] else "")
            log.add(0, "", Fault.COUNT, f"{len(data.rows):,} rows, {wanted} are expected")
        return Verified(
            file=str(path),
            rows=len(data.rows),
            with_pictures=job.with_pictures,
            pictures=len(job.seen_pictures),
            opened=job.opened,
            faults={kind: count for kind, count in log.counts.items() if kind not in tuple(Remark)},
            remarks={kind: count for kind, count in log.counts.items() if kind in tuple(Remark)},
            examples={kind: tuple(found) for kind, found in log.examples.items()},
            lengths={name: lengths_of(values) for name, values in job.lengths.items() if values},
        )


def _expected(path: Path) -> tuple[int, int]:
    found = _PAPER.get(path.stem)
    if found is None:
        raise ConfigError(
            f"the paper has no file {path.name}, so that nothing is expected of it; rename it to "
            f"one of {', '.join(name + '.json' for name in _PAPER)}, or say --expect none"
        )
    return found


class _Log:
    """Counts what is found, keeps the first of each kind, and writes all of it down."""

    def __init__(self, out: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Reject]] = {}
        self._out = out
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Log:
        if self._out is not None:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._out.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, row: int, id: str, kind: str, detail: str) -> None:
        self.counts[kind] += 1
        first = self.examples.setdefault(kind, [])
        if len(first) < EXAMPLES:
            first.append(Reject(id=id, stage=STAGE, reason=kind, detail=detail))
        if self._file is not None:
            line = {"row": row, "id": id, "kind": kind, "detail": detail}
            self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


Found = tuple[str, str]
"""A kind of fault or remark, and what it is exactly."""


@dataclass(slots=True)
class _Job:
    """One call of :func:`verify`."""

    settings: VerifySettings
    log: _Log
    store: PictureStore | None
    with_pictures: int = 0
    opened: int = 0
    seen_pictures: set[int] = field(default_factory=set[int])
    lengths: dict[str, array[int]] = field(default_factory=dict[str, "array[int]"])
    _ids: dict[int, int] = field(default_factory=dict[int, int])
    _contents: set[int] = field(default_factory=set[int])
    _bad: dict[str, Found] = field(default_factory=dict[str, Found])

    def go(self, get: Callable[[int], Example | RowError], count: int) -> None:
        names = self._rows(get, count)
        if self.store is not None and self.settings.open_images:
            self._opened(names, self.store)
        else:
            for name in names:
                self._looked_up(name)
        if self._bad:  # once more through the rows: each that shows such a picture has to be mended
            self._blame(get, count)

    def _rows(self, get: Callable[[int], Example | RowError], count: int) -> Iterator[str]:
        """Looks at the rows one by one; gives each picture's name the first time that it is met."""
        for number in range(count):
            example = get(number)
            if isinstance(example, RowError):
                self.log.add(number + 1, example.row, example.reason.value, example.detail)
                continue
            for kind, detail in (*self._faults(example), *self._repeated(example)):
                self.log.add(number + 1, example.id, kind, detail)
            self.with_pictures += bool(example.images)
            for name in example.images:
                hashed = _hash(name)
                if hashed not in self.seen_pictures and not _leads_out(name):
                    self.seen_pictures.add(hashed)
                    yield name

    # ------------------------------------------------------------------------------------------ texts

    def _faults(self, example: Example) -> Iterator[Found]:
        turns = example.conversation.turns
        yield from _roles(turns)
        yield from _tags(turns, len(example.images))
        for place, turn in enumerate(turns, start=1):
            text = turn.text.replace(IMAGE_TAG, "")
            if not text.strip():
                yield Fault.EMPTY, f"turn {place} of {len(turns)}"
            if escape_special(text) != text:
                yield Fault.SEPARATOR, f"turn {place}: {_first_control(text)!r}"
        yield from self._measured(turns, len(example.images))
        for name in example.images:
            yield from self._name(name)

    def _measured(self, turns: Sequence[Turn], pictures: int) -> Iterator[Found]:
        """Notes lengths of all turns, and finds rows that will be cut."""
        total, tokens = pictures * self.settings.picture_tokens, self.settings.tokens
        for turn in turns:
            side = "instruction" if turn.role is Role.USER else "response"
            text = turn.text.replace(IMAGE_TAG, "").strip()
            self._note(f"{side} characters", len(text))
            length = len(text) // 4
            if tokens is not None:
                length = tokens(text)
                self._note(f"{side} tokens", length)
            total += length
        if total > self.settings.max_length:
            about = "" if tokens else "about "
            yield Fault.LONG, f"{about}{total:,} tokens, the limit is {self.settings.max_length:,}"

    def _note(self, name: str, length: int) -> None:
        self.lengths.setdefault(name, array("q")).append(length)

    def _name(self, name: str) -> Iterator[Found]:
        if _leads_out(name):
            yield Fault.NAME, name[:200]
        elif self.settings.expect is Expect.PAPER and not _STEM.fullmatch(PurePosixPath(name).name):
            yield Remark.STYLE, name[:200]

    def _repeated(self, example: Example) -> Iterator[Found]:
        """LLaVA asks about one picture in several rows of one id; an id for two pictures is a mistake."""
        id, picture = _hash(example.id), _hash("\n".join(example.images))
        content = _hash(repr((example.id, example.images, example.conversation)))
        if content in self._contents:
            yield Fault.TWICE, "an equal row came before"
        elif self._ids.get(id, picture) != picture:
            yield Fault.ID, ", ".join(example.images)[:200] or "text only"
        elif id in self._ids:
            yield Remark.SAME_ID, ", ".join(example.images)[:200] or "text only"
        self._contents.add(content)
        self._ids.setdefault(id, picture)

    # ------------------------------------------------------------------------------------------ pictures

    def _looked_up(self, name: str) -> None:
        if self.store is None:
            if self.settings.open_images:
                raise ConfigError(
                    f"the rows show pictures ({name[:100]!r} is the first) and nobody says where they "
                    "are; give --images DIR, or leave them alone with --no-open"
                )
        elif name not in self.store:
            self._bad[name] = (Fault.MISSING, name[:300])

    def _opened(self, names: Iterator[str], store: PictureStore) -> None:
        crew = Crew[str, str, Found | None](
            maker=_Opener(store=store), workers=self.settings.workers, time_limit=self.settings.time_limit
        )
        with crew:
            for name, found in crew.results((name, name) for name in names):
                self.opened += 1
                if isinstance(found, Lost):
                    self._bad[name] = (Fault.HANGS, f"{name}: {found.why} {found.detail}".strip()[:300])
                elif found is not None:
                    self._bad[name] = found

    def _blame(self, get: Callable[[int], Example | RowError], count: int) -> None:
        for number in range(count):
            example = get(number)
            for name in () if isinstance(example, RowError) else example.images:
                if name in self._bad:
                    assert isinstance(example, Example)
                    self.log.add(number + 1, example.id, *self._bad[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opener:
    """Opens pictures in a process of its own; None for one that is as it should be."""

    store: PictureStore
    name: str = "opening pictures"

    def __call__(self) -> Callable[[str], Found | None]:
        return self.opened

    def opened(self, name: str) -> Found | None:
        try:
            source = self.store.source(name)
            open_image(source)
        except NotFoundError:
            return Fault.MISSING, name[:300]
        except (ImageError, OSError) as error:
            return Fault.BROKEN, str(error)[:300]
        return _format(name, source)


def _format(name: str, source: Path | bytes) -> Found | None:
    """A remark where the ending of a name is not that of the format."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(16)
    else:
        head = source[:16]
    ending = PurePosixPath(name).suffix.lower()
    endings = next((known for magic, known in _FORMATS if re.match(magic, head, re.DOTALL)), (ending,))
    if not ending or ending in endings:
        return None
    return Remark.FORMAT, f"{name} should end in {endings[0]}"


# ---------------------------------------------------------------------------------------------- single rows


def _roles(turns: Sequence[Turn]) -> Iterator[Found]:
    if turns[0].role is not Role.USER:
        yield Fault.OPENED_BY_GPT, turns[0].text[:80]
    for place, (one, following) in enumerate(pairwise(turns), start=2):
        if one.role is following.role:
            yield Fault.SAME_ROLE, f"turn {place} is of {following.role} as well"
            break
    if turns[-1].role is Role.USER:
        yield Fault.UNANSWERED, turns[-1].text[:80]


def _tags(turns: Sequence[Turn], pictures: int) -> Iterator[Found]:
    asked = [turn.text for turn in turns if turn.role is Role.USER]
    in_answers = sum(turn.text.count(IMAGE_TAG) for turn in turns if turn.role is Role.ASSISTANT)
    total = sum(text.count(IMAGE_TAG) for text in asked)
    if in_answers:
        yield Fault.TAG_IN_ANSWER, f"{in_answers} of {total + in_answers} tags"
    if total != pictures:
        yield Fault.TAG_COUNT, f"{total} tags in questions, {pictures} pictures"
    later = [place for place, text in enumerate(asked, start=1) if place > 1 and IMAGE_TAG in text]
    if later:
        yield Fault.TAG_LATER, f"in question {later[0]}"
    elif pictures == 1 and total == 1:
        first = asked[0].strip()
        if not first.startswith(IMAGE_TAG) and not first.endswith(IMAGE_TAG):
            yield Remark.TAG_INSIDE, first[:80]


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _first_control(text: str) -> str:
    """The text about the first place that :func:`escape_special` would change."""
    escaped = escape_special(text)
    pairs = zip(text, escaped, strict=False)
    at = next((place for place, (one, other) in enumerate(pairs) if one != other), 0)
    return text[max(0, at - 12) : at + 20]


def _hash(text: str) -> int:
    """64 bits: a million rows are known by it without lying in memory."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def lengths_of(values: Iterable[int]) -> Lengths:
    """Of one length at least."""
    ordered = sorted(values)
    at = len(ordered) - 1
    return Lengths(
        n=len(ordered),
        mean=round(sum(ordered) / len(ordered), 1),
        median=ordered[at // 2],
        p95=ordered[round(at * 0.95)],
        longest=ordered[-1],
    )
