"""What is computed twice, or compiled, gives the numbers that it gives without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from llavar.data.collate import Batch
from llavar.models import _hf as hf
from llavar.models import _hf_training as training
from llavar.models.loss import answer_loss
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.train.config import PartConfig, Recompute, StageConfig

SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(vocab=90, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=128),
    image_token_id=5,
    vision_feature_layer=-1,
)


def packed() -> Batch:
    """Two rows in one sequence, the first with a picture."""
    ids = torch.arange(10, 42)[None]
    ids[0, 2:6] = 5
    labels = ids.clone()
    labels[0, :8] = -100
    return Batch(
        ids=ids,
        labels=labels,
        positions=torch.cat([torch.arange(20), torch.arange(12)])[None],
        vision=torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
        is_features=False,
        rows=2,
    )


def gradients(attention: str, change: Callable[[Any], None], layers: int = 2) -> dict[str, Tensor]:
    shape = replace(SHAPE, text=replace(SHAPE.text, layers=layers))
    model = hf.build_llava(shape, seed=4, attention=attention).train()
    hf.disable_cache(model)
    change(model)
    loss = answer_loss(model, packed())
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "varlen"])
def test_what_is_computed_twice_has_the_same_gradients(attention: str):
    plain = gradients(attention, lambda model: None)
    assert_same(plain, gradients(attention, training.recompute))
    assert_same(plain, gradients(attention, lambda model: training.recompute(model, selective=True)))


def test_selective_recomputation_computes_no_product_twice(monkeypatch: pytest.MonkeyPatch):
    def products(change: Callable[[Any], None]) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counted:
            gradients("sdpa", change)
        return counted.get_total_flops()

    plain, full = products(lambda model: None), products(training.recompute)
    assert products(lambda model: training.recompute(model, selective=True)) == plain < full


def test_compiled_layers_give_the_same_gradients():
    """By torch's own tracing and differentiation; machine code of it takes minutes and is not made here."""

    def compiled(model: Any) -> None:
        training.compile_layers(model, "aot_eager")

    assert_same(gradients("eager", lambda model: None, 1), gradients("eager", compiled, 1))


def test_settings_of_earlier_versions_say_yes_or_no():
    def stage(how: Any) -> StageConfig:
        part = {"decoder": PartConfig(lr=1e-3)}
        return StageConfig(parts=part, batch=4, micro_batch=2, max_length=64, recompute=how)

    found = [stage(how).recompute for how in (True, False, "selective", Recompute.FULL)]
    assert found == [Recompute.FULL, Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL]
    with pytest.raises(ValueError, match="sometimes"):
        stage("sometimes")
