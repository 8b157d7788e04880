"""Both stages of visual instruction tuning as an objective for the loop.

Stage 1 trains the projector alone, stage 2 projector and decoder (section 3 of the paper; the tower stays frozen in
both). Which is which is settled by the parts that the configuration names: the objective is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from llavar.data.collate import Batch, collate
from llavar.data.pack import PackPlan, plan
from llavar.data.vision import VisionSource, vision_of
from llavar.errors import ConfigError
from llavar.models.loss import answer_loss
from llavar.records import Encoded, Pack
from llavar.train.loop import Size

PROJECTOR, DECODER, TOWER = "projector", "decoder", "tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedConfig:
    """How rows become batches.

    A step takes ``packs`` packs, computed as ``parts`` micro-batches of like length. ``capacity`` is the most tokens
    of a pack. Without ``packing`` every pack is one row, padded to the longest of its micro-batch (parity with the
    original; also faster where attention over a block mask costs more than padding, as on a CPU).
    """

    packs: int
    parts: int = 1
    capacity: int = 2048
    packing: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.packs < 1 or not 1 <= self.parts <= self.packs:
            raise ConfigError(
                f"packs is {self.packs} and parts {self.parts}; at least one pack for each part is needed"
            )


class InstructionObjective:
    """A Llava model, trained on encoded rows."""

    def __init__(
        self, model: Any, rows: Sequence[Encoded], vision: VisionSource, feed: FeedConfig, *, pad_id: int
    ) -> None:
        if not rows:
            raise ConfigError("there is no row to train on; the rejects say why they were left out")
        self.model, self.rows, self.vision, self.feed, self.pad_id = model, rows, vision, feed, pad_id
        self._plans: tuple[int, PackPlan] | None = None

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return parts_of(self.model)

    def batches(self, step: int) -> Sequence[Batch]:
        """Micro-batches of ``step``: a pure function of it, so that no position needs to be stored."""
        chosen = sorted((self._pack(numbers) for numbers in self._packs(step)), key=len)
        size = -(-len(chosen) // self.feed.parts)
        return [self._batch(chosen[start : start + size]) for start in range(0, len(chosen), size)]

    def size(self, batch: Batch) -> Size:
        return Size(samples=batch.rows, tokens=batch.ids.numel(), supervised=batch.supervised)

    def loss(self, batch: Batch) -> Tensor:
        return answer_loss(self.model, batch)

    def _packs(self, step: int) -> Sequence[tuple[int, ...]]:
        """Row numbers of the packs of ``step``; epochs follow each other, the last step of one may be smaller."""
        epoch, planned = 0, self._plan(0)
        while step >= (here := -(-len(planned.packs) // self.feed.packs)):
            step, epoch = step - here, epoch + 1
            planned = self._plan(epoch)
        return planned.packs[step * self.feed.packs : (step + 1) * self.feed.packs]

    def _plan(self, epoch: int) -> PackPlan:
        if self._plans is None or self._plans[0] != epoch:
            lengths = [len(row) for row in self.rows]
            most = 64 if self.feed.packing else 1
            self._plans = (
                epoch,
                plan(lengths, self.feed.capacity, seed=self.feed.seed, epoch=epoch, most=most),
            )
        return self._plans[1]

    def _pack(self, numbers: tuple[int, ...]) -> Pack:
        return Pack(rows=tuple(self.rows[number] for number in numbers))

    def _batch(self, packs: Sequence[Pack]) -> Batch:
        names = [name for pack in packs for row in pack.rows for name in row.images]
        vision = vision_of(self.vision, names)
        return collate(
            packs, pad_id=self.pad_id, vision=vision, is_features=self.vision.is_features, multiple=8
        )


def parts_of(model: Any) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters of a Llava model by part.

    Of a projector in the ``identity`` layout only the first layer is one: the second is the identity by construction.
    """
    inner = model.model
    projector = inner.multi_modal_projector
    single = model.config.projector_hidden_act == "linear"
    return {
        TOWER: dict(inner.vision_tower.named_parameters()),
        PROJECTOR: dict((projector.linear_1 if single else projector).named_parameters()),
        DECODER: {
            **dict(inner.language_model.named_parameters()),
            **{f"lm_head.{name}": value for name, value in model.lm_head.named_parameters()},
        },
    }
