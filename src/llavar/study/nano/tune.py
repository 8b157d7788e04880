"""The two stages of nano itself, on scenes drawn afresh in every step, with exact truth in place of OCR."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llavar import chat
from llavar.data.collate import Batch, collate
from llavar.data.encode import encode
from llavar.models.loss import answer_loss
from llavar.models.tokenizer import TextTokenizer
from llavar.records import Encoded, Example, Pack
from llavar.render.layouts import Style
from llavar.study.nano.decoder import lesson
from llavar.study.nano.scenes import pixels, varied
from llavar.train.llava import parts_of
from llavar.train.loop import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneData:
    """What is asked about how many scenes.

    ``pages`` is the share of them that are lines of a page, to be spelt; ``more`` and ``blank`` are those of
    :func:`~llavar.study.nano.decoder.lesson`; ``varied`` lets letters differ from the fonts'. A step is
    computed in ``parts`` micro-batches of like length.
    """

    size: int = 96
    patches: int = 12
    batch: int = 24
    parts: int = 3
    turns: int = 4
    pages: float = 0.3
    random_text: float = 0.45
    more: float = 0.0
    blank: float = 0.0
    varied: bool = True
    seed: str = "tune"


class LessonObjective(ABC):
    """A Llava model, trained on conversations about pictures that are drawn for each step.

    A step has ``batch`` of them, in ``micro`` micro-batches of like length.
    """

    def __init__(self, model: Any, tokenizer: TextTokenizer, *, batch: int, micro: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._count, self._micro = batch, micro

    @abstractmethod
    def sample(self, index: int) -> tuple[Encoded, NDArray[np.float32]]:
        """The row of a number, and what the tower takes of its picture: fp32 (views, 3, size, size)."""

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return parts_of(self.model)

    def batches(self, step: int) -> Sequence[Batch]:
        first = step * self._count
        made = [self.sample(index) for index in range(first, first + self._count)]
        made.sort(key=lambda pair: len(pair[0]))
        size = -(-len(made) // self._micro)
        return [self._batch(made[start : start + size]) for start in range(0, len(made), size)]

    def size(self, batch: Batch) -> Size:
        return Size(samples=batch.rows, tokens=batch.ids.numel(), supervised=batch.supervised)

    def loss(self, batch: Batch) -> Tensor:
        return answer_loss(self.model, batch)

    def _batch(self, made: Sequence[tuple[Encoded, NDArray[np.float32]]]) -> Batch:
        vision = torch.as_tensor(np.concatenate([shown for _, shown in made]))
        packs = [Pack(rows=(row,)) for row, _ in made]
        return collate(packs, pad_id=self.tokenizer.pad_id or 0, vision=vision, multiple=8)


class SceneObjective(LessonObjective):
    """Trained on conversations about rendered scenes."""

    def __init__(self, model: Any, tokenizer: TextTokenizer, data: TuneData) -> None:
        super().__init__(model, tokenizer, batch=data.batch, micro=data.parts)
        self.data = data

    def sample(self, index: int) -> tuple[Encoded, NDArray[np.float32]]:
        name = f"{self.data.seed}:{index}"
        style = Style(random_text=self.data.random_text, wild=0.4)
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
        )
        if data.varied:
            drawn = varied(drawn, name)
        row = Example(id=str(index), images=(str(index),), conversation=conversation)
        encoded = encode(
            row, self.tokenizer, chat.get("llava_v1"), image_tokens=self.data.patches**2, start_end=True
        )
        return encoded, pixels(drawn, self.data.size, index)[None]
