"""One arm of a comparison: the same base through stage 1 and stage 2 on given rows, to a model folder."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llavar.data.encode import encode_all
from llavar.data.vision import FeatureStore
from llavar.models import _hf as hf
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.recipes.nano import Stage
from llavar.records import IGNORE, Encoded, Example, Reject
from llavar.study.nano.weights import LAST_FILE
from llavar.train.llava import InstructionObjective
from llavar.train.loop import Fitted, fit
from llavar.train.metrics import Tick

MODEL = "model"
"""Folder of the finished model inside the folder of an arm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRows:
    """Rows of both stages; image names are those of the feature store."""

    stage1: tuple[Example, ...]
    stage2: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A finished arm."""

    model: Path
    stage1: Fitted
    stage2: Fitted


def train_arm(
    base: Path,
    rows: ArmRows,
    stages: tuple[Stage, Stage],
    features: FeatureStore,
    out: Path,
    *,
    on_tick: Callable[[int, Tick], None] | None = None,
) -> Arm:
    """Train ``base`` into ``out``; called again, go on where it was stopped.

    ``on_tick`` is called with the stage (1 or 2) and what the log holds.
    """
    # On a CPU and at these lengths, plain matrix products are faster than the fused attention.
    model: Any = hf.load_llava(base, attention="sdpa" if torch.cuda.is_available() else "eager")
    hf.disable_cache(model)
    model.train()
    tokenizer = load_tokenizer(base)
    fitted: list[Fitted] = []
    for number, (stage, examples) in enumerate(zip(stages, (rows.stage1, rows.stage2), strict=True), start=1):
        encoded, _ = encode_rows(examples, tokenizer, image_tokens=model.config.image_seq_length)
        objective = InstructionObjective(model, encoded, features, stage.feed, pad_id=tokenizer.pad_id or 0)

        def tell(tick: Tick, number: int = number) -> None:
            if on_tick:
                on_tick(number, tick)

        # Another run in the same folder is refused if its rows are others, not only its settings.
        loop = replace(stage.loop, tags={**stage.loop.tags, "rows": _digest(encoded)})
        fitted.append(fit(objective, loop, out / f"stage{number}", on_tick=tell))
    if not (out / MODEL / LAST_FILE).exists():
        hf.save_llava(model, out / MODEL, dtype=torch.float32)
        tokenizer.save(out / MODEL)
    del model
    gc.collect()
    return Arm(model=out / MODEL, stage1=fitted[0], stage2=fitted[1])


def encode_rows(
    examples: Sequence[Example], tokenizer: TextTokenizer, *, image_tokens: int
) -> tuple[list[Encoded], list[Reject]]:
    """Rows that the model can learn from, and rejects: those whose answers its tokenizer cannot write."""
    encoded, rejects = encode_all(
        examples,
        tokenizer,
        tokenizer.template(),
        image_tokens=image_tokens,
        start_end=tokenizer.has_start_end,
        max_length=1024,
    )
    unknown = tokenizer.unk_id
    odd = {
        row.id
        for row in encoded
        if any(i == unknown for i, k in zip(row.ids, row.labels, strict=True) if k != IGNORE)
    }
    rejects += [
        Reject(id=id, stage="encode", reason="characters that the tokenizer lacks", detail="in an answer")
        for id in sorted(odd)
    ]
    return [row for row in encoded if row.id not in odd], rejects


def _digest(rows: Sequence[Encoded]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.id, row.ids, row.labels, row.images)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]
