"""The plain-torch model against the stock one: the same logits, the same answers, the same refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, ModelError
from llavar.models import _hf, lean
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=3, heads=2, mlp=24),
    text=TextShape(vocab=50, hidden=32, layers=2, heads=4, kv_heads=4, mlp=48, max_positions=128),
    image_token_id=49,
)

VARIANTS = {
    "as in the paper, layer -2": SHAPE,
    "last layer": replace(SHAPE, vision_feature_layer=-1),
    "the embedding itself": replace(SHAPE, vision_feature_layer=-4),
    "with the class token": replace(SHAPE, select=FeatureSelect.FULL),
    "two-layer projector": replace(SHAPE, projector=ProjectorLayout.MLP),
    "grouped queries": replace(SHAPE, text=replace(SHAPE.text, kv_heads=2)),
    "other constants": replace(
        SHAPE,
        text=replace(SHAPE.text, rope_theta=500.0, eps=1e-3),
        vision=replace(SHAPE.vision, act="gelu", eps=1e-3),
    ),
}


def pair(folder: Path, shape: LlavaShape, **save: object) -> tuple[torch.nn.Module, lean.LeanLlava]:
    """The stock and the lean model of one folder; weights large enough for attention to matter."""
    model = _hf.build_llava(shape, seed=3)
    generator = torch.Generator().manual_seed(3)  # not torch's own, which other tests move on
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(8)
            elif parameter.requires_grad and "norm" in name:
                parameter.add_(torch.rand(parameter.shape, generator=generator))
    _hf.save_llava(model, folder, **save)
    return _hf.load_llava(folder), lean.load(folder)


def prompts(shape: LlavaShape, rows: int, words: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows, T) with one picture each, pixels (rows, 3, size, size)."""
    generator = torch.Generator().manual_seed(rows)
    text = torch.randint(3, 49, (rows, words), generator=generator)
    picture = torch.full((rows, shape.image_tokens), shape.image_token_id)
    size = shape.vision.image_size
    return torch.cat([text[:, :2], picture, text[:, 2:]], dim=1), torch.randn(
        rows, 3, size, size, generator=generator
    )


@pytest.mark.parametrize("name", list(VARIANTS))
def test_logits_equal_the_stock_model(tmp_path: Path, name: str):
    stock, mine = pair(tmp_path / "m", VARIANTS[name])
    ids, pixels = prompts(VARIANTS[name], rows=2)
    with torch.no_grad():
        wanted = stock(input_ids=ids, pixel_values=pixels).logits
    given = mine(ids, pixel_values=pixels)
    assert wanted.std() > 0.1
    assert torch.allclose(given, wanted, atol=1e-4, rtol=1e-4)


def test_a_folded_projector_gives_the_same(tmp_path: Path):
    stock, mine = pair(tmp_path / "m", SHAPE, layout=ProjectorLayout.FOLD)
    ids, pixels = prompts(SHAPE, rows=1)
    with torch.no_grad():
        wanted = stock(input_ids=ids, pixel_values=pixels).logits
    assert torch.allclose(mine(ids, pixel_values=pixels), wanted, atol=1e-4)


def test_bfloat16_stays_close(tmp_path: Path):
    pair(tmp_path / "m", SHAPE)
    narrow = lean.load(tmp_path / "m", dtype=torch.bfloat16)
    stock = _hf.load_llava(tmp_path / "m", dtype=torch.bfloat16)
    ids, pixels = prompts(SHAPE, rows=1)
    with torch.no_grad():
        wanted = stock(input_ids=ids, pixel_values=pixels).logits.float()
    given = narrow(ids, pixel_values=pixels)
    assert given.dtype == torch.bfloat16
    assert (given.float() - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.mark.parametrize("name", ["as in the paper, layer -2", "grouped queries"])
def test_greedy_answers_equal_those_of_generate(tmp_path: Path, name: str):
    stock, mine = pair(tmp_path / "m", VARIANTS[name])
    ids, pixels = prompts(VARIANTS[name], rows=3)
    settings = {"max_new_tokens": 20, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False}
    wanted = stock.generate(
        input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), **settings
    )
    assert torch.equal(mine.generate(ids, pixel_values=pixels, **settings), wanted)


