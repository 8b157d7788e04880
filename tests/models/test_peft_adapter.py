"""Adapters around any model: where they go, how they begin, and that peft reads what is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llavar.errors import ConfigError, MissingExtraError
from llavar.models import _hf as hf
from llavar.models import _peft
from llavar.models.adapter import ALL_LINEAR, Frozen, Lora, is_adapter
from llavar.models.nf4 import FrozenNF4
from llavar.models.shape import TextShape

RANK4 = Lora(rank=4, alpha=8)


class Two(nn.Module):
    """Two branches whose layers have the same names, as a tower's and a decoder's have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.ModuleDict({"q_proj": nn.Linear(6, 6), "out": nn.Linear(6, 3)})
        self.right = nn.ModuleDict({"q_proj": nn.Linear(6, 6), "norm": nn.LayerNorm(6)})

    def forward(self, x: Tensor) -> Tensor:
        return self.left["out"](self.left["q_proj"](x) + self.right["norm"](self.right["q_proj"](x)))


def decoder() -> Any:
    shape = TextShape(vocab=50, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=64)
    torch.manual_seed(1)
    return hf.build_decoder(shape).eval()


@torch.no_grad()
def shaken(model: nn.Module) -> nn.Module:
    """With B no longer zero."""
    for number, parameter in enumerate(_peft.adapter_parameters(model).values()):
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) / 4)
    return model


# What needs no peft.


def test_targets_are_names_their_ends_or_all():
    model = decoder()
    names = _peft.chosen_layers(model, [ALL_LINEAR])
    assert len(names) == 2 * 7
    assert "lm_head" not in names
    found = _peft.chosen_layers(model, ["mlp.up_proj", "layers.1.self_attn.q_proj"])
    assert found == [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]
    assert _peft.chosen_layers(Two(), ["q_proj"], "right") == ["right.q_proj"]


@pytest.mark.parametrize("target", ["proj", "q_pro", "lm_head", "norm", "model"])
def test_a_target_that_is_no_linear_layer_is_refused_with_those_that_are(target: str):
    with pytest.raises(
        ConfigError, match=f"lora target '{target}' is no linear layer.*it has down_proj, gate_proj"
    ):
        _peft.chosen_layers(decoder(), ["q_proj", target])


