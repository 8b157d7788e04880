"""``llavar convert`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llavar.cli import main
from llavar.models.stored import open_tensors

VERBS = ("from-llava", "to-llava", "apply-delta", "make-delta", "merge-lora", "build")
Make = Callable[..., Any]


@pytest.fixture
def make(originals: Any, tiny_sentencepiece: bytes, tmp_path: Path) -> Make:
    def make(name: str = "llava", **options: Any) -> Any:
        return originals.make_original(tmp_path / "in" / name, tiny_sentencepiece, **options)

    return make


def run(*words: object) -> int:
    return main(["convert", *map(str, words)])


def test_help_names_every_verb_and_its_flags(capsys: pytest.CaptureFixture[str]):
    for words in ((), *((verb,) for verb in VERBS)):
        with pytest.raises(SystemExit) as stopped:
            run(*words, "--help")
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        if not words:
            assert all(verb in text for verb in VERBS)
        elif words == ("from-llava",):
            for flag in ("--vision-tower", "--out", "--layout", "--base", "--conversation", "--dtype"):
                assert flag in text


def test_there_and_back(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    original = make(dtype=torch.float16)
    out = tmp_path / "out"
    assert run("from-llava", original.folder, "--vision-tower", original.tower_folder, "--out", out) == 0
    said = capsys.readouterr()
    assert "projector layout fold, conversation llava_v1, image transform pad" in said.err
    assert "equal to the bit" in said.out
    assert f"written to {out}" in said.out
    assert run("to-llava", out, "--out", tmp_path / "back-v1", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tensors"] == len(original.state)
    back = open_tensors(tmp_path / "back-v1")
    assert all(torch.equal(back[name].load(), wanted) for name, wanted in original.state.items())
    assert run("to-llava", out, "--out", tmp_path, "--projector-only") == 0
    stored = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert torch.equal(stored["model.mm_projector.weight"], original.state["model.mm_projector.weight"])


def test_json_is_one_object(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    original = make(text=24)
    words = ("from-llava", original.folder, "--out", tmp_path / "out", "--layout", "identity", "--json")
    assert run(*words, "--dtype", "bfloat16", "--max-shard-bytes", "40KB", "--transform", "crop") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layout"] == "identity"
    assert document["dtype"] == "bfloat16"
    assert document["image_transform"] == "crop"
    assert document["self_test"]["logit_difference"] <= 2e-4
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")]
    assert len(sizes) > 1
    assert max(sizes) <= 40_000


def test_a_narrow_decoder_is_told_of_the_other_layout(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    original = make(text=24)
    assert run("from-llava", original.folder, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "--layout identity" in said[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["0", "-1", "5XB", "many", "1.5GB", ""])
def test_sizes_that_are_none(size: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        run("from-llava", "x", "--out", "y", "--max-shard-bytes", size)
    assert stopped.value.code == 2
    assert "is no size" in capsys.readouterr().err


def test_no_self_test_is_said(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("from-llava", make().folder, "--out", tmp_path / "out", "--no-self-test") == 0
    assert "not tested (--no-self-test)" in capsys.readouterr().out


def test_a_delta_made_and_applied_and_converted(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target, base = make("llava-v1", dtype=torch.float16), make("base/llama", dtype=torch.float16, seed=9)
    rows = len(base.state["lm_head.weight"]) - 3
    state = {name: tensor for name, tensor in base.state.items() if "mm_projector" not in name}
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        state[name] = state[name][:rows].clone()
    torch.save(state, base.folder / "pytorch_model.bin")
    config = json.loads((base.folder / "config.json").read_text())
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": rows}
    (base.folder / "config.json").write_text(json.dumps(config))
    (base.folder / "added_tokens.json").unlink()

    delta, merged = tmp_path / "delta-v1", tmp_path / "merged-v1"
    assert run("make-delta", "--base", base.folder, "--target", target.folder, "--out", delta) == 0
    assert f"written to {delta}" in capsys.readouterr().out
    words = ("apply-delta", "--base", base.folder, "--delta", delta, "--out", merged, "--json", "--checksums")
    assert run(*words) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["files"]["model.safetensors"]["sha256"]) == 64
    found = open_tensors(merged)
    assert all(torch.equal(found[name].load(), wanted) for name, wanted in target.state.items())
    tower = ("--vision-tower", target.tower_folder)
    assert run("from-llava", delta, "--base", base.folder, *tower, "--out", tmp_path / "one") == 0
    assert run("from-llava", merged, *tower, "--out", tmp_path / "two") == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "delta and base" in (tmp_path / "one" / "README.md").read_text()


def test_an_adapter_is_merged(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    original = make()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    name = "model.layers.0.self_attn.q_proj"
    low, high = torch.randn(2, 48), torch.randn(48, 2)
    save_file(
        {
            f"base_model.model.{name}.lora_A.weight": low,
            f"base_model.model.{name}.lora_B.weight": high,
        },
        adapter / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert run("merge-lora", original.folder, adapter, "--out", tmp_path / "merged") == 0
    assert "1 took an adapter" in capsys.readouterr().out
    found = open_tensors(tmp_path / "merged")[f"{name}.weight"].load()
    assert torch.allclose(found, original.state[f"{name}.weight"] + 2 * high @ low, atol=1e-5)


def test_wrong_paths_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "mm_projector.bin"
    file.write_bytes(b"x")
    for words in (
        ("from-llava", tmp_path / "none", "--out", tmp_path / "out"),
        ("from-llava", file, "--out", tmp_path / "out"),
        ("from-llava", tmp_path, "--out", tmp_path / "out"),
        ("to-llava", tmp_path / "none", "--out", tmp_path / "out"),
        ("apply-delta", "--base", tmp_path / "a", "--delta", tmp_path / "b", "--out", tmp_path / "out"),
        ("merge-lora", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out"),
    ):
        assert run(*words) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert said[0].startswith("llavar: ")
    assert not (tmp_path / "out").exists()
