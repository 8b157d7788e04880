"""LoRA adapters merged: the arithmetic, the names of every layout, and every adapter that is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavar.errors import ModelError, NotFoundError
from llavar.models import lora, projector, stored

Tensors = dict[str, torch.Tensor]
RANK, ALPHA = 2, 4
Q = "layers.0.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.05,
    "bias": "none",
    "target_modules": ["q_proj"],
    "base_model_name_or_path": "x",
    "use_dora": False,
    "rank_pattern": {},
    "init_lora_weights": True,
}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def decoder(prefix: str, head: str, dtype: torch.dtype = torch.float16) -> Tensors:
    return {
        f"{prefix}embed_tokens.weight": random(10, 8, seed=1, dtype=dtype),
        f"{prefix}{Q}.weight": random(6, 8, seed=2, dtype=dtype),
        f"{prefix}norm.weight": random(8, seed=3, dtype=dtype),
        head: random(10, 8, seed=4, dtype=dtype),
    }


def original(dtype: torch.dtype = torch.float16) -> Tensors:
    tensors = decoder("model.", "lm_head.weight", dtype)
    tensors["model.mm_projector.weight"] = random(8, 3, seed=5, dtype=dtype)
    tensors["model.mm_projector.bias"] = random(8, seed=6, dtype=dtype)
    return tensors


def stock(two: projector.TwoLayer) -> Tensors:
    tensors = decoder("language_model.model.", "language_model.lm_head.weight")
    tensors["multi_modal_projector.linear_1.weight"] = two.weight_1
    tensors["multi_modal_projector.linear_1.bias"] = two.bias_1
    tensors["multi_modal_projector.linear_2.weight"] = two.weight_2
    tensors["multi_modal_projector.linear_2.bias"] = two.bias_2
    return tensors


def single(seed: int) -> projector.Linear:
    return projector.Linear(
        weight=random(8, 3, seed=seed, dtype=torch.float16),
        bias=random(8, seed=seed + 1, dtype=torch.float16),
    )


def write_model(folder: Path, tensors: Tensors, **config: object) -> Path:
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"} | config))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    return folder


def write_adapter(folder: Path, tensors: Tensors, *, binary: bool = False, **config: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    if binary:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def factors(module: str, out: int = 6, width: int = 8, end: str = "") -> Tensors:
    return {
        f"base_model.model.{module}.lora_A{end}.weight": random(RANK, width, seed=7),
        f"base_model.model.{module}.lora_B{end}.weight": random(out, RANK, seed=8),
    }


def merged(weight: torch.Tensor, scale: float = ALPHA / RANK) -> torch.Tensor:
    out, width = weight.shape
    change = random(out, RANK, seed=8) @ random(RANK, width, seed=7)
    return (weight.float() + scale * change).to(weight.dtype)


def read(folder: Path) -> Tensors:
    return {name: tensor.load() for name, tensor in stored.open_tensors(folder).items()}


def expect(found: Tensors, before: Tensors, changed: Tensors) -> None:
    assert found.keys() == before.keys() | changed.keys()
    for name, tensor in (before | changed).items():
        assert found[name].dtype == tensor.dtype, name
        if name in changed and tensor.dtype == torch.float32:
            torch.testing.assert_close(found[name], tensor, msg=name)
        else:
            assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weight_is_the_sum_rounded_once_and_the_rest_stays(
    dtype: torch.dtype, binary: bool, tmp_path: Path
):
    before = original(dtype)
    model = write_model(tmp_path / "m", before)
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"), binary=binary)
    result = lora.merge(model, adapter, tmp_path / "out", checksums=True)
    expect(read(tmp_path / "out"), before, {f"model.{Q}.weight": merged(before[f"model.{Q}.weight"])})
    assert (result.tensors, result.merged, result.replaced, result.warnings) == (6, 1, (), ())
    assert len(result.files[0].sha256 or "") == 64
    for name in ("config.json", "tokenizer.model"):
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()


def test_large_weights_are_merged_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lora, "_PART", 17)
    before = original()
    model = write_model(tmp_path / "m", before)
    lora.merge(model, write_adapter(tmp_path / "a", factors(f"model.{Q}")), tmp_path / "out")
    found = read(tmp_path / "out")[f"model.{Q}.weight"]
    torch.testing.assert_close(found, merged(before[f"model.{Q}.weight"]))


@pytest.mark.parametrize(
    ("config", "scale"),
    [({"use_rslora": True}, ALPHA / math.sqrt(RANK)), ({"lora_alpha": 0.5}, 0.25), ({"lora_alpha": 0}, 0.0)],
)
def test_scales(config: dict[str, object], scale: float, tmp_path: Path):
    before = original(torch.float32)
    model = write_model(tmp_path / "m", before)
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"), **config)
    lora.merge(model, adapter, tmp_path / "out")
    name = f"model.{Q}.weight"
    expect(read(tmp_path / "out"), before, {name: merged(before[name], scale)})


def test_fan_in_fan_out_is_the_transpose(tmp_path: Path):
    before = original(torch.float32)
    model = write_model(tmp_path / "m", before)
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}", 8, 6), fan_in_fan_out=True)
    lora.merge(model, adapter, tmp_path / "out")
    name = f"model.{Q}.weight"
    expect(read(tmp_path / "out"), before, {name: merged(before[name].T).T.contiguous()})


@pytest.mark.parametrize(
    "module",
    [
        f"model.{Q}",  # the original's
        f"model.language_model.{Q}",  # transformers 5
        f"language_model.model.{Q}",  # transformers 4
    ],
)
@pytest.mark.parametrize("layout", ["original", "stock"])
def test_names_of_every_layout_meet(module: str, layout: str, tmp_path: Path):
    before = original() if layout == "original" else stock(projector.identity(single(20)))
    model = write_model(tmp_path / "m", before, projector_hidden_act="linear")
    adapter = write_adapter(tmp_path / "a", factors(module, end=".default"), binary=True)
    lora.merge(model, adapter, tmp_path / "out")
    name = next(name for name in before if name.endswith(f"{Q}.weight"))
    expect(read(tmp_path / "out"), before, {name: merged(before[name])})


def test_the_head_and_modules_held_whole(tmp_path: Path):
    before = original()
    held = factors("lm_head", 10) | {
        "base_model.model.model.embed_tokens.modules_to_save.default.weight": random(10, 8, seed=9)
    }
    adapter = write_adapter(tmp_path / "a", held, modules_to_save=["embed_tokens"])
    result = lora.merge(write_model(tmp_path / "m", before), adapter, tmp_path / "out")
    expect(
        read(tmp_path / "out"),
        before,
        {
            "lm_head.weight": merged(before["lm_head.weight"]),
            "model.embed_tokens.weight": random(10, 8, seed=9).half(),
        },
    )
    assert result.replaced == ("language_model.model.embed_tokens.weight",)


@pytest.mark.parametrize("layout", ["original", "identity", "fold"])
def test_llavas_projector_comes_with_the_adapter(layout: str, tmp_path: Path):
    old, new = single(20), single(30)
    two = {"identity": projector.identity, "fold": projector.fold}
    before = original() if layout == "original" else stock(two[layout](old))
    act = "gelu" if layout == "fold" else "linear"
    model = write_model(tmp_path / "m", before, projector_hidden_act=act)
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    torch.save(
        {
            "base_model.model.model.mm_projector.weight": new.weight,
            "base_model.model.model.mm_projector.bias": new.bias,
        },
        adapter / "non_lora_trainables.bin",
    )
    lora.merge(model, adapter, tmp_path / "out")
    after = original() if layout == "original" else stock(two[layout](new))
    if layout == "original":
        after |= {"model.mm_projector.weight": new.weight, "model.mm_projector.bias": new.bias}
    name = next(name for name in before if name.endswith(f"{Q}.weight"))
    expect(read(tmp_path / "out"), after, {name: merged(before[name])})


def test_a_projector_of_two_layers_replaces_the_stock_one(tmp_path: Path):
    two = projector.TwoLayer(
        weight_1=random(8, 3, seed=40).half(),
        bias_1=random(8, seed=41).half(),
        weight_2=random(8, 8, seed=42).half(),
        bias_2=random(8, seed=43).half(),
    )
    model = write_model(tmp_path / "m", stock(projector.fold(single(20))), projector_hidden_act="gelu")
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    names = {"0.weight": two.weight_1, "0.bias": two.bias_1, "2.weight": two.weight_2, "2.bias": two.bias_2}
    held = {f"base_model.model.model.mm_projector.{name}": tensor for name, tensor in names.items()}
    torch.save(held, adapter / "non_lora_trainables.bin")
    lora.merge(model, adapter, tmp_path / "out")
    name = f"language_model.model.{Q}.weight"
    expect(read(tmp_path / "out"), stock(two), {name: merged(stock(two)[name])})


@pytest.mark.parametrize("with_config", [True, False])
def test_an_adapter_makes_a_llava_of_a_llama(with_config: bool, tmp_path: Path):
    before = decoder("model.", "lm_head.weight")
    model = write_model(tmp_path / "m", before, model_type="llama")
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    new = single(30)
    held = {"model.model.mm_projector.weight": new.weight.float(), "model.model.mm_projector.bias": new.bias}
    torch.save({f"base_model.{n}": t for n, t in held.items()}, adapter / "non_lora_trainables.bin")
    if with_config:
        (adapter / "config.json").write_text('{"model_type": "llava", "mm_hidden_size": 3}')
    result = lora.merge(model, adapter, tmp_path / "out")
    added = {"model.mm_projector.weight": new.weight, "model.mm_projector.bias": new.bias}
    name = f"model.{Q}.weight"
    expect(read(tmp_path / "out"), before | added, {name: merged(before[name])})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == ("llava" if with_config else "llama")
    assert len(result.warnings) == (not with_config)


# What is refused.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "has use_dora = True, which is not covered"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "has alpha_pattern"),
        ({"bias": "all"}, "has bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights = 'pissa'"),
        ({"new_trick": {"x": 1}}, "has new_trick"),
        ({"peft_type": "IA3"}, "is a IA3 adapter"),
        ({"r": 0}, "has r = 0"),
        ({"r": True}, "has r = True"),
        ({"lora_alpha": "4"}, "lora_alpha = '4'"),
        ({"r": 3}, "of rank 3 in .* do not fit"),
    ],
)
def test_settings_that_change_the_arithmetic_are_named(
    config: dict[str, object], message: str, tmp_path: Path
):
    model = write_model(tmp_path / "m", original())
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"), **config)
    with pytest.raises(ModelError, match=message):
        lora.merge(model, adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (factors("model.layers.7.self_attn.q_proj"), "layers.7.* matches no weight"),
        (factors(f"model.{Q}", 5), r"factors \[5, 2\] x \[2, 8\] .* do not fit .* \[6, 8\]"),
        (factors("model.norm", 8, 1), r"do not fit model.norm.weight \[8\]"),
        ({f"base_model.model.model.{Q}.lora_A.weight": torch.zeros(2, 8)}, "one of the two LoRA factors"),
        ({f"base_model.model.model.{Q}.lora_magnitude_vector": torch.zeros(6)}, "no part of plain LoRA"),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 10)},
            "no part of plain LoRA",
        ),
    ],
)
def test_tensors_without_a_place_are_named(tensors: Tensors, message: str, tmp_path: Path):
    model = write_model(tmp_path / "m", original())
    with pytest.raises(ModelError, match=message):
        lora.merge(model, write_adapter(tmp_path / "a", tensors), tmp_path / "out")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {"model.layers.9.x": torch.zeros(2)},
            "'base_model.model.model.layers.9.x', which matches no weight",
        ),
        ({"model.embed_tokens.weight": torch.zeros(12, 8)}, r"is \[12, 8\] in .* and \[10, 8\] in"),
        ({"model.mm_projector.weight": torch.zeros(8, 5)}, r"mm_projector.weight is \[8, 5\]"),
        ({f"model.{Q}.weight": torch.zeros(6, 8)}, "whole and as LoRA factors"),
    ],
)
def test_other_trained_tensors_must_fit(held: Tensors, message: str, tmp_path: Path):
    model = write_model(tmp_path / "m", original())
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    torch.save({f"base_model.model.{n}": t for n, t in held.items()}, adapter / "non_lora_trainables.bin")
    with pytest.raises(ModelError, match=message):
        lora.merge(model, adapter, tmp_path / "out")


@pytest.mark.parametrize("width", [3, 2])
def test_a_single_projector_fits_no_model_with_two_layers_or_another_width(width: int, tmp_path: Path):
    two = projector.identity(single(20))
    act = "linear" if width == 2 else "gelu"  # with gelu these are two layers
    model = write_model(tmp_path / "m", stock(two), projector_hidden_act=act)
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    held = {"mm_projector.weight": torch.zeros(8, width), "mm_projector.bias": torch.zeros(8)}
    torch.save(
        {f"base_model.model.model.{n}": t for n, t in held.items()}, adapter / "non_lora_trainables.bin"
    )
    with pytest.raises(ModelError, match="another kind or size"):
        lora.merge(model, adapter, tmp_path / "out")


def test_models_that_cannot_take_an_adapter(tmp_path: Path):
    adapter = write_adapter(tmp_path / "a", factors(f"model.{Q}"))
    quantized = original()
    quantized[f"model.{Q}.weight"] = torch.zeros(6, 8, dtype=torch.uint8)
    twice = original() | {"language_model.lm_head.weight": torch.zeros(1)}
    for name, tensors, message in (
        ("quantized", quantized, "name an unquantized model"),
        ("twice", twice, "which are the same weight"),
        ("tower", {"vision_model.x": torch.zeros(1)}, "has no embedding"),
    ):
        with pytest.raises(ModelError, match=message):
            lora.merge(write_model(tmp_path / name, tensors), adapter, tmp_path / "out")
    with pytest.raises(ModelError, match="is a LoRA adapter, not a model"):
        lora.merge(adapter, adapter, tmp_path / "out")
    with pytest.raises(NotFoundError, match="there is no folder"):
        lora.merge(tmp_path / "none", adapter, tmp_path / "out")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no adapter_model.safetensors nor"):
        lora.merge(write_model(tmp_path / "m", original()), adapter, tmp_path / "out")
