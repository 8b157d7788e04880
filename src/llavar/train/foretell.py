"""What is tried before the first step, and foretold from it: whether the run fits, and how long it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from llavar.data.collate import Batch
from llavar.errors import ConfigError, ModelError
from llavar.models._hf_training import attention_of
from llavar.models.shape import LlavaShape
from llavar.train import story
from llavar.train.config import LoopConfig, StageConfig
from llavar.train.estimate import Load, memory_of
from llavar.train.llava import EpochPlan, InstructionObjective
from llavar.train.loop import rehearse
from llavar.train.parallel import Parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What was foretold before the first step: seconds of all steps, and bytes.

    ``peak`` as the dry run held them (on a GPU torch, else the whole process), ``model`` as counted for the
    model alone, where its shape is known.
    """

    seconds: float
    peak: int
    model: float | None = None


def foretell(
    objective: InstructionObjective,
    loop: LoopConfig,
    stage: StageConfig,
    epoch: EpochPlan,
    parallel: Parallel,
    tell: Callable[[str], None],
    workers: int,
) -> Expected:
    """The largest micro-batch and a few steps first: what cannot fit fails now, and the rest is foretold.

    Raises:
        ConfigError: the memory of the device does not hold the largest micro-batch.
    """
    world = parallel.world
    step, number = epoch.longest
    packs = objective.layout(step)[number]
    with world.together():
        batch = objective.batch(packs)
    pictures = 0 if batch.vision is None else len(batch.vision)
    load = Load(
        rows=epoch.rows,
        tokens=epoch.tokens / epoch.rows,
        pictures=epoch.pictures / epoch.rows,
        longest=epoch.most,
        pictures_at_once=pictures,
        answered=batch.supervised / batch.ids.numel(),
        length=epoch.most // len(packs) if _keeps_scores(objective.model) else 0,
    )
    shape = shape_of(objective.model)
    needed = memory_of(shape, stage, load, shards=parallel.shards) if shape else None
    if needed:
        tell(story.memory(needed, epoch.most))
    try:
        tried = rehearse(objective, batch, _some_steps(objective, epoch), loop, parallel)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"the largest micro-batch ({epoch.most} tokens) does not fit into the memory of {world.device}; "
            "lower --micro-batch or --max-length, or add --recompute"
        ) from error
    # They make batches only where they find a core: on two cores that is one, or the model would wait.
    helping = min(workers, max(1, (os.cpu_count() or 1) // world.size - 1))
    whole = tried.whole(epoch.padded * loop.steps / epoch.steps, helping)
    tell(story.rehearsed(tried, whole, world.device.type))
    return Expected(seconds=whole, peak=tried.peak, model=needed.total if needed else None)


def shape_of(module: Any) -> LlavaShape | None:
    """The numbers of a stock model; None for a tower or a decoder that has no shape here."""
    try:
        return LlavaShape.from_config(module.config.to_dict())
    except (ModelError, ConfigError):
        return None


def _keeps_scores(model: Any) -> bool:
    """Whether attention is computed in the open, and so its scores are kept for the backward pass."""
    return attention_of(model) == "eager"


def _some_steps(objective: InstructionObjective, epoch: EpochPlan) -> Iterator[Callable[[], list[Batch]]]:
    """Up to eight steps from all over an epoch, as this process would compute them."""
    count = min(8, epoch.steps)
    for number in range(count):
        yield lambda number=number: objective.prepared(number * epoch.steps // count)
