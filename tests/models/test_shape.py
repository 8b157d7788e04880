"""Shapes: what fits together, and reading configurations from outside."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ConfigError, ModelError
from llavar.models.shape import FeatureSelect, LlavaShape, ProjectorLayout, TextShape, VisionShape

VISION = VisionShape(image_size=336, patch_size=14, hidden=1024, layers=24, heads=16, mlp=4096)
TEXT = TextShape(
    vocab=32003, hidden=5120, layers=40, heads=40, kv_heads=40, mlp=13824, max_positions=2048, eps=1e-6
)
LLAVAR_13B = LlavaShape(vision=VISION, text=TEXT, image_token_id=32000)


def test_the_paper_s_model_takes_576_tokens_for_a_picture():
    assert LLAVAR_13B.image_tokens == 576
    assert replace(LLAVAR_13B, select=FeatureSelect.FULL).image_tokens == 577
    assert TEXT.head_dim == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: replace(VISION, patch_size=13), "image_size 336 is not a multiple of patch_size 13"),
        (lambda: replace(VISION, heads=15), "hidden 1024 is not a multiple of heads 15"),
        (lambda: replace(VISION, layers=0), "layers is 0 and must be at least 1"),
        (lambda: replace(VISION, layers=10**9), "must be at most 1000"),
        (lambda: replace(TEXT, kv_heads=7), "heads 40 is not a multiple of kv_heads 7"),
        (lambda: replace(TEXT, hidden=3, heads=1, kv_heads=1), "must be even for rotary"),
        (lambda: replace(LLAVAR_13B, image_token_id=32003), "outside the vocabulary of 32003"),
        (lambda: replace(LLAVAR_13B, vision_feature_layer=-26), "take -25 to 24"),
        (
            lambda: replace(LLAVAR_13B, text=replace(TEXT, hidden=2000), projector=ProjectorLayout.FOLD),
            r"\(2048\), and this one is 2000 wide; use --layout identity",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_named(change: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        change()


@settings(deadline=None)
@given(
    heads=st.integers(1, 4),
    group=st.integers(1, 3),
    width=st.integers(1, 8),
    layer=st.integers(-3, 2),
    select=st.sampled_from(FeatureSelect),
    projector=st.sampled_from([ProjectorLayout.IDENTITY, ProjectorLayout.MLP]),
    theta=st.floats(1.0, 1e6),
)
def test_a_shape_survives_its_configuration(
    heads: int,
    group: int,
    width: int,
    layer: int,
    select: FeatureSelect,
    projector: ProjectorLayout,
    theta: float,
):
    shape = LlavaShape(
        vision=VisionShape(image_size=24, patch_size=8, hidden=4, layers=2, heads=2, mlp=3, act="gelu"),
        text=TextShape(
            vocab=9,
            hidden=heads * group * width * 2,
            layers=1,
            heads=heads * group,
            kv_heads=heads,
            mlp=5,
            max_positions=7,
            rope_theta=theta,
        ),
        image_token_id=8,
        vision_feature_layer=layer,
        select=select,
        projector=projector,
    )
    assert LlavaShape.from_config(shape.config()) == shape


def test_an_abbreviated_configuration_of_the_hub():
    """As llava-hf/llava-1.5-7b-hf writes it: what equals Llama's defaults is left out."""
    document = {
        "model_type": "llava",
        "image_token_index": 32000,
        "projector_hidden_act": "gelu",
        "text_config": {
            "model_type": "llama",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-05,
            "vocab_size": 32064,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    shape = LlavaShape.from_config(document)
    assert shape.vision == VISION
    assert (shape.text.hidden, shape.text.layers, shape.text.kv_heads, shape.text.mlp) == (
        4096,
        32,
        32,
        11008,
    )
    assert shape.projector is ProjectorLayout.MLP


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "llava_next", "expected"),
        ("text_config", None, "no object 'text_config'"),
        ("text_config.model_type", "qwen2", "'qwen2' where 'llama'"),
        ("text_config.hidden_size", "wide", "must be one whole number"),
        ("text_config.hidden_size", True, "must be one whole number"),
        ("text_config.rms_norm_eps", "small", "must be a number"),
        ("text_config.attention_bias", True, "attention_bias"),
        ("text_config.head_dim", 64, "head_dim = 64 where 128"),
        ("text_config.rope_parameters", {"rope_type": "llama3", "factor": 8}, "rope_type = 'llama3'"),
        ("text_config.rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "partial_rotary"),
        ("vision_config.model_type", "siglip_vision_model", "siglip"),
        ("vision_config.hidden_act", ["quick_gelu"], "known are quick_gelu, gelu"),
        ("vision_feature_layer", [-2, -5], "one whole number"),
        ("projector_hidden_act", "silu", "known are linear, gelu"),
        ("multimodal_projector_bias", False, "multimodal_projector_bias"),
        ("tie_word_embeddings", True, "tie_word_embeddings"),
    ],
)
def test_what_changes_the_arithmetic_is_refused(path: str, value: object, message: str):
    document: dict[str, Any] = copy.deepcopy(LLAVAR_13B.config())
    *sections, key = path.split(".")
    place = document
    for section in sections:
        place = place[section]
    place[key] = value
    with pytest.raises(ModelError, match=message):
        LlavaShape.from_config(document)


def test_the_notation_of_transformers_4():
    document: dict[str, Any] = copy.deepcopy(LLAVAR_13B.config())
    text = document["text_config"]
    del text["rope_parameters"]
    text |= {"rope_theta": 500_000, "rope_scaling": None}
    assert LlavaShape.from_config(document).text.rope_theta == 500_000
    text["rope_scaling"] = {"type": "linear", "factor": 2}
    with pytest.raises(ModelError, match="rope_scaling"):
        LlavaShape.from_config(document)
