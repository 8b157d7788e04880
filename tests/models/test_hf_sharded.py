"""A model built without numbers and filled from its folder is the one that is loaded whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llavar.errors import ConfigError, ModelError
from llavar.models import _hf as hf
from llavar.models import _hf_sharded as sharded
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(vocab=90, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=64),
    image_token_id=5,
    vision_feature_layer=-1,
)
CPU = torch.device("cpu")


def whole(model: nn.Module) -> None:
    """Nobody to divide it among."""


def loaded(folder: Path, **given: Any) -> Any:
    settled = {"attention": "eager", "dtype": torch.float32, "device": CPU}
    return sharded.load(folder, whole, **(settled | given))


@pytest.fixture(params=["identity", "mlp", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    layout = ProjectorLayout.MLP if request.param == "mlp" else ProjectorLayout.IDENTITY
    model: Any = hf.build_llava(replace(SHAPE, projector=layout), seed=3)
    if request.param == "tied":
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    hf.save_llava(model, tmp_path / "model")
    return tmp_path / "model"


def test_it_is_the_model_that_is_loaded_whole(folder: Path):
    ours, stock = loaded(folder), hf.load_llava(folder, attention="eager")
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    for mine, theirs in ((ours.state_dict(), stock.state_dict()), (buffers(ours), buffers(stock))):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    wanted = {name: parameter.requires_grad for name, parameter in stock.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in ours.named_parameters()} == wanted
    ids = torch.tensor([[1, 7, 9, 11]])
    assert torch.equal(ours(input_ids=ids).logits, stock(input_ids=ids).logits)
    head, embedding = ours.lm_head.weight, ours.get_input_embeddings().weight
    assert (head is embedding) == ours.config.tie_word_embeddings


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_buffers())


def test_the_decoder_is_held_as_asked_and_the_rest_in_fp32(folder: Path):
    model = loaded(folder, dtype=torch.bfloat16)
    inner = model.model
    assert {p.dtype for p in (*inner.language_model.parameters(), model.lm_head.weight)} == {torch.bfloat16}
    rest = (*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters())
    assert {parameter.dtype for parameter in rest} == {torch.float32}


def test_modules_made_afterwards_have_numbers():
    before = nn.Module.register_parameter
    with sharded._unfilled():
        assert nn.Linear(2, 2).weight.is_meta
    assert nn.Module.register_parameter is before
    assert not nn.Linear(2, 2).weight.is_meta


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "phi3"])
def test_every_weight_of_a_decoder_is_in_one_piece(family: str):
    model = of_family(family)
    pieces = sharded.units(model)
    held = [id(p) for piece in pieces for module in piece for p in module.parameters()]
    decoder = {*map(id, model.model.language_model.parameters()), id(model.lm_head.weight)}
    assert decoder == set(held)
    assert len(held) == len(decoder) + model.config.tie_word_embeddings
    assert len(pieces) == 3 + 3 - model.config.tie_word_embeddings


def of_family(family: str) -> Any:
    """A Llava around a decoder of ``family`` with 3 layers, without numbers."""
    from transformers import AutoConfig, LlavaConfig

    text = AutoConfig.for_model(
        family,
        vocab_size=90,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=96,
        pad_token_id=0,
    )
    vision = hf.llava_config(SHAPE).vision_config
    config = LlavaConfig(vision_config=vision, text_config=text, tie_word_embeddings=text.tie_word_embeddings)
    with torch.device("meta"):
        return hf.llava_class()(config)


def test_a_decoder_without_layers_cannot_be_divided():
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Module()
            self.model.language_model = nn.Linear(2, 2)
            self.lm_head = nn.Linear(2, 2)

    with pytest.raises(
        ConfigError, match=r"the decoder \(Linear\) cannot be divided layer by layer; take --shard"
    ):
        sharded.units(Flat())


@pytest.mark.parametrize("folder", ["identity"], indirect=True)
def test_a_folder_that_does_not_fit_is_refused(folder: Path, tmp_path: Path):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    document = json.loads((other / "config.json").read_text())
    document["text_config"]["num_hidden_layers"] = 3
    (other / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="does not fit its config.json: it lacks"):
        loaded(other)
    document["architectures"] = ["LlavaLlamaForCausalLM"]
    (other / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="checkpoint of the original LLaVA"):
        loaded(other)
    document["architectures"] = None
    document["text_config"]["hidden_size"] = "wide"
    (other / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="does not describe a model"):
        loaded(other)
