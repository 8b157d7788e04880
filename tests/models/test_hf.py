"""Stock models: built, loaded and written; what is written loads in stock transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llavar import images
from llavar.errors import ConfigError, FetchError, ModelError, NotFoundError
from llavar.images import Transform
from llavar.models import _hf, lean
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=32, patch_size=8, hidden=16, layers=2, heads=2, mlp=32),
    text=TextShape(vocab=64, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=128),
    image_token_id=60,
    vision_feature_layer=-1,
)


def tokens(seed: int = 0) -> torch.Tensor:
    """One prompt: five words, a picture, four words."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, 59, (1, 9), generator=generator)
    picture = torch.full((1, SHAPE.image_tokens), SHAPE.image_token_id)
    return torch.cat([words[:, :5], picture, words[:, 5:]], dim=1)


def pixels(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens(), pixel_values=pixels()).logits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _hf.save_llava(_hf.build_llava(SHAPE, seed=1), tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_building_depends_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.rand(1)
    one, same, other = (_hf.build_llava(SHAPE, seed=seed).state_dict() for seed in (1, 1, 2))
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_the_second_layer_of_an_identity_projector_is_frozen():
    projector = _hf.build_llava(SHAPE, seed=1).model.multi_modal_projector
    assert torch.equal(projector.linear_2.weight, torch.eye(32))
    assert not any(p.requires_grad for p in projector.linear_2.parameters())
    assert all(p.requires_grad for p in projector.linear_1.parameters())
    features = torch.randn(3, 16)
    assert torch.equal(projector(features), projector.linear_1(features))


def test_features_can_be_scaled_without_changing_what_they_say():
    tower = _hf.build_tower(SHAPE.vision).eval()
    side = SHAPE.vision.image_size
    shown = torch.randn(2, 3, side, side)
    with torch.no_grad():
        before = tower(shown, output_hidden_states=True).hidden_states
        _hf.scale_features(tower, 0.25)
        after = tower(shown, output_hidden_states=True).hidden_states
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(new, 0.25 * old, rtol=1e-3, atol=1e-4)


def test_a_folded_projector_cannot_be_built():
    with pytest.raises(ConfigError, match="fold when saving"):
        _hf.build_llava(replace(SHAPE, projector=ProjectorLayout.FOLD), seed=1)


def test_an_mlp_projector_trains_as_a_whole():
    model = _hf.build_llava(replace(SHAPE, projector=ProjectorLayout.MLP), seed=1)
    assert _hf.projector_layout(model) is ProjectorLayout.MLP
    assert all(p.requires_grad for p in model.parameters())


def test_stock_from_pretrained_reads_what_was_saved(folder: Path):
    from transformers import LlavaForConditionalGeneration

    built = _hf.build_llava(SHAPE, seed=1).eval()
    stock, info = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    mine, theirs = built.state_dict(), stock.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(logits(built), logits(stock))
    assert stock.config.text_config.use_cache


def test_saving_and_loading_is_exact(folder: Path):
    model = _hf.load_llava(folder)
    assert not model.training
    assert torch.equal(logits(model), logits(_hf.build_llava(SHAPE, seed=1).eval()))
    assert not model.model.multi_modal_projector.linear_2.weight.requires_grad
    assert model.generation_config.eos_token_id == 2


def test_keys_on_disk_are_the_hub_layout(folder: Path):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "vision_tower.vision_model.embeddings.class_embedding",
        "multi_modal_projector.linear_1.weight",
    } <= names
    assert {name.split(".")[0] for name in names} == {
        "language_model",
        "vision_tower",
        "multi_modal_projector",
    }


def test_the_configuration_gives_the_shape_back(folder: Path):
    assert LlavaShape.from_config(json.loads((folder / "config.json").read_text())) == SHAPE
    assert _hf.llava_config(SHAPE).image_seq_length == 16


def test_folding_keeps_the_function_and_unfolds_exactly(tmp_path: Path):
    model = _hf.build_llava(SHAPE, seed=1).eval()
    _hf.save_llava(model, tmp_path / "folded", layout=ProjectorLayout.FOLD)
    folded = _hf.load_llava(tmp_path / "folded")
    assert folded.config.projector_hidden_act == "gelu"
    assert _hf.projector_layout(folded) is ProjectorLayout.FOLD
    assert torch.allclose(logits(folded), logits(model), atol=1e-6)
    _hf.to_identity(folded)
    assert _hf.projector_layout(folded) is ProjectorLayout.IDENTITY
    assert torch.equal(logits(folded), logits(model))
    assert not folded.model.multi_modal_projector.linear_2.weight.requires_grad


