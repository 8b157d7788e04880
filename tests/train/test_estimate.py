"""Estimates against what models and torch really hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llavar.data.collate import Batch
from llavar.models import _hf_training as training
from llavar.models._hf import build_llava
from llavar.models.loss import answer_loss
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.recipes.llavar import llavar_13b_stage1
from llavar.train.config import PartConfig, Precision, Recompute, Shard, StageConfig
from llavar.train.estimate import (
    Load,
    Machine,
    cost_of,
    count_parameters,
    estimate,
    gigabytes,
    layer_bytes,
    memory_of,
    selective_bytes,
    unit_parameters,
)
from llavar.train.llava import DECODER, PROJECTOR, TOWER, parts_of
from llavar.train.loop import freeze_all_but
from llavar.train.scale import Network, exchanged_by, fed_by, scaled

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
    batch = batch_of(length)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is Precision.BF16), hooks:
        answer_loss(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values()) / length


def batch_of(length: int) -> Batch:
    """One row with a picture."""
    ids = torch.full((1, length), 7)
    ids[0, 3:7] = 5
    labels = torch.full((1, length), -100)
    labels[0, -2:] = 3
    return Batch(
        ids=ids,
        labels=labels,
        positions=torch.arange(length)[None],
        vision=torch.randn(1, 3, 16, 16),
        is_features=False,
        rows=1,
    )


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
    assert memory_of(SHAPE, stage(TOWER), LOAD).activations > first.activations


def test_of_a_divided_decoder_a_gpu_holds_its_part_and_what_is_gathered():
    counts, trained = count_parameters(SHAPE), stage(PROJECTOR, DECODER)
    decoder, whole = counts[DECODER], counts[TOWER] + counts[PROJECTOR]
    half = memory_of(SHAPE, trained, LOAD, shards=2)
    assert (
        half.weights == 2 * whole
    )  # in bf16, of the decoder there are only the masters and what is gathered
    assert half.masters == half.gradients == half.optimizer / 2 == 4 * (counts[PROJECTOR] + decoder / 2)
    assert half.activations == memory_of(SHAPE, trained, LOAD).activations
    assert half.gathered == unit_parameters(SHAPE) * (3 * 2 + 2 + 8)
    assert memory_of(SHAPE, trained, LOAD).gathered == 0
    frozen = memory_of(SHAPE, stage(PROJECTOR), LOAD, shards=4)
    assert (frozen.weights, frozen.gathered) == (2 * (whole + decoder / 4), 6 * unit_parameters(SHAPE))
    full = memory_of(SHAPE, stage(DECODER, precision=Precision.FP32), LOAD, shards=4)
    assert (full.weights, full.masters) == (4 * (whole + decoder / 4), 0)


def test_the_largest_piece_is_a_layer_or_an_end():
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64
    assert unit_parameters(SHAPE) == layer
    assert unit_parameters(replace(SHAPE, text=replace(SHAPE.text, vocab=9000))) == 9000 * 64


def test_recomputation_keeps_one_layer_and_costs_a_third_more():
    deep = replace(SHAPE, text=replace(SHAPE.text, layers=40))
    plain, some, again = (stage(PROJECTOR, DECODER, recompute=how) for how in Recompute)
    kept = {how.recompute: memory_of(deep, how, LOAD).activations for how in (plain, some, again)}
    assert kept[Recompute.FULL] < 0.2 * kept[Recompute.NONE]
    assert kept[Recompute.FULL] < kept[Recompute.SELECTIVE] < 0.8 * kept[Recompute.NONE]
    flops = {how.recompute: estimate(deep, how, LOAD, Machine()).flops for how in (plain, some, again)}
    assert flops[Recompute.FULL] == pytest.approx(flops[Recompute.NONE] * 4 / 3)
    assert flops[Recompute.SELECTIVE] == flops[Recompute.NONE]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("precision", Precision)
def test_selective_recomputation_keeps_what_is_counted(precision: Precision, attention: str):
    def kept(layers: int) -> float:
        shape = replace(SHAPE, text=replace(SHAPE.text, layers=layers))
        model = build_llava(shape, seed=0, attention=attention).train()
        training.recompute(model, selective=True)
        with Kept() as seen, torch.autocast("cpu", torch.bfloat16, enabled=precision is Precision.BF16):
            answer_loss(model, batch_of(250))
        return seen.bytes / 250

    length = 250 if attention == "eager" else 0
    counted = selective_bytes(SHAPE, stage(DECODER, precision=precision), length=length)
    residual = 4.0 * SHAPE.text.hidden  # the input, which checkpointing keeps by itself
    assert counted - residual == pytest.approx(kept(3) - kept(2), rel=0.02)


class Kept(TorchDispatchMode):
    """Bytes of the results that selective recomputation keeps, of what the block computes in layers."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        if function in training.kept_operations():
            results = given if isinstance(given, tuple) else (given,)
            self.bytes += sum(result.nbytes for result in results if isinstance(result, Tensor))
        return given


