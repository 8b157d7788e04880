"""Which pictures are worth their while: text-rich, without watermark, safe (section 3.1 of the paper).

``metadata`` looks at the columns that came with a URL, before anything is fetched. ``select`` wants text: it
asks an image classifier, as the paper does, before OCR; or, without one, looks at what OCR has found::

    score = confidence x sqrt(min(1, area / full_area) x min(1, words / full_words))

``area`` is the share of the picture that boxes of text cover, ``words`` counts words of two or more letters
or digits, ``confidence`` is the mean over all characters. A photograph with a street sign has a score near
0.2, a poster above 0.8: both area and words are needed, since a texture that was read as letters covers much
and says little, and a footnote says much and covers little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from llavar.corpus.crew import Maker
from llavar.corpus.item import Item, Scores
from llavar.corpus.sight import device_of, picture_of
from llavar.corpus.stage import Outcome
from llavar.errors import ConfigError, ImageError, NotFoundError
from llavar.records import Line, Reading, Reject

if TYPE_CHECKING:
    from llavar.corpus.sight import Scorer

METADATA, SELECT = "metadata", "select"
OCR_SCORER = "ocr 1"
_WORD = re.compile(r"[^\W_]{2,}")


class SelectReason(StrEnum):
    """Why a picture is not wanted."""

    WATERMARK = "a watermark is likely"
    UNSAFE = "unsafe content is likely"
    LITTLE_TEXT = "not text-rich enough"
    CANNOT_OPEN = "the picture cannot be opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataSettings:
    """Limits of probabilities in a source's own columns, the paper's. An item without one passes."""

    max_watermark: float = 0.8
    max_unsafe: float = 0.5

    def __post_init__(self) -> None:
        for name in ("max_watermark", "max_unsafe"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)} but must lie in 0 to 1; 1 takes all")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataStage:
    """Rejects what its own metadata speaks against: values at the limit or above it."""

    settings: MetadataSettings = MetadataSettings()
    time_limit: None = None
    name: ClassVar[str] = METADATA
    version: ClassVar[int] = 1

    def maker(self) -> MetadataStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.judged

    def judged(self, item: Item) -> Outcome:
        """The item, or why it is not wanted. A limit of 1 takes all."""
        settings = self.settings
        for value, limit, reason in (
            (item.origin.watermark, settings.max_watermark, SelectReason.WATERMARK),
            (item.origin.unsafe, settings.max_unsafe, SelectReason.UNSAFE),
        ):
            if value >= limit < 1:
                detail = f"{value:.3f}, less than {limit:g} is wanted"
                return Reject(id=item.id, stage=METADATA, reason=reason, detail=detail)
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Items that passed because their source says nothing of them."""

    watermark: int
    unsafe: int


