# pyright: basic
"""A tower for larger pictures: its position embeddings at another resolution, and how many tokens that takes.

A vision transformer adds an embedding to each patch that says where the patch stands. For another grid of
patches these are interpolated, as is usual (ViT, Dosovitskiy et al. 2020, section 3.2; bicubic as in DeiT):
the result is an ordinary tower of another ``image_size``. It then sees more patches than it was trained
with, so that training it on is advised.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from llavar.errors import ConfigError, ModelError
from llavar.images import WHOLE, Tiles
from llavar.models._hf import config_of, image_tokens

MOST_SIZE = 2048
"""Pixels along a side; in patches of 14 pixels that is 146 x 146 of them."""

_USEFUL = 0.75
"""The share of a context that pictures may take in what is advised: a question and an answer follow."""


def interpolated(positions: Tensor, patches: int, *, class_token: bool) -> Tensor:
    """Position embeddings (positions, width) for ``patches`` x ``patches`` patches, in the type they have.

    Computed in fp32; the position of the class token, which is the first, is kept as it is. Equal numbers of
    patches give the same numbers.

    Raises:
        ModelError: the positions are not those of a square of patches.
    """
    first, grid = positions[: int(class_token)], positions[int(class_token) :]
    side = math.isqrt(len(grid))
    if side * side != len(grid) or not len(grid):
        raise ModelError(
            f"{len(grid)} position embeddings are no square of patches; take a CLIP or SigLIP tower"
        )
    if side == patches:
        return positions
    image = grid.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    larger = interpolate(image, size=(patches, patches), mode="bicubic", align_corners=False)
    flat = larger.permute(0, 2, 3, 1).reshape(patches * patches, -1)
    return torch.cat([first, flat.to(positions.dtype)])


def resize_tower(model: nn.Module, size: int) -> None:
    """Let the tower of a stock model take pictures of ``size`` x ``size`` pixels, its configuration as well.

    Raises:
        ConfigError: the size is no multiple of the patch size, or out of range.
        ModelError: the tower is no CLIP or SigLIP.
    """
    config = config_of(model)
    vision, patch = config.vision_config, config.vision_config.patch_size
    if size % patch or not patch <= size <= MOST_SIZE:
        raise ConfigError(
            f"the tower size is {size}; give a multiple of the patch size {patch}, "
            f"at most {MOST_SIZE // patch * patch}"
        )
    place = _embeddings(model)
    old = place.position_embedding.weight.detach()
    has_class = hasattr(place, "class_embedding")
    count = (size // patch) ** 2 + has_class
    with torch.no_grad():
        new = nn.Embedding(count, old.shape[1], device=old.device, dtype=old.dtype)
        new.weight.copy_(interpolated(old, size // patch, class_token=has_class))
    place.position_embedding = new.requires_grad_(place.position_embedding.weight.requires_grad)
    place.position_ids = torch.arange(count, device=old.device)[None]
    place.image_size, place.num_patches, place.num_positions = size, (size // patch) ** 2, count
    for each in (vision, getattr(place, "config", vision)):
        each.image_size = size
    config.image_seq_length = image_tokens(model)


def _embeddings(model: nn.Module) -> Any:
    """The module of a stock tower that knows where patches stand."""
    inner: Any = model.get_submodule("model.vision_tower")
    for module in inner.modules():
        if isinstance(getattr(module, "position_embedding", None), nn.Embedding):
            return module
    raise ModelError("this tower has no position embeddings to interpolate; take a CLIP or SigLIP tower")


def check_room(tiles: Tiles, tokens: int, limit: int, *, size: int, patch: int, what: str) -> None:
    """Whether a picture in ``tiles`` of ``tokens`` tokens each leaves room among ``limit`` tokens.

    ``size`` and ``patch`` are those of the tower, ``what`` names the limit.

    Raises:
        ConfigError: it does not; the message says what would fit.
    """
    taken = tiles.views * tokens
    if taken < limit:
        return
    side = math.isqrt(int(_USEFUL * limit) // tiles.views)
    fewer = next((f"1x{count}" for count in (3, 2) if (count + 1) * tokens <= _USEFUL * limit), "1x1")
    advice = [] if tiles == WHOLE or Tiles.parse(fewer).views >= tiles.views else [f"fewer tiles ({fewer})"]
    if side and side * patch < size:
        advice.append(f"a tower of {side * patch} pixels or fewer ({tiles.views * side * side:,} tokens)")
    shown = "one view" if tiles == WHOLE else f"{tiles} tiles and an overview"
    raise ConfigError(
        f"a picture in {shown} takes {tiles.views} x {tokens:,} = {taken:,} tokens, and {what} is {limit:,}; "
        f"{', or '.join([*advice, 'raise that limit'])}"
    )
