"""Both stages of visual instruction tuning as an objective for the loop.

Stage 1 trains the projector alone, stage 2 projector and decoder (section 3 of the paper; the tower stays
frozen in both). Which is which is settled by the parts that the configuration names: the objective is the
same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llavar.data.collate import Batch
from llavar.data.feed import EpochPlan, Feed, FeedConfig, Loader, Numbers
from llavar.data.vision import VisionSource
from llavar.errors import ConfigError
from llavar.models._hf import projector_layout
from llavar.models.adapter import is_adapter
from llavar.models.loss import answer_loss
from llavar.models.shape import ProjectorLayout
from llavar.records import IGNORE, Encoded
from llavar.train.config import ADAPTER
from llavar.train.loop import Size
from llavar.train.world import World

PROJECTOR, DECODER, TOWER = "projector", "decoder", "tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Arithmetic of training, in FLOPs forwards and backwards, for a useful token and for a picture."""

    token: float = 0.0
    picture: float = 0.0


class InstructionObjective:
    """A Llava model, trained on encoded rows; :class:`~llavar.data.feed.Feed` says which in which step.

    ``even``: every process computes equally many micro-batches, if need be of nothing.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[Encoded],
        vision: VisionSource,
        feed: FeedConfig,
        *,
        pad_id: int,
        world: World | None = None,
        cost: Cost | None = None,
        workers: int = 0,
        even: bool = False,
    ) -> None:
        self.world, self.even = world or World(), even
        self.feed = Feed(rows, vision, feed, pad_id=pad_id, rank=self.world.rank, size=self.world.size)
        self.model, self.cost, self.loader = model, cost or Cost(), Loader(self.feed, workers)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be smaller; an epoch never ends inside a step."""
        return self.feed.steps_per_epoch

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return parts_of(self.model)

    def batches(self, step: int) -> Sequence[Batch]:
        """Micro-batches of ``step``: a pure function of it, so that no position needs to be stored."""
        return self._evened(self.loader.batches(step), step)

    def prepared(self, step: int) -> list[Batch]:
        """As :meth:`batches`, made here and now: what :attr:`loader` makes ahead stays as it is."""
        return self._evened(self.feed.batches(step), step)

    def _evened(self, own: list[Batch], step: int) -> list[Batch]:
        """With ``even``, ``own`` and nothings, as many together as the process with the most has."""
        most = -(-len(self.layout(step)) // self.world.size) if self.even else 0
        return [*own, *(nothing(self.feed.pad_id) for _ in range(most - len(own)))]

    def size(self, batch: Batch) -> Size:
        pictures = 0 if batch.vision is None else len(batch.vision)
        return Size(
            samples=batch.rows,
            tokens=batch.ids.numel(),
            supervised=batch.supervised,
            useful=batch.useful,
            flops=batch.useful * self.cost.token + pictures * self.cost.picture,
        )

    def loss(self, batch: Batch) -> Tensor:
        return answer_loss(self.model, batch.to(self.model.get_input_embeddings().weight.device))

    def layout(self, step: int) -> list[list[Numbers]]:
        """The packs of every micro-batch of ``step``."""
        return self.feed.layout(step)

    def epoch_plan(self) -> EpochPlan:
        """What the first epoch holds; later ones differ by the order of their rows."""
        return self.feed.epoch_plan()

    def batch(self, packs: Sequence[Numbers]) -> Batch:
        """Packs as tensors, with their pictures."""
        return self.feed.batch(packs)


def nothing(pad_id: int) -> Batch:
    """A micro-batch without rows: its loss is 0, and so is its gradient."""
    ids = torch.full((1, 8), pad_id)
    labels, positions = torch.full_like(ids, IGNORE), torch.arange(8)[None]
    return Batch(ids=ids, labels=labels, positions=positions, vision=None, is_features=False, rows=0)


def parts_of(model: Any) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters of a Llava model by part; one with LoRA has an adapter besides.

    Of a projector in the ``identity`` layout only the first layer is one: the second is the identity by
    construction.

    Raises:
        ConfigError: the projector is folded; trained, it would not stay so.
    """
    if projector_layout(model) is ProjectorLayout.FOLD:
        raise ConfigError("a folded projector cannot be trained; bring it into the identity layout first")
    inner = model.model
    projector = inner.multi_modal_projector
    single = model.config.projector_hidden_act == "linear"
    decoder: dict[str, nn.Parameter] = dict(inner.language_model.named_parameters())
    adapter = {name: decoder.pop(name) for name in list(decoder) if is_adapter(name)}
    if not model.config.tie_word_embeddings:
        decoder |= {f"lm_head.{name}": value for name, value in model.lm_head.named_parameters()}
    parts = {
        TOWER: dict(inner.vision_tower.named_parameters()),
        PROJECTOR: dict((projector.linear_1 if single else projector).named_parameters()),
        DECODER: decoder,
    }
    return parts | {ADAPTER: adapter} if adapter else parts
