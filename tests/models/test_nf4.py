"""Frozen layers in 4 bits: exact gradients, nothing kept in between, and the same by bitsandbytes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from llavar.errors import MissingExtraError
from llavar.models.adapter import Frozen
from llavar.models.nf4 import FrozenNF4, freeze_in, uncounted
from llavar.models.quantize import NF4Linear, parameters_of


def layer(inputs: int, outputs: int, *, bias: bool = False, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias)


@given(
    inputs=st.integers(1, 130),
    outputs=st.integers(1, 9),
    bias=st.booleans(),
    dtype=st.sampled_from((torch.float32, torch.float64, torch.bfloat16)),
)
@settings(deadline=None, max_examples=40)
def test_it_computes_with_the_widened_weights_both_ways(
    inputs: int, outputs: int, bias: bool, dtype: torch.dtype
):
    source = layer(inputs, outputs, bias=bias)
    frozen = FrozenNF4(source)
    wide = NF4Linear(source.weight).weight(dtype)
    x, y = (torch.randn(3, 2, inputs).to(dtype).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    added = None if source.bias is None else source.bias.detach().to(dtype)
    made, expected = frozen(x), torch.nn.functional.linear(y, wide) + (0 if added is None else added)
    assert made.dtype == dtype
    assert torch.equal(made, expected)
    weights = torch.randn_like(made)
    made.backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(x.grad, y.grad)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_no_widened_weight_waits_for_the_backward_pass():
    frozen = FrozenNF4(layer(64, 256))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        frozen(torch.randn(2, 64, requires_grad=True)).sum()
    assert not kept


def test_autocast_says_what_it_computes_in():
    frozen = FrozenNF4(layer(64, 8, bias=True))
    x = torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        made = frozen(x)
    assert made.dtype == torch.bfloat16
    made.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_its_weight_is_what_is_stored():
    frozen = FrozenNF4(layer(64, 8))
    assert frozen.weight.dtype == torch.uint8
    assert frozen.weight.numel() == 64 * 8 // 2
    assert (frozen.in_features, frozen.out_features, frozen.bias) == (64, 8, None)
    assert "in_features=64, out_features=8" in repr(frozen)
    assert [name for name, _ in frozen.named_parameters()] == []


def test_a_model_has_its_layers_exchanged_and_every_weight_counted():
    model = nn.Sequential(layer(64, 8), nn.Sequential(layer(8, 16, bias=True)))
    count = sum(parameter.numel() for parameter in model.parameters())
    freeze_in(Frozen.PLAIN, model, ["0"])
    assert type(model[0]) is nn.Linear
    freeze_in(Frozen.NF4, model, ["0", "1.0"])
    assert [type(model.get_submodule(name)) for name in ("0", "1.0")] == [FrozenNF4, FrozenNF4]
    assert sum(parameter.numel() for parameter in model.parameters()) + uncounted(model) == count
    assert parameters_of(model) == count


def test_without_bitsandbytes_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"--quantize bnb needs bitsandbytes.*take --quantize nf4"):
        freeze_in(Frozen.BNB, nn.Sequential(layer(64, 8)), ["0"])


@pytest.mark.parametrize("bias", [True, False])
def test_bitsandbytes_without_its_second_quantization_is_the_same(bias: bool):
    library: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (llavar[qlora])")
    source = layer(192, 128, bias=bias)
    theirs = library.nn.Params4bit(
        source.weight.detach().clone(), requires_grad=False, compress_statistics=False, quant_type="nf4"
    ).to("cpu")
    wide = library.functional.dequantize_4bit(theirs.data, theirs.quant_state)
    assert torch.equal(wide, FrozenNF4(source).kept.weight(torch.float32))


def test_bitsandbytes_keeps_a_layer():
    library: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (llavar[qlora])")
    model = nn.Sequential(layer(192, 128, bias=True))
    ours = FrozenNF4(layer(192, 128, bias=True))
    freeze_in(Frozen.BNB, model, ["0"])
    assert isinstance(model[0], library.nn.Linear4bit)
    assert uncounted(model) + sum(parameter.numel() for parameter in model.parameters()) == 192 * 128 + 128
    x = torch.randn(4, 192, requires_grad=True)
    torch.testing.assert_close(model(x), ours(x), atol=5e-3, rtol=0)  # scales are in 8 bits
    model(x).sum().backward()
    assert x.grad is not None
