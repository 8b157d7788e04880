"""The data types that flow through the system, one way, from pictures to scores.

``Turn -> Conversation -> Example -> Span -> Encoded -> Pack`` on the way into a model and
``Question -> Prediction -> Score -> Report`` on the way out. Nothing here imports torch; the one torch
type, ``Batch``, lives in :mod:`llavar.data.collate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

IMAGE_TAG = "<image>"
"""Where a picture stands in the text of a turn (LLaVA's data format)."""

IGNORE = -100
"""The label of a token that takes no part in the loss."""


class Role(StrEnum):
    """Who speaks a turn. LLaVA's files say ``human`` and ``gpt``."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One utterance; ``text`` may hold :data:`IMAGE_TAG` if a user speaks."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns in order. Encoding checks whether they alternate, so that a bad row can be shown."""

    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, *texts: str) -> Conversation:
        """User and assistant texts, alternating, the user first."""
        roles = (Role.USER, Role.ASSISTANT)
        return cls(turns=tuple(Turn(role=roles[i % 2], text=text) for i, text in enumerate(texts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row of instruction data.

    ``images`` are paths relative to the image folder of ``source`` (or absolute), one for each image tag.
    """

    id: str
    conversation: Conversation
    images: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of a rendered conversation; ``learn`` says whether its tokens are supervised."""

    text: str
    learn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A row as token ids and labels of equal length; image placeholders are already expanded in ``ids``."""

    id: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Rows that share one sequence; positions restart with each of them, so that none sees another."""

    rows: tuple[Encoded, ...]

    def __len__(self) -> int:
        return sum(len(row) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box in pixels of the picture it belongs to, the origin at the top left."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text that an OCR engine found (or that the renderer drew, with confidence 1)."""

    text: str
    box: Box
    confidence: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one OCR engine read in one picture, in reading order. ``size`` is (width, height) in pixels."""

    image: str
    size: tuple[int, int]
    lines: tuple[Line, ...]
    engine: str
    seconds: float = 0.0

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Something that was left out, where, and why. Nothing is ever dropped without one."""

    id: str
    stage: str
    reason: str
    detail: str = ""


class Task(StrEnum):
    """What a question asks for. ``SCENE`` is about what is shown, not written; ``OPEN`` needs a judge."""

    TRANSCRIPTION = "transcription"
    VQA = "vqa"
    YES_NO = "yes_no"
    SCENE = "scene"
    OPEN = "open"


class Status(StrEnum):
    """How a prediction ended. A failed one counts as wrong and is shown as failed."""

    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to ask about one picture. ``group`` ties questions scored together (yes/no pairs)."""

    id: str
    task: Task
    image: str
    text: str
    references: tuple[str, ...]
    group: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer of one model to one question."""

    question: str
    status: Status
    text: str = ""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer next to all that is needed to score it, whoever produced it.

    ``references`` are unnormalised, any of them is right. ``image`` ties the answers that one picture makes
    dependent (intervals resample pictures), ``group`` those scored together (the two of an MME pair; empty
    means the picture). A failed one has no text: ``prediction`` is empty, and it counts as wrong.
    """

    id: str
    prediction: str
    references: tuple[str, ...]
    question: str = ""
    image: str = ""
    group: str = ""
    category: str = ""
    status: Status = Status.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A value with its 95 % interval and the count of what it was computed over."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the same questions: difference (with - without), 95 % interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Scores of one model by metric name; ``failed`` counts predictions without an answer."""

    model: str
    n: int
    scores: Mapping[str, Score]
    failed: int = 0
    notes: tuple[str, ...] = field(default=())
