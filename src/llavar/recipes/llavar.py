"""LLaVAR's two stages, as the paper trained them, and their parity variants.

Numbers from section 3 of the paper and the original's commands: AdamW without weight decay, a cosine after
3 % of warm-up, gradients no longer than 1, bf16; stage 1 at 2e-3 with 128 rows a step, 1,024 tokens and one
epoch of 595K + 422K rows; stage 2 at 2e-5 with 32 rows a step, 2,048 tokens and three epochs of 158K + 16K.

The paper trains no adapters. Those of the ``-lora`` recipes have the numbers of LLaVA-1.5 (haotian-liu/LLaVA,
``scripts/v1_5/finetune_lora.sh``; dropout and layers: ``llava/train/train.py``): rank 128, alpha 256, dropout
0.05, all linear layers of the decoder but the head, at 2e-4, which is ten times the rate of a whole decoder,
and the projector trained in full at 2e-5. Rows a step and epochs are those of stage 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llavar.images import WHOLE, Tiles
from llavar.models.adapter import Frozen, Lora
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.train.config import ADAPTER, Mean, PartConfig, Recompute, Schedule, Shard, StageConfig
from llavar.train.llava import DECODER, PROJECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A stage of training with a name.

    ``shape``, ``rows`` and ``tokens`` (of a row, on average, image tokens included) are what it is meant
    for, to plan with before data and model are there; ``tiles`` are those of its pictures. ``model`` is what
    it starts from if none is named. With ``own_processor`` that is any image-text-to-text model.
    """

    name: str
    about: str
    stage: StageConfig
    shape: LlavaShape
    rows: int
    tokens: float
    model: str = ""
    tiles: Tiles = WHOLE
    own_processor: bool = False


def llavar_13b_stage1() -> Recipe:
    """Align: the projector alone, on 595K captions and 422K noisy readings."""
    return _stage1("13b", llavar_shape(_VICUNA_13B))


def llavar_13b_stage2() -> Recipe:
    """Instruct: projector and decoder, on 158K and 16K conversations."""
    return _stage2("13b", llavar_shape(_VICUNA_13B), Recompute.FULL)


def llavar_7b_stage1() -> Recipe:
    """As :func:`llavar_13b_stage1`, with the smaller decoder."""
    return _stage1("7b", llavar_shape(_VICUNA_7B))


def llavar_7b_stage2() -> Recipe:
    """As :func:`llavar_13b_stage2`, with the smaller decoder."""
    return _stage2("7b", llavar_shape(_VICUNA_7B), Recompute.SELECTIVE)


def llavar_13b_stage2_lora() -> Recipe:
    """Instruct, with an adapter on the decoder instead of all of it."""
    return _one_at_a_time(lora(llavar_13b_stage2(), LLAVA_LORA))


def llavar_7b_stage2_lora() -> Recipe:
    """As :func:`llavar_13b_stage2_lora`, with the smaller decoder."""
    return _one_at_a_time(lora(llavar_7b_stage2(), LLAVA_LORA))


def llavar_13b_stage2_qlora() -> Recipe:
    """As :func:`llavar_13b_stage2_lora`, over a decoder in 4 bits, with activations computed twice."""
    return _qlora(llavar_13b_stage2())


def llavar_7b_stage2_qlora() -> Recipe:
    """As :func:`llavar_13b_stage2_qlora`, with the smaller decoder."""
    return _qlora(llavar_7b_stage2())


LLAVA_LORA = Lora(rank=128, alpha=256, dropout=0.05)
"""LLaVA-1.5's; its targets are all linear layers of the decoder."""

LORA_RATE = 2e-4
"""LLaVA-1.5's rate of an adapter."""


def lora(recipe: Recipe, adapter: Lora, *, rate: float = 0.0) -> Recipe:
    """``recipe`` with ``adapter`` in place of its decoder, at ``rate`` (0: that of :func:`with_lora`)."""
    kind = "lora" if adapter.frozen is Frozen.PLAIN else "qlora"
    what = "an adapter" if kind == "lora" else "an adapter over 4 bits"
    about = recipe.about.replace("projector and decoder", f"projector and {what}")
    return replace(
        recipe, name=f"{recipe.name}-{kind}", about=about, stage=with_lora(recipe.stage, adapter, rate=rate)
    )


