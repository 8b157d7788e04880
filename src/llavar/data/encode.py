"""Rows as token ids and labels.

The whole text is tokenized once, as the original did, and a token is supervised when its first character
lies in a learned span: nothing is tokenized again and counted, which is where the original lost rows to
"tokenization mismatch". On rows that the original can use, ids and labels are equal to its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

from llavar import chat
from llavar.data.source import Reason, RowError
from llavar.errors import DataError, ModelError
from llavar.records import IGNORE, IMAGE_TAG, Conversation, Encoded, Example, Reject, Role, Span, Turn

Value = TypeVar("Value")


class Tokenizer(Protocol):
    """What is needed of a tokenizer here; :class:`llavar.models.tokenizer.TextTokenizer` is one."""

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, ``<s>`` first, with the characters ``[start, end)`` of ``text`` that each came from."""
        ...

    def lookup(self, token: str) -> int | None:
        """The id of one token, or none."""
        ...

    def piece(self, index: int) -> str:
        """The text of one token, to look at."""
        ...


def encode(
    example: Example,
    tokenizer: Tokenizer,
    template: chat.Template,
    *,
    image_tokens: int,
    views: int = 1,
    start_end: bool = True,
    max_length: int | None = None,
) -> Encoded:
    """One row as ids and labels of equal length, cut at ``max_length`` tokens where one is given.

    An answer that precedes the first question is left out, as in the original, except by ``v0_train``,
    which kept it.

    Args:
        image_tokens: tokens for each input of the tower, (size / patch)^2; 576 for LLaVAR, 144 for nano.
        views: inputs of the tower for each picture: 1, or more where it is shown in tiles.
        start_end: whether ``<im_start>`` and ``<im_end>`` stand around them.

    Raises:
        RowError: the row cannot be used; ``reason`` says why (a :class:`~llavar.errors.DataError`).
        ModelError: the row has pictures and the tokenizer has no ``<im_patch>``.
    """
    check(example)
    conversation = Conversation(turns=_from_first_question(example.conversation.turns, template))
    try:
        spans = chat.render(conversation, template)
    except DataError as error:
        raise RowError(example.id, Reason.TEMPLATE, str(error)) from error
    # A picture is one token while text is tokenized: hundreds of them would take most of the time.
    spans = [_expand(span, views, start_end) for span in spans]
    ids, offsets = tokenizer.encode_offsets("".join(span.text for span in spans))
    labels = _labels(ids, offsets, spans)
    if example.images and image_tokens > 1:
        patch = tokenizer.lookup(chat.IMAGE_PATCH)
        places = [at for at, token in enumerate(ids) if token == patch]
        ids, labels = _repeated(ids, places, image_tokens), _repeated(labels, places, image_tokens)
        offsets = _repeated(offsets, places, image_tokens)
    _check_images(example, tokenizer, ids, (image_tokens, views), start_end, max_length)
    labels = labels[:max_length]
    if not _answers(labels, offsets, spans, template):
        limit = (
            "there is no answer" if max_length is None else f"within {max_length} tokens there is no answer"
        )
        raise RowError(
            example.id, Reason.NOTHING_SUPERVISED, f"{limit} to learn from; shorten it or drop the row"
        )
    return Encoded(id=example.id, ids=tuple(ids[:max_length]), labels=tuple(labels), images=example.images)


def encode_all(
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    template: chat.Template,
    *,
    image_tokens: int,
    views: int = 1,
    start_end: bool = True,
    max_length: int | None = None,
) -> tuple[list[Encoded], list[Reject]]:
    """:func:`encode` for many rows; those that cannot be used come back as rejects, in order."""
    encoded: list[Encoded] = []
    rejects: list[Reject] = []
    for example in examples:
        try:
            row = encode(
                example,
                tokenizer,
                template,
                image_tokens=image_tokens,
                views=views,
                start_end=start_end,
                max_length=max_length,
            )
        except RowError as error:
            rejects.append(error.reject("encode"))
        else:
            encoded.append(row)
    return encoded, rejects


