"""From a conversation with pictures to the ids that a checkpoint is asked with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llavar import chat, images
from llavar.chat import foreign
from llavar.errors import ContextLengthError, DataError
from llavar.generate.dialogue import Dialogue, Said
from llavar.images import CLIP, WHOLE, Norm, Tiles, Transform
from llavar.models.tokenizer import TextTokenizer
from llavar.records import IMAGE_TAG, Conversation, Role, Turn

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How a checkpoint wants to be asked.

    ``image_tokens`` and ``size`` (pixels) are those of an input of its tower, of which a picture gives
    ``tiles.views``; ``patch`` is the placeholder that stands for each image token; ``norm`` is how it takes
    pixel values; prompt and answer have at most ``max_positions`` tokens together.
    """

    template: chat.Template
    transform: Transform
    size: int
    image_tokens: int
    patch: str
    start_end: bool
    max_positions: int
    norm: Norm = CLIP
    tiles: Tiles = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The ids of a prompt, image tokens included, and its pictures in the order of their places.

    ``places`` [start, end) are those of each picture's image tokens, from the first of its views to the last.
    """

    ids: tuple[int, ...]
    pictures: tuple[Image, ...]
    places: tuple[tuple[int, int], ...]


def prepare(dialogue: Dialogue, setup: Setup, tokenizer: TextTokenizer) -> Prepared:
    """The prompt as :func:`llavar.chat.jinja_source` writes it for stock engines: each part on its own line.

    Control tokens that somebody writes (``</s>``) get a blank (``< /s>``), so that no text ends a turn.

    Raises:
        ContextLengthError: the prompt leaves no room for an answer.
        DataError: the last turn is not the user's, or a text holds a placeholder of pictures or broken
            characters.
    """
    pictures = tuple(part for said in dialogue.turns for part in said.parts if not isinstance(part, str))
    ids = encode(_text(_harmless(dialogue, setup, tokenizer), setup), len(pictures), setup, tokenizer)
    if len(ids) >= setup.max_positions:
        raise ContextLengthError(
            f"the conversation with its pictures has {len(ids)} tokens, and the model takes "
            f"{setup.max_positions} with the answer; shorten it"
        )
    return Prepared(ids=tuple(ids), pictures=pictures, places=_places(ids, setup, tokenizer))


def _harmless(dialogue: Dialogue, setup: Setup, tokenizer: TextTokenizer) -> Dialogue:
    """The same conversation with a blank in every control token that its texts write out."""
    added = tokenizer.backend.get_added_tokens_decoder().values()
    marks = {token.content for token in added if token.special}
    marks |= {mark for mark in (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.unk) if mark}
    marks -= {setup.patch, IMAGE_TAG}  # these are refused, since they would stand for pictures
    if not marks:
        return dialogue
    written = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))

    def plain(text: str) -> str:
        return written.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)

    turns = tuple(
        replace(said, parts=tuple(plain(part) if isinstance(part, str) else part for part in said.parts))
        for said in dialogue.turns
    )
    return Dialogue(turns=turns, system=None if dialogue.system is None else plain(dialogue.system))


def _places(ids: Sequence[int], setup: Setup, tokenizer: TextTokenizer) -> tuple[tuple[int, int], ...]:
    patch, each = tokenizer.token_id(setup.patch), setup.image_tokens * setup.tiles.views
    held = [place for place, token in enumerate(ids) if token == patch]
    return tuple((held[at], held[at + each - 1] + 1) for at in range(0, len(held), each))


def encode(text: str, pictures: int, setup: Setup, tokenizer: TextTokenizer) -> list[int]:
    """The ids of a rendered prompt in which a tag stands for each of ``pictures`` pictures.

    Raises:
        DataError: it holds more placeholders than pictures, or lone surrogates.
    """
    views = setup.tiles.views
    text = chat.expand_images(text, setup.image_tokens, setup.start_end, patch=setup.patch, views=views)
    if not text.isprintable() and text != text.encode("utf-8", "replace").decode():
        raise DataError("the question holds broken characters (lone surrogates); write it in UTF-8")
    ids = tokenizer.encode(text)
    if ids.count(tokenizer.token_id(setup.patch)) != pictures * views * setup.image_tokens:
        raise DataError(
            f"the question holds {IMAGE_TAG} or {setup.patch}, which stand for pictures; leave them out"
        )
    return ids


def pixels(image: str | Path | Image, setup: Setup) -> NDArray[np.float32]:
    """A picture as the tower takes it, float32 (views, 3, size, size)."""
    return images.view_pixels(
        image, tiles=setup.tiles, transform=setup.transform, size=setup.size, norm=setup.norm
    )


def _text(dialogue: Dialogue, setup: Setup) -> str:
    template = setup.template
    if dialogue.system is not None:
        template = replace(template, system=dialogue.system)
    if template.style is chat.Style.OWN and (text := _own_text(dialogue, template, setup)) is not None:
        return text
    turns = tuple(Turn(role=said.role, text=_joined(said)) for said in dialogue.turns)
    return chat.prompt(Conversation(turns=turns), template)


def _own_text(dialogue: Dialogue, template: chat.Template, setup: Setup) -> str | None:
    """What a tokenizer's own template makes of parts, if it takes them and gives every picture a place."""
    if not dialogue.turns or dialogue.turns[-1].role is not Role.USER:
        return None
    said = [
        (turn.role.value, [part if isinstance(part, str) else None for part in turn.parts] or [""])
        for turn in dialogue.turns
    ]
    if dialogue.system is not None or template.system:
        said.insert(0, ("system", [template.system]))
    text = foreign.text_of_parts(said, template)
    if text is None:
        return None
    around = (chat.IMAGE_START, chat.IMAGE_END) if setup.start_end else ("", "")
    text = text.replace(setup.patch.join(around), IMAGE_TAG)
    pictures = sum(part is None for _, parts in said for part in parts)
    return text if text.count(IMAGE_TAG) >= pictures else None


def _joined(said: Said) -> str:
    return "\n".join(part if isinstance(part, str) else IMAGE_TAG for part in said.parts)
