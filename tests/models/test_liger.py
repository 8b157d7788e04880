"""Liger's kernels in the places of norms and gates. They need a GPU; here torch stands in for them."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from llavar.data.collate import Batch
from llavar.errors import ConfigError
from llavar.models import _hf as hf
from llavar.models import _hf_training as training
from llavar.models.loss import answer_loss
from llavar.models.shape import LlavaShape, TextShape, VisionShape

LAYERS = 2
SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(vocab=60, hidden=64, layers=LAYERS, heads=4, kv_heads=2, mlp=96, max_positions=64),
    image_token_id=5,
)


class Kernels(SimpleNamespace):
    """What Liger's functions compute, and how often each was called."""

    def __init__(self) -> None:
        super().__init__(norms=0, gates=0)

    def liger_rms_norm(self, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        self.norms += 1
        wide = states.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(states.dtype)

    def liger_swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        self.gates += 1
        return silu(gate) * up


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    found = Kernels()
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.functional", found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return found


def batch() -> Batch:
    ids = torch.arange(10, 40)[None]
    return Batch(
        ids=ids,
        labels=ids.clone(),
        positions=torch.cat([torch.arange(20), torch.arange(10)])[None],
        vision=None,
        is_features=False,
        rows=2,
    )


def gradients(change: Any) -> dict[str, Tensor]:
    model = hf.build_llava(SHAPE, seed=4, attention="eager").train()
    hf.disable_cache(model)
    change(model)
    loss = answer_loss(model, batch())
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss}


def test_every_norm_and_gate_of_the_decoder_is_fused_to_the_same_numbers(kernels: Kernels):
    plain, fused = gradients(lambda _: None), gradients(training.fuse_layers)
    assert (kernels.norms, kernels.gates) == (2 * LAYERS + 1, LAYERS)
    assert plain.keys() == fused.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_it_goes_with_recomputation_and_leaves_the_weights_in_their_places(kernels: Kernels):
    def both(model: Any) -> None:
        names = list(model.state_dict())
        training.fuse_layers(model)
        training.recompute(model)
        assert list(model.state_dict()) == names

    plain, fused = gradients(lambda _: None), gradients(both)
    assert kernels.norms > 2 * LAYERS + 1
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_where_it_cannot_be_a_sentence_says_why(monkeypatch: pytest.MonkeyPatch):
    model: Any = hf.build_llava(SHAPE, seed=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--liger has kernels for GPUs alone, and there is none here"):
        training.fuse_layers(model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.functional", None)
    with pytest.raises(ConfigError, match="needs liger-kernel; pip install liger-kernel"):
        training.fuse_layers(model)
    model.model.language_model.config.model_type = "qwen2"
    with pytest.raises(ConfigError, match="decoders of the kind llama and this one is qwen2"):
        training.fuse_layers(model)
