"""Weights in 8 and 4 bits: how far they are off, what they cost, and that models go on answering."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from llavar import cli
from llavar.errors import ConfigError, ModelError
from llavar.generate.base import Request
from llavar.generate.local import LocalGenerator
from llavar.models import _hf as hf
from llavar.models import quantize
from llavar.models.build import build
from llavar.models.lean import LeanLlava
from llavar.models.quantize import NF4_LEVELS, Int8Linear, NF4Linear, Quantization
from llavar.study.nano import weights
from llavar.study.reader import Reader

KINDS = tuple(Quantization)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
NANO = weights.folder("nano")


def random_weight(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def qwen(families: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that only transformers computes, with biases and tied embeddings."""
    root = tmp_path_factory.mktemp("qwen")
    families.make_decoder(root / "decoder", "qwen2", hidden=64)
    families.make_tower(root / "tower", "siglip")
    build(root / "decoder", root / "tower", root / "model")
    return root / "model"


@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 150),
    seed=st.integers(0, 99),
    scale=st.sampled_from((1e-6, 1.0, 1e4)),
)
@settings(deadline=None)
def test_int8_is_off_by_half_a_step_at_most(outputs: int, inputs: int, seed: int, scale: float):
    weight = random_weight(outputs, inputs, seed) * scale
    layer = Int8Linear(weight)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((layer.weight(torch.float32) - weight).abs() <= step * 0.5001).all())
    assert int(layer.values.abs().max()) == 127


@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(1, 150),
    seed=st.integers(0, 99),
    scale=st.sampled_from((1e-6, 1.0, 1e4)),
)
@settings(deadline=None)
def test_nf4_takes_the_nearest_level(outputs: int, inputs: int, seed: int, scale: float):
    weight = random_weight(outputs, inputs, seed) * scale
    flat = weight.flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)
    largest = padded.abs().amax(1, keepdim=True)
    distance = (padded / largest.clamp(min=1e-30))[..., None] - torch.tensor(NF4_LEVELS)
    nearest = distance.abs().amin(-1).flatten()[: len(flat)].view_as(weight)
    of_each = largest.expand_as(padded).flatten()[: len(flat)].view_as(weight)
    found = (NF4Linear(weight).weight(torch.float32) - weight).abs()
    assert torch.allclose(found, nearest * of_each, atol=scale * 1e-5)


