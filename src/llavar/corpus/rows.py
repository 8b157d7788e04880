"""The stages that read pictures and make rows of what was read: ``ocr``, ``pairs``, ``teach``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from llavar.corpus.check import check_rows
from llavar.corpus.engines import EngineFactory
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.corpus.item import Item, Taught
from llavar.corpus.layout import Arranged, LayoutSettings, Paragraphs, arrange
from llavar.corpus.ocr import SHORT_EDGE, opened, read_opened
from llavar.corpus.ocr import STAGE as OCR
from llavar.corpus.pairs import STAGE as PAIRS
from llavar.corpus.pairs import PairSettings, pair, transcription
from llavar.corpus.privacy import is_masked, mask_conversation, mask_item, mask_reading, with_masked
from llavar.corpus.stage import Outcome
from llavar.corpus.teach import STAGE as TEACH
from llavar.corpus.teach import Teacher, TemplateTeacher
from llavar.errors import ConfigError
from llavar.records import Conversation, Example, Line, Reading, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrSettings:
    """``engines`` by name and version, the first one being whose lines become answers."""

    engines: tuple[str, ...]
    short_edge: int | None = SHORT_EDGE
    """Pictures are brought down to this short edge in pixels before they are read; None leaves them."""

    def __post_init__(self) -> None:
        if not self.engines:
            raise ConfigError("there are 0 OCR engines, at least 1 is needed; name rapidocr, for example")
        if self.short_edge is not None and self.short_edge < 32:
            raise ConfigError(f"short_edge is {self.short_edge} px, under which no text survives; use >= 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrStage:
    """Adds what each engine reads in a picture. An item that an engine cannot read ends here."""

    root: Path
    engines: tuple[EngineFactory, ...] = (RapidOcr,)
    short_edge: int | None = SHORT_EDGE
    time_limit: float | None = 60.0
    name: ClassVar[str] = OCR
    version: ClassVar[int] = 2
    adds: ClassVar[tuple[str, ...]] = ("readings",)

    @property
    def settings(self) -> OcrSettings:
        names = tuple(engine.name for engine in self.engines)
        return OcrSettings(engines=names, short_edge=self.short_edge)

    def basis(self, item: Item) -> object:
        return item.file or item.origin

    def maker(self) -> OcrStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        engines = [make() for make in self.engines]

        def read(item: Item) -> Outcome:
            readings: list[Reading] = []
            size = None if item.file is None else (item.file.width, item.file.height)
            name = path_of(item)
            picture = opened(self.root / name, short_edge=self.short_edge, size=size, called=name)
            if isinstance(picture, Reject):
                return replace(picture, id=item.id)
            for engine in engines:
                found = read_opened(picture, engine)
                if isinstance(found, Reject):
                    return replace(found, id=item.id)
                # Equal runs give equal files: how long it took stands in the manifest.
                readings.append(replace(found, image=name, seconds=0.0))
            return replace(item, readings=tuple(readings))

        return read


def path_of(item: Item) -> str:
    """Where the picture lies, relative to the corpus or absolute."""
    return item.file.path if item.file is not None else item.origin.path


class Rows(StrEnum):
    """Which sets a corpus makes. The paper's two are of different pictures."""

    BOTH = "both"
    """An item without one of the rows may still have the other; a note says why one is missing."""
    STAGE1 = "stage1"
    """The visible text."""
    STAGE2 = "stage2"
    """Conversations of the teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsSettings:
    """What becomes of a reading in stage 1."""

    layout: LayoutSettings = field(default_factory=LayoutSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    mask: bool = True
    """Personal data is masked first (:mod:`llavar.corpus.privacy`)."""
    required: bool = True
    """An item without a row ends here; otherwise it goes on with a note, and may get a stage-2 row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsStage:
    """Adds the stage-1 row: a request for the visible text, and the text (section 3.1 of the paper)."""

    settings: PairsSettings = field(default_factory=PairsSettings)
    time_limit: None = None
    name: ClassVar[str] = PAIRS
    version: ClassVar[int] = 1

    def maker(self) -> PairsStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.paired

    def paired(self, item: Item) -> Outcome:
        """The item with its row, or why it gives none: as a note where the item goes on."""
        item = mask_item(item) if self.settings.mask else item
        arranged = arranged_of(item.readings[0], self.settings.layout, mask=self.settings.mask)
        # The layout has applied the threshold already, to the lines before they were merged.
        settings = replace(self.settings.pairs, min_confidence=self.settings.layout.min_confidence)
        row = pair(arranged.reading, id=item.id, image=path_of(item), settings=settings)
        if not isinstance(row, Reject):
            return replace(item, stage1=row.conversation)
        reject = replace(row, detail=row.detail + _dropped(arranged))
        return reject if self.settings.required else noted(item, reject)


