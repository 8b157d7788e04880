"""Settings of a training run, as frozen dataclasses; recipes are functions that return them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from llavar.errors import ConfigError
from llavar.models.adapter import Lora

ADAPTER = "adapter"
"""The part of a model that LoRA adds to it."""


class Precision(StrEnum):
    """What the arithmetic runs in. Trained weights and optimizer state are fp32 in both cases."""

    FP32 = "fp32"
    BF16 = "bf16"


class Attention(StrEnum):
    """What the decoder's attention is computed by. Rows of a pack see only themselves with each of them."""

    AUTO = "auto"
    """On a GPU ``varlen`` in bf16 where torch has its kernel, else ``sdpa``; on a CPU ``varlen`` for packs of
    1,024 tokens and more, else ``eager``.
    """
    EAGER = "eager"
    """Plain matrix products, which keep the scores."""
    SDPA = "sdpa"
    """torch's fused attention, with a mask of length x length over packed rows."""
    FLEX = "flex"
    """torch's FlexAttention, compiled, with a mask of blocks. It is not trained with on a CPU."""
    VARLEN = "varlen"
    """torch's attention for rows of different lengths, without a mask; row by row where it has no kernel."""

    @classmethod
    def _missing_(cls, value: object) -> Attention | None:
        return cls.AUTO if value == "" else None  # as it was written before it had a name


class Recompute(StrEnum):
    """What of a layer is computed a second time in the backward pass instead of being kept."""

    NONE = "none"
    FULL = "full"
    """All but its input: the least memory, a third more arithmetic."""
    SELECTIVE = "selective"
    """All but the results of matrix products and of attention: norms, rotary positions, gates, casts."""

    @classmethod
    def _missing_(cls, value: object) -> Recompute | None:
        """As earlier versions wrote it: yes or no."""
        return {True: cls.FULL, False: cls.NONE}.get(value) if isinstance(value, bool) else None


class Shard(StrEnum):
    """What each of several processes holds of the decoder. Alone, a process holds everything."""

    NONE = "none"
    """All of it (data parallel)."""
    FULL = "full"
    """A part of its weights, gradients and moments; layers are gathered when needed (FSDP, ZeRO stage 3)."""
    HYBRID = "hybrid"
    """As ``full`` among the processes of a machine; every machine holds the same (HSDP)."""


class Mean(StrEnum):
    """How the loss of a step is averaged: over supervised tokens, or over micro-batches (original)."""

    TOKEN = "token"
    BATCH = "batch"


class Schedule(StrEnum):
    """How the learning rate rises and falls; both warm up linearly and follow a cosine from there."""

    COSINE = "cosine"
    """The first step has a rate above 0; the warm-up is the share of steps that is nearest."""
    TRAINER = "trainer"
    """As transformers' ``Trainer``, and so the original: the first step's rate is 0, warm-up rounded up."""