def test_levels_are_those_of_the_paper():
    """Appendix E of QLoRA: ascending, an exact zero, the ends -1 and 1, eight of sixteen above zero."""
    assert list(NF4_LEVELS) == sorted(NF4_LEVELS)
    assert (len(NF4_LEVELS), NF4_LEVELS[0], NF4_LEVELS[7], NF4_LEVELS[15]) == (16, -1.0, 0.0, 1.0)
    quantile = torch.distributions.Normal(0.0, 1.0).icdf
    offset = 0.9677083
    upper = quantile(torch.linspace(offset, 0.5, 9)[:-1])
    lower = -quantile(torch.linspace(offset, 0.5, 8)[:-1])
    expected = torch.cat([upper, torch.zeros(1), lower]).sort().values / float(upper.max())
    assert torch.allclose(torch.tensor(NF4_LEVELS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_computes_with_its_widened_weights(kind: Quantization, bias: bool, dtype: torch.dtype):
    weight = random_weight(10, 70)
    given = random_weight(1, 10, 2)[0].to(dtype) if bias else None
    layer: Any = quantize.layer(kind, weight, given)
    inputs = random_weight(3, 70, 1).to(dtype)
    made = layer(inputs)
    assert made.dtype is dtype
    expected = nn.functional.linear(
        inputs.float(), layer.weight(torch.float32), None if given is None else given.float()
    )
    assert torch.allclose(
        made.float(), expected, rtol=0.02, atol=0.05 if dtype is not torch.float32 else 1e-4
    )
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(7, 130), (64, 64), (3, 1000)])
def test_wide_layers_are_quantized_in_parts(
    kind: Quantization, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    weight = random_weight(*shape)
    whole: Any = quantize.layer(kind, weight)
    monkeypatch.setattr(quantize, "_CHUNK", 128)
    parts: Any = quantize.layer(kind, weight)
    assert torch.equal(parts.values, whole.values)
    assert torch.equal(parts.scale, whole.scale)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: Quantization):
    weight = random_weight(4, 64)
    weight[1] = 0
    layer: Any = quantize.layer(kind, weight)
    assert torch.equal(layer.weight(torch.float32)[1], torch.zeros(64))
    assert bool(layer.weight(torch.float32).isfinite().all())


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Quantization.INT8, 256 * 1024 + 256 * 4),
        (Quantization.NF4, 256 * 1024 // 2 + 256 * 1024 // 64 * 4 + 2048),
    ],
)
def test_what_a_weight_costs(kind: Quantization, size: int):
    layer = quantize.layer(kind, random_weight(256, 1024))
    assert quantize.bytes_of(layer) == size  # values, scales, and 2 kB of levels
    assert quantize.parameters_of(layer) == 256 * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_nano_read_layer_by_layer_is_nano_quantized_at_once(kind: Quantization):
    streamed = quantize.load(NANO, kind)
    assert isinstance(streamed, LeanLlava)
    plain: Any = hf.load_llava(NANO, lean=True)
    before, numbers = quantize.bytes_of(plain), quantize.parameters_of(plain)
    quantize.quantize(plain, kind)
    one, other = streamed.state_dict(), plain.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert quantize.parameters_of(plain) == numbers
    assert quantize.bytes_of(plain) < before
    kept = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    assert kept
    assert not any(name.startswith("language_model.model") for name in kept)
    assert quantize.kind_of(plain) is kind
    with pytest.raises(ModelError, match="no linear layers"):
        quantize.quantize(plain, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_near(kind: Quantization):
    ids = torch.arange(5, 60)[None]
    exact: Any = hf.load_llava(NANO, lean=True)
    wanted = exact(ids).softmax(-1)
    found = quantize.load(NANO, kind)(ids).softmax(-1)
    most = {Quantization.INT8: 0.02, Quantization.NF4: 0.15}[kind]
    assert 0 < float((wanted - found).abs().sum(-1).mean() / 2) < most  # total variation


@pytest.mark.parametrize("kind", KINDS)
def test_other_decoders_are_quantized_too(kind: Quantization, qwen: Path):
    plain: Any = hf.load_llava(qwen)
    model: Any = quantize.load(qwen, kind)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        wanted, found = plain(input_ids=ids).logits, model(input_ids=ids).logits
    assert not torch.equal(wanted, found)
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear | NF4Linear):
            plain.get_submodule(name).weight.data = module.weight(torch.float32)
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=ids).logits, found, atol=1e-3)
    biased = model.model.language_model.layers[0].self_attn.q_proj
    assert torch.equal(biased.bias, plain.model.language_model.layers[0].self_attn.q_proj.bias)
    assert isinstance(model.lm_head, nn.Linear)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("kind", KINDS)
def test_answers_do_not_depend_on_the_batch(kind: Quantization, qwen: Path):
    generator = LocalGenerator.load(qwen, quantize=kind)
    asked = [
        Request(image=PICTURE, question="What does the sign say?", max_new_tokens=6),
        Request(image=None, question="Who?", max_new_tokens=6),
    ]
    assert generator.answer(asked) == [generator.answer([request])[0] for request in asked]
    assert generator.about["quantization"] == kind.value
    assert "quantization" not in LocalGenerator.load(qwen).about


@pytest.mark.parametrize("kind", KINDS)
def test_ask(kind: Quantization, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    PICTURE.save(tmp_path / "a.png")
    said = ["ask", str(tmp_path / "a.png"), "What does it say?", "--max-new-tokens", "3", "--json"]
    assert cli.main([*said, "--quantize", kind.value]) == 0
    assert json.loads(capsys.readouterr().out)["quantization"] == kind.value
    with pytest.raises(SystemExit):
        cli.main([*said, "--quantize", "int3"])


def test_an_unknown_kind():
    with pytest.raises(ConfigError, match="quantize is 'int3'; known are int8, nf4"):
        Reader.load(quantize="int3")
    assert Reader.load(quantize="int8").parameters == Reader.load().parameters