def test_a_part_without_linear_layers_is_refused():
    with pytest.raises(ConfigError, match="below right.norm; it has none at all"):
        _peft.chosen_layers(Two(), [ALL_LINEAR], "right.norm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "lora rank is 0; it must be from 1"),
        ({"rank": -3}, "lora rank is -3"),
        ({"rank": 10**9}, "at most 8192|from 1 to 8192"),
        ({"alpha": 0.0}, "lora alpha is 0.0"),
        ({"alpha": float("nan")}, "lora alpha is nan"),
        ({"dropout": 1.0}, "lora dropout is 1.0"),
        ({"dropout": -0.1}, "lora dropout is -0.1"),
        ({"targets": ()}, "lora targets are"),
        ({"targets": ("",)}, "name linear layers such as q_proj"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Lora(**({"rank": 4, "alpha": 8.0} | changes))


def test_without_peft_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for ask in (lambda: _peft.require(RANK4), lambda: _peft.adapt(Two(), RANK4)):
        with pytest.raises(MissingExtraError, match=r"LoRA needs peft.*pip install 'llavar\[lora\]'"):
            ask()


def test_bitsandbytes_is_asked_for_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(_peft, "_peft", lambda: None)
    _peft.require(RANK4)
    with pytest.raises(MissingExtraError, match="bitsandbytes"):
        _peft.require(Lora(rank=4, alpha=8, frozen=Frozen.BNB))


# Around a model.


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="peft is not installed (llavar[lora])")


def test_the_model_computes_what_it_did_and_only_the_adapter_learns(peft: Any):
    model, x = Two(), torch.randn(5, 6)
    before = model(x)
    found = _peft.adapt(model, RANK4, within="left")
    assert torch.equal(model(x), before)
    assert set(found) == {
        f"left.{name}.lora_{end}.default.weight" for name in ("q_proj", "out") for end in "AB"
    }
    assert all(is_adapter(name) for name in found)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == set(found)
    assert {parameter.dtype for parameter in found.values()} == {torch.float32}
    assert [tuple(found[f"left.out.lora_{end}.default.weight"].shape) for end in "AB"] == [(4, 6), (3, 4)]
    assert _peft.adapter_parameters(model) == found


def test_a_seed_says_how_it_begins_and_no_other_number_is_drawn(peft: Any):
    def begun(seed: int) -> list[Tensor]:
        return list(_peft.adapt(Two(), RANK4, seed=seed).values())

    one = begun(0)
    assert all(map(torch.equal, one, begun(0)))
    assert not all(map(torch.equal, one, begun(1)))
    model = Two()
    state = torch.get_rng_state()
    _peft.adapt(model, RANK4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_are_fp32_over_a_model_that_is_not(peft: Any):
    found = _peft.adapt(Two().to(torch.bfloat16), RANK4)
    assert {parameter.dtype for parameter in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("targets", "within", "expected"),
    [
        ((ALL_LINEAR,), "left", r"left\.(?:.*\.)?(?:out|q_proj)"),
        (("q_proj",), "right", r"right\.(?:.*\.)?(?:q_proj)"),
        (("q_proj",), "", r"(?:.*\.)?(?:q_proj)"),
        (("left.q_proj", "out"), "", r"(?:.*\.)?(?:left\.q_proj|out)"),
    ],
)
def test_what_is_written_names_exactly_the_layers(
    targets: tuple[str, ...], within: str, expected: str, peft: Any, tmp_path: Path
):
    model = shaken_two(targets, within)
    _peft.write_adapter(model, tmp_path, base="two")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == expected
    again = peft.PeftModel.from_pretrained(Two(), str(tmp_path))
    x = torch.randn(5, 6)
    assert torch.equal(again(x), model(x))


def shaken_two(targets: tuple[str, ...], within: str) -> nn.Module:
    model = Two()
    _peft.adapt(model, Lora(rank=2, alpha=3, targets=targets), within=within)
    return shaken(model).eval()


def test_layers_that_one_pattern_would_not_tell_apart_are_listed(peft: Any, tmp_path: Path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict({"out": nn.Linear(4, 4), "q": nn.Linear(4, 4)})
            self.out = nn.Linear(4, 4)  # the head, which is called as a layer is

        def get_output_embeddings(self) -> nn.Module:
            return self.out

    model = Tied()
    _peft.adapt(model, RANK4)
    _peft.write_adapter(model, tmp_path, base="tied")
    document = json.loads((tmp_path / "adapter_config.json").read_text())
    assert sorted(document["target_modules"]) == ["body.out", "body.q"]


def test_whole_modules_travel_and_stock_peft_puts_them_in(peft: Any, tmp_path: Path):
    model: Any = Two()
    _peft.adapt(model, RANK4, within="left")
    shaken(model).eval()
    with torch.no_grad():
        model.right["norm"].weight.mul_(3.0)
    whole = {f"right.norm.{name}": tensor for name, tensor in model.right["norm"].state_dict().items()}
    _peft.write_adapter(model, tmp_path, base="owner/two", whole=whole, modules=["norm"])
    again = peft.PeftModel.from_pretrained(Two(), str(tmp_path))
    x = torch.randn(5, 6)
    assert torch.equal(again(x), model(x))
    document = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (document["base_model_name_or_path"], document["modules_to_save"]) == ("owner/two", ["norm"])
    assert document["inference_mode"] is True
    assert (document["r"], document["lora_alpha"], document["lora_dropout"]) == (4, 8, 0.0)


def test_a_decoder_alone_is_adapted_in_four_bits(peft: Any):
    model, plain = decoder(), decoder()
    _peft.adapt(model, Lora(rank=4, alpha=8, frozen=Frozen.NF4))
    layer = model.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer.base_layer, FrozenNF4)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        off = (model(ids).logits - plain(ids).logits).abs().max()
    assert 0 < float(off) < 0.2
    model(ids, labels=ids).loss.backward()
    gradients = [parameter.grad for parameter in _peft.adapter_parameters(model).values()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    assert not hasattr(model, "is_loaded_in_4bit")


def test_a_decoder_alone_is_adapted_over_bitsandbytes(peft: Any):
    library: Any = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (llavar[qlora])")
    model = decoder()
    _peft.adapt(model, Lora(rank=4, alpha=8, frozen=Frozen.BNB), compute=torch.bfloat16)
    layer = model.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer.base_layer, library.nn.Linear4bit)
    assert type(layer).__module__ == "peft.tuners.lora.bnb"
    ids = torch.arange(12)[None]
    model(ids, labels=ids).loss.backward()
    assert not hasattr(model, "is_loaded_in_4bit")


def test_a_peft_that_does_not_go_with_transformers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "peft.py").write_text("from transformers import NothingOfThatName\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    with pytest.raises(
        MissingExtraError, match="LoRA needs peft, which cannot be imported .cannot import name"
    ):
        _peft.require(RANK4)
