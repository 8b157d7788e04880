"""A job on any image-text-to-text model: tune, stop, go on, and what is left."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

pytest.importorskip("peft", reason="LoRA needs peft, which is not installed")

from llavar.cli import main
from llavar.data.feed import FeedConfig
from llavar.errors import ConfigError, LlavarError, ModelError
from llavar.generate.base import Request
from llavar.generate.hub import HubGenerator
from llavar.models._peft import adapter_parameters
from llavar.models.adapter import Frozen, Lora
from llavar.study.reader import Reader
from llavar.study.training import watcher
from llavar.train import checkpoint, hub_job
from llavar.train.config import ADAPTER, Attention, PartConfig, Policy, Precision, StageConfig
from llavar.train.export import SavedAs
from llavar.train.job import Job, read_job, run
from llavar.train.world import World

WORDS = ("STOP", "GO", "EXIT", "OPEN 24 h", "Mind the gap", "NO")
FAMILIES = ("qwen2_5_vl", "llava_onevision", "gemma3", "llava", "idefics3")


def rows(folder: Path) -> list[dict[str, Any]]:
    """A few pictures of two sizes with a word on each, a row about two of them, and one about none."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, Any]] = []
    for number, word in enumerate(WORDS):
        image = Image.new("RGB", (56 + 20 * (number % 2), 40), "white")
        ImageDraw.Draw(image).text((2, 10), word, fill="black")
        image.save(folder / f"{number}.png")
        made.append(row(str(number), f"{number}.png", "<image>\nWhat does it say?", word))
    made.append(row("both", ["0.png", "1.png"], "<image>\n<image>\nWhich says STOP?", "The first."))
    made.append(row("none", None, "Say hello.", "Hello.", "Again.", "Hello again."))
    return made


def row(name: str, image: str | list[str] | None, *texts: str) -> dict[str, Any]:
    talk = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    return {"id": name, **({} if image is None else {"image": image}), "conversations": talk}


