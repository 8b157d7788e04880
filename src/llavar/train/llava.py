"""Both stages of visual instruction tuning as an objective for the loop.

Stage 1 trains the projector alone, stage 2 projector and decoder (section 3 of the paper; the tower stays
frozen in both). Which is which is settled by the parts that the configuration names: the objective is the
same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from llavar.data.collate import Batch, collate
from llavar.data.pack import PackPlan, plan
from llavar.data.vision import VisionSource, vision_of
from llavar.errors import ConfigError
from llavar.models._hf import projector_layout
from llavar.models.loss import answer_loss
from llavar.models.shape import ProjectorLayout
from llavar.records import Encoded, Pack
from llavar.train.loop import Size

PROJECTOR, DECODER, TOWER = "projector", "decoder", "tower"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedConfig:
    """How rows become batches.

    A step takes ``packs`` packs, computed as ``parts`` micro-batches of like length. ``capacity`` is the
    most tokens of a pack. Without ``packing`` every pack is one row, padded to the longest of its
    micro-batch (parity with the original; also faster where attention over a block mask costs more than
    padding, as on a CPU).
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
        self._lengths = [len(row) for row in rows]
        self._begins = [0]
        """The step at which each epoch begins, as far as known."""
        self._planned: tuple[int, PackPlan] | None = None

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
        return answer_loss(self.model, batch.to(self.model.get_input_embeddings().weight.device))

    def _packs(self, step: int) -> Sequence[tuple[int, ...]]:
        """Row numbers of the packs of ``step``. Epochs follow each other; their last step may be smaller."""
        while step >= self._begins[-1]:
            packs = len(self._plan(len(self._begins) - 1).packs)
            self._begins.append(self._begins[-1] - (-packs // self.feed.packs))
        epoch = bisect_right(self._begins, step) - 1
        first = (step - self._begins[epoch]) * self.feed.packs
        return self._plan(epoch).packs[first : first + self.feed.packs]

    def _plan(self, epoch: int) -> PackPlan:
        if self._planned is None or self._planned[0] != epoch:
            most, seed = 64 if self.feed.packing else 1, self.feed.seed
            self._planned = epoch, plan(self._lengths, self.feed.capacity, seed=seed, epoch=epoch, most=most)
        return self._planned[1]

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
    if not model.config.tie_word_embeddings:
        decoder |= {f"lm_head.{name}": value for name, value in model.lm_head.named_parameters()}
    return {
        TOWER: dict(inner.vision_tower.named_parameters()),
        PROJECTOR: dict((projector.linear_1 if single else projector).named_parameters()),
        DECODER: decoder,
    }
