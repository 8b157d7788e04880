"""What stands beside merged weights, which numbers they are written in, and folders that are adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavar.errors import ModelError
from llavar.models import folder as folders
from llavar.models import lora, stored

PREFIX = "language_model.model."
NAME = f"{PREFIX}layers.0.self_attn.q_proj"
OWN = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    tensors = {f"{PREFIX}embed_tokens.weight": random(9, 8, seed=1), f"{NAME}.weight": random(6, 8, seed=2)}
    tensors |= {"language_model.lm_head.weight": random(9, 8, seed=3)}
    save_file({name: tensor.half() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "dtype": "float16"}))
    for name in (*OWN, "tokenizer.model", "generation_config.json"):
        (folder / name).write_text('{"of": "model"}')
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
        "base_model_name_or_path": "owner/m",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    factors = {f"base_model.model.{NAME}.lora_A.weight": random(2, 8, seed=4)}
    factors |= {f"base_model.model.{NAME}.lora_B.weight": random(6, 2, seed=5)}
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def of(folder: Path, name: str) -> object:
    return json.loads((folder / name).read_text())["of"]


def test_an_adapter_with_tokenizer_and_processor_brings_them(model: Path, adapter: Path, tmp_path: Path):
    for name in OWN:
        (adapter / name).write_text('{"of": "adapter"}')
    lora.merge(model, adapter, tmp_path / "out")
    assert {of(tmp_path / "out", name) for name in OWN} == {"adapter"}
    assert not (tmp_path / "out" / "tokenizer.model").exists()  # the other tokenizer's
    assert of(tmp_path / "out", "generation_config.json") == "model"
    assert "model_type" in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize("missing", OWN)
def test_an_adapter_with_some_of_them_brings_none(missing: str, model: Path, adapter: Path, tmp_path: Path):
    for name in OWN:
        if name != missing:
            (adapter / name).write_text('{"of": "adapter"}')
    lora.merge(model, adapter, tmp_path / "out")
    assert {of(tmp_path / "out", name) for name in (*OWN, "tokenizer.model")} == {"model"}


def test_a_tokenizer_of_the_adapter_is_read_as_hostile(model: Path, adapter: Path, tmp_path: Path):
    for name in OWN:
        (adapter / name).write_text('{"of": "adapter"}')
    (adapter / "tokenizer_config.json").write_text("not JSON")
    with pytest.raises(ModelError, match="not valid JSON"):
        lora.merge(model, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_rounded_once_to_what_is_asked_for(
    dtype: torch.dtype, model: Path, adapter: Path, tmp_path: Path
):
    lora.merge(model, adapter, tmp_path / "out", dtype=dtype)
    found = {name: tensor.load() for name, tensor in stored.open_tensors(tmp_path / "out").items()}
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    change = 2 * random(6, 2, seed=5) @ random(2, 8, seed=4)
    expected = (random(6, 8, seed=2).half().float() + change).to(dtype)
    torch.testing.assert_close(found[f"{NAME}.weight"], expected)
    assert folders.read_document(tmp_path / "out", "config.json")["dtype"] == str(dtype).removeprefix(
        "torch."
    )


def test_what_is_to_be_finished_is_there_with_the_folder_or_not_at_all(
    model: Path, adapter: Path, tmp_path: Path
):
    def finish(folder: Path) -> None:
        assert (folder / "model.safetensors").is_file()
        assert not (tmp_path / "out").exists()
        (folder / "README.md").write_text("a card")

    def fail(folder: Path) -> None:
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        lora.merge(model, adapter, tmp_path / "out", finish=fail)
    assert not (tmp_path / "out").exists()
    lora.merge(model, adapter, tmp_path / "out", finish=finish)
    assert (tmp_path / "out" / "README.md").read_text() == "a card"


def test_a_folder_that_is_an_adapter_alone_is_told_what_to_do(adapter: Path, model: Path):
    command = f"llavar convert merge-lora owner/m {adapter} --out DIR"
    with pytest.raises(ModelError, match=rf"the run merged it already: {model}\); .*{command}"):
        folders.resolve(adapter)
    (adapter / "adapter_config.json").write_text("{}")
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=f"no whole model; merge it .* merge-lora BASE {adapter}"):
        folders.resolve(adapter)


def test_a_whole_model_may_hold_an_adapter_besides(adapter: Path, model: Path):
    (model / "adapter_config.json").write_text("{}")
    assert folders.resolve(model) == model
