"""Models that look at pictures: small random ones, loaded as a worker process loads them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from llavar.errors import ConfigError, ModelError, NotFoundError
from llavar.models.sight import HuggingFace

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LABELS = {0: "photo", 1: "poster", 2: "page"}
RED, BLUE = Image.new("RGB", (70, 40), "red"), Image.new("RGB", (40, 90), "blue")


@pytest.fixture(scope="module")
def sight() -> HuggingFace:
    return HuggingFace()


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        **SMALL, image_size=32, patch_size=8, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)  # so that pictures differ
    model.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    text = {**SMALL, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    transformers.CLIPModel(config).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "picture", "dog", "sky"]
    text = {**SMALL, "vocab_size": 16, "bos_token_id": 14, "sep_token_id": 3, "eos_token_id": 3}
    text |= {"pad_token_id": 0, "max_position_embeddings": 64, "encoder_hidden_size": 16}
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=12)
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(vocab={word: place for place, word in enumerate(words)})
    looks = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(looks, tokenizer).save_pretrained(folder)
    return folder


def loaded(made: Any) -> Callable[[Image.Image], Any]:
    """As it comes out of a worker process."""
    return pickle.loads(pickle.dumps(made))()


def test_a_classifier_gives_the_chances_of_its_labels(sight: HuggingFace, vit: Path):
    each = [loaded(sight.classifier(str(vit), label)) for label in ("photo", "Poster", "page")]
    chances = [score(RED) for score in each]
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert chances != [score(BLUE) for score in each]
    both = loaded(sight.classifier(str(vit), "poster, page"))
    assert both(RED) == pytest.approx(chances[1] + chances[2], abs=1e-5)
    document = transformers.AutoModelForImageClassification.from_pretrained(vit).eval()
    looks = transformers.AutoImageProcessor.from_pretrained(vit)
    with torch.inference_mode():
        wanted = document(**looks(images=RED, return_tensors="pt")).logits[0].softmax(-1)
    assert chances == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize(("label", "error", "sentence"), [
    ("cat", ModelError, "no label 'cat'; it has page, photo, poster"),
    (" , ", ConfigError, "no label of"),
])  # fmt: skip
def test_a_label_that_is_none_is_refused(
    label: str, error: type[Exception], sentence: str, sight: HuggingFace, vit: Path
):
    with pytest.raises(error, match=sentence):
        sight.classifier(str(vit), label)()


def test_encoders_give_features_of_unit_length(sight: HuggingFace, vit: Path, clip: Path):
    for folder, length in ((clip, 12), (vit, 16)):
        encode = loaded(sight.encoder(str(folder)))
        vector = encode(RED)
        assert vector.shape == (length,)
        assert vector.dtype == np.float32
        assert float(vector @ vector) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(vector, encode(RED))
        assert not np.allclose(vector, encode(BLUE), atol=1e-3)


def test_the_features_of_clip_are_the_projected_ones(sight: HuggingFace, clip: Path):
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    looks = transformers.AutoImageProcessor.from_pretrained(clip)
    with torch.inference_mode():
        pooled = model.vision_model(**looks(images=RED, return_tensors="pt")).pooler_output
        wanted = model.visual_projection(pooled)[0]
    wanted = wanted / wanted.norm()
    assert np.allclose(loaded(sight.encoder(str(clip)))(RED), wanted.numpy(), atol=1e-5)


def test_a_captioner_says_something_the_same_each_time(sight: HuggingFace, blip: Path):
    describe = loaded(sight.captioner(str(blip)))
    said = describe(RED)
    assert said == describe(RED)
    assert "[PAD]" not in said


def test_the_name_follows_the_weights(sight: HuggingFace, clip: Path, tmp_path: Path):
    before = sight.encoder(str(clip)).name
    assert before == sight.encoder(str(clip)).name
    assert before.startswith(f"{clip.name} ")
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "model.safetensors")
    assert sight.encoder(str(tmp_path)).name.split()[-1] != before.split()[-1]


def test_weights_that_are_missing_are_never_made_up(sight: HuggingFace, clip: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"no weights for 'classifier\.bias' \(2 in all\)"):
        sight.classifier(str(clip), "LABEL_0")()
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"no weights for 'visual_projection\.weight'"):
        sight.encoder(str(tmp_path))()


def test_what_is_no_model_is_an_error_that_names_it(sight: HuggingFace, vit: Path, tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no model folder"):
        sight.encoder(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="cannot be loaded as a AutoModelForImageTextToText"):
        sight.captioner(str(vit))()
    with pytest.raises(ModelError, match="cannot be loaded as a AutoModel"):
        sight.encoder(str(tmp_path))()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        sight.classifier(str(tmp_path), "x")()
    with pytest.raises(ModelError, match="cannot be loaded"):
        sight.encoder(str(vit), device="no such device")()