class Policy(StrEnum):
    """What to do about rows that cannot be used, and about pictures that cannot be opened."""

    STOP = "stop"
    SKIP = "skip"
    """Leave them out, with a record of each and their count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartConfig:
    """One part of a model (tower, projector, decoder ...): its peak learning rate and weight decay.

    ``muon`` is the peak rate of its hidden matrices under Muon; with 0 they are AdamW's, like the rest.
    """

    lr: float
    weight_decay: float = 0.0
    muon: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr <= 1:
            raise ConfigError(f"lr is {self.lr}; it must lie above 0 and be at most 1")
        if not 0 <= self.weight_decay <= 1:
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must lie from 0 to 1")
        if not 0 <= self.muon <= 1:
            raise ConfigError(f"muon is {self.muon}; it is a learning rate, at most 1, or 0 for AdamW alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long, how fast and how often.

    ``parts`` names what is trained; everything else is frozen. ``warmup`` is the share of steps over which
    the rate rises linearly before it falls along a cosine to ``floor`` times its peak (paper: 0.03 and 0).
    ``clip`` is the longest that a gradient may be, 0 for any length. ``tags`` say what else a run depends
    on (its rows, its model), so that another run is not taken for this one. ``keep`` is how many checkpoints
    are kept.
    """

    steps: int
    parts: Mapping[str, PartConfig]
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0
    precision: Precision = Precision.FP32
    mean: Mean = Mean.TOKEN
    schedule: Schedule = Schedule.COSINE
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; a run needs at least 1")
        if not self.parts:
            raise ConfigError(
                "no part is trained; name at least one of the model's parts with a learning rate"
            )
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup is {self.warmup}; it is a share of the steps, from 0 up to but not 1")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"floor is {self.floor}; it is a share of the peak rate, from 0 to 1")
        if not self.clip >= 0:
            raise ConfigError(f"clip is {self.clip}; give a length above 0, or 0 not to clip")
        if self.log_every < 1 or self.save_every < 1:
            raise ConfigError(
                f"log_every is {self.log_every} and save_every {self.save_every}; both are at least 1 step"
            )
        if self.keep < 1:
            raise ConfigError(f"keep is {self.keep}; at least 1 checkpoint has to be kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of training, whatever its rows and its model: what a recipe returns.

    A step learns from ``batch`` rows (of all processes together), computed in micro-batches of at most
    ``micro_batch`` packs. ``steps`` above 0 stands in for ``epochs``. Rows are cut at ``max_length`` tokens,
    which is also what a pack holds. ``like_lengths`` sorts the packs of a step by length before it is
    divided: less padding, but with ``mean=batch`` another weight for long rows than the original's.
    ``recompute`` says which activations are computed a second time instead of being kept, ``shard`` what a
    process holds where there are several, ``compiled`` whether torch compiles each layer of the decoder,
    ``liger`` whether Liger's kernels compute its norms and gates (on a GPU). With ``lora`` the model has a
    part :data:`ADAPTER`, which is trained in place of what it goes around.
    """

    parts: Mapping[str, PartConfig]
    batch: int
    micro_batch: int
    max_length: int
    epochs: float = 1.0
    steps: int = 0
    packing: bool = True
    like_lengths: bool = True
    recompute: Recompute = Recompute.NONE
    shard: Shard = Shard.NONE
    compiled: bool = False
    liger: bool = False
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0
    precision: Precision = Precision.BF16
    mean: Mean = Mean.TOKEN
    schedule: Schedule = Schedule.COSINE
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    lora: Lora | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= 10_000:
            raise ConfigError(f"epochs is {self.epochs}; it must lie above 0 and be at most 10000")
        if self.steps < 0:
            raise ConfigError(f"steps is {self.steps}; give at least 1, or 0 to go by epochs")
        if not 1 <= self.micro_batch <= self.batch:
            raise ConfigError(
                f"micro_batch is {self.micro_batch} and batch {self.batch}; a micro-batch holds at least 1 "
                "row and at most a whole batch"
            )
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}; a row needs at least 2 tokens")
        object.__setattr__(self, "recompute", Recompute(self.recompute))
        if self.lora is not None and self.shard is not Shard.NONE:
            raise ConfigError("LoRA is trained with the whole decoder in each process; take --shard none")
        if self.lora is None and ADAPTER in self.parts:
            raise ConfigError("the adapter has a rate and there is none; say of which rank: --lora-rank N")
        if self.lora is not None and ADAPTER not in self.parts:
            raise ConfigError("LoRA is asked for and its adapter is not trained; give --lr adapter=RATE")
        self.loop(steps=max(self.steps, 1))

    @property
    def micro_batches(self) -> int:
        """How many micro-batches a step is computed in, over all processes."""
        return -(-self.batch // self.micro_batch)

    def loop(self, *, steps: int, tags: Mapping[str, str] | None = None) -> LoopConfig:
        """What the loop needs to know of this stage.

        Raises:
            ConfigError: one of its values cannot work.
        """
        return LoopConfig(
            steps=steps,
            parts=self.parts,
            warmup=self.warmup,
            floor=self.floor,
            clip=self.clip,
            precision=self.precision,
            mean=self.mean,
            schedule=self.schedule,
            betas=self.betas,
            seed=self.seed,
            log_every=self.log_every,
            save_every=self.save_every,
            keep=self.keep,
            tags=tags or {},
        )
