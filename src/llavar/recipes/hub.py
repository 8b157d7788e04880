"""A model of today, tuned: any image-text-to-text model of Hugging Face, through its own processor.

No paper has these numbers. They are what is usual for adapters on a few thousand rows: rank 32 on all linear
layers of the decoder, a rate of 1e-4, 16 rows a step, three epochs. Rows are as long as 4,096 tokens, since
current models make a thousand and more of one picture, and activations are computed twice, so that a decoder
of 7B fits on a GPU of 24 GB.
"""

from __future__ import annotations

from collections.abc import Iterable

from llavar.models.adapter import Lora
from llavar.recipes.llavar import Recipe, llavar_7b_stage2
from llavar.train.config import ADAPTER, PartConfig, Recompute, StageConfig
from llavar.train.settings import Job

NAME = "lora-hub"


def lora_hub() -> Recipe:
    """An adapter on the decoder; the shape to plan with is that of a Llava with a decoder of 7B."""
    stage = StageConfig(
        parts={ADAPTER: PartConfig(lr=1e-4)},
        batch=16,
        micro_batch=1,
        max_length=4096,
        epochs=3,
        packing=False,
        recompute=Recompute.FULL,
        save_every=100,
        lora=Lora(rank=32, alpha=64, dropout=0.05),
    )
    return Recipe(
        name=NAME,
        about="Tune: an adapter on any image-text-to-text model, through its own processor, 3 epochs.",
        stage=stage,
        shape=llavar_7b_stage2().shape,
        rows=5_000,
        tokens=1_400,
        own_processor=True,
    )


def tuning(model: str, data: Iterable[str], images: str = "", *, stage: StageConfig | None = None) -> Job:
    """The job that tunes ``model``, a folder or a hub id, on rows files with their pictures in ``images``.

    :func:`llavar.train.job.run` does it; what it leaves in ``RUN/model`` is loaded by
    :func:`llavar.generate.hub.load_any`. ``stage`` stands in for that of :func:`lora_hub`.
    """
    return Job(
        stage=stage or lora_hub().stage,
        recipe=NAME,
        model=model,
        data=tuple(data),
        images=images,
        own_processor=True,
    )