def arranged_of(reading: Reading, layout: LayoutSettings, *, mask: bool) -> Arranged:
    """Lines in reading order; masked once more, since only now what belongs together stands together."""
    arranged = arrange(reading, layout)
    return arranged._replace(reading=mask_reading(arranged.reading)[0]) if mask else arranged


def noted(item: Item, reject: Reject) -> Item:
    """An item that goes on without a row, and why."""
    return replace(item, notes=(*item.notes, reject))


def _dropped(arranged: Arranged) -> str:
    """How many lines the layout had dropped before, for the reason of a reject."""
    count = len(arranged.dropped)
    return f"; {count} lines were dropped before" if count else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachSettings:
    """Which lines the teacher sees, and the teacher, a dataclass."""

    layout: LayoutSettings = field(default_factory=LayoutSettings)
    teacher: Teacher = field(default_factory=TemplateTeacher)
    mask: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateTeachStage:
    """Adds a stage-2 conversation out of a fixed table of wordings.

    An item it cannot ask about, or has asked about wrongly (:mod:`llavar.corpus.check`), goes on with a note
    if it has a stage-1 row, and ends here otherwise.
    """

    settings: TeachSettings = field(default_factory=TeachSettings)
    time_limit: None = None
    name: ClassVar[str] = TEACH
    version: ClassVar[int] = 1

    def maker(self) -> TemplateTeachStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.taught

    def taught(self, item: Item) -> Outcome:
        """The item with a conversation; without one where there is nothing to ask."""
        mask = self.settings.mask
        item = mask_item(item) if mask else item
        layout = replace(self.settings.layout, paragraphs=Paragraphs.LINES)
        reading, dropped = _open_lines(arranged_of(item.readings[0], layout, mask=mask))
        made = self.settings.teacher.teach(reading, dropped=dropped)
        if not isinstance(made, Reject):
            made = _fault(item, made, reading) or made
        if isinstance(made, Reject):
            return untaught(item, made)
        if mask:  # lines that join to a number in a transcription
            made, more = mask_conversation(made)
            item = with_masked(item, more)
        lines = tuple(line.text for line in reading.lines)
        return replace(item, stage2=Taught(conversation=made, teacher="templates 1", support=lines))


def _fault(item: Item, made: Conversation, reading: Reading) -> Reject | None:
    """The first thing that is wrong with a conversation about what was read, if anything is."""
    row = Example(id=item.id, conversation=made, images=(path_of(item),))
    return next(iter(check_rows([row], texts={item.id: transcription(reading)})), None)


def untaught(item: Item, reject: Reject) -> Outcome:
    """What becomes of an item without a stage-2 row: it ends unless it has a stage-1 row."""
    reject = replace(reject, id=item.id)
    return reject if item.stage1 is None else noted(item, reject)


def _open_lines(arranged: Arranged) -> tuple[Reading, tuple[Line, ...]]:
    """Lines that can be asked about, and those that cannot: what is masked is in the picture, unknown."""
    lines = arranged.reading.lines
    known = tuple(line for line in lines if not is_masked(line.text))
    others = (*arranged.dropped, *(line for line in lines if is_masked(line.text)))
    return replace(arranged.reading, lines=known), tuple(map(_numbered, others))


def _numbered(line: Line) -> Line:
    """Digits for what is masked: numbers stand there, so that no other is the only one of the picture."""
    return replace(line, text=f"{line.text} 0 0") if is_masked(line.text) else line
