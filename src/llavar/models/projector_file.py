"""Projectors in files of their own: ``mm_projector.bin``, ``llava-13b-pretrain.bin`` and the like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llavar.errors import ModelError, NotFoundError
from llavar.models.projector import Linear
from llavar.models.stored import LazyTensor, open_tensors

PROJECTOR_WEIGHT = "model.mm_projector.weight"
PROJECTOR_BIAS = "model.mm_projector.bias"
_WEIGHT, _BIAS, _ROWS = "mm_projector.weight", "mm_projector.bias", "embed_tokens.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorFile:
    """What stage 1 of the original leaves: the layer and, maybe, embeddings that it trained as well."""

    linear: Linear
    rows: Tensor | None
    """Trained embeddings of the last tokens added (n, width), which stage 1 of the original saved too."""


def read_projector(path: Path) -> Linear:
    """The projector in a file such as ``mm_projector.bin`` or ``llava-13b-pretrain.bin``, or safetensors.

    Its keys end in ``mm_projector.weight`` and ``.bias``, whatever wrapper's prefix stands before them.

    Raises:
        NotFoundError: there is no such file.
        ModelError: damaged, a Git LFS pointer, or without exactly one linear projector.
    """
    return read_projector_file(path).linear


def read_projector_file(path: Path) -> ProjectorFile:
    """As :func:`read_projector`, with the embeddings that the file may hold besides."""
    if not path.is_file():
        raise NotFoundError(f"there is no projector file {path}; name mm_projector.bin or the like")
    stored = open_tensors(path)
    weight, bias = _only(path, stored, _WEIGHT), _only(path, stored, _BIAS)
    if len(weight.shape) != 2 or bias.shape != weight.shape[:1]:
        raise ModelError(
            f"{path} has a projector of weight {list(weight.shape)} and bias {list(bias.shape)}; a linear "
            "layer has a matrix, and a vector as long as the matrix has rows"
        )
    rows = next((tensor for name, tensor in stored.items() if name.endswith(_ROWS)), None)
    linear = Linear(weight=weight.load().clone(), bias=bias.load().clone())
    if not linear.weight.is_floating_point() or not linear.bias.is_floating_point():
        raise ModelError(f"{path} has a projector of {linear.weight.dtype}; floating point was expected")
    return ProjectorFile(linear=linear, rows=None if rows is None else rows.load())


def _only(path: Path, stored: Mapping[str, LazyTensor], ending: str) -> LazyTensor:
    found = [name for name in stored if name.endswith(ending)]
    if len(found) != 1:
        have = ", ".join(sorted(stored)[:3])
        raise ModelError(
            f"{path} has {len(found)} tensors whose name ends in {ending} and should have one; it holds "
            f"{len(stored)}: {have or 'none'}"
        )
    return stored[found[0]]


def write_projector(linear: Linear, path: Path) -> None:
    """Write a projector as the original's ``mm_projector.bin``: two plain tensors, no code in the pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    names = {PROJECTOR_WEIGHT: linear.weight, PROJECTOR_BIAS: linear.bias}
    try:
        torch.save({name: tensor.detach().cpu().clone() for name, tensor in names.items()}, aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