def test_a_folded_model_is_saved_back_as_identity(tmp_path: Path):
    model = _hf.build_llava(SHAPE, seed=1).eval()
    _hf.save_llava(model, tmp_path / "folded", layout=ProjectorLayout.FOLD)
    _hf.save_llava(_hf.load_llava(tmp_path / "folded"), tmp_path / "back", layout=ProjectorLayout.IDENTITY)
    assert torch.equal(logits(_hf.load_llava(tmp_path / "back")), logits(model))


def test_two_layers_do_not_fold(tmp_path: Path):
    model = _hf.build_llava(replace(SHAPE, projector=ProjectorLayout.MLP), seed=1)
    with pytest.raises(ModelError, match="two layers of its own"):
        _hf.save_llava(model, tmp_path / "x", layout=ProjectorLayout.FOLD)
    with pytest.raises(ModelError, match="two layers of its own"):
        _hf.to_identity(model)
    assert not (tmp_path / "x").exists()


def test_a_narrow_decoder_does_not_fold(tmp_path: Path):
    narrow = replace(SHAPE, vision=replace(SHAPE.vision, hidden=24, mlp=48))
    with pytest.raises(ModelError, match=r"twice as wide as the tower \(48\).*--layout identity"):
        _hf.save_llava(_hf.build_llava(narrow, seed=1), tmp_path / "x", layout=ProjectorLayout.FOLD)


def test_every_nested_cache_switch_goes_off_and_stays_out_of_the_checkpoint(tmp_path: Path):
    model = _hf.build_llava(SHAPE, seed=1)
    _hf.disable_cache(model)
    assert model(input_ids=tokens(), pixel_values=pixels()).past_key_values is None
    nested = [module.config for module in model.modules() if hasattr(module, "config")]
    assert len({id(config) for config in nested}) == 3
    assert not any(config.use_cache for config in nested)
    _hf.save_llava(model, tmp_path / "model")
    assert "use_cache" not in (tmp_path / "model" / "config.json").read_text()


def test_bfloat16_on_disk(tmp_path: Path):
    _hf.save_llava(_hf.build_llava(SHAPE, seed=1), tmp_path / "half", dtype=torch.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    wide, narrow = (_hf.load_llava(tmp_path / "half", dtype=d) for d in (torch.float32, torch.bfloat16))
    assert wide.dtype == torch.float32
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(wide.lm_head.weight, narrow.lm_head.weight.float())


def test_shards_stay_below_their_limit_and_load_in_stock_transformers(tmp_path: Path):
    from transformers import LlavaForConditionalGeneration

    model = _hf.build_llava(SHAPE, seed=1).eval()
    _hf.save_llava(model, tmp_path / "cut", max_shard_bytes=20_000)
    sizes = [path.stat().st_size for path in (tmp_path / "cut").glob("*.safetensors")]
    assert len(sizes) > 3
    assert max(sizes) <= 20_000
    assert torch.equal(logits(_hf.load_llava(tmp_path / "cut")), logits(model))
    assert torch.equal(logits(LlavaForConditionalGeneration.from_pretrained(tmp_path / "cut")), logits(model))


def test_a_gathered_state_stands_in_for_the_model(tmp_path: Path):
    model = _hf.build_llava(SHAPE, seed=1)
    state = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    _hf.save_llava(model, tmp_path / "model", state=state)
    assert not _hf.load_llava(tmp_path / "model").lm_head.weight.any()


@pytest.mark.parametrize("transform", list(Transform))
def test_the_transform_is_recorded(tmp_path: Path, transform: Transform):
    _hf.save_llava(_hf.build_llava(SHAPE, seed=1), tmp_path / "model", transform=transform)
    assert _hf.read_transform(tmp_path / "model") is transform


def test_the_transform_of_a_stock_checkpoint(folder: Path):
    path = folder / "preprocessor_config.json"
    document = json.loads(path.read_text())
    del document[_hf.TRANSFORM_KEY]
    path.write_text(json.dumps(document))
    assert _hf.read_transform(folder) is Transform.PAD
    path.write_text(json.dumps(document | {"do_pad": False}))
    assert _hf.read_transform(folder) is Transform.CROP
    path.write_text(json.dumps({_hf.TRANSFORM_KEY: ["pad"]}))
    with pytest.raises(ModelError, match="known are pad, fit, crop"):
        _hf.read_transform(folder)


@pytest.mark.parametrize("transform", [Transform.PAD, Transform.CROP])
def test_the_stock_image_processor_sees_what_the_model_was_trained_on(tmp_path: Path, transform: Transform):
    from transformers import AutoImageProcessor

    _hf.save_llava(_hf.build_llava(SHAPE, seed=1), tmp_path / "model", transform=transform)
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model", backend="pil")
    stock = processor(Image.fromarray(noise), return_tensors="np")["pixel_values"][0]
    ours = images.pixels(tmp_path / "picture.png", transform=transform, size=32)
    assert stock.shape == ours.shape
    assert np.abs(stock - ours).max() < 2 / 255 / 0.26


def test_lean_and_stock_are_both_given(folder: Path):
    assert isinstance(_hf.load_llava(folder, lean=True), lean.LeanLlava)
    assert not isinstance(_hf.load_llava(folder), lean.LeanLlava)


def test_lean_falls_back_to_stock_where_it_does_not_reach(tmp_path: Path):
    config = _hf.llava_config(SHAPE)
    config.text_config.attention_bias = True
    torch.manual_seed(0)
    model = _hf.llava_class()(config).eval()
    _hf.save_llava(model, tmp_path / "model")
    again = _hf.load_llava(tmp_path / "model", lean=True)
    assert not isinstance(again, lean.LeanLlava)
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("use_lean", [True, False])
def test_a_missing_folder_is_no_hub_id(tmp_path: Path, use_lean: bool):
    with pytest.raises(NotFoundError, match="no model folder"):
        _hf.load_llava(tmp_path / "nothing", lean=use_lean)


def test_a_hub_failure_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> str:
        raise OSError("we are offline\nand this is a second line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FetchError, match=r"someone/something.*offline and this"):
        _hf.load_llava("someone/something")


def test_a_hub_id_is_fetched_and_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kwargs: str(folder))
    assert _hf.load_llava("someone/something").config.model_type == "llava"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlavaLlamaForCausalLM"]}, "original LLaVA.*llavar convert"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "holds a BertModel"),
        ({"architectures": None, "model_type": "clip"}, "holds a clip"),
        ({"text_config": {"model_type": "llama", "hidden_size": "wide"}}, "does not describe a model"),
        ({"image_token_index": 60, "vision_config": 3}, "does not describe a model"),
    ],
)
def test_another_architecture_is_refused(folder: Path, changes: dict[str, object], message: str):
    edit(folder, **changes)
    with pytest.raises(ModelError, match=message):
        _hf.load_llava(folder)


