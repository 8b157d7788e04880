"""Token by token: both model classes, with rows that leave, give what one forward pass gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llavar.errors import ModelError
from llavar.models import _hf, steps
from llavar.models.shape import LlavaShape, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
    text=TextShape(vocab=50, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=128),
    image_token_id=49,
)


@pytest.fixture(scope="module", params=["lean", "stock"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("steps") / "m"
    made = _hf.build_llava(SHAPE, seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(8)
    _hf.save_llava(made, folder)
    return _hf.load_llava(folder, lean=request.param == "lean")


@pytest.fixture(scope="module")
def stock(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stock class with the same weights, for whole forward passes."""
    made = _hf.build_llava(SHAPE, seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(8)
    return made.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and mask (2, 13) of which the second row is padded by 2, pixels (2, 3, 24, 24)."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(3, 49, (2, 4), generator=generator)
    picture = torch.full((2, 9), 49)
    ids = torch.cat([words[:, :2], picture, words[:, 2:]], dim=1)
    mask = torch.ones_like(ids)
    ids[1] = torch.cat([torch.zeros(1).long(), words[1, :1], picture[1], words[1, 2:]])
    mask[1, 0] = 0
    return ids, mask, torch.randn(2, 3, 24, 24, generator=generator)


def whole(stock: Any, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        places = (mask.cumsum(1) - 1).clamp(min=0)
        return stock(input_ids=ids, attention_mask=mask, position_ids=places, pixel_values=pixels).logits[
            :, -1
        ]


def test_steps_equal_whole_passes(model: Any, stock: Any) -> None:
    ids, mask, pixels = batch()
    with torch.inference_mode():
        seen = steps.features(model, pixels)
        assert seen.shape == (2, 9, 32)
        running = steps.begin(model, ids, mask, seen)
        for _ in range(3):
            wanted = whole(stock, ids, mask, pixels)
            assert torch.allclose(running.logits, wanted, atol=1e-4, rtol=1e-3)
            token = wanted.argmax(-1)
            running.step(token)
            ids = torch.cat([ids, token[:, None]], dim=1)
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    assert wanted.std() > 0.1


@pytest.mark.parametrize("row", [0, 1])
def test_a_row_goes_on_alone(model: Any, stock: Any, row: int) -> None:
    ids, mask, pixels = batch()
    with torch.inference_mode():
        running = steps.begin(model, ids, mask, steps.features(model, pixels))
        running.step(torch.tensor([5, 6]))
        running.keep(torch.tensor([row]))
        running.step(torch.tensor([7]))
        ids = torch.cat([ids[row : row + 1], torch.tensor([[5 + row, 7]])], dim=1)
        mask = torch.nn.functional.pad(mask[row : row + 1], (0, 2), value=1)
        wanted = whole(stock, ids, mask, pixels[row : row + 1])
        assert torch.allclose(running.logits, wanted, atol=1e-4, rtol=1e-3)


def test_features_of_another_picture_change_the_logits(model: Any) -> None:
    ids, mask, pixels = batch()
    with torch.inference_mode():
        seen = steps.features(model, pixels)
        one = steps.begin(model, ids, mask, seen).logits
        two = steps.begin(model, ids, mask, seen.flip(0)).logits
    assert not torch.allclose(one, two, atol=1e-2)


def test_prompts_without_pictures(model: Any) -> None:
    ids = torch.tensor([[1, 5, 9]])
    with torch.inference_mode():
        logits = steps.begin(model, ids, torch.ones_like(ids), None).logits
    assert logits.shape == (1, 50)


def test_pictures_that_have_no_place(model: Any) -> None:
    ids, mask, pixels = batch()
    with torch.inference_mode(), pytest.raises(ModelError, match="18 image tokens, and .* pictures fill 9"):
        steps.begin(model, ids, mask, steps.features(model, pixels[:1]))
