"""What a server needs of a model: conversations in, pieces of answers out, many at a time.

The types between whoever takes requests (``serve``, ``llavar chat``) and whoever answers them
(:mod:`llavar.generate.engine`). No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from llavar.errors import ConfigError, DataError, LlavarError
from llavar.generate.base import Decoding
from llavar.records import Role

if TYPE_CHECKING:
    from PIL.Image import Image


_GREEDY = Decoding()


class BusyError(LlavarError, RuntimeError):
    """As many requests wait as may; ``retry_after`` is when to ask again, in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)  # both, so that it pickles
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One turn: texts and open pictures in the order they were given. Only a user shows pictures."""

    role: Role
    parts: tuple[str | Image, ...]

    def __post_init__(self) -> None:
        if self.role is not Role.USER and not all(isinstance(part, str) for part in self.parts):
            raise DataError("an answer holds a picture; put pictures into the turns of the user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Turns in order, the last one the user's. ``system`` replaces the template's own text if it is given."""

    turns: tuple[Said, ...]
    system: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One answer that is wanted.

    ``max_new_tokens`` None means as many as the model takes after the prompt. The answer ends before the
    first of the texts ``stop``. ``top_logprobs`` asks for the log probability of each token and of as many
    of the likeliest ones (0: of the token alone). ``id`` tells equal questions apart where tokens are drawn:
    equal seed, id and dialogue give equal answers.
    """

    dialogue: Dialogue
    max_new_tokens: int | None = None
    decoding: Decoding = _GREEDY
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; an answer needs at least 1")


class Finish(StrEnum):
    """Why an answer ended, in the words of OpenAI's protocol where it has one."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """A token and the natural logarithm of its probability before temperature and top-p."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens at this place, likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What came since the last piece. The texts of all pieces, joined, are the answer.

    A text that may still turn out to begin a stop string is held back until that is known. The last piece
    has ``finish``; with :attr:`Finish.ERROR` also ``error``. Counts are of the whole prompt (pictures
    included) and of all tokens of the answer so far.
    """

    text: str = ""
    chances: tuple[Chance, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: Finish | None = None
    error: LlavarError | None = None


OnPiece = Callable[[Piece], None]
"""Called from the engine's own thread; it must return at once and raise nothing."""


class Ticket(Protocol):
    """An answer under way."""

    def cancel(self) -> None:
        """Give the slot back at the next token; the last piece says :attr:`Finish.CANCELLED`.

        May be called from any thread, more than once, and after the end.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What an engine is doing and has done since it started. Times in seconds."""

    running: int
    waiting: int
    slots: int
    may_wait: int
    finished: Mapping[Finish, int]
    prompt_tokens: int
    completion_tokens: int
    pictures_encoded: int
    pictures_reused: int
    prompt_tokens_reused: int


class Answering(Protocol):
    """A model that answers many conversations at a time; :class:`llavar.generate.engine.Engine` is one."""

    @property
    def name(self) -> str: ...

    @property
    def max_tokens(self) -> int:
        """Prompt and answer together have at most as many tokens."""
        ...

    def submit(self, asked: Asked, on_piece: OnPiece) -> Ticket:
        """Queue one answer. Safe from any thread; does not wait.

        Raises:
            BusyError: the queue is full, or the engine is closing.
            ContextLengthError: the prompt is longer than the model takes.
            DataError: it holds a placeholder of pictures.
        """
        ...

    def load(self) -> Load: ...

    def seen(self, image: Image) -> Image:
        """The picture as the model sees it: transformed and brought to the tower's size, as RGB."""
        ...

    def alive(self) -> bool:
        """Whether it can still answer: its thread runs and has not failed."""
        ...

    def close(self, grace: float = 30.0) -> None:
        """Take nothing new, finish what runs and waits for up to ``grace`` seconds, cancel the rest."""
        ...