def test_weights_that_do_not_fit_the_configuration(folder: Path):
    document = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"num_hidden_layers": 3}, r"lacks 9 tensors, such as 'language_model\.model\.layers\.2"),
        ({"num_hidden_layers": 1}, "holds 9 tensors too many"),
        ({"intermediate_size": 40}, r"is \[.*48.*\] and should be"),
    ):
        edit(folder, text_config=document["text_config"] | change)
        for use_lean in (True, False):
            with pytest.raises(ModelError, match=message):
                _hf.load_llava(folder, lean=use_lean)


def test_checkpoints_with_other_key_layouts_load(folder: Path):
    """As saved without ``.vision_model``, with module names, and with the doubled ``.model.model``."""
    from safetensors.torch import load_file, save_file

    wanted = logits(_hf.load_llava(folder))
    tensors = load_file(folder / "model.safetensors")
    for old, new in (
        ("vision_tower.vision_model.", "vision_tower."),
        ("language_model.model.", "language_model.model.model."),
        ("language_model.model.", "model.language_model."),
        ("vision_tower.", "model.vision_tower."),
    ):
        save_file({k.replace(old, new): v for k, v in tensors.items()}, folder / "model.safetensors")
        assert torch.equal(logits(_hf.load_llava(folder)), wanted)


def test_an_old_transformers_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_hf.metadata, "version", lambda name: "5.9.1")
    with pytest.raises(ModelError, match=r"transformers 5\.9\.1 is installed and 5\.17 or later"):
        _hf.llava_class()


@pytest.mark.parametrize("version", ["5.17.0", "5.23.0.dev0", "6.0"])
def test_newer_transformers_are_taken(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_hf.metadata, "version", lambda name: version)
    _hf.require_transformers()


def test_a_foreign_tower_is_not_saved(tmp_path: Path):
    model = _hf.build_llava(SHAPE, seed=1)
    model.config.vision_config.model_type = "pixtral"
    with pytest.raises(ModelError, match="'pixtral' cannot be saved"):
        _hf.save_llava(model, tmp_path / "model")


def test_saving_again_replaces_the_weights_and_keeps_the_tokenizer(folder: Path):
    (folder / "tokenizer.json").write_text("{}")
    _hf.save_llava(_hf.build_llava(SHAPE, seed=2), folder, max_shard_bytes=20_000)
    assert (folder / "tokenizer.json").read_text() == "{}"
    assert not (folder / "model.safetensors").exists()
    assert torch.equal(logits(_hf.load_llava(folder)), logits(_hf.build_llava(SHAPE, seed=2).eval()))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
