"""The two stages of nano itself, on scenes drawn afresh in every step, with exact truth in place of OCR."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llavar import chat
from llavar.data.collate import Batch, collate
from llavar.data.encode import encode
from llavar.models.loss import answer_loss, decoder_states, states_loss
from llavar.models.tokenizer import TextTokenizer
from llavar.records import Encoded, Example, Pack
from llavar.render.layouts import Style
from llavar.study.nano.decoder import lesson
from llavar.study.nano.finding import Finder, begun, stacked
from llavar.study.nano.scenes import pixels, varied
from llavar.train.llava import parts_of
from llavar.train.loop import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneData:
    """What is asked about how many scenes.

    ``pages`` is the share of them that are lines of a page, to be spelt; ``more``, ``blank`` and ``quizzes``
    are those of :func:`~llavar.study.nano.decoder.lesson`; ``varied`` lets letters differ from the fonts'. A
    step is computed in ``parts`` micro-batches of like length.
    """

    size: int = 96
    patches: int = 12
    batch: int = 24
    parts: int = 3
    turns: int = 4
    pages: float = 0.3
    random_text: float = 0.3
    doubled: float = 0.15
    more: float = 0.0
    blank: float = 0.0
    quizzes: float = 0.0
    varied: bool = True
    seed: str = "tune"


class Sample(NamedTuple):
    """A row, what the tower takes of its picture, fp32 (views, 3, size, size), and the picture's text."""

    row: Encoded
    pixels: NDArray[np.float32]
    text: str


class Asked(NamedTuple):
    """Rows with their pictures, and what a :class:`~llavar.study.nano.finding.Finder` is to tell of them."""

    batch: Batch
    found: Tensor


class LessonObjective(ABC):
    """A Llava model, trained on conversations about pictures that are drawn for each step.

    A step has ``batch`` of them, in ``micro`` micro-batches of like length. With a ``finder``, which stays as
    it is, the decoder is also to keep what that needs.
    """

    def __init__(
        self, model: Any, tokenizer: TextTokenizer, finder: Finder | None = None, *, batch: int, micro: int
    ) -> None:
        self.model, self.tokenizer, self.finder = model, tokenizer, finder
        self._count, self._micro = batch, micro

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """That of a number."""

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return parts_of(self.model)

    def batches(self, step: int) -> Sequence[Asked]:
        first = step * self._count
        made = [self.sample(index) for index in range(first, first + self._count)]
        made.sort(key=lambda sample: len(sample.row))
        size = -(-len(made) // self._micro)
        return [self._batch(made[start : start + size]) for start in range(0, len(made), size)]

    def size(self, batch: Asked) -> Size:
        rows = batch.batch
        return Size(samples=rows.rows, tokens=rows.ids.numel(), supervised=rows.supervised)

    def loss(self, batch: Asked) -> Tensor:
        if self.finder is None:
            return answer_loss(self.model, batch.batch)
        late, last = decoder_states(self.model, batch.batch)[-2:]
        return states_loss(self.model, batch.batch, last) + 0.5 * self.finder.loss(late, batch.found)

    def _batch(self, made: Sequence[Sample]) -> Asked:
        vision = torch.as_tensor(np.concatenate([sample.pixels for sample in made]))
        packs = [Pack(rows=(sample.row,)) for sample in made]
        rows = collate(packs, pad_id=self.tokenizer.pad_id or 0, vision=vision, multiple=8)
        flags = [begun(sample.row, self.tokenizer, sample.text) for sample in made]
        return Asked(rows, stacked(flags, rows.ids))


class SceneObjective(LessonObjective):
    """Trained on conversations about rendered scenes."""

    def __init__(
        self, model: Any, tokenizer: TextTokenizer, data: TuneData, finder: Finder | None = None
    ) -> None:
        super().__init__(model, tokenizer, finder, batch=data.batch, micro=data.parts)
        self.data = data

    def sample(self, index: int) -> Sample:
        name = f"{self.data.seed}:{index}"
        style = Style(random_text=self.data.random_text, doubled=self.data.doubled, wild=0.4)
        data = self.data
        drawn, conversation, _ = lesson(
            name,
            random.Random(name),
            style,
            data.pages,
            4.0,
            data.turns,
            more=data.more,
            blank=data.blank,
            quizzes=data.quizzes,
        )
        if data.varied:
            drawn = varied(drawn, name)
        row = Example(id=str(index), images=(str(index),), conversation=conversation)
        encoded = encode(
            row, self.tokenizer, chat.get("llava_v1"), image_tokens=self.data.patches**2, start_end=True
        )
        return Sample(encoded, pixels(drawn, self.data.size, index)[None], drawn.text)