def unknown(shards: Iterable[list[Item]]) -> Unknown:
    """How many items come without a value in their metadata."""
    watermark = unsafe = 0
    for items in shards:
        watermark += sum(item.origin.watermark < 0 for item in items)
        unsafe += sum(item.origin.unsafe < 0 for item in items)
    return Unknown(watermark=watermark, unsafe=unsafe)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """How much text is much, and how much is enough, by what OCR has found."""

    min_text: float = 0.25
    """Items with a lower score are rejected; 0 takes all."""
    full_area: float = 0.1
    """Share of the picture from which on more text counts no more."""
    full_words: int = 6
    """Words from which on more of them count no more."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_text <= 1:
            raise ConfigError(f"min_text is {self.min_text} but must lie in 0 to 1; 0 takes all")
        if not 0 < self.full_area <= 1 or self.full_words < 1:
            raise ConfigError(
                f"full_area is {self.full_area} and full_words {self.full_words}; give a share above 0 "
                "and at least 1 word, 0.1 and 6 for example"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStage:
    """Adds the text-rich score of the first reading; stands after OCR."""

    settings: TextSettings = TextSettings()
    time_limit: None = None
    name: ClassVar[str] = SELECT
    version: ClassVar[int] = 1

    def maker(self) -> TextStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.judged

    def judged(self, item: Item) -> Outcome:
        """The item with its score, or why it is not wanted."""
        score = text_score(item.readings[0], self.settings)
        return scored(item, score, OCR_SCORER, self.settings.min_text)


def scored(item: Item, score: float, scorer: str, least: float) -> Outcome:
    """The item with a score, or a reject for one below ``least``."""
    if score < least:
        detail = f"{score:.3f} by {scorer}, at least {least:g} is wanted"
        return Reject(id=item.id, stage=SELECT, reason=SelectReason.LITTLE_TEXT, detail=detail)
    before = item.scores or Scores()
    return replace(item, scores=replace(before, text=round(score, 4), scorer=scorer))


def text_score(reading: Reading, settings: TextSettings) -> float:
    """How text-rich a picture is by what was read in it, 0 to 1; the formula stands at the top."""
    lines = [line for line in reading.lines if line.text.strip()]
    letters = sum(len(line.text) for line in lines)
    if not letters:
        return 0.0
    confidence = sum(line.confidence * len(line.text) for line in lines) / letters
    words = sum(len(_WORD.findall(line.text)) for line in lines)
    area = covered(lines, reading.size)
    return confidence * (min(1.0, area / settings.full_area) * min(1.0, words / settings.full_words)) ** 0.5


def covered(lines: Iterable[Line], size: tuple[int, int]) -> float:
    """Share of a picture that the boxes of lines cover, counted once where they overlap."""
    import numpy as np

    side = 200
    mask = np.zeros((side, side), dtype=bool)
    across, down = side / max(1, size[0]), side / max(1, size[1])
    for line in lines:
        box = line.box
        left, right = int(box.left * across), max(int(box.left * across) + 1, round(box.right * across))
        top, bottom = int(box.top * down), max(int(box.top * down) + 1, round(box.bottom * down))
        mask[top:bottom, left:right] = True
    return float(mask.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """A classifier by its name, and what it takes."""

    scorer: str
    min_text: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStage:
    """Adds the probability that a classifier gives to text-rich pictures; stands before OCR."""

    root: Path
    scorer: Maker[Scorer]
    min_text: float = 0.8
    time_limit: float | None = 60.0
    name: ClassVar[str] = SELECT
    version: ClassVar[int] = 1

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(scorer=self.scorer.name, min_text=self.min_text)

    @property
    def device(self) -> str:
        return device_of(self.scorer)

    def maker(self) -> ModelStage:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        score = self.scorer()

        def judged(item: Item) -> Outcome:
            try:
                picture = picture_of(item, self.root)
            except (ImageError, NotFoundError, OSError) as error:
                reason = SelectReason.CANNOT_OPEN
                return Reject(id=item.id, stage=SELECT, reason=reason, detail=str(error))
            return scored(item, score(picture), self.scorer.name, self.min_text)

        return judged


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectChoice:
    """What a recipe says about selection. Which settings count depends on whether a model is named."""

    metadata: MetadataSettings = MetadataSettings()
    text: TextSettings = TextSettings()
    """The score from OCR; used without a model."""
    model: str = ""
    """An image classifier of Hugging Face: id or folder."""
    label: str = ""
    """Its label for text-rich pictures, or several with commas between them, whose chances are added."""
    min_text: float = 0.8
    """Least probability that the model must give."""
    device: str = "cpu"
    time_limit: float = 60.0

    def __post_init__(self) -> None:
        if bool(self.model) != bool(self.label):
            raise ConfigError("a model that selects needs both its name (model) and a label; give both")
        if not 0 <= self.min_text <= 1 or not self.time_limit > 0:
            raise ConfigError(
                f"min_text is {self.min_text} and time_limit {self.time_limit} s; give 0 to 1, and above 0"
            )
