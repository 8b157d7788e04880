"""Attention within the rows of packs: borders, the row-by-row reference, and stock models that use them."""

from __future__ import annotations

import types
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llavar.errors import ConfigError
from llavar.models import _hf_training as training
from llavar.models import attention
from llavar.models._hf import build_llava
from llavar.models.attention import borders, packed_attention, row_by_row
from llavar.models.shape import LlavaShape, TextShape, VisionShape

LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3)


def positions(packs: list[list[int]]) -> Tensor:
    """Of rows of such lengths, the last of each pack filled up to the longest."""
    longest = max(map(sum, packs))
    filled = [[*rows[:-1], rows[-1] + longest - sum(rows)] for rows in packs]
    return torch.stack([torch.cat([torch.arange(n) for n in rows]) for rows in filled])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masked(query: Tensor, key: Tensor, value: Tensor, places: Tensor, scale: float) -> Tensor:
    """Plain softmax attention under a mask of length x length, rows told apart by counting their firsts."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    row = (places == 0).cumsum(1)
    seen = (row[:, None, :, None] == row[:, None, None, :]) & torch.ones(
        places.shape[1], places.shape[1]
    ).tril().bool()
    scores = (query @ key.transpose(2, 3) * scale).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@given(LENGTHS)
@settings(deadline=None, max_examples=40)
def test_borders_are_where_rows_end(packs: list[list[int]]):
    places = positions(packs)
    found = borders(places)
    firsts = [int(n) for n in (places.flatten() == 0).nonzero().flatten()]
    assert found.ends.dtype == torch.int32
    assert found.ends.tolist() == [*firsts, places.numel()]
    assert found.longest == int(found.ends.diff().max())


def test_a_pack_that_begins_late_begins_a_row_all_the_same():
    assert borders(torch.tensor([[3, 4, 5], [6, 7, 0]])).ends.tolist() == [0, 3, 5, 6]


@given(LENGTHS, st.sampled_from([(4, 4), (4, 2), (3, 1)]))
@settings(deadline=None, max_examples=25)
def test_rows_attend_as_under_a_mask(packs: list[list[int]], heads: tuple[int, int]):
    places = positions(packs)
    count, length = places.shape
    query = draw(count, heads[0], length, 8).requires_grad_()
    key, value = (draw(count, heads[1], length, 8, seed=n).requires_grad_() for n in (1, 2))
    found = packed_attention(query, key, value, borders(places), scale=0.3)
    expected = masked(query, key, value, places, 0.3)
    assert found.shape == (count, length, heads[0], 8)
    assert torch.allclose(found, expected, atol=1e-6)
    weights = draw(*found.shape, seed=3)
    one = torch.autograd.grad((found * weights).sum(), (query, key, value))
    other = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    for ours, theirs in zip(one, other, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_autocast_is_followed_although_rotary_positions_leave_fp32():
    query, key, value = (draw(1, 2, 6, 8, seed=n) for n in range(3))
    rows = borders(torch.arange(6)[None])
    assert packed_attention(query, key, value.bfloat16(), rows).dtype is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert packed_attention(query, key, value, rows).dtype is torch.bfloat16
    assert packed_attention(query, key, value, rows).dtype is torch.float32


def test_where_torch_has_a_kernel_it_is_given_rows_end_to_end(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[Any, ...]] = []

    def kernel(*given: Any, **more: Any) -> Tensor:
        seen.append((*(part.shape for part in given[:3]), given[3].tolist(), *given[5:], more))
        assert given[3].dtype is torch.int32
        return row_by_row(*given, **more)

    monkeypatch.setattr(attention, "_suits", lambda query: True)
    monkeypatch.setattr(attention, "torch_kernel", lambda: kernel)
    places = positions([[3, 2], [1, 4]])
    query, key, value = draw(2, 4, 5, 8), draw(2, 2, 5, 8, seed=1), draw(2, 2, 5, 8, seed=2)
    found = packed_attention(query, key, value, borders(places), scale=0.3)
    assert torch.allclose(found, masked(query, key, value, places, 0.3), atol=1e-6)
    whole = (10, 4, 8)
    assert seen == [(whole, whole, whole, [0, 3, 5, 6, 10], 4, 4, {"scale": 0.3, "window_size": (-1, 0)})]


def test_the_kernel_is_not_for_a_cpu():
    assert not attention._suits(draw(4, 2, 8).bfloat16())
    assert attention.has_kernel() == torch.cuda.is_available()


def test_the_kernel_of_this_torch_takes_what_it_is_given():
    assert callable(attention.torch_kernel())


@pytest.mark.parametrize(
    "found", [types.SimpleNamespace(), types.SimpleNamespace(varlen_attn=lambda query: 0)]
)
def test_a_torch_without_a_fitting_kernel_is_one_sentence(found: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention.importlib, "import_module", lambda name: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"install torch>=2\.11, or choose --attention sdpa"):
        attention.torch_kernel()
    assert not attention.has_kernel()


def test_the_reference_computes_one_window_alone():
    flat, ends = draw(4, 2, 8), torch.tensor([0, 4], dtype=torch.int32)
    with pytest.raises(ConfigError, match=r"only the causal one \(-1, 0\)"):
        row_by_row(flat, flat, flat, ends, ends, 4, 4, window_size=(-1, -1))


# In a stock model.


def tiny(name: str) -> Any:
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(vocab=90, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=128),
        image_token_id=5,
        vision_feature_layer=-1,
    )
    model: Any = build_llava(shape, seed=4, attention=name).eval()
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    return model


def test_only_the_decoder_computes_with_it():
    model = tiny("varlen")
    assert training.attention_of(model) == "varlen"
    assert model.config.vision_config._attn_implementation == "sdpa"
    assert training.attention_of(tiny("eager")) == "eager"
    assert training.attention_of(torch.nn.Linear(1, 1)) == ""


@pytest.mark.parametrize("padded", [0, 3])
def test_answers_are_those_of_other_implementations(padded: int):
    # With a cache, and with padding on the left, rows are no packed rows: masks have to be obeyed.
    ids = torch.randint(6, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :padded] = 0
    given: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": mask,
        "max_new_tokens": 6,
        "do_sample": False,
    }
    one, other = (tiny(name).generate(**given, pad_token_id=0) for name in ("varlen", "sdpa"))
    assert one.tolist() == other.tolist()
    assert one.shape[1] > 9


def test_rows_are_found_from_positions_where_nobody_names_them():
    model, plain = tiny("varlen"), tiny("sdpa")
    ids = torch.randint(6, 90, (1, 9), generator=torch.Generator().manual_seed(2))
    places = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1]])
    with torch.no_grad():
        one, other = (m(input_ids=ids, position_ids=places, use_cache=False).logits for m in (model, plain))
    assert torch.allclose(one, other, atol=1e-5)


def test_recomputation_changes_no_gradient_and_warns_of_nothing():
    ids = torch.randint(6, 90, (1, 9), generator=torch.Generator().manual_seed(3))

    def gradient(recomputed: bool) -> Tensor:
        model = tiny("varlen").train()
        if recomputed:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # its old name is deprecated, and warns
                training.recompute(model)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return model.lm_head.weight.grad

    assert torch.equal(gradient(True), gradient(False))


def test_dropout_and_missing_positions_are_refused():
    module = types.SimpleNamespace(is_causal=True)
    query = draw(1, 2, 4, 8)
    with pytest.raises(ConfigError, match="has no dropout and the model asks for 0.1"):
        training._attend(module, query, query, query, None, dropout=0.1)  # pyright: ignore
    with pytest.raises(ConfigError, match="needs the positions of its tokens"):
        training._attend(module, query, query, query, None)  # pyright: ignore


@pytest.mark.parametrize("version", ["5.16.1", "5.24.0", "6.0"])
def test_versions_that_were_not_tried_are_refused_for_what_depends_on_them(
    version: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training.metadata, "version", lambda name: version)
    assert training.implementation("sdpa") == "sdpa"
    for name in ("flex", "varlen"):
        with pytest.raises(ConfigError, match=rf"5\.17 to 5\.23 and {version} is installed"):
            training.implementation(name)
