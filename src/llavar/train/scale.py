"""What a stage takes on more and more GPUs: time, memory, what they exchange, and cost.

Arithmetic is divided evenly; what GPUs exchange is counted from what is gathered and summed, at a rate that
is assumed. A step of ``batch`` rows feeds at most as many GPUs; beyond that the batch has to grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from llavar.models.shape import LlavaShape
from llavar.train.config import Precision, StageConfig
from llavar.train.estimate import (
    ROOM,
    Load,
    Machine,
    Memory,
    count_parameters,
    estimate,
    memory_of,
    shards_of,
)
from llavar.train.llava import DECODER


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Bytes a second that a GPU takes in when it gathers or sums, ``inside`` a machine of ``node`` or beyond.

    By default two thirds of NVLink on an H100 (450 GB/s each way), and four fifths of 400 Gb/s.
    """

    node: int = 8
    inside: float = 300e9
    between: float = 40e9

    def rate(self, gpus: int) -> float:
        """What one of ``gpus`` reaches: between machines their wire is the slower one."""
        return self.inside if gpus <= self.node else self.between


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A stage on ``gpus`` GPUs.

    ``batch`` and ``micro_batch`` are those that feed so many; ``computing`` and ``exchanging`` are seconds of
    a step, ``exchanged`` bytes that a GPU takes in for it; ``seconds`` are of the whole run, ``cost`` at the
    price that was given.
    """

    gpus: int
    batch: int
    micro_batch: int
    steps: int
    memory: Memory
    fits: bool
    computing: float
    exchanged: float
    exchanging: float
    seconds: float
    cost: float

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / 3600


def scaled(
    shape: LlavaShape,
    stage: StageConfig,
    load_of: Callable[[StageConfig], Load],
    machine: Machine,
    network: Network,
    *,
    price: float = 0.0,
) -> Scaled:
    """``stage`` on ``machine``; ``load_of`` gives what its fullest micro-batch holds, ``price`` a GPU's hour.

    Where the decoder is divided, layers are gathered while others are computed, so that the longer of the two
    counts; where it is whole, gradients are summed after the step, so that both do.
    """
    gpus = machine.gpus
    fed = fed_by(stage, gpus)
    load = load_of(fed)
    found = estimate(shape, fed, load, machine)
    steps = fed.steps or math.ceil(found.samples / fed.batch)
    shards = shards_of(fed, gpus, network.node)
    memory = memory_of(shape, fed, load, shards=shards)
    computing = found.seconds / steps
    among, rows = exchanged_by(shape, fed, gpus, shards)
    exchanging = among / network.rate(shards) + rows / network.rate(gpus)
    seconds = steps * (max(computing, exchanging) if shards > 1 else computing + exchanging)
    return Scaled(
        gpus=gpus,
        batch=fed.batch,
        micro_batch=fed.micro_batch,
        steps=steps,
        memory=memory,
        fits=memory.total <= ROOM * machine.memory,
        computing=computing,
        exchanged=among + rows,
        exchanging=exchanging,
        seconds=seconds,
        cost=price * gpus * seconds / 3600,
    )


def fed_by(stage: StageConfig, gpus: int) -> StageConfig:
    """``stage`` with a batch that divides among ``gpus``, no smaller, and micro-batches of it for each."""
    batch = -(-stage.batch // gpus) * gpus
    each = batch // gpus
    micro = max(size for size in range(1, min(stage.micro_batch, each) + 1) if each % size == 0)
    return replace(stage, batch=batch, micro_batch=micro)


def exchanged_by(shape: LlavaShape, stage: StageConfig, gpus: int, shards: int) -> tuple[float, float]:
    """Bytes that each of ``gpus`` takes in during a step: from those that it shares a decoder with, from all.

    A decoder that is divided among ``shards`` is gathered twice for a micro-batch, in the type of the
    arithmetic, and its gradients are summed there in fp32; what a GPU then holds of them is summed over the
    others that hold the same. Gradients of what is whole are summed over all, once in a step. A sum passes
    twice.
    """
    counts = count_parameters(shape, stage.lora)
    divided = counts[DECODER] if shards > 1 else 0
    trained = divided if DECODER in stage.parts else 0
    whole = sum(counts[part] for part in stage.parts) - trained
    width = 2.0 if stage.precision is Precision.BF16 else 4.0
    passes = stage.batch // stage.micro_batch // gpus
    among = passes * (2 * width * divided + 4.0 * trained) * (shards - 1) / shards
    same = gpus // shards
    rows = passes * 8.0 * trained / shards * (same - 1) / same
    return among, rows + 8.0 * whole * (gpus - 1) / gpus