def test_what_gpus_exchange_is_counted():
    counts = count_parameters(SHAPE)
    both, frozen = (stage(*parts, batch=32) for parts in ((PROJECTOR, DECODER), (PROJECTOR,)))
    decoder, projector, other, passes = counts[DECODER], counts[PROJECTOR], 3 / 4, 32 // 4 // 4
    assert exchanged_by(SHAPE, both, 4, 1) == (0, 8 * (projector + decoder) * other)
    assert exchanged_by(SHAPE, both, 4, 4) == (passes * decoder * (2 + 2 + 4) * other, 8 * projector * other)
    assert exchanged_by(SHAPE, frozen, 4, 4) == (passes * decoder * 4 * other, 8 * projector * other)
    among, rows = exchanged_by(SHAPE, both, 4, 2)  # two machines of two
    assert among == passes * decoder * 8 / 2
    assert rows == passes * 8 * decoder / 2 / 2 + 8 * projector * other
    assert exchanged_by(SHAPE, both, 1, 1) == (0, 0)


@pytest.mark.parametrize(
    ("gpus", "batch", "micro"), [(1, 32, 4), (8, 32, 4), (16, 32, 2), (24, 48, 2), (64, 64, 1)]
)
def test_a_batch_feeds_as_many_as_it_has_rows(gpus: int, batch: int, micro: int):
    fed = fed_by(stage(DECODER, batch=32, micro_batch=4), gpus)
    assert (fed.batch, fed.micro_batch) == (batch, micro)
    assert fed.micro_batches % gpus == 0


def test_what_is_divided_is_exchanged_meanwhile_and_else_afterwards():
    slow = Network(node=1, between=1e6)
    for how in (Shard.NONE, Shard.FULL):
        row = scaled(SHAPE, stage(DECODER, shard=how), lambda _: LOAD, Machine(gpus=4), slow, price=2.0)
        assert row.exchanging == pytest.approx(row.exchanged / 1e6)
        step = row.seconds / row.steps
        whole = row.computing + row.exchanging
        assert step == pytest.approx(row.exchanging if how is Shard.FULL else whole)
        assert row.cost == pytest.approx(2.0 * row.gpu_hours)
    near = Network(node=4, between=1e6)  # in one machine, and in two of them
    one, two = (
        scaled(SHAPE, stage(DECODER, shard=Shard.HYBRID), lambda _: LOAD, Machine(gpus=gpus), near)
        for gpus in (4, 8)
    )
    assert one.exchanging < 1e-3 * two.exchanging
    assert one.memory.masters == two.memory.masters
    fast = scaled(SHAPE, stage(DECODER, shard=Shard.FULL), lambda _: LOAD, Machine(gpus=4), Network())
    assert fast.seconds == pytest.approx(max(fast.computing, fast.exchanging) * fast.steps)


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
    assert totals[0] > max(totals[1], totals[4], totals[5])
    assert len(estimate(SHAPE, stage(PROJECTOR), LOAD, Machine(gpus=2)).options) == len(totals) + 1


def test_bytes_for_people():
    assert (gigabytes(26.64e9), gigabytes(21e6)) == ("26.6 GB", "21.0 MB")
    assert isinstance(build_llava(SHAPE, seed=0), nn.Module)
