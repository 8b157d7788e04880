"""What a run will need, before it has begun: parameters, memory of a GPU, arithmetic and time.

Every figure comes with the assumption behind it. Formulas count what torch keeps with stock modules, scaled
dot product attention and autocast; nothing here needs a model or a device.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from llavar.models.adapter import Lora
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape
from llavar.train.adapter_size import adapter_count, kept_bytes, saved_bytes
from llavar.train.config import ADAPTER, Precision, Recompute, Shard, StageConfig
from llavar.train.llava import DECODER, PROJECTOR, TOWER, Cost

_GB = 1e9

ROOM = 0.95
"""Share of a GPU's memory that a run may need: some is lost between tensors."""


def count_parameters(shape: LlavaShape, lora: Lora | None = None) -> dict[str, int]:
    """Parameters by part, with those of an adapter; of an identity projector only the layer that is one."""
    vision, text = shape.vision, shape.text
    wide, patch = vision.hidden, 3 * vision.patch_size**2
    block = 4 * (wide * wide + wide) + 2 * wide * vision.mlp + vision.mlp + wide + 4 * wide
    tower = wide + patch * wide + (vision.patches + 1) * wide + 4 * wide + vision.layers * block
    linear = wide * text.hidden + text.hidden
    two = shape.projector is not ProjectorLayout.IDENTITY
    projector = linear + (text.hidden**2 + text.hidden if two else 0)
    kv = text.kv_heads * text.head_dim
    layer = 2 * text.hidden**2 + 2 * text.hidden * kv + 3 * text.hidden * text.mlp + 2 * text.hidden
    decoder = 2 * text.vocab * text.hidden + text.hidden + text.layers * layer
    adapter = {ADAPTER: adapter_count(text, lora)} if lora else {}
    return {TOWER: tower, PROJECTOR: projector, DECODER: decoder, **adapter}