def with_lora(stage: StageConfig, adapter: Lora, *, rate: float = 0.0) -> StageConfig:
    """``stage`` with ``adapter`` trained in place of the decoder.

    Its rate is ``rate`` if that is given; else the one that it has, ten times the decoder's (as LLaVA-1.5 has
    it), or :data:`LORA_RATE` where the decoder is not trained.
    """
    parts = dict(stage.parts)
    decoder, held = parts.pop(DECODER, None), parts.pop(ADAPTER, None)
    tenfold = float(f"{min(1.0, 10 * decoder.lr):.6g}") if decoder else LORA_RATE  # not 0.0029999999999999996
    settled = rate or (held.lr if held else tenfold)
    decay = (held or decoder or PartConfig(lr=settled)).weight_decay
    parts |= {ADAPTER: PartConfig(lr=settled, weight_decay=decay)}
    return replace(stage, parts=parts, lora=adapter, shard=Shard.NONE)


def _qlora(recipe: Recipe) -> Recipe:
    changed = _one_at_a_time(lora(recipe, replace(LLAVA_LORA, frozen=Frozen.NF4)))
    return replace(changed, stage=replace(changed.stage, recompute=Recompute.FULL))


def _one_at_a_time(recipe: Recipe) -> Recipe:
    """Micro-batches of one pack, nothing computed twice: 13B so fits on one GPU of 80 GB."""
    return replace(recipe, stage=replace(recipe.stage, micro_batch=1, recompute=Recompute.NONE))


def parity(recipe: Recipe) -> Recipe:
    """The same stage as the original computed it.

    Every row is padded, micro-batches are as large as those of one of its eight GPUs and not sorted by
    length, their losses are averaged however many tokens they hold, and the rate begins at 0.
    """
    stage = replace(
        recipe.stage, packing=False, like_lengths=False, mean=Mean.BATCH, schedule=Schedule.TRAINER
    )
    about = f"{recipe.about} Padded, batch mean: as the original."
    return replace(recipe, name=f"{recipe.name}-parity", about=about, stage=stage)


_VICUNA_13B = TextShape(
    vocab=32_003, hidden=5120, layers=40, heads=40, kv_heads=40, mlp=13_824, max_positions=2048
)
_VICUNA_7B = TextShape(
    vocab=32_003, hidden=4096, layers=32, heads=32, kv_heads=32, mlp=11_008, max_positions=2048
)


def llavar_shape(text: TextShape) -> LlavaShape:
    """CLIP ViT-L/14 at 336 pixels, features of the last layer but one, and a decoder."""
    return LlavaShape(
        vision=VisionShape(image_size=336, patch_size=14, hidden=1024, layers=24, heads=16, mlp=4096),
        text=text,
        image_token_id=32_000,
    )


def _stage1(size: str, shape: LlavaShape) -> Recipe:
    stage = StageConfig(
        parts={PROJECTOR: PartConfig(lr=2e-3)},
        batch=128,
        micro_batch=8,
        max_length=1024,
        save_every=400,
    )
    about = "Align: the projector alone, 1 epoch."
    return Recipe(
        name=f"llavar-{size}-stage1", about=about, stage=stage, shape=shape, rows=1_017_690, tokens=660
    )


def _stage2(size: str, shape: LlavaShape, recompute: Recompute) -> Recipe:
    """Divided among 8 GPUs of 80 GB, with as little computed twice as fits there."""
    stage = StageConfig(
        parts={PROJECTOR: PartConfig(lr=2e-5), DECODER: PartConfig(lr=2e-5)},
        batch=32,
        micro_batch=4,
        max_length=2048,
        epochs=3,
        recompute=recompute,
        shard=Shard.FULL,
        save_every=800,
    )
    about = "Instruct: projector and decoder, 3 epochs."
    return Recipe(
        name=f"llavar-{size}-stage2", about=about, stage=stage, shape=shape, rows=173_512, tokens=900
    )
