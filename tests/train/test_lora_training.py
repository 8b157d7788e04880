"""LoRA and QLoRA from files to files: what is learned, what is left, and what stock peft makes of it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llavar.cli import main
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.train import checkpoint

pytest.importorskip("peft", reason="peft is not installed (llavar[lora])")

ROOT = Path(__file__).parents[2]
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with an identity projector, ``tiny``, the same with a folded one, ``folded``, and rows."""
    folder = tmp_path_factory.mktemp("tiny")
    tokens = nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=tokens.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
        ),
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    model = hf.build_llava(shape, seed=2)
    for name, layout in (("tiny", ProjectorLayout.IDENTITY), ("folded", ProjectorLayout.FOLD)):
        hf.save_llava(model, folder / name, dtype=torch.float32, layout=layout)
        tokens.save(folder / name)
    rows: list[dict[str, object]] = []
    for number in range(12):
        seen = number % 4 > 0
        asked = "<image>\nWhat does it say?" if seen else f"Say word {number}."
        answer = ("STOP", "GO", "EXIT")[number % 3]
        talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        picture: dict[str, object] = {"image": f"{number}.png"} if seen else {}
        rows.append({"id": str(number), "conversations": talk} | picture)
        Image.new("RGB", (40, 30), (20 * number, 255 - 20 * number, 90)).save(folder / f"{number}.png")
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def command(tiny: Path, recipe: str, out: Path, *more: object, base: str = "tiny") -> list[str]:
    argv: list[object] = ["train", recipe, "--model", tiny / base, "--data", tiny / "rows.json"]
    argv += ["--images", tiny, "--out", out, "--steps", "4", "--batch", "4", "--micro-batch", "2"]
    return [str(item) for item in [*argv, "--log-every", "1", "--precision", "fp32", *more]]


@pytest.fixture
def train(tiny: Path, tmp_path: Path) -> Train:
    """Trains an adapter; gives the folder of the run."""

    def begin(*more: object, recipe: str = "nano-stage2-lora", out: str = "out", base: str = "tiny") -> Path:
        assert main(command(tiny, recipe, tmp_path / out, *more, base=base)) == 0
        return tmp_path / out

    return begin


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with dropout, and all of its checkpoints."""
    out = tmp_path_factory.mktemp("trained") / "run"
    flags = ("--steps", "24", "--save-every", "7", "--keep", "9", "--lora-dropout", "0.2", "--lr", "1e-2")
    assert main(command(tiny, "nano-stage2-lora", out, *flags)) == 0
    return out


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return folders.read_tensors(folders.open_weights(folder))


def adapter(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "adapter" / "adapter_model.safetensors")


def log(out: Path) -> list[tuple[object, ...]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pixels_and_ids() -> dict[str, torch.Tensor]:
    """A picture of four tokens and some text."""
    image = nano_tokenizer().image_patch_id
    ids = torch.tensor([[5, *[image] * 4, 9, 11, 30, 31, 17]])
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(1, 3, 16, 16, generator=generator)
    return {"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(**pixels_and_ids()).logits


def with_adapter(base: Path, out: Path) -> Any:
    """As a user of transformers and peft loads it."""
    peft: Any = importlib.import_module("peft")
    return peft.PeftModel.from_pretrained(hf.load_stock(base), str(out / "adapter"))


# What is learned.


def test_the_loss_falls_and_only_adapter_and_projector_change(trained: Path, tiny: Path):
    found = losses(trained)
    assert sum(found[-4:]) < 0.9 * sum(found[:4])
    before, after = stored(tiny / "tiny"), stored(trained / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[-2] for name in changed} == LAYERS | {"linear_1"}
    assert len(changed) == 2 * len(LAYERS) + 2
    saved = checkpoint.newest(trained / "checkpoints")
    assert saved is not None
    assert {name.split("/")[0] for name in saved.weights} == {"adapter", "projector"}
    assert {tensor.dtype for tensor in saved.weights.values()} == {torch.float32}


def test_the_table_has_the_adapter_as_a_part(train: Train, capsys: pytest.CaptureFixture[str]):
    train("--lora-rank", "4", "--lr", "adapter=0.005", "--weight-decay", "adapter=0.1")
    table = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["decoder", "84,416", "frozen"] in table
    assert ["adapter", "7,424", "0.005", "0.1"] in table
    assert ["projector", "2,112", "0.002", "0"] in table


def test_any_recipe_takes_an_adapter_at_ten_times_the_decoders_rate(
    train: Train, capsys: pytest.CaptureFixture[str]
):
    flags = ("--lora-rank", "2", "--lora-targets", "q_proj,v_proj", "self_attn.o_proj")
    out = train(*flags, recipe="nano-stage2")
    settings = json.loads((out / "config.json").read_text())["stage"]
    assert settings["lora"] == {
        "rank": 2,
        "alpha": 4.0,
        "dropout": 0.05,
        "targets": ["q_proj", "v_proj", "self_attn.o_proj"],
        "frozen": "none",
    }
    assert settings["parts"]["adapter"]["lr"] == 3e-3
    assert {name.split(".")[-3] for name in adapter(out) if "lora" in name} == {"q_proj", "v_proj", "o_proj"}
    assert "decoder" not in settings["parts"]
    first = json.loads((train("--lora-rank", "2", recipe="nano-stage1", out="1") / "config.json").read_text())
    assert {name: part["lr"] for name, part in first["stage"]["parts"].items()} == {
        "projector": 4e-3,
        "adapter": 2e-4,
    }


@pytest.mark.parametrize("step", [7, 14])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits_with_dropout(
    step: int, trained: Path, tmp_path: Path
):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    for left in ("adapter", "model"):
        shutil.rmtree(out / left)
    for saved in (out / "checkpoints").iterdir():
        if int(saved.stem.removeprefix("step-")) > step:
            saved.unlink()
    assert main(["train", str(out)]) == 0
    assert log(out) == log(trained)
    assert same(adapter(out), adapter(trained))
    assert same(stored(out / "model"), stored(trained / "model"))


@pytest.fixture(scope="module")
def dropped(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run with half of the adapter's inputs dropped."""
    out = tmp_path_factory.mktemp("dropped") / "run"
    assert main(command(tiny, "nano-stage2-lora", out, "--lora-dropout", "0.5")) == 0
    return losses(out)


