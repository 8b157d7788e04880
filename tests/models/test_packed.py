"""Packed weights against the plain modules: the same numbers but for rounding, however rows come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llavar.models import lean, packed, quantize, steps
from llavar.models.past import Past
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=3, heads=2, mlp=24),
    text=TextShape(vocab=50, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=512),
    image_token_id=49,
)
VARIANTS = {
    "grouped queries, layer -2": SHAPE,
    "one layer": replace(SHAPE, text=replace(SHAPE.text, layers=1)),
    "every head its own keys": replace(SHAPE, text=replace(SHAPE.text, kv_heads=4)),
    "the embedding itself": replace(SHAPE, vision_feature_layer=-4),
    "with the class token": replace(SHAPE, select=FeatureSelect.FULL, vision_feature_layer=-1),
    "two-layer projector": replace(SHAPE, projector=ProjectorLayout.MLP),
    "other constants": replace(
        SHAPE,
        text=replace(SHAPE.text, rope_theta=500.0, eps=1e-2),
        vision=replace(SHAPE.vision, act="gelu", eps=1e-3),
    ),
}
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def made(shape: LlavaShape) -> lean.LeanLlava:
    """Weights large enough for attention and norms to matter."""
    model = lean.LeanLlava(shape)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.eval().requires_grad_(False)


def pair(shape: LlavaShape = SHAPE) -> tuple[lean.LeanLlava, lean.LeanLlava]:
    """The same model plain and packed."""
    plain, quick = made(shape), made(shape)
    quick.pack()
    assert is_packed(quick)
    return plain, quick


def is_packed(model: lean.LeanLlava) -> bool:
    return model._packed is not None  # pyright: ignore[reportPrivateUsage]


def ids_of(shape: LlavaShape, rows: int) -> Tensor:
    text = torch.randint(3, 49, (rows, 9), generator=torch.Generator().manual_seed(rows))
    picture = torch.full((rows, shape.image_tokens), shape.image_token_id)
    return torch.cat([text[:, :2], picture, text[:, 2:]], dim=1)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_features_and_logits_equal_those_of_the_modules(name: str, rows: int):
    plain, quick = pair(VARIANTS[name])
    ids = ids_of(plain.shape, rows)
    pixels = torch.randn(rows, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    seen = plain.features(pixels)
    assert seen.std() > 0.1
    assert torch.allclose(quick.features(pixels), seen, **CLOSE)

    wanted, before = plain.begin(ids, features=seen)
    given, past = quick.begin(ids, features=seen)
    assert wanted.std() > 0.1
    assert torch.allclose(given, wanted, **CLOSE)
    for token in range(5, 9):
        wanted = plain.go_on(torch.full((rows,), token), before)
        given = quick.go_on(torch.full((rows,), token), past)
        assert torch.allclose(given, wanted, **CLOSE)


def test_positions_beyond_the_first_table():
    plain, quick = pair()
    ids = torch.arange(3, 303)[None] % 40 + 3
    assert torch.allclose(quick.begin(ids)[0], plain.begin(ids)[0], **CLOSE)
    assert torch.allclose(quick.begin(ids[:, :3])[0], plain.begin(ids[:, :3])[0], **CLOSE)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(3, 48), min_size=1, max_size=12), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(3, 48), min_size=1, max_size=12), min_size=1, max_size=3),
    st.data(),
)
def test_rows_that_come_and_go_are_as_alone(
    first: list[list[int]], second: list[list[int]], data: st.DataObject
):
    plain, quick = pair()
    running = start(quick, first)
    running.step(torch.full((len(first),), 7))
    running.join(start(quick, second))
    rows = [[*row, 7] for row in first] + second
    places = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=6))
    running.keep(torch.tensor(places))
    running.step(torch.full((len(places),), 9))
    for place, logits in zip(places, running.logits, strict=True):
        alone, _ = plain.begin(torch.tensor([[*rows[place], 9]]))
        assert torch.allclose(logits, alone[0], **CLOSE)


def start(model: lean.LeanLlava, prompts: list[list[int]]) -> steps.Running:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return steps.begin(model, ids, mask, None)


@pytest.mark.parametrize("known", [1, 6, 9])
def test_a_prompt_goes_on_from_what_another_computed(known: int):
    plain, quick = pair()
    ids = torch.arange(4, 14)[None]
    before: Past | None = start(quick, [list(range(4, 14)), [5, 6]]).row(0)
    assert before is not None
    given, past = quick.begin(ids[:, known:], after=before.cut(known))
    assert torch.allclose(given, plain.begin(ids)[0], **CLOSE)
    assert past.length == 10


def test_without_the_operator_of_onednn_nothing_is_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "_USUAL", "as many")  # as if it took other arguments
    assert packed._ordered(torch.ones(2, 2)) is None  # pyright: ignore[reportPrivateUsage]
    plain, quick = pair()
    ids = torch.arange(4, 14)[None]
    assert torch.allclose(quick.begin(ids)[0], plain.begin(ids)[0], **CLOSE)


def test_only_small_models_in_float32_are_packed(monkeypatch: pytest.MonkeyPatch):
    half = made(SHAPE).bfloat16()
    half.pack()
    assert not is_packed(half)
    small = made(SHAPE)
    quantize.quantize(small, quantize.Quantization.INT8)
    small.pack()
    assert not is_packed(small)
    monkeypatch.setattr(lean, "MOST", sum(one.numel() for one in made(SHAPE).parameters()) - 1)
    large = made(SHAPE)
    large.pack()
    assert not is_packed(large)


def test_moving_or_converting_a_model_undoes_it():
    _, quick = pair()
    assert not is_packed(quick.double())


def test_weights_stay_as_they_were():
    plain, quick = pair()
    kept = quick.state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in plain.state_dict().items())
    assert kept.keys() == plain.state_dict().keys()
