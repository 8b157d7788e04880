"""Estimates against what models and torch really hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from llavar.data.collate import Batch
from llavar.models._hf import build_llava
from llavar.models.loss import answer_loss
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.recipes.llavar import llavar_13b_stage1
from llavar.train.config import PartConfig, Precision, StageConfig
from llavar.train.estimate import (
    Load,
    Machine,
    cost_of,
    count_parameters,
    estimate,
    gigabytes,
    layer_bytes,
    memory_of,
)
from llavar.train.llava import DECODER, PROJECTOR, TOWER, parts_of
from llavar.train.loop import freeze_all_but

SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(vocab=200, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512),
    image_token_id=5,
    vision_feature_layer=-1,
)
LOAD = Load(rows=1000, tokens=100, pictures=1, longest=400, pictures_at_once=4)


def stage(*parts: str, **changes: object) -> StageConfig:
    named = {part: PartConfig(lr=1e-3) for part in parts}
    settled = {"batch": 8, "micro_batch": 4, "max_length": 128}
    return StageConfig(parts=named, **(settled | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", [ProjectorLayout.IDENTITY, ProjectorLayout.MLP])
@pytest.mark.parametrize("kv", [1, 2, 4])
def test_counts_are_those_of_the_model(kv: int, layout: ProjectorLayout):
    shape = replace(SHAPE, text=replace(SHAPE.text, kv_heads=kv), projector=layout)
    parts = parts_of(build_llava(shape, seed=0))
    held = {name: sum(p.numel() for p in part.values()) for name, part in parts.items()}
    assert count_parameters(shape) == held


def test_counts_of_13b_are_known():
    counts = count_parameters(llavar_13b_stage1().shape)
    assert counts == {TOWER: 303_507_456, PROJECTOR: 5_248_000, DECODER: 13_015_895_040}


def kept_by_torch(
    layers: int, parts: tuple[str, ...], precision: Precision, attention: str = "sdpa"
) -> float:
    """Bytes a token that torch keeps for the backward pass, weights and their casts left out."""
    shape = replace(SHAPE, text=replace(SHAPE.text, layers=layers))
    model = build_llava(shape, seed=0, attention=attention).train()
    named = parts_of(model)
    freeze_all_but(named, parts)
    if precision is Precision.BF16:
        for part, parameters in named.items():
            for parameter in parameters.values() if part not in parts else ():
                parameter.data = parameter.data.to(torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {tuple(p.shape) for p in model.parameters()}
    matrices |= {shape[::-1] for shape in matrices}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights and tuple(tensor.shape) not in matrices:
            held[place] = tensor
        return tensor

    length = 250
    ids = torch.full((1, length), 7)
    ids[0, 3:7] = 5
    labels = torch.full((1, length), -100)
    labels[0, -2:] = 3
    batch = Batch(
        ids=ids,
        labels=labels,
        positions=torch.arange(length)[None],
        vision=torch.randn(1, 3, 16, 16),
        is_features=False,
        rows=1,
    )
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is Precision.BF16), hooks:
        answer_loss(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / length


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("parts", [(PROJECTOR,), (PROJECTOR, DECODER)])
def test_activations_of_a_layer_are_what_torch_keeps(parts: tuple[str, ...], precision: Precision):
    kept = kept_by_torch(3, parts, precision) - kept_by_torch(2, parts, precision)
    assert layer_bytes(SHAPE, stage(*parts, precision=precision)) == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("parts", [(PROJECTOR,), (PROJECTOR, DECODER)])
def test_attention_in_the_open_keeps_its_scores(parts: tuple[str, ...], precision: Precision):
    kept = kept_by_torch(3, parts, precision, "eager") - kept_by_torch(2, parts, precision, "eager")
    counted = layer_bytes(SHAPE, stage(*parts, precision=precision), length=250)
    assert counted == pytest.approx(kept, rel=0.02)
    assert counted > 1.5 * layer_bytes(SHAPE, stage(*parts, precision=precision))


def test_arithmetic_is_four_or_six_for_a_parameter_and_a_token():
    counts = count_parameters(SHAPE)
    multiplied = counts[DECODER] - 200 * 64
    assert cost_of(SHAPE, {PROJECTOR}).token == 4 * multiplied
    assert cost_of(SHAPE, {PROJECTOR, DECODER}).token == 6 * multiplied
    assert cost_of(SHAPE, {TOWER}).picture > 2 * cost_of(SHAPE, {PROJECTOR}).picture


def test_trained_weights_cost_masters_gradients_and_moments():
    counts = count_parameters(SHAPE)
    first, second = (memory_of(SHAPE, stage(*p), LOAD) for p in ((PROJECTOR,), (PROJECTOR, DECODER)))
    assert first.weights == second.weights == 2 * sum(counts.values())
    for memory, trained in ((first, counts[PROJECTOR]), (second, counts[PROJECTOR] + counts[DECODER])):
        assert (memory.masters, memory.gradients, memory.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    assert second.activations > first.activations
    full = memory_of(SHAPE, stage(PROJECTOR, precision=Precision.FP32), LOAD)
    assert (full.weights, full.masters) == (2 * first.weights, 0)
    halved = memory_of(SHAPE, stage(PROJECTOR), LOAD, shards=2)
    assert (halved.weights, halved.activations) == (first.weights / 2, first.activations)
    assert memory_of(SHAPE, stage(TOWER), LOAD).activations > first.activations


def test_recomputation_keeps_one_layer_and_costs_a_third_more():
    deep = replace(SHAPE, text=replace(SHAPE.text, layers=40))
    plain, again = stage(PROJECTOR, DECODER), stage(PROJECTOR, DECODER, recompute=True)
    assert memory_of(deep, again, LOAD).activations < 0.2 * memory_of(deep, plain, LOAD).activations
    one, other = (estimate(deep, how, LOAD, Machine()) for how in (plain, again))
    assert other.flops == pytest.approx(one.flops * 4 / 3)


def test_time_is_arithmetic_over_what_the_machine_reaches():
    found = estimate(SHAPE, stage(PROJECTOR, epochs=2), LOAD, Machine(gpus=4, peak=1e12, mfu=0.5))
    assert found.samples == 2000
    assert found.seconds == pytest.approx(found.flops / 2e12)
    assert estimate(SHAPE, stage(PROJECTOR, steps=3), LOAD, Machine()).samples == 24


def test_options_say_what_fits():
    names = {True: "fits", False: "does not"}
    huge, tiny = (estimate(SHAPE, stage(PROJECTOR), LOAD, Machine(memory=m)) for m in (1e12, 1e3))
    assert {names[option.fits] for option in huge.options} == {"fits"}
    assert {names[option.fits] for option in tiny.options} == {"does not"}
    totals = [option.memory.total for option in huge.options]
    assert totals[0] == max(totals)
    assert len(estimate(SHAPE, stage(PROJECTOR), LOAD, Machine(gpus=2)).options) == len(totals) + 1


def test_bytes_for_people():
    assert (gigabytes(26.64e9), gigabytes(21e6)) == ("26.6 GB", "21.0 MB")
    assert isinstance(build_llava(SHAPE, seed=0), nn.Module)
