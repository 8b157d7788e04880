"""Where a chat template puts the answers of a conversation, found without knowing the template.

A conversation is rendered twice: as it is, and with a mark in the place of each answer. What stands between
the marks is the template's; put together again with the answers it has to be the first rendering, character
by character, or the row is refused. So a place is known, never looked for. Nothing here imports transformers.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Protocol

from llavar.errors import DataError, ModelError
from llavar.records import IGNORE, IMAGE_TAG, Conversation, Role

PICTURE = None
"""Stands for a picture among the parts of a message."""

_PRIVATE = range(0xE000, 0xF8FF)
"""Characters that stand for nothing, to write marks with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn as chat templates take it: texts, and :data:`PICTURE` where a picture is shown."""

    role: Role
    parts: tuple[str | None, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if part is not None)


class Render(Protocol):
    """A chat template at work; ``open_turn`` ends with what makes the model begin its answer."""

    def __call__(self, messages: Sequence[Message], *, open_turn: bool = False) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What ends an answer: the text of one token. ``written``: the template puts it after every answer.

    Where it does not, a row ends with it in place of what the template writes after the last answer.
    """

    token: str
    written: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation as text, pictures as placeholders, and the characters ``[start, end)`` to learn."""

    text: str
    learned: tuple[tuple[int, int], ...]


def messages_of(conversation: Conversation) -> tuple[Message, ...]:
    """Turns in LLaVA's format as messages: tags become pictures, and the line break beside a tag goes."""
    return tuple(Message(role=turn.role, parts=_parts(turn.text)) for turn in conversation.turns)


def _parts(text: str) -> tuple[str | None, ...]:
    pieces = text.split(IMAGE_TAG)
    last = len(pieces) - 1
    for place, piece in enumerate(pieces):
        piece = piece.removeprefix("\n") if place > 0 else piece
        pieces[place] = piece.removesuffix("\n") if place < last else piece
    found: list[str | None] = [pieces[0]] if pieces[0] or not last else []
    for piece in pieces[1:]:
        found += [PICTURE, piece] if piece else [PICTURE]
    return tuple(found)


# The template.


def find_ending(render: Render, special: Iterable[str], end: str | None) -> Ending:
    """What ends answers by a chat template; ``special`` are the tokens that may, ``end`` is the tokenizer's.

    Raises:
        ModelError: a conversation with a picture cannot be learned from by this template.
    """
    asked = Message(role=Role.USER, parts=(PICTURE, "What does it say?"))
    talk = [asked, Message(role=Role.ASSISTANT, parts=("STOP",))]
    try:
        found = _ending(_pieces(render, talk)[-1].lstrip(), special, end)
        rendered(render, found, talk)
    except DataError as error:
        raise ModelError(f"its chat template cannot be trained with: {error}") from error
    return found


def _ending(tail: str, special: Iterable[str], end: str | None) -> Ending:
    for token in sorted(special, key=len, reverse=True):
        if token and tail.startswith(token):
            return Ending(token=token, written=True)
    if tail:
        raise ModelError(f"its chat template writes {tail:.60} after an answer, and no token that ends it")
    if not end:
        raise ModelError("neither its chat template nor its tokenizer says what ends an answer")
    return Ending(token=end, written=False)


def rendered(render: Render, ending: Ending, messages: Sequence[Message]) -> Rendered:
    """``messages``, the last an answer, as text with the characters that are learned from.

    An answer is learned from where the template's generation prompt ends (or, if it writes that otherwise
    within conversations, from its own first character) up to and including the token that ends it.

    Raises:
        DataError: the template refuses the messages, or the places of their answers are not certain.
    """
    text = render(messages)
    pieces = _pieces(render, messages)
    answers = _answers(text, pieces, [message.text for message in messages if message.role is Role.ASSISTANT])
    turns = [number for number, message in enumerate(messages) if message.role is Role.ASSISTANT]
    learned: list[tuple[int, int]] = []
    at = 0
    for turn, before, answer, after in zip(turns, pieces, answers, pieces[1:], strict=False):
        start = at + len(before)
        at = start + len(answer)
        learned.append((_begin(render, messages[:turn], text, start), at + _closing(ending, after)))
    if not ending.written:
        text = text[:at] + ending.token
        learned[-1] = learned[-1][0], len(text)
    return Rendered(text=text, learned=tuple(learned))


