"""From a request's messages to what a model is asked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from llavar.errors import LlavarError
from llavar.generate.base import Decoding
from llavar.generate.dialogue import Answering, Asked, Dialogue, Said
from llavar.records import Role
from llavar.serve.refusals import Refusal, refused
from llavar.serve.schema import ChatRequest, ImagePart, ImageReference, Message
from llavar.serve.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

_SYSTEM = ("system", "developer")


class Opens(Protocol):
    """:class:`llavar.serve.media.Intake`, or what stands in for it."""

    async def open(self, url: str) -> Image: ...

    def close(self) -> None: ...


async def asked(chat: ChatRequest, model: Answering, settings: Settings, intake: Opens) -> tuple[Asked, ...]:
    """What ``model`` is asked, once for each of the answers that are wanted. Opens the pictures.

    A length beyond what the model takes is cut to that, since kits ask for 32,768 tokens of every model.

    Raises:
        Refusal: the request breaks a rule or a limit, or a picture cannot be opened.
    """
    n = chat.n or 1
    _check_options(chat, n, settings)
    _check_messages(chat.messages, settings)
    dialogue = await _dialogue(chat.messages, settings, intake)
    return tuple(
        Asked(
            dialogue=dialogue,
            max_new_tokens=min(chat.limit or settings.default_tokens, model.max_tokens),
            decoding=_decoding(chat),
            stop=chat.stops,
            top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
            id=str(index) if index else "",  # the first answer is the same whatever n is
        )
        for index in range(n)
    )


def pictures(asked: Asked) -> int:
    """How many the question holds."""
    return sum(not isinstance(part, str) for turn in asked.dialogue.turns for part in turn.parts)


def url_of(reference: ImageReference) -> str:
    return reference if isinstance(reference, str) else reference.url


def _decoding(chat: ChatRequest) -> Decoding:
    if not chat.temperature:
        return Decoding()
    seed = secrets.randbits(62) if chat.seed is None else chat.seed % 2**63
    return Decoding(temperature=chat.temperature, top_p=1.0 if chat.top_p is None else chat.top_p, seed=seed)


def _check_options(chat: ChatRequest, n: int, settings: Settings) -> None:
    if n > settings.max_n:
        shown = n if n < 2**63 else "enormous"  # thousands of digits
        raise Refusal(
            400, f"n is {shown}; at most {settings.max_n} answers are given to one request", param="n"
        )
    if chat.top_logprobs is not None and not chat.logprobs:
        raise Refusal(
            400, "top_logprobs is set without logprobs; set logprobs to true as well", param="top_logprobs"
        )


# ------------------------------------------------------------------------------------------------- messages


def _check_messages(messages: Sequence[Message], settings: Settings) -> None:
    """Everything that can be known before a picture is opened."""
    if len(messages) > settings.max_messages:
        raise _wrong(f"there are {len(messages)} messages; at most {settings.max_messages} are taken")
    _check_order(messages)
    for at, message in enumerate(messages):
        if message.role != "user" and any(isinstance(part, ImagePart) for part in message.content):
            raise _wrong(
                f"messages[{at}] is the {message.role}'s and holds a picture; only messages of the user may",
                f"messages[{at}].content",
            )
    _check_size(messages, settings)


def _check_order(messages: Sequence[Message]) -> None:
    """System messages first, then user and assistant in turn, the user first and last."""
    turns = [(at, message) for at, message in enumerate(messages) if message.role not in _SYSTEM]
    if not turns or turns[-1][1].role != "user" or messages[-1].role != "user":
        raise _wrong(
            f"the last message is the {messages[-1].role}'s; end with one of the user",
            f"messages[{len(messages) - 1}].role",
        )
    if turns[0][0] != len(messages) - len(turns):
        at = next(at for at, message in enumerate(messages) if message.role in _SYSTEM and at > turns[0][0])
        raise _wrong(
            f"messages[{at}] is the {messages[at].role}'s and stands between turns; put it first",
            f"messages[{at}].role",
        )
    for place, (at, message) in enumerate(turns):
        if message.role != ("user", "assistant")[place % 2]:
            wanted = ("user", "assistant")[place % 2]
            raise _wrong(
                f"messages[{at}] is the {message.role}'s where the {wanted}'s should be; user and assistant "
                "take turns, beginning with the user (join messages that follow one another)",
                f"messages[{at}].role",
            )


def _check_size(messages: Sequence[Message], settings: Settings) -> None:
    texts = pictures = 0
    for message in messages:
        if isinstance(message.content, str):
            texts += len(message.content)
            continue
        for part in message.content:
            if isinstance(part, ImagePart):
                pictures += 1
            else:
                texts += len(part.text)
    if pictures > settings.max_pictures:
        raise _wrong(f"the request holds {pictures} pictures; at most {settings.max_pictures} are taken")
    if texts > settings.max_text:
        raise _wrong(
            f"the messages hold {texts:,} characters; at most {settings.max_text:,} are taken",
            code="context_length_exceeded",
        )


async def _dialogue(messages: Sequence[Message], settings: Settings, intake: Opens) -> Dialogue:
    opened = await _open_all(messages, settings, intake)
    turns: list[Said] = []
    system: list[str] = []
    for message in messages:
        parts = tuple(
            next(opened) if isinstance(part, ImagePart) else part if isinstance(part, str) else part.text
            for part in ([message.content] if isinstance(message.content, str) else message.content)
        )
        if message.role in _SYSTEM:
            system.extend(part for part in parts if isinstance(part, str))
        else:
            turns.append(Said(role=Role(message.role), parts=parts))
    return Dialogue(turns=tuple(turns), system="\n".join(system) if system else None)


async def _open_all(messages: Sequence[Message], settings: Settings, intake: Opens) -> Iterator[Image]:
    """The open pictures of all messages in their order. One that is named twice is opened once."""
    urls = [
        (url_of(part.image_url), f"messages[{at}].content[{place}].image_url")
        for at, message in enumerate(messages)
        if not isinstance(message.content, str)
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    known: dict[str, Image] = {}
    left = settings.max_pixels

    for url, place in urls:
        if url in known:
            continue
        known[url] = await open_one(url, place, intake)
        left -= known[url].width * known[url].height
        if left < 0:
            raise _wrong(
                f"the pictures have more than {settings.max_pixels:,} pixels together, the limit; scale them "
                "down",
                place,
            )
    return iter([known[url] for url, _ in urls])


async def open_one(url: str, place: str, intake: Opens) -> Image:
    """The picture at ``url``; ``place`` is where the request names it.

    Raises:
        Refusal: it cannot be opened.
    """
    try:
        return await intake.open(url)
    except LlavarError as error:
        raise refused(error, closing=True, param=place) from error  # no queue of answers is full


def _wrong(message: str, param: str = "messages", *, code: str = "") -> Refusal:
    return Refusal(400, message, param=param, code=code)
