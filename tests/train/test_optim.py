from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llavar.errors import ConfigError
from llavar.train import optim
from llavar.train.config import LoopConfig, PartConfig, Schedule, StageConfig
from llavar.train.llava import FeedConfig

PART = PartConfig(lr=1e-3)


def config(**changes: object) -> LoopConfig:
    return LoopConfig(**({"steps": 100, "parts": {"a": PART}} | changes))


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    settled = config(warmup=0.1)
    assert [optim.rate(step, settled) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert optim.rate(10, settled) == 1.0
    assert optim.rate(55, settled) == pytest.approx(0.5)
    assert optim.rate(99, settled) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert optim.rate(99, settled) < 0.001


def test_the_rate_ends_at_its_floor():
    settled = config(warmup=0.1, floor=0.2)
    assert optim.rate(10, settled) == 1.0
    assert optim.rate(55, settled) == pytest.approx(0.6)
    assert optim.rate(100, settled) == pytest.approx(0.2)
    assert config(floor=1.0).floor == optim.rate(77, config(floor=1.0))


@given(
    steps=st.integers(1, 3000), warmup=st.floats(0, 0.99), floor=st.floats(0, 1), share=st.floats(0, 0.999)
)
@settings(deadline=None)
def test_every_step_has_a_rate_between_nothing_and_the_peak(
    steps: int, warmup: float, floor: float, share: float
):
    settled = config(steps=steps, warmup=warmup, floor=floor)
    step = int(share * steps)
    assert 0 <= optim.rate(step, settled) <= 1 + 1e-12
    assert optim.rate(0, settled) > 0
    warm = max(1, round(warmup * steps))
    if step < warm - 1:
        assert optim.rate(step, settled) < optim.rate(step + 1, settled)
    elif step + 1 < steps and step >= warm:
        assert optim.rate(step, settled) >= optim.rate(step + 1, settled)


def test_each_part_has_its_own_rate_and_decay():
    one, two = nn.Linear(2, 2), nn.Linear(2, 3)
    settled = config(
        parts={"b": PartConfig(lr=1e-2), "a": PartConfig(lr=1e-4, weight_decay=0.1)}, betas=(0.8, 0.95)
    )
    layers = {"a": one, "b": two, "c": nn.Linear(1, 1)}
    parts = {name: dict(layer.named_parameters()) for name, layer in layers.items()}
    optimizer = optim.build(parts, settled)
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert groups.keys() == {"a", "b"}
    assert groups["a"]["params"] == list(one.parameters())
    assert (groups["a"]["weight_decay"], groups["b"]["weight_decay"]) == (0.1, 0.0)
    assert groups["b"]["betas"] == (0.8, 0.95)
    assert optim.set_rate(optimizer, 0, settled) == pytest.approx(1 / 3)
    assert (groups["a"]["lr"], groups["b"]["lr"]) == (pytest.approx(1e-4 / 3), pytest.approx(1e-2 / 3))
    optim.set_rate(optimizer, 3, settled)
    assert (groups["a"]["lr"], groups["b"]["lr"]) == (1e-4, 1e-2)


def test_decay_and_rate_reach_the_weights():
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    settled = config(parts={"a": PartConfig(lr=0.1, weight_decay=0.5)}, warmup=0)
    optimizer = optim.build({"a": {"weight": layer.weight}}, settled)
    optim.set_rate(optimizer, 0, settled)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert torch.allclose(layer.weight, before * (1 - 0.1 * 0.5))


def test_a_part_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="no part 'a' to train; it has b, c"):
        optim.build({"c": {"w": nn.Parameter(torch.zeros(1))}, "b": {}}, config())
    with pytest.raises(ConfigError, match="no part 'a'"):
        optim.build({"a": {}}, config())


