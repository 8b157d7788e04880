"""What a finished run leaves: a stock model folder with a card, and the projector alone after stage 1."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llavar import files
from llavar.models import _hf_sharded as streamed
from llavar.models.card import pictures_in_tiles
from llavar.models.projector import Linear
from llavar.models.projector_file import write_projector
from llavar.models.shape import ProjectorLayout
from llavar.models.stored import open_tensors
from llavar.train import home
from llavar.train.material import Model

CARD = "README.md"
LAST = "special_tokens_map.json"
"""Written last, so a model folder that has it is whole."""


class SavedAs(StrEnum):
    """What numbers the finished model is written in. Frozen parts come out as they went in."""

    STORED = "stored"
    """As the model that the run started from."""
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


DTYPES: Mapping[SavedAs, torch.dtype] = {
    SavedAs.FP32: torch.float32,
    SavedAs.BF16: torch.bfloat16,
    SavedAs.FP16: torch.float16,
}


def is_finished(out: Path) -> bool:
    """Whether the model folder of a run is whole."""
    return (out / home.MODEL / LAST).is_file()


def save_model(
    model: Model,
    out: Path,
    card: str,
    ask: Callable[[str], Tensor],
    *,
    saved_as: SavedAs,
    trained: Iterable[Tensor],
) -> None:
    """Write ``out/model``: weights, configuration, processor, card, and the tokenizer last.

    ``ask`` gives all of a tensor by its name in the model, one at a time. ``trained`` are the parameters
    that training changed; everything else is taken over from the folder that the run started from, bit by bit
    where ``saved_as`` does not convert it.
    """
    folder = out / home.MODEL
    for left in out.glob(f".{home.MODEL}.*"):  # by a kill while the folder was written
        shutil.rmtree(left)
    module: Any = model.module
    changed = {id(tensor) for tensor in trained}
    named = module.named_parameters(remove_duplicate=False)
    streamed.save(
        module,
        folder,
        ask=ask,
        start=model.folder,
        trained={name for name, parameter in named if id(parameter) in changed},
        dtype=DTYPES.get(saved_as, _stored_dtype(model)),
        layout=ProjectorLayout.FOLD if model.layout is ProjectorLayout.FOLD else None,
        transform=model.transform,
        norm=model.norm,
        tiles=model.tiles,
    )
    files.write_text(folder / CARD, card + pictures_in_tiles(model.tiles, model.image_size, model.transform))
    model.tokenizer.save(folder)


def _stored_dtype(model: Model) -> torch.dtype:
    """The type of the embedding in the folder that the run started from."""
    return next(
        tensor.dtype
        for name, tensor in open_tensors(model.folder).items()
        if name.endswith("embed_tokens.weight")
    )


def save_projector(model: Model, out: Path) -> bool:
    """Write ``out/mm_projector.bin`` in fp32, if the projector is a single layer; returns whether it is."""
    if model.layout is ProjectorLayout.MLP or model.layout is None:
        return False
    layer: Any = model.module.model.multi_modal_projector.linear_1
    write_projector(Linear(weight=layer.weight.detach(), bias=layer.bias.detach()), out / home.PROJECTOR)
    return True
