"""Estimates of adapters against what peft's layers and torch really hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from llavar.cli import main
from llavar.models import _peft
from llavar.models._hf import build_llava
from llavar.models.adapter import Frozen, Lora
from llavar.models.loss import decode
from llavar.models.quantize import bytes_of
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.recipes import catalogue
from llavar.recipes.plan import load_of
from llavar.train.adapter_size import adapted as adapted_layers
from llavar.train.config import ADAPTER, PartConfig, Precision, StageConfig
from llavar.train.estimate import Load, cost_of, count_parameters, layer_bytes, memory_of
from llavar.train.llava import DECODER, PROJECTOR, TOWER, parts_of

SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(vocab=200, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512),
    image_token_id=5,
    vision_feature_layer=-1,
)
LOAD = Load(rows=1000, tokens=100, pictures=1, longest=400, pictures_at_once=4)
PLAIN = Lora(rank=8, alpha=16)


def stage(lora: Lora, precision: Precision = Precision.BF16) -> StageConfig:
    parts = {PROJECTOR: PartConfig(lr=1e-3), ADAPTER: PartConfig(lr=1e-3)}
    return StageConfig(parts=parts, batch=8, micro_batch=4, max_length=128, precision=precision, lora=lora)


def adapted(lora: Lora, layers: int = 2, precision: Precision = Precision.FP32) -> Any:
    pytest.importorskip("peft", reason="peft is not installed (llavar[lora])")
    model = build_llava(replace(SHAPE, text=replace(SHAPE.text, layers=layers)), seed=0).train()
    _peft.adapt(model, lora, within="model.language_model")
    if precision is Precision.BF16:
        for part in (TOWER, DECODER):
            for parameter in parts_of(model)[part].values():
                parameter.data = parameter.data.to(torch.bfloat16)
    return model


def kept_by_torch(lora: Lora, layers: int, precision: Precision) -> float:
    """Bytes a token that torch keeps of the decoder for the backward pass, weights and their casts left out.

    On a CPU the mask of dropout is kept as numbers of four bytes, on a GPU as one: that is what is given.
    """
    model = adapted(lora, layers, precision)
    weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    matrices = {tuple(parameter.shape) for parameter in model.parameters()}
    matrices |= {shape[::-1] for shape in matrices}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights and tuple(tensor.shape) not in matrices:
            held[place] = tensor
        return tensor

    length = 250
    inputs = torch.randn(1, length, 64, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is Precision.BF16), hooks:
        decode(model, inputs, torch.arange(length)[None])
    kept = sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / length
    masked = layers * sum(inputs for inputs, _ in adapted_layers(SHAPE.text, lora).values())
    return kept - (3 * masked if lora.dropout else 0)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    "targets", [("all-linear",), ("self_attn.q_proj", "v_proj"), ("down_proj", "up_proj")]
)
def test_activations_of_an_adapted_layer_are_what_torch_keeps(
    targets: tuple[str, ...], dropout: float, precision: Precision
):
    lora = replace(PLAIN, dropout=dropout, targets=targets)
    kept = kept_by_torch(lora, 3, precision) - kept_by_torch(lora, 2, precision)
    assert layer_bytes(SHAPE, stage(lora, precision)) == pytest.approx(kept, rel=0.02)


def test_four_bits_keep_no_more_of_a_layer_than_plain_weights():
    lora = replace(PLAIN, frozen=Frozen.NF4, dropout=0.1)
    kept = kept_by_torch(lora, 3, Precision.BF16) - kept_by_torch(lora, 2, Precision.BF16)
    assert layer_bytes(SHAPE, stage(lora)) == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "mlp.gate_proj")])
def test_counts_are_those_of_the_model(targets: tuple[str, ...]):
    lora = replace(PLAIN, targets=targets)
    held = {name: sum(p.numel() for p in part.values()) for name, part in parts_of(adapted(lora)).items()}
    assert count_parameters(SHAPE, lora) == held


def test_four_bits_are_counted_as_they_are_held():
    lora = replace(PLAIN, frozen=Frozen.NF4)
    precision = Precision.FP32
    saved = memory_of(SHAPE, stage(PLAIN, precision), LOAD).weights
    saved -= memory_of(SHAPE, stage(lora, precision), LOAD).weights
    tables = 2 * 7 * 4 * 16 * 16 * 2  # of levels, which are small however large a layer is
    assert saved == bytes_of(adapted(PLAIN)) - bytes_of(adapted(lora)) + tables


def test_what_is_trained_costs_and_what_is_frozen_does_not():
    counts = count_parameters(SHAPE, PLAIN)
    trained = counts[PROJECTOR] + counts[ADAPTER]
    memory = memory_of(SHAPE, stage(PLAIN), LOAD)
    assert memory.weights == 2 * sum(counts.values())
    assert (memory.masters, memory.gradients, memory.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    token = cost_of(SHAPE, {PROJECTOR, ADAPTER}, PLAIN).token
    assert token == cost_of(SHAPE, {PROJECTOR}).token + 6 * counts[ADAPTER]


def test_a_decoder_fits_where_the_whole_of_it_does_not():
    def total(name: str) -> float:
        recipe = catalogue.get(name)
        return memory_of(recipe.shape, recipe.stage, load_of(recipe)).total

    assert total("llavar-7b-stage2") > 100e9
    assert total("llavar-13b-stage2-lora") < 0.95 * 80e9
    assert total("llavar-13b-stage2-qlora") < 0.95 * 24e9
    assert total("llavar-7b-stage2-qlora") < 0.95 * 16e9


@pytest.mark.parametrize("recipe", ["llavar-13b-stage2-qlora", "llavar-13b-stage2-lora"])
def test_a_plan_lists_the_adapter(recipe: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", recipe, "--plan", "--lora-rank", "64"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["adapter", "250,347,520", "parameters", "trained"] in lines
    assert ["decoder", "13,015,895,040", "parameters", "frozen"] in lines