def cost_of(shape: LlavaShape, trained: Collection[str], lora: Lora | None = None) -> Cost:
    """FLOPs that training takes: 2 for a parameter forwards, 2 backwards through it, 2 for its own gradient.

    With the projector alone that is 4 for every parameter of the decoder, with the decoder 6; the embedding
    multiplies nothing. Attention scores and the head are counted as parameters are (the head is applied to
    answers only). A frozen tower goes forwards alone, over the layers that the features come from. Weights
    in 4 bits are multiplied as ever; widening them is not counted.
    """
    counts = count_parameters(shape, lora)
    decoder = counts[DECODER] - shape.text.vocab * shape.text.hidden
    token = decoder * (6.0 if DECODER in trained else 4.0) + 6.0 * counts.get(ADAPTER, 0)
    tower = counts[TOWER] * (6.0 if TOWER in trained else 2.0) * (shape.vision.patches + 1)
    projector = counts[PROJECTOR] * (6.0 if TOWER in trained else 4.0) * shape.image_tokens
    return Cost(token=token, picture=tower + projector)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What has to be computed: rows of an epoch, tokens and pictures of a row, on average.

    ``longest`` are the tokens of the largest micro-batch, padding included, ``pictures_at_once`` its
    pictures, each view of one in tiles counted; ``answered`` is the share of tokens that are supervised.
    ``length`` are the tokens of one of its sequences where attention keeps its scores (``eager``), 0 where it
    does not.
    """

    rows: int
    tokens: float
    pictures: float
    longest: int
    pictures_at_once: int
    answered: float = 0.2
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``gpus`` devices of ``memory`` bytes and ``peak`` FLOP/s each, of which training reaches ``mfu``."""

    gpus: int = 1
    memory: float = 80e9
    peak: float = 989e12
    mfu: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one GPU, by what they are for."""

    weights: float
    masters: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        state = self.weights + self.masters + self.gradients + self.optimizer
        return state + self.activations + self.logits + self.gathered


def memory_of(shape: LlavaShape, stage: StageConfig, load: Load, *, shards: int = 1) -> Memory:
    """What one GPU holds at its fullest, with the decoder and its state divided among ``shards`` GPUs.

    Trained weights are fp32 and, in bf16, cast for every use; frozen ones are held as they are computed in.
    AdamW keeps two fp32 numbers for each trained weight. Of a divided decoder there are no casts but those of
    the layers that are gathered; activations are counted as they are without division, which is no less.
    """
    width = _width(stage)
    counts = count_parameters(shape, stage.lora)
    held = {part: count / (shards if part == DECODER else 1) for part, count in counts.items()}
    trained = sum(count for part, count in held.items() if part in stage.parts)
    less = saved_bytes(shape.text, stage.lora, width) if stage.lora else 0.0
    uncast = held[DECODER] if shards > 1 and DECODER in stage.parts and width < 4 else 0.0
    return Memory(
        weights=width * (sum(held.values()) - uncast) - less,
        masters=4.0 * trained if width < 4 else 0.0,
        gradients=4.0 * trained,
        optimizer=8.0 * trained,
        activations=_activations(shape, stage, load),
        logits=load.longest * load.answered * shape.text.vocab * (width + 8.0),
        gathered=_gathered(shape, stage) if shards > 1 else 0.0,
    )


def unit_parameters(shape: LlavaShape) -> int:
    """Parameters of the largest piece of a divided decoder that is gathered at once."""
    text = shape.text
    ends = 2 * text.vocab * text.hidden + text.hidden
    return max((count_parameters(shape)[DECODER] - ends) // text.layers, text.vocab * text.hidden)


def _gathered(shape: LlavaShape, stage: StageConfig) -> float:
    """What is gathered at once: a layer in use, the next one as it arrives and as it is laid out.

    Where the decoder is trained also a layer's gradients, and twice their sums in fp32 on their way.
    """
    width = _width(stage)
    return unit_parameters(shape) * (3.0 * width + (width + 8.0 if DECODER in stage.parts else 0.0))


def _width(stage: StageConfig) -> int:
    """Bytes of a number in the arithmetic."""
    return 2 if stage.precision is Precision.BF16 else 4


def _activations(shape: LlavaShape, stage: StageConfig, load: Load) -> float:
    """What the backward pass needs of the forward pass: of one layer if it is recomputed, else of all."""
    text = shape.text
    layer = load.longest * layer_bytes(shape, stage, length=load.length)
    kept = load.longest * text.hidden * 4.0
    decoder = text.layers * layer
    if stage.recompute is Recompute.FULL:
        decoder = text.layers * kept + layer
    elif stage.recompute is Recompute.SELECTIVE:
        others = load.longest * selective_bytes(shape, stage, length=load.length)
        decoder = (text.layers - 1) * others + layer
    tower = 0.0
    if TOWER in stage.parts:
        tower = load.pictures_at_once * (shape.vision.patches + 1) * shape.vision.layers * _tower_bytes(shape)
    return decoder + tower


def layer_bytes(shape: LlavaShape, stage: StageConfig, *, length: int = 0) -> float:
    """Bytes that one decoder layer keeps of one token for the backward pass.

    Counted from what torch saves: norms in fp32; query, keys, values and the log-sum of attention; three
    tensors of the gated unit; and, where its weights are trained, the input of every linear layer (under
    autocast each casts its own). Attention in the open keeps, for each of ``length`` tokens that are looked
    at, a score of every head in fp32 and as it is computed in, and keys and values once for every head; its
    result only where the next layer's weights are trained.
    """
    text, width = shape.text, _width(stage)
    trained = DECODER in stage.parts
    norms = 4.0 * text.hidden * (4 if trained else 2) + 8
    attention = width * (text.hidden + 2 * text.kv_heads * text.head_dim) + 4.0 * text.heads
    if length:
        attention += _open_attention(text, width, length)
        attention -= 0 if trained else width * text.hidden
    gates = 3.0 * width * text.mlp
    if not trained:
        return norms + attention + gates + width * text.hidden + kept_bytes(text, stage, fused=not length)
    casts = 6 if stage.precision is Precision.BF16 else 3
    return norms + attention + gates + width * (casts * text.hidden + text.mlp)


def selective_bytes(shape: LlavaShape, stage: StageConfig, *, length: int = 0) -> float:
    """Bytes that one decoder layer keeps of one token with selective recomputation.

    Its input in fp32, what its linear layers gave, and of fused attention the result with its log-sums.
    """
    text, width = shape.text, _width(stage)
    linear = 3 * text.hidden + 2 * text.kv_heads * text.head_dim + 2 * text.mlp
    attention = 0.0 if length else width * text.hidden + 4.0 * text.heads
    return 4.0 * text.hidden + width * linear + attention


def _open_attention(text: TextShape, width: int, length: int) -> float:
    """What attention keeps of a token beyond what the fused one does, which has log-sums instead."""
    scores = (4.0 if width == 4 else 4.0 + width) * text.heads * length
    repeated = 2.0 * width * (text.hidden - text.kv_heads * text.head_dim)
    return scores + repeated - 4.0 * text.heads


def _tower_bytes(shape: LlavaShape) -> float:
    """Bytes that one layer of a trained tower keeps of one patch: about 34 a width in bf16."""
    return 34.0 * shape.vision.hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A way to run a stage, what it needs on one GPU, and whether that is there."""

    name: str
    memory: Memory
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a stage will take on a machine. ``flops`` and ``seconds`` are of the whole run."""

    counts: Mapping[str, int]
    trained: tuple[str, ...]
    memory: Memory
    options: tuple[Option, ...]
    samples: float
    flops: float
    seconds: float


def estimate(shape: LlavaShape, stage: StageConfig, load: Load, machine: Machine) -> Estimate:
    """Memory and time of ``stage`` on ``machine``, and what else could be tried there."""
    cost = cost_of(shape, stage.parts, stage.lora)
    samples = float(stage.steps * stage.batch) if stage.steps else load.rows * stage.epochs
    flops = samples * (load.tokens * cost.token + load.pictures * cost.picture)
    flops *= 4 / 3 if stage.recompute is Recompute.FULL else 1
    return Estimate(
        counts=count_parameters(shape, stage.lora),
        trained=tuple(stage.parts),
        memory=memory_of(shape, stage, load, shards=shards_of(stage, machine.gpus)),
        options=tuple(_options(shape, stage, load, machine)),
        samples=samples,
        flops=flops,
        seconds=flops / (machine.gpus * machine.peak * machine.mfu),
    )


def shards_of(stage: StageConfig, gpus: int, node: int = 8) -> int:
    """Among how many of ``gpus`` GPUs, ``node`` in a machine, ``stage`` divides the decoder."""
    return {Shard.NONE: 1, Shard.FULL: gpus, Shard.HYBRID: min(gpus, node)}[stage.shard]


def _options(shape: LlavaShape, stage: StageConfig, load: Load, machine: Machine) -> list[Option]:
    share = -(-load.longest // stage.micro_batch)
    single = replace(load, longest=share, pictures_at_once=-(-load.pictures_at_once // stage.micro_batch))
    selective, full = (replace(stage, recompute=how) for how in (Recompute.SELECTIVE, Recompute.FULL))
    tried = [
        ("as configured", stage, load),
        ("micro-batch 1", stage, single),
        ("selective recomputation", selective, load),
        ("micro-batch 1, selective recomputation", selective, single),
        ("recomputation", full, load),
        ("micro-batch 1, recomputation", full, single),
    ]
    if machine.gpus > 1 and stage.lora is None:
        other = Shard.FULL if stage.shard is Shard.NONE else Shard.NONE
        what = "a part of the decoder" if other is Shard.FULL else "the whole model"
        name = f"micro-batch 1, recomputation, {what} on each GPU (--shard {other})"
        tried.append((name, replace(full, shard=other), single))
    if stage.shard is Shard.FULL and machine.gpus > shards_of(
        replace(stage, shard=Shard.HYBRID), machine.gpus
    ):
        name = "a part of the decoder on each GPU, all of it in each machine (--shard hybrid)"
        tried.append((name, replace(stage, shard=Shard.HYBRID), load))
    options: list[Option] = []
    for name, how, what in tried:
        memory = memory_of(shape, how, what, shards=shards_of(how, machine.gpus))
        options.append(Option(name=name, memory=memory, fits=memory.total <= ROOM * machine.memory))
    return options


def gigabytes(count: float) -> str:
    """``count`` bytes for people."""
    return f"{count / _GB:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