def write(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def stage(**changes: Any) -> StageConfig:
    settled = {
        "parts": {ADAPTER: PartConfig(lr=5e-3)},
        "lora": Lora(rank=4, alpha=8, dropout=0.1),
        "batch": 4,
        "micro_batch": 2,
        "max_length": 256,
        "packing": False,
        "steps": 4,
        "precision": Precision.FP32,
        "log_every": 1,
        "save_every": 2,
    }
    return StageConfig(**(settled | changes))


@pytest.fixture(scope="module")
def bases(hub_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root, made = tmp_path_factory.mktemp("bases"), {}

    def base(name: str) -> Path:
        if name not in made:
            made[name] = hub_models.make(root / name, name, dtype=torch.bfloat16)
        return made[name]

    return base


@pytest.fixture
def job(bases: Any, tmp_path: Path) -> Callable[..., Job]:
    data = write(tmp_path / "rows.json", rows(tmp_path / "pictures"))

    def made(name: str = "qwen2_5_vl", *, changed: dict[str, Any] | None = None, **more: Any) -> Job:
        settled: dict[str, Any] = {"model": str(bases(name)), "data": (data,), "recipe": "lora-hub"}
        settled |= {"images": str(tmp_path / "pictures"), "own_processor": True}
        return Job(stage=stage(**(changed or {})), **(settled | more))

    return made


def logged(out: Path) -> list[tuple[int, float, float]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in map(json.loads, lines)]


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_tuned_and_what_is_left_is_the_base_and_its_adapter(
    job: Any, bases: Any, tmp_path: Path, name: str
) -> None:
    said: list[str] = []
    fitted = run(job(name), tmp_path / "run", say=said.append)
    assert fitted.steps == 4
    assert any(text.startswith("Rows are padded") and name in text for text in said)
    base = load_file(bases(name) / "model.safetensors")
    left = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {key: (value.shape, value.dtype) for key, value in base.items()} == {
        key: (value.shape, value.dtype) for key, value in left.items()
    }
    changed = {key for key in base if not torch.equal(base[key], left[key])}
    assert changed
    assert all("proj" in key and "layers." in key for key in changed)
    assert not any("vision" in key or "visual" in key for key in changed)
    factors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert len(changed) == len(factors) / 2 == 2 * 7


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "idefics3"])
def test_the_merged_model_is_what_peft_makes_of_the_adapter(
    job: Any, bases: Any, tmp_path: Path, name: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    run(job(name), tmp_path / "run")
    auto: Any = AutoModelForImageTextToText
    base = auto.from_pretrained(str(bases(name)), dtype=torch.float32)
    theirs: Any = PeftModel.from_pretrained(base, str(tmp_path / "run" / "adapter"))
    merged = theirs.merge_and_unload().state_dict()
    ours = auto.from_pretrained(str(tmp_path / "run" / "model"), dtype=torch.float32).state_dict()
    assert merged.keys() == ours.keys()
    for key, value in merged.items():
        torch.testing.assert_close(ours[key], value.bfloat16().float(), rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision", "gemma3"])
def test_a_run_that_was_stopped_goes_on_bit_by_bit(job: Any, tmp_path: Path, name: str) -> None:
    settled = job(name, changed={"steps": 5, "save_every": 100})
    run(settled, tmp_path / "whole")

    def stop(text: str) -> None:
        if text.startswith("step 3/5"):
            raise StopError

    with pytest.raises(StopError):
        run(settled, tmp_path / "parts", say=stop)
    saved = checkpoint.newest(tmp_path / "parts" / "checkpoints")
    assert saved is not None
    assert saved.step == 3
    again = run(read_job(tmp_path / "parts"), tmp_path / "parts")
    assert again.resumed_at == 3
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    for file in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "parts" / file)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_workers_make_the_same_batches(job: Any) -> None:
    settled = job()
    model = hub_job.load(settled, World())
    feed = FeedConfig(batch=4, parts=2, capacity=256, packing=False)
    found = hub_job.objective(model, hub_job.rows(settled, settled.data, model, 0), feed, World(), 0).feed
    there = pickle.loads(pickle.dumps(found))  # as a worker gets it
    for here, other in zip(found.batches(1), there.batches(1), strict=True):
        assert torch.equal(here.labels, other.labels)
        assert here.inputs.keys() == other.inputs.keys()
        assert all(torch.equal(here.inputs[name], other.inputs[name]) for name in here.inputs)


def test_micro_batches_of_any_size_give_the_same_losses(job: Any, tmp_path: Path) -> None:
    lora = Lora(rank=4, alpha=8)
    run(job(changed={"micro_batch": 1, "lora": lora}), tmp_path / "single")
    run(job(changed={"micro_batch": 4, "lora": lora}), tmp_path / "whole")
    for one, other in zip(logged(tmp_path / "single"), logged(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=2e-3)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "idefics3"])
def test_activations_may_be_computed_twice(job: Any, tmp_path: Path, name: str) -> None:
    run(job(name), tmp_path / "kept")
    run(job(name, changed={"recompute": True}), tmp_path / "twice")
    assert logged(tmp_path / "kept") == logged(tmp_path / "twice")


def test_the_base_may_be_kept_in_4_bits(job: Any, bases: Any, tmp_path: Path) -> None:
    lora = Lora(rank=4, alpha=8, frozen=Frozen.NF4)
    run(job(changed={"lora": lora}), tmp_path / "run")
    base = load_file(bases("qwen2_5_vl") / "model.safetensors")
    left = load_file(tmp_path / "run" / "model" / "model.safetensors")
    steps = [(left[key].float() - base[key].float()).abs().max() for key in base]
    assert 0 < max(steps) < 0.2  # of the weights as they are stored, not of their rounded copies
    assert sum(bool(step) for step in steps) == 2 * 7


def test_in_bf16_the_frozen_base_is_bf16(job: Any, tmp_path: Path) -> None:
    settled = job(changed={"precision": Precision.BF16})
    model = hub_job.load(settled, World())
    kinds = {value.dtype for name, value in model.module.named_parameters() if "lora" not in name}
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in adapter_parameters(model.module).values()} == {torch.float32}
    run(settled, tmp_path / "narrow")
    run(job(), tmp_path / "wide")
    for one, other in zip(logged(tmp_path / "narrow"), logged(tmp_path / "wide"), strict=True):
        assert one[1] == pytest.approx(other[1], rel=0.03)


