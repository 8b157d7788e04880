"""Nano: the embedded model's numbers, and how its two stages are trained. Same code as 13B, other numbers."""

from __future__ import annotations

from dataclasses import dataclass

from llavar.models.adapter import Lora
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.recipes.llavar import Recipe, lora
from llavar.train.config import LoopConfig, PartConfig, Precision, StageConfig
from llavar.train.llava import DECODER, PROJECTOR, FeedConfig

SIZE = 96
"""Side of a picture in pixels, as the tower sees it."""

PATCHES = 12
"""Patches along a side; 144 image tokens."""


def nano_shape(*, vocab: int, image_token_id: int) -> LlavaShape:
    """5.5 million parameters; the decoder is twice as wide as the tower, so that ``fold`` applies."""
    return LlavaShape(
        vision=VisionShape(
            image_size=SIZE, patch_size=SIZE // PATCHES, hidden=192, layers=4, heads=3, mlp=768
        ),
        text=TextShape(vocab=vocab, hidden=384, layers=4, heads=6, kv_heads=2, mlp=448, max_positions=2048),
        image_token_id=image_token_id,
        vision_feature_layer=-1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything about one training stage but its rows."""

    loop: LoopConfig
    feed: FeedConfig


def nano_stage1(*, steps: int, seed: int = 0, save_every: int = 50) -> Stage:
    """The projector alone, as in section 3 of the paper, at twice its rate."""
    return Stage(
        loop=LoopConfig(
            steps=steps,
            parts={PROJECTOR: PartConfig(lr=4e-3)},
            precision=Precision.BF16,
            betas=(0.9, 0.98),
            seed=seed,
            save_every=save_every,
            log_every=5,
        ),
        feed=_feed(seed),
    )


def nano_stage2(*, steps: int, seed: int = 0, save_every: int = 50) -> Stage:
    """Projector and decoder, at a hundred and at fifteen times the paper's rate: both are very small here."""
    return Stage(
        loop=LoopConfig(
            steps=steps,
            parts={PROJECTOR: PartConfig(lr=2e-3), DECODER: PartConfig(lr=3e-4)},
            precision=Precision.BF16,
            betas=(0.9, 0.98),
            seed=seed,
            save_every=save_every,
            log_every=5,
        ),
        feed=_feed(seed),
    )


def nano_recipe1() -> Recipe:
    """``nano-stage1``: :func:`nano_stage1` by epochs, for files of rows and pictures."""
    return _recipe(
        "nano-stage1", "The embedded model's first stage: the projector alone.", nano_stage1(steps=1)
    )


def nano_recipe2() -> Recipe:
    """``nano-stage2``: :func:`nano_stage2` by epochs, for files of rows and pictures."""
    return _recipe(
        "nano-stage2", "The embedded model's second stage: projector and decoder.", nano_stage2(steps=1)
    )


def nano_recipe2_lora() -> Recipe:
    """``nano-stage2-lora``: :func:`nano_recipe2` with an adapter of rank 32, whose widest layers are 448."""
    return lora(nano_recipe2(), Lora(rank=32, alpha=64, dropout=0.05))


def _recipe(name: str, about: str, stage: Stage) -> Recipe:
    loop, feed = stage.loop, stage.feed
    config = StageConfig(
        parts=loop.parts,
        batch=feed.batch,
        micro_batch=feed.batch // feed.parts,
        max_length=feed.capacity,
        packing=feed.packing,
        precision=loop.precision,
        betas=loop.betas,
        log_every=loop.log_every,
        save_every=loop.save_every,
    )
    shape = nano_shape(vocab=177, image_token_id=174)
    return Recipe(name=name, about=about, stage=config, shape=shape, rows=1000, tokens=230, model="nano")


def _feed(seed: int) -> FeedConfig:
    # One row a pack: on a CPU, attention over a block mask costs more than the padding it saves.
    return FeedConfig(batch=16, parts=2, capacity=1024, packing=False, seed=seed)
