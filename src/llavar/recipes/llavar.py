"""LLaVAR's two stages, as the paper trained them, and their parity variants.

Numbers from section 3 of the paper and the original's commands: AdamW without weight decay, a cosine after
3 % of warm-up, gradients no longer than 1, bf16; stage 1 at 2e-3 with 128 rows a step, 1,024 tokens and one
epoch of 595K + 422K rows; stage 2 at 2e-5 with 32 rows a step, 2,048 tokens and three epochs of 158K + 16K.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llavar.images import WHOLE, Tiles
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.train.config import Mean, PartConfig, Schedule, StageConfig
from llavar.train.llava import DECODER, PROJECTOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A stage of training with a name.

    ``shape``, ``rows`` and ``tokens`` (of a row, on average, image tokens included) are what it is meant
    for, to plan with before data and model are there; ``tiles`` are those of its pictures. ``model`` is what
    it starts from if none is named.
    """

    name: str
    about: str
    stage: StageConfig
    shape: LlavaShape
    rows: int
    tokens: float
    model: str = ""
    tiles: Tiles = WHOLE


def llavar_13b_stage1() -> Recipe:
    """Align: the projector alone, on 595K captions and 422K noisy readings."""
    return _stage1("13b", llavar_shape(_VICUNA_13B))


def llavar_13b_stage2() -> Recipe:
    """Instruct: projector and decoder, on 158K and 16K conversations."""
    return _stage2("13b", llavar_shape(_VICUNA_13B))


def llavar_7b_stage1() -> Recipe:
    """As :func:`llavar_13b_stage1`, with the smaller decoder."""
    return _stage1("7b", llavar_shape(_VICUNA_7B))


def llavar_7b_stage2() -> Recipe:
    """As :func:`llavar_13b_stage2`, with the smaller decoder."""
    return _stage2("7b", llavar_shape(_VICUNA_7B))


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


def _stage2(size: str, shape: LlavaShape) -> Recipe:
    stage = StageConfig(
        parts={PROJECTOR: PartConfig(lr=2e-5), DECODER: PartConfig(lr=2e-5)},
        batch=32,
        micro_batch=4,
        max_length=2048,
        epochs=3,
        save_every=800,
    )
    about = "Instruct: projector and decoder, 3 epochs."
    return Recipe(
        name=f"llavar-{size}-stage2", about=about, stage=stage, shape=shape, rows=173_512, tokens=900
    )