def _pieces(render: Render, messages: Sequence[Message]) -> list[str]:
    """What the template writes before, between and after the answers.

    Raises:
        DataError: an answer is left out, comes more than once, or out of order.
    """
    said = "".join(message.text for message in messages)
    letter = next((chr(code) for code in _PRIVATE if chr(code) not in said), None)
    if letter is None:
        raise DataError("its texts hold every character that marks are made of; drop the row")
    numbers = (f"{letter}{number}{letter}" for number in range(len(messages)))
    marked = [
        replace(message, parts=(next(numbers),)) if message.role is Role.ASSISTANT else message
        for message in messages
    ]
    marks = [message.text for message in marked if message.role is Role.ASSISTANT]
    found = re.split(f"({letter}[0-9]+{letter})", render(marked))
    if found[1::2] != marks:
        raise DataError("the chat template leaves an answer out, repeats one or changes their order")
    return found[::2]


def _answers(text: str, pieces: Sequence[str], answers: list[str]) -> list[str]:
    """The answers as they stand in ``text``: as they are, or without the white space around them."""
    for tried in (answers, [answer.strip() for answer in answers]):
        if "".join(chain.from_iterable(zip_longest(pieces, tried, fillvalue=""))) == text:
            return tried
    raise DataError(
        "the chat template writes an answer otherwise than it is given, so its place is not certain"
    )


def _begin(render: Render, earlier: Sequence[Message], text: str, start: int) -> int:
    """Where the model goes on by itself; ``start`` is the first character of its answer."""
    prompt = render(earlier, open_turn=True)
    begin = len(prompt) if len(prompt) <= start and text.startswith(prompt) else start
    between = text[begin:start]
    if between.strip():
        raise DataError(
            f"the chat template writes {between.strip()!r:.60} between its generation prompt and an answer"
        )
    return begin


def _closing(ending: Ending, after: str) -> int:
    """How many characters of ``after`` belong to the answer before it: blanks and the end token."""
    if not ending.written:
        return 0
    blanks = len(after) - len(after.lstrip())
    if not after.startswith(ending.token, blanks):
        raise DataError(f"the chat template ends one answer with {ending.token!r} and another without")
    return blanks + len(ending.token)


# Tokens.


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """A text with placeholders replaced, and the same characters to learn."""

    text: str
    learned: tuple[tuple[int, int], ...]


def expanded(text: Rendered, placeholder: str, replacements: Sequence[str]) -> Expanded:
    """``text`` with each ``placeholder`` in turn replaced.

    Raises:
        DataError: there are more or fewer of them, or one stands in an answer.
    """
    places = [found.start() for found in re.finditer(re.escape(placeholder), text.text)]
    if len(places) != len(replacements):
        raise DataError(
            f"it holds {len(places)} {placeholder} for {len(replacements)} pictures; escape that text"
        )
    if any(start <= place < end for place in places for start, end in text.learned):
        raise DataError(f"an answer holds {placeholder}; pictures belong to questions")
    gains = [0]
    for replacement in replacements:
        gains.append(gains[-1] + len(replacement) - len(placeholder))
    parts = _split(text.text, places, len(placeholder))
    learned = ((start, end, gains[bisect_right(places, start)]) for start, end in text.learned)
    return Expanded(
        text="".join(chain.from_iterable(zip_longest(parts, replacements, fillvalue=""))),
        learned=tuple((start + gain, end + gain) for start, end, gain in learned),
    )


def _split(text: str, places: Sequence[int], length: int) -> Iterator[str]:
    at = 0
    for place in places:
        yield text[at:place]
        at = place + length
    yield text[at:]


def labels(
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    text: Expanded,
    *,
    spelt: Callable[[int], str] = str,
) -> list[int]:
    """The id where a token's first character is learned, else :data:`~llavar.records.IGNORE`.

    ``offsets`` are the characters ``[start, end)`` of each token; one that has none (an added ``<s>``) is not
    learned. ``spelt`` names a token in an error.

    Raises:
        DataError: a token begins in the template and reaches into an answer.
    """
    starts = [start for start, _ in text.learned]
    found: list[int] = []
    for index, (start, end) in zip(ids, offsets, strict=True):
        after = bisect_right(starts, start)
        inside = after > 0 and start < text.learned[after - 1][1] and end > 0
        found.append(index if inside else IGNORE)
        if not inside and after < len(starts) and end > starts[after]:
            _check_shared(text.text, starts[after], end, spelt(index))
    return found


def _check_shared(text: str, start: int, end: int, token: str) -> None:
    """A token that the template began may take blanks of the answer along, and nothing else."""
    if text[start:end].strip():
        raise DataError(f"the token {token!r:.40} begins in the chat template and ends within an answer")