def test_what_was_learned_is_answered(hub_models: Any, tmp_path: Path) -> None:
    base = hub_models.make(tmp_path / "base", "qwen2_5_vl")
    pictures = tmp_path / "pictures"
    data = write(tmp_path / "rows.json", rows(pictures)[:2])
    settled = stage(
        lora=Lora(rank=16, alpha=32),
        parts={ADAPTER: PartConfig(lr=2e-2)},
        batch=2,
        steps=60,
        save_every=100,
        log_every=20,
    )
    run(
        Job(stage=settled, model=str(base), data=(data,), images=str(pictures), own_processor=True),
        tmp_path / "run",
    )
    reader = Reader.load(str(tmp_path / "run" / "model"))
    answers = [reader.ask(pictures / f"{n}.png", "What does it say?", max_new_tokens=8) for n in (0, 1)]
    assert answers == ["STOP", "GO"]


@pytest.mark.parametrize("name", ["llava_onevision", "gemma3", "llava"])
def test_the_commands(bases: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "run"
    data = write(tmp_path / "rows.json", rows(pictures))
    what = ["--model", str(bases(name)), "--data", data, "--images", str(pictures), "--out", str(out)]
    how = ["--steps", "2", "--batch", "4", "--lora-rank", "4", "--max-length", "256", "--precision", "fp32"]
    assert main(["train", "lora-hub", *what, *how, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(out / "model")
    assert main(["train", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 2
    asked = ["ask", str(pictures / "0.png"), "What does it say?", "--max-new-tokens", "4"]
    assert main([*asked, "--model", str(out / "model"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    generator = HubGenerator.load(out / "model")
    request = Request(
        image=pictures / "0.png", question="What does it say?", max_new_tokens=4, image_first=True
    )
    assert answer == generator.answer([request])[0]


def test_held_out_rows_and_questions_are_looked_at_meanwhile(job: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "held.json", rows(tmp_path / "pictures")[:2])
    folder = tmp_path / "questions"
    folder.mkdir()
    shutil.copy(tmp_path / "pictures" / "0.png", folder)
    question = {"id": "q", "image": "0.png", "question": "What does it say?", "answers": ["STOP"]}
    (folder / "questions.jsonl").write_text(json.dumps(question) + "\n")
    settled = job(validate=(data,), validate_every=2, watch_every=2, watch_data=str(folder))
    run(settled, tmp_path / "run", watcher=watcher)
    looks = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert all(look["loss"] > 0 and look["questions"] == 1 for look in looks)
    run(job(), tmp_path / "alone")
    assert logged(tmp_path / "run") == logged(tmp_path / "alone")


def test_the_result_may_be_saved_in_other_numbers_or_as_the_adapter_alone(job: Any, tmp_path: Path) -> None:
    run(job(saved_as=SavedAs.FP16), tmp_path / "half")
    left = load_file(tmp_path / "half" / "model" / "model.safetensors")
    assert {value.dtype for value in left.values()} == {torch.float16}
    assert json.loads((tmp_path / "half" / "model" / "config.json").read_text())["dtype"] == "float16"
    run(job(merge=False), tmp_path / "alone")
    assert not (tmp_path / "alone" / "model").exists()
    assert (tmp_path / "alone" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_finished_run_is_left_as_it_is(job: Any, tmp_path: Path) -> None:
    run(job(), tmp_path / "run")
    before = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(job(), tmp_path / "run").resumed_at == 4
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_the_folder_that_is_left_has_what_stock_engines_read(job: Any, bases: Any, tmp_path: Path) -> None:
    base = bases("llava")
    (base / "video_preprocessor_config.json").write_text("{}")
    (base / "chat_templates").mkdir(exist_ok=True)
    (base / "chat_templates" / "other.jinja").write_text("other")
    run(job("llava"), tmp_path / "run")
    model = tmp_path / "run" / "model"
    for name in (
        "tokenizer.json",
        "preprocessor_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ):
        assert (model / name).read_bytes() == (base / name).read_bytes()
    assert (model / "video_preprocessor_config.json").is_file()
    assert (model / "chat_templates" / "other.jinja").is_file()
    assert json.loads((model / "config.json").read_text())["llavar_processor"] == "own"
    card = (model / "README.md").read_text()
    assert "LlavaForConditionalGeneration" in card
    assert "own processor and chat template" in card
    shutil.rmtree(base / "chat_templates")
    (base / "video_preprocessor_config.json").unlink()


# What is refused, and what is left out.


@pytest.mark.parametrize(
    ("more", "changed", "reason"),
    [
        ({"vision_tower": "clip"}, {}, "--vision-tower is for Llava models"),
        ({"conversation": "llava_v1"}, {}, "--conversation is for Llava models"),
        ({}, {"packing": True}, "--packing cannot be"),
        ({}, {"compiled": True}, "--compile has been tried with Llava models alone"),
        ({}, {"liger": True}, "--liger has been tried with Llava models alone"),
        ({"attention": Attention.VARLEN}, {}, "varlen is for packed rows"),
        ({}, {"parts": {ADAPTER: PartConfig(lr=1e-4), "decoder": PartConfig(lr=1e-5)}}, "adapter alone"),
        ({}, {"lora": None, "parts": {"decoder": PartConfig(lr=1e-5)}}, "adapter alone"),
        ({}, {"max_length": 1025}, "--max-length is 1025 and the qwen2_5_vl takes 1024"),
        ({}, {"lora": Lora(rank=2, alpha=2, targets=("qkv",))}, "'qkv' is no linear layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    job: Any, tmp_path: Path, more: dict[str, Any], changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(job(changed=changed, **more), tmp_path / "run")


def test_models_that_are_none_are_refused(job: Any, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="no image-text-to-text model"):
        run(job(model=str(tmp_path / "text")), tmp_path / "run")
    with pytest.raises(LlavarError, match="no model folder"):
        run(job(model=str(tmp_path / "nowhere")), tmp_path / "run2")


def test_rows_that_cannot_be_used_are_named(job: Any, tmp_path: Path) -> None:
    good = rows(tmp_path / "pictures")[:2]
    (tmp_path / "pictures" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    bad = [
        row("long", "0.png", "<image>\nWhat does it say?", "no " * 300),
        row("open", "0.png", "<image>\nWhat?", "STOP", "And?"),
        row("stray", "0.png", "<image>\nWhat is <|image_pad|>?", "A token."),
        row("count", "0.png", "What?", "STOP"),
        row("gone", "gone.png", "<image>\nWhat?", "STOP"),
        row("torn", "torn.png", "<image>\nWhat?", "STOP"),
    ]
    data = write(tmp_path / "bad.json", good + bad)
    with pytest.raises(ConfigError, match=r"4 rows cannot be used: 'long': too long .*256 are the limit"):
        run(job(data=(data,)), tmp_path / "stopped")
    with pytest.raises(ConfigError, match="2 rows cannot be used: 'gone': no such picture"):
        run(job(data=(data,), bad_rows=Policy.SKIP), tmp_path / "stopped")
    run(job(data=(data,), bad_rows=Policy.SKIP, bad_images=Policy.SKIP), tmp_path / "run")
    lines = (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()
    assert {entry["id"]: entry["reason"] for entry in map(json.loads, lines)} == {
        "long": "too long",
        "open": "no supervised token",
        "stray": "refused by the processor",
        "count": "image tags differ from images",
        "gone": "no such picture",
        "torn": "broken picture",
    }


def test_a_picture_that_changes_size_meanwhile_ends_the_run(job: Any, tmp_path: Path) -> None:
    def change(text: str) -> None:
        if text.startswith("step 1/4"):
            for path in (tmp_path / "pictures").glob("*.png"):
                Image.new("RGB", (90, 90)).save(path)

    with pytest.raises(LlavarError, match="makes another row of .* start again with files at rest"):
        run(job(), tmp_path / "run", say=change)


def test_another_processor_is_another_run(job: Any, bases: Any, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("qwen2_5_vl"), base)
    settled = job(model=str(base))
    run(settled, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("helpful", "terse"))
    with pytest.raises(ConfigError, match="other settings"):
        run(settled, tmp_path / "run")


def test_pictures_may_come_with_their_rows(job: Any, tmp_path: Path) -> None:
    made = rows(tmp_path / "others")
    shutil.rmtree(tmp_path / "pictures")
    data = write(tmp_path / "own.json", made)
    settled = job(data=(f"{data}:images={tmp_path / 'others'}",), images="")
    assert run(settled, tmp_path / "run").steps == 4
    with pytest.raises(ConfigError, match="give --images"):
        run(replace(settled, data=(data,)), tmp_path / "none")


def test_checks_come_before_anything_is_loaded(
    job: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub_job, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ConfigError, match="--packing"):
        run(job(changed={"packing": True}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