def test_dropout_is_used(train: Train, dropped: list[float]):
    plain = losses(train("--lora-dropout", "0"))
    assert plain[0] == dropped[0]  # B is zero at first
    assert plain[2:] != dropped[2:]


def test_packs_and_every_attention_give_the_same_losses(train: Train):
    def run(name: str, *more: str) -> list[float]:
        return losses(train("--lora-dropout", "0", *more, out=name))

    one = run("0", "--attention", "eager", "--no-packing")
    for attention, how in (("eager", "none"), ("sdpa", "full"), ("varlen", "selective")):
        flags = ("--attention", attention, "--packing", "--recompute", how)
        assert run(attention, *flags) == pytest.approx(one, rel=2e-4)


@pytest.mark.parametrize("how", ["full", "selective"])
def test_recomputation_draws_the_same_dropout(how: str, train: Train, dropped: list[float]):
    found = losses(train("--lora-dropout", "0.5", "--recompute", how))
    assert found == pytest.approx(dropped, rel=1e-5)


def test_validation_computes_without_dropout(train: Train, tiny: Path):
    flags = (
        "--validate",
        tiny / "rows.json",
        "--validate-every",
        "2",
        "--lora-dropout",
        "0.9",
        "--lr",
        "1e-9",
    )
    lines = (train(*flags) / "validation.jsonl").read_text().splitlines()
    assert len({round(json.loads(line)["loss"], 5) for line in lines}) == 1


# What is left.


@pytest.mark.parametrize("base", ["tiny", "folded"])
def test_stock_peft_computes_what_the_merged_model_does(base: str, train: Train, tiny: Path):
    out = train("--lr", "1e-2", "--steps", "6", base=base)
    merged, adapted = hf.load_stock(out / "model"), with_adapter(tiny / base, out)
    assert float((logits(merged) - logits(hf.load_stock(tiny / base))).abs().max()) > 1e-2
    torch.testing.assert_close(logits(adapted), logits(merged), atol=2e-5, rtol=1e-4)
    document = folders.read_document(out / "model", "config.json")
    assert document == folders.read_document(tiny / base, "config.json")