class Small(nn.Module):
    """What Muon trains of it is ``inner.weight`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(5, 4)
        self.inner = nn.Linear(4, 3)
        self.lm_head = nn.Linear(3, 5, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(torch.relu(self.inner(self.embed_tokens(ids))))


def step(model: Small, optimizer: torch.optim.Optimizer, settled: LoopConfig, number: int) -> None:
    optim.set_rate(optimizer, number, settled)
    ids = torch.arange(5)
    nn.functional.cross_entropy(model(ids), ids.flip(0)).backward()
    optimizer.step()
    optimizer.zero_grad()


MUON = config(parts={"a": PartConfig(lr=1e-3, weight_decay=0.1, muon=0.05)}, warmup=0)


def small() -> tuple[Small, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Small()
    return model, optim.build({"a": dict(model.named_parameters())}, MUON)


def test_muon_trains_the_matrices_inside_and_adamw_the_rest():
    model, optimizer = small()
    members = {group["muon"]: group["params"] for group in optimizer.param_groups}
    assert members[True] == [model.inner.weight]
    assert set(members[False]) == set(model.parameters()) - {model.inner.weight}
    before = model.inner.weight.detach().clone()
    step(model, optimizer, MUON, 0)
    rates = {group["muon"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {True: 0.05, False: 1e-3}
    # An update with singular values near 1 whatever the gradient's, besides the decay.
    update = (before * (1 - 0.05 * 0.1) - model.inner.weight.detach()) / 0.05
    assert float(torch.linalg.matrix_norm(update, 2)) == pytest.approx(1, abs=0.4)
    assert optimizer.state[model.inner.weight].keys() == {"momentum_buffer"}
    assert "exp_avg_sq" in optimizer.state[model.lm_head.weight]


def test_a_state_with_muon_is_saved_and_loaded_as_one():
    whole, first = small()
    for number in range(4):
        step(whole, first, MUON, number)
    model, optimizer = small()
    for number in range(2):
        step(model, optimizer, MUON, number)
    again, other = small()
    again.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in (2, 3):
        step(again, other, MUON, number)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_part_without_a_rate_for_muon_is_trained_by_adamw_alone():
    model = Small()
    optimizer = optim.build({"a": dict(model.named_parameters())}, config())
    assert type(optimizer) is torch.optim.AdamW
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("rate", [-0.1, 1.5, math.nan])
def test_a_rate_for_muon_is_nothing_or_a_rate(rate: float):
    with pytest.raises(ConfigError, match="muon is"):
        PartConfig(lr=1e-3, muon=rate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"parts": {}}, "no part is trained"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"warmup": math.nan}, "warmup is nan"),
        ({"floor": -0.1}, "floor is -0.1"),
        ({"floor": 1.5}, "floor is 1.5"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"clip": math.nan}, "clip is nan"),
        ({"log_every": 0}, "log_every is 0"),
        ({"save_every": 0}, "save_every 0"),
    ],
)
def test_settings_that_cannot_work_are_errors(change: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        config(**change)


@pytest.mark.parametrize("lr", [0.0, -1e-3, 1.5, math.nan])
def test_a_rate_lies_above_nothing_and_at_most_at_one(lr: float):
    with pytest.raises(ConfigError, match="lr is"):
        PartConfig(lr=lr)


@pytest.mark.parametrize("decay", [-0.1, 2.0, math.nan])
def test_a_decay_is_a_share(decay: float):
    with pytest.raises(ConfigError, match="weight_decay is"):
        PartConfig(lr=1e-3, weight_decay=decay)


@pytest.mark.parametrize(("packs", "parts"), [(0, 1), (2, 0), (2, 3)])
def test_every_micro_batch_needs_a_pack(packs: int, parts: int):
    with pytest.raises(ConfigError, match=f"batch is {packs} and parts {parts}"):
        FeedConfig(batch=packs, parts=parts)


def test_the_trainers_schedule_starts_from_nothing_and_rounds_its_warm_up_up():
    settled = config(steps=50, warmup=0.03, schedule=Schedule.TRAINER)
    factors = [optim.rate(step, settled) for step in range(50)]
    # transformers: get_cosine_schedule_with_warmup(optimizer, ceil(0.03 * 50), 50)
    assert factors[:3] == [0.0, 0.5, 1.0]
    assert factors[26] == pytest.approx(0.5 * (1 + math.cos(math.pi * 24 / 48)))
    assert optim.rate(0, config(steps=50, warmup=0.0, schedule=Schedule.TRAINER)) == 1.0


def test_a_checkpoint_has_to_be_kept():
    with pytest.raises(ConfigError, match="keep is 0"):
        config(keep=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"epochs": math.nan}, "epochs is nan"),
        ({"steps": -1}, "steps is -1"),
        ({"micro_batch": 9}, "micro_batch is 9 and batch 8"),
        ({"micro_batch": 0}, "micro_batch is 0"),
        ({"max_length": 1}, "max_length is 1"),
        ({"warmup": 2.0}, "warmup is 2.0"),
        ({"keep": 0}, "keep is 0"),
    ],
)
def test_stages_that_cannot_work_are_errors(change: dict[str, object], message: str):
    settled = {"parts": {"a": PartConfig(lr=1e-3)}, "batch": 8, "micro_batch": 4, "max_length": 64}
    assert StageConfig(**settled).micro_batches == 2  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        StageConfig(**(settled | change))  # type: ignore[arg-type]