def test_left_padding_changes_no_answer(tmp_path: Path):
    stock, mine = pair(tmp_path / "m", SHAPE)
    ids, pixels = prompts(SHAPE, rows=2)
    alone = mine.generate(ids[:1], pixel_values=pixels[:1], max_new_tokens=12, eos_token_id=2, pad_token_id=0)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids[:1]], dim=1)
    longer = torch.cat([torch.randint(3, 49, (1, 5)), ids[1:]], dim=1)
    batch, mask = torch.cat([padded, longer]), torch.ones(2, padded.shape[1], dtype=torch.long)
    mask[0, :5] = 0
    settings = {"max_new_tokens": 12, "eos_token_id": 2, "pad_token_id": 0}
    both = mine.generate(batch, pixel_values=pixels, attention_mask=mask, **settings)
    made = alone.shape[1] - ids.shape[1]
    assert torch.equal(both[0, padded.shape[1] :][:made], alone[0, ids.shape[1] :])
    wanted = stock.generate(
        input_ids=batch, pixel_values=pixels, attention_mask=mask, do_sample=False, **settings
    )
    assert torch.equal(both, wanted)


def test_a_row_that_ended_is_padded_until_all_have(tmp_path: Path):
    _, mine = pair(tmp_path / "m", SHAPE)
    ids, pixels = prompts(SHAPE, rows=2)
    free = mine.generate(ids, pixel_values=pixels, max_new_tokens=6, eos_token_id=1, pad_token_id=0)
    first, second = free[:, ids.shape[1]].tolist()
    assert first != second, "the two rows must differ for this test to say something"
    ended = mine.generate(ids, pixel_values=pixels, max_new_tokens=6, eos_token_id=[1, first], pad_token_id=0)
    assert ended[0, ids.shape[1] :].tolist()[:2] == [first, 0][: ended.shape[1] - ids.shape[1]]
    both = mine.generate(
        ids, pixel_values=pixels, max_new_tokens=6, eos_token_id=[first, second], pad_token_id=0
    )
    assert both.shape[1] == ids.shape[1] + 1


def test_text_alone(tmp_path: Path):
    stock, mine = pair(tmp_path / "m", SHAPE)
    ids = torch.tensor([[1, 5, 9, 12]])
    with torch.no_grad():
        assert torch.allclose(mine(ids), stock(input_ids=ids).logits, atol=1e-4)
    assert mine.generate(ids, max_new_tokens=0, eos_token_id=2, pad_token_id=0).tolist() == ids.tolist()


@settings(deadline=None, max_examples=15)
@given(places=st.integers(0, 20), pictures=st.integers(1, 2))
def test_image_tokens_must_match_the_pictures(places: int, pictures: int):
    model = _lean()
    ids = torch.cat([torch.tensor([[1]]), torch.full((1, places), SHAPE.image_token_id)], dim=1)
    pixels = torch.zeros(pictures, 3, 24, 24)
    if places == pictures * SHAPE.image_tokens:
        assert model(ids, pixel_values=pixels).shape == (1, places + 1, 50)
    else:
        with pytest.raises(ModelError, match=rf"holds {places} image tokens"):
            model(ids, pixel_values=pixels)


def _lean() -> lean.LeanLlava:
    torch.manual_seed(0)
    model = lean.LeanLlava(SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def test_without_an_end_token_the_limit_ends_the_answer():
    made = _lean().generate(
        torch.ones(2, 3, dtype=torch.long), max_new_tokens=5, eos_token_id=None, pad_token_id=0
    )
    assert made.shape == (2, 8)


def test_sampling_is_refused():
    with pytest.raises(ModelError, match="greedily only"):
        _lean().generate(
            torch.ones(1, 2, dtype=torch.long),
            max_new_tokens=1,
            eos_token_id=2,
            pad_token_id=0,
            do_sample=True,
        )


def test_what_is_not_covered_is_refused(tmp_path: Path):
    pair(tmp_path / "m", SHAPE)
    path = tmp_path / "m" / "config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"vision_feature_layer": [-2, -1]}))
    with pytest.raises(ModelError, match="vision_feature_layer"):
        lean.load(tmp_path / "m")
    path.write_text(json.dumps(document | {"vision_feature_layer": -9}))
    with pytest.raises(ConfigError, match="vision_feature_layer -9"):
        lean.load(tmp_path / "m")


def test_nothing_of_transformers_is_imported(tmp_path: Path):
    pair(tmp_path / "m", SHAPE)
    program = (
        "import sys; from llavar.models import _hf; "
        f"_hf.load_llava({str(tmp_path / 'm')!r}, lean=True); "
        "sys.exit('transformers' in sys.modules or 'torch._dynamo' in sys.modules)"
    )
    paths = [str(Path(lean.__file__).parents[2]), *sys.path]
    assert (
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {program}"], check=False
        ).returncode
        == 0
    )
