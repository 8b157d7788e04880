"""A conversation with a model or an endpoint: turns, pictures, and answers that come in pieces."""

from __future__ import annotations

import queue
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llavar import net
from llavar.data.source import write_rows
from llavar.errors import ConfigError, LlavarError, NotFoundError
from llavar.generate.base import Decoding
from llavar.generate.dialogue import Answering, Asked, Dialogue, Finish, Piece, Said
from llavar.generate.remote import png_uri
from llavar.llm import Client, Endpoint, Message
from llavar.records import IMAGE_TAG, Conversation, Example, Role, Turn
from llavar.study.reader import find, open_any

if TYPE_CHECKING:
    from PIL.Image import Image

    from llavar.generate.hub import HubGenerator

_GREEDY = Decoding()
_ATTEMPTS = 3
_QUANTIZATIONS = ("", "int8", "nf4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One conversation.

    ``model``: nano, a folder, the folder of a demo, a hub id, or ``http://host:8000/v1#name`` of an
    OpenAI-compatible server, which has ``timeout`` seconds between two pieces of an answer and decides
    about ``conversation`` and ``quantize`` itself. ``system`` "" keeps the model's own.
    """

    model: str
    conversation: str = ""
    quantize: str = ""
    system: str = ""
    max_new_tokens: int = 512
    decoding: Decoding = _GREEDY
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; an answer needs at least 1")
        if self.quantize not in _QUANTIZATIONS:
            raise ConfigError(f"quantize is {self.quantize!r:.40}; known are int8 and nf4")
        for flag, value in (("--conversation", self.conversation), ("--quantize", self.quantize)):
            if value and self.remote:
                raise ConfigError(f"{flag} cannot be: a server decides about its model itself; leave it out")

    @property
    def remote(self) -> bool:
        return net.is_url(self.model)


class Partner(Protocol):
    """Whoever answers."""

    @property
    def name(self) -> str: ...

    def pieces(self, asked: Asked) -> Generator[Piece]:
        """The answer as it comes. Closing the generator ends the answer.

        Raises:
            LlavarError: there will be no answer, or no more of it.
        """
        ...


class Local:
    """A model in this process."""

    def __init__(self, engine: Answering) -> None:
        self._engine = engine

    @property
    def name(self) -> str:
        return self._engine.name

    def pieces(self, asked: Asked) -> Generator[Piece]:
        """See :class:`Partner`."""
        arrived: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        ticket = self._engine.submit(asked, arrived.put)
        finish = None
        try:
            while finish is None:
                piece = arrived.get()
                finish = piece.finish
                if piece.error is not None:
                    raise piece.error
                yield piece
        finally:
            ticket.cancel()


class Remote:
    """A model behind an OpenAI-compatible server. Each picture is written as PNG once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._written: list[tuple[Image, str]] = []

    @property
    def name(self) -> str:
        return f"{self._client.endpoint.base_url}#{self._client.endpoint.model}"

    def pieces(self, asked: Asked) -> Generator[Piece]:
        """See :class:`Partner`."""
        decoding = asked.decoding
        answer = self._client.stream(
            self._messages(asked.dialogue),
            max_tokens=asked.max_new_tokens or 512,
            temperature=decoding.temperature,
            top_p=1.0 if decoding.greedy else decoding.top_p,
            seed=None if decoding.greedy else decoding.seed,
        )
        with closing(answer):
            for delta in answer:
                cut = Finish.LENGTH if delta.finish == "length" else Finish.STOP
                yield Piece(text=delta.text, finish=cut if delta.finish else None)

    def _messages(self, dialogue: Dialogue) -> list[Message]:
        system = [Message(role="system", text=dialogue.system)] if dialogue.system is not None else []
        return [*system, *(self._message(turn) for turn in dialogue.turns)]

    def _message(self, turn: Said) -> Message:
        words = [part for part in turn.parts if isinstance(part, str)]
        shown = tuple(self._uri(part) for part in turn.parts if not isinstance(part, str))
        return Message(role=turn.role.value, text="\n".join(words), images=shown)

    def _uri(self, picture: Image) -> str:
        for known, uri in self._written:
            if known is picture:
                return uri
        self._written.append((picture, png_uri(picture)))
        return self._written[-1][1]


@contextmanager
def opened(settings: Settings) -> Generator[Partner]:
    """The model or the endpoint that the settings name, to use inside a ``with`` statement.

    Raises:
        LlavarError: there is no such model, it cannot be used, or the URL names none.
    """
    if settings.remote:
        url, _, name = settings.model.partition("#")
        if not name:
            raise ConfigError(f"{url!r:.100} names no model; append it: {url[:100]}#NAME")
        endpoint = Endpoint(base_url=url, model=name, timeout=settings.timeout, attempts=_ATTEMPTS)
        with Client(endpoint) as client:
            yield Remote(client)
        return
    from llavar.generate.hub import HubGenerator

    engine = _engine(settings)
    if isinstance(engine, HubGenerator):
        yield engine
        return
    try:
        yield Local(engine)
    finally:
        engine.close(grace=0.0)


def _engine(settings: Settings) -> Answering | HubGenerator:
    import torch

    from llavar.generate.engine import Engine
    from llavar.generate.hub import HubGenerator, load_any
    from llavar.models.quantize import Quantization

    generator = load_any(
        find(settings.model),
        name=settings.model,
        template=settings.conversation,
        quantize=Quantization(settings.quantize) if settings.quantize else None,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    return generator if isinstance(generator, HubGenerator) else Engine(generator, slots=1, may_wait=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A picture of the conversation: where it came from, and the picture itself."""

    source: str
    picture: Image

    @classmethod
    def open(cls, source: str) -> Shown:
        """From a path or a URL.

        Raises:
            ImageError, NotFoundError, FetchError: it cannot be opened or must not be fetched.
        """
        if net.is_url(source):
            return cls(source=source, picture=open_any(source))
        path = Path(source)
        try:
            path = path.expanduser()
        except RuntimeError as error:  # ~stranger
            raise NotFoundError(f"{source!r:.200} names no home folder; give the whole path") from error
        return cls(source=str(path), picture=open_any(path))


class Talk:
    """What was said so far. A turn is kept once there is an answer to it, were it a stopped one."""

    def __init__(self, partner: Partner, settings: Settings) -> None:
        self._partner, self._settings = partner, settings
        self._turns: list[Said] = []
        self._shown: list[Shown] = []
        self._next: Shown | None = None
        self._saved: set[Path] = set()
        self.system = settings.system

    @property
    def name(self) -> str:
        """Of the model."""
        return self._partner.name

    @property
    def answers(self) -> int:
        """How many there are."""
        return len(self._turns) // 2

    @property
    def pictures(self) -> int:
        """How many were asked about."""
        return len(self._shown)

    def show(self, shown: Shown) -> None:
        """The picture goes with the next question, instead of one that waits for it already."""
        self._next = shown

    def new(self) -> None:
        """Forget all turns and pictures; the system text stays."""
        self._turns, self._shown, self._next = [], [], None

    def ask(self, question: str) -> Generator[Piece]:
        """The answer in pieces; closing the generator stops it.

        Question and answer become part of the conversation when the answer ends or is stopped, unless it is
        blank. After an error the conversation is what it was before.

        Raises:
            LlavarError: there is no answer.
        """
        if not question.strip():
            raise ConfigError("the question is empty; ask something, for example 'What does it say?'")
        shown = self._next
        parts = (question,) if shown is None else (shown.picture, question)
        asked = Said(role=Role.USER, parts=parts)
        words: list[str] = []
        failed = False
        try:
            with closing(self._partner.pieces(self._asked(asked))) as pieces:
                for piece in pieces:
                    words.append(piece.text)
                    yield piece
        except LlavarError:
            failed = True
            raise
        finally:
            answer = "".join(words).strip()
            if answer and not failed:
                self._turns += [asked, Said(role=Role.ASSISTANT, parts=(answer,))]
                self._shown += [] if shown is None else [shown]
                self._next = None

    def _asked(self, asked: Said) -> Asked:
        dialogue = Dialogue(turns=(*self._turns, asked), system=self.system or None)
        return Asked(
            dialogue=dialogue,
            max_new_tokens=self._settings.max_new_tokens,
            decoding=self._settings.decoding,
        )

    def save(self, path: Path) -> tuple[Path, ...]:
        """Write the conversation as one row of LLaVA's format; returns pictures that were written beside it.

        A picture that was fetched lies nowhere, so it is written as ``NAME-1.png``. The system text is no
        part of a row.

        Raises:
            ConfigError: nothing was said yet, or the file is one that this conversation did not write.
        """
        if not self._turns:
            raise ConfigError("nothing was said yet; there is no conversation to save")
        if path.exists() and path.resolve() not in self._saved:
            raise ConfigError(f"{path} exists; name another file")
        written: list[Path] = []
        names: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, shown in enumerate(self._shown, 1):
            file = Path(shown.source)
            if net.is_url(shown.source):
                file = path.with_name(f"{path.stem}-{number}.png")
                if file.exists() and file.resolve() not in self._saved:
                    raise ConfigError(f"{file} exists; name another file, whose pictures go beside it")
                shown.picture.save(file)
                written.append(file)
            names.append(str(file.resolve()))
        row = Example(id=path.stem or "chat", images=tuple(names), conversation=self._conversation())
        write_rows([row], path)
        self._saved |= {path.resolve(), *(file.resolve() for file in written)}
        return tuple(written)

    def _conversation(self) -> Conversation:
        return Conversation(
            turns=tuple(
                Turn(
                    role=turn.role,
                    text="\n".join(part if isinstance(part, str) else IMAGE_TAG for part in turn.parts),
                )
                for turn in self._turns
            )
        )
