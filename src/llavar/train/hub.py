"""Any image-text-to-text model as an objective for the loop: rows through its own processor, answers learned.

Rows are not packed: that rows which share a sequence do not see each other is proven for Llava models and not
for these, whose positions and masks are each their own. They are padded, and it is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llavar import images
from llavar.data.collate import Batch
from llavar.data.feed import Feed, FeedConfig, Loader, Numbers
from llavar.data.pictures import PictureStore
from llavar.errors import ConfigError, DataError, ImageError, NotFoundError
from llavar.models import _hub as hub
from llavar.models._hub_processor import OwnProcessor
from llavar.models._peft import adapter_parameters
from llavar.models.stored import LazyTensor
from llavar.records import IGNORE, Encoded
from llavar.train.config import ADAPTER
from llavar.train.llava import Cost, InstructionObjective
from llavar.train.loop import Size
from llavar.train.world import World

if TYPE_CHECKING:
    from PIL.Image import Image

BASE = "base"
"""The part of such a model that its adapter goes around: all of it, frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """An image-text-to-text model with an adapter, ready to train, and what belongs to it.

    ``stored`` are the tensors in ``folder`` of the layers that the adapter goes around, by their names.
    """

    module: Any
    folder: Path
    processor: OwnProcessor
    stored: Mapping[str, LazyTensor]

    @property
    def kind(self) -> str:
        return hub.kind_of(self.module)

    @property
    def context(self) -> int:
        """The most tokens of a row."""
        return hub.context_of(self.module)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubEncoded(Encoded):
    """A row as ids and labels, with the text that the processor is given to make the ids again."""

    text: str


# Batches.


@dataclass(frozen=True, slots=True, kw_only=True)
class HubBatch(Batch):
    """Padded rows; ``inputs`` is what the model takes, as its processor made it."""

    inputs: Mapping[str, Tensor]

    def to(self, device: torch.device) -> HubBatch:
        return replace(
            self,
            labels=self.labels.to(device),
            inputs={name: value.to(device) for name, value in self.inputs.items()},
        )


class _NoVision:
    """The pictures of these batches are the processor's."""

    is_features = False

    def get(self, names: Sequence[str]) -> Tensor:
        raise NotFoundError(f"{names[0]!r} is for the model's own processor")


class HubFeed(Feed):
    """Steps as :class:`~llavar.data.feed.Feed` plans them, each micro-batch made by the model's processor."""

    def __init__(
        self,
        rows: Sequence[Encoded],
        pictures: PictureStore,
        processor: OwnProcessor,
        config: FeedConfig,
        *,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        if config.packing:
            raise ConfigError("rows of such models are padded and cannot share sequences; set packing=False")
        super().__init__(rows, _NoVision(), config, pad_id=processor.pad_id, rank=rank, size=size)
        self._store, self._processor = pictures, processor

    def batch(self, packs: Sequence[Numbers]) -> HubBatch:
        """Rows as the model takes them.

        Raises:
            ImageError, NotFoundError: a picture cannot be had; the message names its row.
            DataError: the processor makes something else of a row than when it was counted.
        """
        rows = [self.rows[number] for numbers in packs for number in numbers]
        texts = [row.text for row in rows if isinstance(row, HubEncoded)]
        pictures = [self._opened(row) for row in rows]
        try:
            inputs = self._processor.inputs(texts, pictures)
        except DataError as error:
            names = ", ".join(repr(row.id) for row in rows)
            raise DataError(f"rows {names}: {error}; drop what it refuses") from error
        ids = inputs["input_ids"]
        labels = torch.full_like(ids, IGNORE)
        for place, row in enumerate(rows):
            if not torch.equal(ids[place, : len(row)], torch.tensor(row.ids)):
                raise DataError(
                    f"the processor makes another row of {row.id!r} than when it was counted; start again "
                    "with files at rest"
                )
            labels[place, : len(row)] = torch.tensor(row.labels)
        return HubBatch(
            ids=ids,
            labels=labels,
            positions=torch.arange(ids.shape[1]).expand(ids.shape),
            vision=None,
            is_features=False,
            rows=len(rows),
            useful=sum(len(row) for row in rows),
            inputs=inputs,
        )

    def _opened(self, row: Encoded) -> list[Image]:
        try:
            return [images.open_image(self._store.source(name)) for name in row.images]
        except (ImageError, NotFoundError) as error:
            raise type(error)(
                f"the picture of row {row.id!r} cannot be used: {error} Repair it, or leave such rows out "
                "with --bad-images skip"
            ) from error


class HubObjective(InstructionObjective):
    """Rows learned by the adapter of a :class:`HubModel`."""

    def __init__(
        self,
        model: HubModel,
        rows: Sequence[Encoded],
        pictures: PictureStore,
        feed: FeedConfig,
        *,
        world: World | None = None,
        workers: int = 0,
    ) -> None:
        self.world, self.even = world or World(), False
        self.feed = HubFeed(rows, pictures, model.processor, feed, rank=self.world.rank, size=self.world.size)
        self.model, self.cost, self.loader = model.module, Cost(), Loader(self.feed, workers)

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        adapter = adapter_parameters(self.model)
        every: Mapping[str, nn.Parameter] = dict(self.model.named_parameters())
        return {
            BASE: {name: value for name, value in every.items() if name not in adapter},
            ADAPTER: adapter,
        }

    def size(self, batch: Batch) -> Size:
        return Size(
            samples=batch.rows, tokens=batch.ids.numel(), supervised=batch.supervised, useful=batch.useful
        )

    def loss(self, batch: Batch) -> Tensor:
        assert isinstance(batch, HubBatch)
        there = batch.to(self.model.get_input_embeddings().weight.device)
        return hub.answer_loss(self.model, there.inputs, there.labels)
