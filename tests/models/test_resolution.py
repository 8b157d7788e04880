"""A tower for another size of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from llavar.errors import ConfigError, ModelError
from llavar.images import WHOLE, Tiles
from llavar.models import _hf as hf
from llavar.models import lean
from llavar.models.resolution import check_room, interpolated, resize_tower
from llavar.models.shape import LlavaShape, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=32, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
    text=TextShape(vocab=60, hidden=32, layers=1, heads=4, kv_heads=2, mlp=48, max_positions=256),
    image_token_id=50,
)


def positions(model: Any) -> torch.Tensor:
    return next(value for name, value in model.named_parameters() if "position_embedding" in name)


def test_positions_are_interpolated_bicubically_and_the_class_token_keeps_its_own():
    weight = torch.randn(1 + 16, 6)
    found = interpolated(weight, 7, class_token=True)
    image = weight[1:].reshape(4, 4, 6).permute(2, 0, 1)[None]
    wanted = interpolate(image, size=(7, 7), mode="bicubic", align_corners=False)[0]
    assert torch.equal(found[0], weight[0])
    assert torch.equal(found[1:].reshape(7, 7, 6).permute(2, 0, 1), wanted)


@pytest.mark.parametrize("class_token", [True, False])
def test_the_same_number_of_patches_gives_the_same_numbers(class_token: bool):
    weight = torch.randn(16 + class_token, 6, dtype=torch.bfloat16)
    assert torch.equal(interpolated(weight, 4, class_token=class_token), weight)


def test_half_precision_is_interpolated_in_full_and_rounded_once():
    weight = torch.randn(17, 6).to(torch.bfloat16)
    found = interpolated(weight, 5, class_token=True)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, interpolated(weight.float(), 5, class_token=True).to(torch.bfloat16))


@pytest.mark.parametrize("count", [1, 6, 18])
def test_positions_of_no_square_are_refused(count: int):
    with pytest.raises(ModelError, match="no square"):
        interpolated(torch.zeros(count, 4), 3, class_token=True)


@pytest.mark.parametrize("size", [24, 48])
def test_a_resized_tower_computes_what_the_stock_class_interpolates_by_itself(size: int):
    model = hf.build_llava(SHAPE, seed=3).eval()
    pixels = torch.randn(2, 3, size, size)
    tower: Any = model.get_submodule("model.vision_tower")
    wanted = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    resize_tower(model, size)
    assert torch.allclose(tower(pixels).last_hidden_state, wanted, atol=1e-6)
    assert hf.image_tokens(model) == (size // 8) ** 2
    assert hf.config_of(model).image_seq_length == (size // 8) ** 2


def test_a_resized_model_is_written_as_an_ordinary_folder(tmp_path: Path):
    model: Any = hf.build_llava(SHAPE, seed=3).eval()
    resize_tower(model, 48)
    hf.save_llava(model, tmp_path / "m")
    pixels, ids = torch.randn(1, 3, 48, 48), torch.tensor([[1, *[50] * 36, 7]])
    again = lean.load(tmp_path / "m")
    assert again.shape.vision.image_size == 48
    with torch.no_grad():
        wanted = model(input_ids=ids, pixel_values=pixels).logits
    assert torch.allclose(again(ids, pixel_values=pixels), wanted, atol=1e-5)
    assert torch.equal(positions(hf.load_stock(tmp_path / "m")), positions(model))


def test_the_same_size_changes_no_bit_and_frozen_stays_frozen():
    model = hf.build_llava(SHAPE, seed=3)
    before = positions(model).clone()
    positions(model).requires_grad_(False)
    resize_tower(model, 32)
    assert torch.equal(positions(model), before)
    resize_tower(model, 40)
    assert not positions(model).requires_grad


@pytest.mark.parametrize("size", [0, 7, 33, 4096])
def test_sizes_that_cannot_be_are_refused(size: int):
    with pytest.raises(ConfigError, match="multiple of the patch size 8, at most 2048"):
        resize_tower(hf.skeleton(SHAPE), size)


def test_four_tiles_of_336_pixels_do_not_fit_into_a_context_of_2048():
    with pytest.raises(ConfigError) as caught:
        check_room(Tiles(rows=2, columns=2), 576, 2048, size=336, patch=14, what="the context")
    told = str(caught.value)
    assert "5 x 576 = 2,880 tokens, and the context is 2,048" in told
    assert "a tower of 238 pixels or fewer (1,445 tokens)" in told
    check_room(Tiles(rows=2, columns=2), (238 // 14) ** 2, 2048, size=238, patch=14, what="the context")
    check_room(Tiles(rows=1, columns=2), 576, 2048, size=336, patch=14, what="the context")


def test_advice_is_what_helps():
    with pytest.raises(ConfigError, match=r"fewer tiles \(1x2\), or a tower of"):
        check_room(Tiles(rows=3, columns=3), 576, 3000, size=336, patch=14, what="the context")
    with pytest.raises(ConfigError, match="in one view takes 1 x 576 = 576 tokens.*, or raise that") as told:
        check_room(WHOLE, 576, 576, size=336, patch=14, what="--max-length")
    assert "fewer tiles" not in str(told.value)
