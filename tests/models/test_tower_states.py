"""The tower computes what its features need and nothing behind it, to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from llavar.models import loss as losses
from llavar.models._hf import build_llava
from llavar.models._hf_training import recompute, tower_states
from llavar.models.shape import LlavaShape, TextShape, VisionShape

LAYERS = 3
SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=LAYERS, heads=2, mlp=48),
    text=TextShape(vocab=60, hidden=64, layers=1, heads=4, kv_heads=2, mlp=96, max_positions=64),
    image_token_id=5,
    vision_feature_layer=-2,
)


def clip() -> Any:
    return build_llava(SHAPE, seed=4).eval().get_submodule("model.vision_tower")


def siglip() -> Any:
    from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    torch.manual_seed(4)
    return SiglipVisionModel(config).eval()


def dinov2() -> Any:
    from transformers.models.dinov2.configuration_dinov2 import Dinov2Config
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=2, image_size=16, patch_size=8
    )
    torch.manual_seed(4)
    return Dinov2Model(config).eval()


def pictures() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@contextmanager
def counted(tower: Any) -> Iterator[list[str]]:
    """The names of the modules of ``tower`` that are called in the block."""
    called: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in tower.named_modules()
    ]
    yield called
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("make", [clip, siglip, dinov2])
@pytest.mark.parametrize("layer", [-LAYERS - 1, -2, -1, 0, 1, LAYERS])
def test_every_hidden_state_is_that_of_the_whole_tower(make: Any, layer: int):
    tower = make()
    with torch.no_grad():
        whole = tower(pictures(), output_hidden_states=True).hidden_states[layer]
        assert torch.equal(tower_states(tower, pictures(), layer), whole)


def test_in_the_autocast_of_training_too():
    tower = clip().to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = tower(pictures(), output_hidden_states=True).hidden_states[-2]
        assert torch.equal(tower_states(tower, pictures(), -2), whole)


@pytest.mark.parametrize("make", [clip, siglip])
def test_the_last_layer_but_one_is_where_it_ends(make: Any):
    tower = make()
    with counted(tower) as called, torch.no_grad():
        tower_states(tower, pictures(), -2)
    names = [name for name in called if name.count(".") == 2 and "encoder.layers." in name]
    assert [name.rpartition(".")[2] for name in names] == ["0", "1"]
    assert not [name for name in called if "post_layernorm" in name or "head" in name]


def test_gradients_of_a_trained_tower_are_those_of_the_whole_one():
    found: list[dict[str, Tensor]] = []
    for change in (lambda _: None, recompute):
        for whole in (True, False):
            model: Any = build_llava(SHAPE, seed=4).train()
            change(model)
            tower = model.model.vision_tower
            seen = (
                tower(pictures(), output_hidden_states=True).hidden_states[-2]
                if whole
                else tower_states(tower, pictures(), -2)
            )
            seen.square().sum().backward()
            found.append({name: p.grad for name, p in tower.named_parameters() if p.grad is not None})
    assert found[0]
    assert not [name for name in found[0] if f"layers.{LAYERS - 1}." in name]
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        assert all(torch.equal(found[0][name], other[name]) for name in other)


def test_features_are_those_of_the_stock_model():
    model: Any = build_llava(SHAPE, seed=4).eval()
    with torch.no_grad():
        stock = torch.stack(model.get_image_features(pictures()).pooler_output)
        ours = model.model.multi_modal_projector(losses.features(model, pictures()))
    assert torch.equal(ours, stock)