def test_peft_loads_base_and_adapter_in_one_call(trained: Path, tiny: Path):
    peft: Any = importlib.import_module("peft")
    found = peft.AutoPeftModel.from_pretrained(str(trained / "adapter"))
    assert type(found.get_base_model()).__name__ == "LlavaForConditionalGeneration"
    assert torch.equal(logits(found), logits(with_adapter(tiny / "tiny", trained)))
    merged = found.merge_and_unload()
    ours = stored(trained / "model")
    theirs = {key: merged.state_dict()[name] for key, name in folders.hub_names(merged.state_dict()).items()}
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, atol=1e-6, rtol=1e-5, msg=name)


def test_a_tower_that_is_trained_in_full_travels_with_the_adapter(train: Train, tiny: Path):
    out = train("--lr", "tower=1e-3", "--freeze", "projector")
    document = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert document["modules_to_save"] == ["vision_tower"]
    assert document["base_model_name_or_path"] == str(tiny / "tiny")
    merged = logits(hf.load_stock(out / "model"))
    torch.testing.assert_close(logits(with_adapter(tiny / "tiny", out)), merged, atol=2e-5, rtol=1e-4)


def test_a_projector_that_was_put_in_travels_though_it_is_frozen(train: Train, tiny: Path):
    out = train("--projector", "random", "--freeze", "projector", base="folded")
    before, after = stored(tiny / "folded"), stored(out / "model")
    name = "multi_modal_projector.linear_2.weight"
    assert not torch.equal(before[name], after[name])
    merged = logits(hf.load_stock(out / "model"))
    torch.testing.assert_close(logits(with_adapter(tiny / "folded", out)), merged, atol=2e-5, rtol=1e-4)


def test_the_adapter_alone_is_merged_later_to_the_same_bits(
    train: Train, trained: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--lora-rank", "4", "--conversation", "vicuna_v1_1", "--transform", "crop", "--tiles", "1x2")
    alone, both = train(*flags, "--no-merge", out="alone"), train(*flags, out="both")
    assert not (alone / "model").exists()
    assert "The model is in" not in capsys.readouterr().err.partition("Finished")[2].partition("Loading")[0]
    merged = tmp_path / "merged"
    assert (
        main(["convert", "merge-lora", str(tiny / "tiny"), str(alone / "adapter"), "--out", str(merged)]) == 0
    )
    for path in (both / "model").iterdir():
        if path.name != "README.md":
            assert (merged / path.name).read_bytes() == path.read_bytes(), path.name
    pictures = folders.read_document(merged, "preprocessor_config.json")
    assert (pictures["llavar_transform"], pictures["llavar_tiles"]) == ("crop", "1x2")
    assert main(["train", str(alone)]) == 0  # finished, so nothing is written again
    assert not (alone / "model").exists()


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_the_merged_model_is_written_as_asked(kind: str, train: Train):
    out = train("--saved-as", kind)
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16}[kind]
    assert {tensor.dtype for tensor in stored(out / "model").values()} == {wanted}
    assert folders.read_document(out / "model", "config.json")["dtype"] == str(wanted).removeprefix("torch.")
    assert {tensor.dtype for tensor in adapter(out).values()} == {torch.float32}