def check(example: Example) -> None:
    """What can be said of a row without a tokenizer.

    Raises:
        RowError: a role speaks twice in a row, or the tags of pictures are not as they have to be.
    """
    turns = example.conversation.turns
    for index, (turn, after) in enumerate(pairwise(turns), start=2):
        if turn.role is after.role:
            detail = (
                f"turns {index - 1} and {index} are both the {turn.role}'s; merge them or add what is missing"
            )
            raise RowError(example.id, Reason.SAME_ROLE_TWICE, detail)
    for index, turn in enumerate(turns, start=1):
        if turn.role is Role.ASSISTANT and IMAGE_TAG in turn.text:
            detail = f"turn {index} is an answer that holds {IMAGE_TAG}; pictures belong to questions"
            raise RowError(example.id, Reason.TAG_IN_ANSWER, detail)
    tags = sum(turn.text.count(IMAGE_TAG) for turn in turns)
    if tags != len(example.images):
        detail = f"{tags} {IMAGE_TAG} tags for {len(example.images)} images; write one tag for each image"
        raise RowError(example.id, Reason.IMAGE_COUNT, detail)


def _from_first_question(turns: tuple[Turn, ...], template: chat.Template) -> tuple[Turn, ...]:
    return turns if template.style is chat.Style.V0_TRAINING else from_first_question(turns)


def from_first_question(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """``turns`` without an answer that precedes the first question, as the original has it."""
    opens_with_answer = bool(turns) and turns[0].role is Role.ASSISTANT
    return turns[1:] if opens_with_answer else turns


def _expand(span: Span, views: int, start_end: bool) -> Span:
    return Span(text=chat.expand_images(span.text, 1, start_end, views=views), learn=span.learn)


def _repeated(values: list[Value], places: Sequence[int], count: int) -> list[Value]:
    """``values`` with those at ``places`` written ``count`` times."""
    found: list[Value] = []
    start = 0
    for at in places:
        found += values[start:at]
        found += [values[at]] * count
        start = at + 1
    return found + values[start:]


def _check_images(
    example: Example,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    tokens_and_views: tuple[int, int],
    start_end: bool,
    max_length: int | None,
) -> None:
    """Each picture has exactly its tokens, and truncation leaves them whole."""
    image_tokens, views = tokens_and_views
    patch = tokenizer.lookup(chat.IMAGE_PATCH)
    if patch is None:
        if example.images:
            raise ModelError(
                f"the tokenizer has no token {chat.IMAGE_PATCH} for the pictures of row {example.id!r}; "
                "use the tokenizer of a LLaVA checkpoint, or train the model (one of llava-hf, say) through "
                "its own processor: llavar train lora-hub --model ..."
            )
        return
    inputs = views * len(example.images)
    expected = image_tokens * inputs
    found = ids.count(patch)
    if example.images:  # what strays was written as often as a picture's
        found = expected + found // image_tokens - inputs
    if found != expected:
        detail = f"it holds {found} {chat.IMAGE_PATCH} where its images take {expected}; escape that text"
        raise RowError(example.id, Reason.STRAY_IMAGE_TOKEN, detail)
    if not expected or max_length is None:
        return
    last = len(ids) - 1 - list(reversed(ids)).index(patch)
    needed = last + (2 if start_end else 1)
    if needed > max_length:
        detail = (
            f"its images end at token {needed}, past the limit of {max_length}; raise it or shorten the text"
        )
        raise RowError(example.id, Reason.IMAGE_CUT, detail)


def _labels(ids: Sequence[int], offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[int]:
    """The id where a token's first character is learned, else :data:`~llavar.records.IGNORE`."""
    starts = _starts(spans)
    learned = [span.learn for span in spans]
    return [
        index if end > 0 and learned[bisect_right(starts, start) - 1] else IGNORE
        for index, (start, end) in zip(ids, offsets, strict=True)
    ]


def _starts(spans: Sequence[Span]) -> list[int]:
    """The character at which each span begins."""
    starts = [0]
    for span in spans[:-1]:
        starts.append(starts[-1] + len(span.text))
    return starts


def _answers(
    labels: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    template: chat.Template,
) -> int:
    """How many supervised tokens belong to answers; ``v0_train`` also learns every ``###``."""
    if template.style is not chat.Style.V0_TRAINING:
        return len(labels) - labels.count(IGNORE)
    starts = _starts(spans)
    owners = (spans[bisect_right(starts, start) - 1].text for start, _ in offsets)
    kept = zip(labels, owners, strict=False)
    return sum(label != IGNORE and owner.strip() != "###" for label, owner in kept)