def test_the_merged_model_answers_and_the_adapter_says_what_to_do(
    trained: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    question = [str(tiny / "1.png"), "What does it say?", "--max-new-tokens", "3"]
    assert main(["ask", *question, "--model", str(trained / "model")]) == 0
    capsys.readouterr()
    assert main(["ask", *question, "--model", str(trained / "adapter")]) == 2
    said = capsys.readouterr().err
    assert f"is a LoRA adapter and no whole model (the run merged it already: {trained / 'model'})" in said
    assert f"llavar convert merge-lora {tiny / 'tiny'} {trained / 'adapter'} --out DIR" in said


def test_what_a_kill_left_is_cleared_and_written_again(trained: Path, tmp_path: Path):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "model")
    (out / ".adapter.abc").mkdir()
    (out / ".model.abc").mkdir()
    (out / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    assert main(["train", str(out)]) == 0
    assert same(adapter(out), adapter(trained))
    assert same(stored(out / "model"), stored(trained / "model"))
    assert not list(out.glob(".adapter*"))
    assert not list(out.glob(".model*"))


def test_cards_say_what_it_is_of(trained: Path, tiny: Path):
    card = (trained / "adapter" / "README.md").read_text()
    assert f"base_model: {tiny / 'tiny'}\nlibrary_name: peft" in card
    assert "(rank 32, alpha 64, dropout 0.2, all-linear)" in card
    assert "plus a LoRA adapter (rank 32" in (trained / "model" / "README.md").read_text()


# 4 bits.


@pytest.mark.parametrize(("kind", "precision"), [("nf4", "fp32"), ("nf4", "bf16"), ("bnb", "bf16")])
def test_a_base_in_four_bits(
    kind: str, precision: str, train: Train, tiny: Path, capsys: pytest.CaptureFixture[str]
):
    if kind == "bnb":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (llavar[qlora])")
    flags = ("--quantize", kind, "--precision", precision, "--steps", "12", "--lr", "1e-2")
    out = train(*flags, "--validate", tiny / "rows.json", "--validate-every", "6")
    assert ["decoder", "84,416", "frozen"] in [line.split() for line in capsys.readouterr().err.splitlines()]
    found = losses(out)
    assert found[-1] < 0.9 * found[0]
    # Merged is what is stored, not what four bits made of it.
    before, after = stored(tiny / "tiny"), stored(out / "model")
    factors = adapter(out)
    name = "layers.1.mlp.up_proj"
    a, b = (factors[f"base_model.model.model.language_model.{name}.lora_{end}.weight"] for end in "AB")
    key = f"language_model.model.{name}.weight"
    torch.testing.assert_close(after[key], before[key] + 2 * b @ a)
    assert "kept in 4 bits" in (out / "model" / "README.md").read_text()
    merged = logits(hf.load_stock(out / "model"))
    torch.testing.assert_close(logits(with_adapter(tiny / "tiny", out)), merged, atol=2e-5, rtol=1e-4)


def test_four_bits_go_on_to_the_same_bits(train: Train, tmp_path: Path):
    whole = train("--quantize", "nf4", "--save-every", "2", "--keep", "9", "--lora-dropout", "0.2")
    out = tmp_path / "again"
    shutil.copytree(whole, out)
    (out / "checkpoints" / "step-00000004.pt").unlink()
    shutil.rmtree(out / "adapter")
    assert main(["train", str(out)]) == 0
    assert log(out) == log(whole)
    assert same(adapter(out), adapter(whole))


# What is refused.


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_a_target_that_is_none_is_told_those_that_are(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    argv = command(tiny, "nano-stage2-lora", tmp_path / "out", "--lora-targets", "q_proj", "fc1")
    said = refusal(capsys, argv)
    assert "lora target 'fc1' is no linear layer of the model below model.language_model" in said
    assert "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; all-linear" in said


def test_a_single_projector_does_not_go_into_a_base_with_two_layers(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shape = LlavaShape.from_config(folders.read_document(tiny / "tiny", "config.json"))
    from dataclasses import replace

    wide = replace(shape, projector=ProjectorLayout.MLP, vision=replace(shape.vision, hidden=48, heads=3))
    base = tmp_path / "wide"
    hf.save_llava(hf.build_llava(wide, seed=1), base, dtype=torch.float32)
    nano_tokenizer().save(base)
    argv = command(tiny, "nano-stage2-lora", tmp_path / "out", "--model", base, "--projector", "random")
    assert "in whose layout it does not fit" in refusal(capsys, argv)


def test_another_adapter_is_another_run(trained: Path, tiny: Path, capsys: pytest.CaptureFixture[str]):
    flags = ("--steps", "24", "--save-every", "7", "--keep", "9", "--lora-dropout", "0.3", "--lr", "1e-2")
    assert "holds a run with other settings (lora is" in refusal(
        capsys, command(tiny, "nano-stage2-lora", trained, *flags)
    )
