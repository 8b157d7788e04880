"""A job from files to files, on a model of a hundred thousand parameters."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from llavar.data.vision import PixelFolder
from llavar.errors import ConfigError, ImageError, LlavarError, ModelError, NotFoundError
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.projector_file import read_projector, write_projector
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.models.tokenizer import load_tokenizer, nano_tokenizer
from llavar.train import checkpoint, export, home, job, llava, loop, material, metrics
from llavar.train.config import Attention, Mean, PartConfig, Policy, Precision, Schedule, StageConfig
from llavar.train.export import SavedAs
from llavar.train.job import Job, read_job, run
from llavar.train.llava import DECODER, PROJECTOR, TOWER

WORDS = ("STOP", "GO", "EXIT", "OPEN 24 h", "Mind the gap", "NO", "Sale 50%")
BOTH = {PROJECTOR: PartConfig(lr=2e-3), DECODER: PartConfig(lr=1e-3)}


def stage(**changes: Any) -> StageConfig:
    settled = {
        "parts": {PROJECTOR: PartConfig(lr=2e-3)},
        "batch": 4,
        "micro_batch": 2,
        "max_length": 128,
        "precision": Precision.FP32,
        "log_every": 1,
        "save_every": 2,
    }
    return StageConfig(**(settled | changes))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Llava folder in bf16."""
    tokens = nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=tokens.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
        ),
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    folder = tmp_path_factory.mktemp("base") / "tiny"
    hf.save_llava(hf.build_llava(shape, seed=2), folder, dtype=torch.bfloat16)
    tokens.save(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(len(WORDS)):
        shown = Image.new("RGB", (40, 30), "white")
        ImageDraw.Draw(shown).rectangle((2, 2 + number, 10 + 4 * number, 20), fill="black")
        shown.save(folder / f"{number}.png")
    return folder


def row(number: int, image: str | None = "", question: str = "What does it say?") -> dict[str, object]:
    name = f"{number % len(WORDS)}.png" if image == "" else image
    asked = question if name is None else f"<image>\n{question}"
    talk = [{"from": "human", "value": asked}, {"from": "gpt", "value": WORDS[number % len(WORDS)]}]
    return {"id": f"row{number // 2}", "conversations": talk} | ({} if name is None else {"image": name})


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(*rows: dict[str, object], name: str = "own.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(rows))
        return path

    return put


@pytest.fixture
def make(base: Path, pictures: Path, write: Write) -> Callable[..., Job]:
    """A job on nine rows with pictures and one without; ids repeat, as they do in LLaVA's own files."""

    def settled(*more: dict[str, object], stage_of: StageConfig | None = None, **changes: Any) -> Job:
        rows = [*(row(number) for number in range(9)), row(9, image=None), *more]
        given = {
            "model": str(base),
            "data": (str(write(*rows, name="rows.json")),),
            "images": str(pictures),
            "recipe": "tiny",
        }
        return Job(**({"stage": stage_of or stage(), **given} | changes))

    return settled


Make = Callable[..., Job]


def stored(folder: Path) -> dict[str, Tensor]:
    return folders.read_tensors(folders.open_weights(folder))


def changed(one: Path, other: Path) -> set[str]:
    before, after = stored(one), stored(other)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- what a run leaves ------------------------------------------------------------------------------------


def test_stage_1_leaves_a_model_the_projector_and_a_log(make: Make, base: Path, tmp_path: Path):
    said: list[str] = []
    fitted = run(make(), tmp_path / "s1", say=said.append)
    assert (fitted.steps, fitted.resumed_at) == (3, 0)
    found = {path.name for path in (tmp_path / "s1").iterdir()}
    assert found == {
        *(
            "config.json",
            "lock",
            "metrics.jsonl",
            "checkpoints",
            "model",
            "mm_projector.bin",
            "rejects.jsonl",
        ),
        "expected.json",
    }
    model = tmp_path / "s1" / "model"
    assert changed(base, model) == {f"multi_modal_projector.linear_1.{n}" for n in ("weight", "bias")}
    assert {path.name for path in model.iterdir()} >= {"tokenizer.json", "config.json", "README.md"}
    linear = read_projector(tmp_path / "s1" / "mm_projector.bin")
    written = stored(model)["multi_modal_projector.linear_1.weight"]
    assert linear.weight.dtype is torch.float32
    assert torch.equal(linear.weight.to(torch.bfloat16), written)
    text = "\n".join(said)
    assert "10 rows, " in text
    assert "tower               " in text
    assert "frozen" in text
    assert "3 steps of 4 rows: 1 epochs of 3 steps and 10 packs" in text or "packs" in text
    assert "The largest micro-batch fits" in text
    assert "step 3/3  loss" in text
    assert "`tiny` on" in (model / "README.md").read_text()


def test_stage_2_takes_the_projector_of_stage_1(make: Make, base: Path, tmp_path: Path):
    run(make(), tmp_path / "s1")
    second = make(stage_of=stage(parts=BOTH), projector=str(tmp_path / "s1"), saved_as=SavedAs.FP32)
    started = material.load_model(second.model, projector=second.projector)
    first = read_projector(tmp_path / "s1" / "mm_projector.bin")
    assert torch.equal(started.module.model.multi_modal_projector.linear_1.weight, first.weight)
    run(second, tmp_path / "s2")
    assert not (tmp_path / "s2" / "mm_projector.bin").exists()
    after, before = stored(tmp_path / "s2" / "model"), stored(base)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    same = {name for name in after if torch.equal(after[name], before[name].float())}
    assert {name for name in after if name.startswith("vision_tower")} <= same
    assert not {name for name in same if name.startswith("language_model")}
    hf.load_llava(tmp_path / "s2" / "model")


def test_frozen_weights_come_out_as_they_went_in_even_in_reduced_precision(
    base: Path, make: Make, tmp_path: Path
):
    exact = tmp_path / "exact"
    shutil.copytree(base, exact)
    model: Any = hf.load_llava(base)
    with torch.no_grad():  # numbers that bf16 cannot hold
        model.model.language_model.embed_tokens.weight.add_(1e-4)
    hf.save_llava(model, exact, dtype=torch.float32)
    run(make(model=str(exact), stage_of=stage(precision=Precision.BF16)), tmp_path / "out")
    assert changed(exact, tmp_path / "out" / "model") == {
        f"multi_modal_projector.linear_1.{name}" for name in ("weight", "bias")
    }


def test_a_folded_model_is_trained_and_folded_again(base: Path, make: Make, tmp_path: Path):
    folded = tmp_path / "folded"
    shutil.copytree(base, folded)
    hf.save_llava(hf.load_llava(base), folded, dtype=torch.float32, layout=ProjectorLayout.FOLD)
    run(make(model=str(folded)), tmp_path / "out")
    model = hf.load_llava(tmp_path / "out" / "model")
    assert hf.projector_layout(model) is ProjectorLayout.FOLD
    hf.to_identity(model)
    linear = read_projector(tmp_path / "out" / "mm_projector.bin")
    assert torch.equal(model.get_parameter("model.multi_modal_projector.linear_1.weight"), linear.weight)


def test_another_conversation_goes_into_rows_and_model(make: Make, tmp_path: Path):
    long = stage(max_length=256)
    run(
        make(stage_of=long, conversation="vicuna_v1_1", transform=Transform.FIT, feature_layer=-2),
        tmp_path / "out",
    )
    model = tmp_path / "out" / "model"
    assert load_tokenizer(model).template().name == "vicuna_v1_1"
    assert hf.read_transform(model) is Transform.FIT
    assert folders.read_document(model, "config.json")["vision_feature_layer"] == -2


# --- going on ---------------------------------------------------------------------------------------------


def log(out: Path) -> list[tuple[int, float, float]]:
    return [(tick.step, tick.loss, tick.grad_norm) for tick in metrics.read(out / "metrics.jsonl")]


def test_a_run_goes_on_from_its_folder_alone_bit_identically(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = make(stage_of=stage(parts=BOTH, epochs=2, packing=False))
    run(wanted, tmp_path / "whole")
    compute = loop._add_gradients

    def struck(objective: Any, step: Any, *rest: Any) -> float:
        if step.number == 3:
            signal.raise_signal(signal.SIGTERM)
        return compute(objective, step, *rest)

    monkeypatch.setattr(loop, "_add_gradients", struck)
    with pytest.raises(KeyboardInterrupt):
        run(wanted, tmp_path / "out")
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / "out" / "model").exists()
    assert read_job(tmp_path / "out") == wanted
    assert run(read_job(tmp_path / "out"), tmp_path / "out").resumed_at == 3
    assert log(tmp_path / "out") == log(tmp_path / "whole")
    assert changed(tmp_path / "whole" / "model", tmp_path / "out" / "model") == set()


def test_a_finished_run_is_left_as_it_is(make: Make, tmp_path: Path):
    run(make(), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "model").iterdir()}
    assert run(make(), tmp_path / "out").resumed_at == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "model").iterdir()} == before


def test_what_a_kill_left_between_training_and_saving_is_made_up_for(make: Make, tmp_path: Path):
    run(make(), tmp_path / "out")
    (tmp_path / "out" / "model" / export.LAST).unlink()
    assert not export.is_finished(tmp_path / "out")
    run(make(), tmp_path / "out")
    assert export.is_finished(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"conversation": "vicuna_v1_1"}, 'conversation is "" there and "vicuna_v1_1" here'),
        ({"stage_of": stage(seed=3)}, "seed is 0 there and 3 here"),
    ],
)
def test_another_job_in_the_same_folder_is_refused(
    change: dict[str, Any], sentence: str, make: Make, tmp_path: Path
):
    run(make(), tmp_path / "out")
    with pytest.raises(ConfigError, match="holds a run with other settings") as caught:
        run(make(**change), tmp_path / "out")
    assert sentence in str(caught.value)


def test_other_rows_under_the_same_name_are_refused(make: Make, tmp_path: Path):
    run(make(), tmp_path / "out")
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run(make(row(11)), tmp_path / "out")


def test_settings_of_a_run_that_never_made_a_step_do_not_count(make: Make, tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be used"):
        run(make(row(11, image="none.png")), tmp_path / "out")
    fitted = run(make(row(11, image="none.png"), bad_images=Policy.SKIP), tmp_path / "out")
    assert fitted.steps == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ('{"model": "m"}', "stage: Field required"),
        (None, "surprise: Unexpected keyword argument"),
        ("[]", "cannot be read"),
    ],
)
def test_a_damaged_or_strange_configuration_is_one_sentence(
    text: str | None, sentence: str, make: Make, tmp_path: Path
):
    job.record(make(), tmp_path)
    if text is None:
        text = json.dumps(json.loads((tmp_path / "config.json").read_text()) | {"surprise": 1})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_job(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(NotFoundError, match="holds no run"):
        read_job(tmp_path)


def test_a_value_that_cannot_work_is_refused_in_a_file_too(make: Make, tmp_path: Path):
    job.record(make(), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["stage"]["batch"] = 0
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="micro_batch is 2 and batch 0"):
        read_job(tmp_path)


def test_two_runs_in_one_folder_are_one_too_many(make: Make, tmp_path: Path):
    with home.claimed(tmp_path / "out"), pytest.raises(ConfigError) as caught:
        run(make(), tmp_path / "out")
    assert f"is in use: process {os.getpid()} trains there" in str(caught.value)


def test_the_lock_of_a_process_that_was_killed_holds_nobody(tmp_path: Path):
    hold = "import sys, pathlib; from llavar.train import home\n"
    hold += "with home.claimed(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    source = str(Path(__file__).parents[2] / "src")
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(ConfigError, match=f"process {other.pid} trains there"), home.claimed(tmp_path):
        pass
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    with home.claimed(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, calls = torch.save, iter(range(9))

    def full(state: object, file: Any) -> None:
        if next(calls) > 0:
            raise OSError(28, "No space left on device")
        write(state, file)

    wanted = make(stage_of=stage(epochs=2))
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(wanted, tmp_path / "out")
    monkeypatch.undo()
    saved = checkpoint.newest(tmp_path / "out" / "checkpoints")
    assert saved is not None
    assert saved.step == 2
    assert run(wanted, tmp_path / "out").steps == 6


# --- rows and pictures ------------------------------------------------------------------------------------


BAD = {
    "a tag without a picture": (
        row(3, image=None, question="<image> What?"),
        "image tags differ from images",
    ),
    "no conversation": ({"id": "x", "conversations": []}, "malformed row"),
    "an answer that cannot be written": (
        {"id": "x", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "\u6f22"}]},
        "characters that the tokenizer lacks",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_rows_that_cannot_be_used_stop_the_run_or_are_counted(kind: str, make: Make, tmp_path: Path):
    bad, reason = BAD[kind]
    with pytest.raises(ConfigError, match=f"1 row cannot be used: .*{reason}.*--bad-rows skip"):
        run(make(bad), tmp_path / "out")
    said: list[str] = []
    run(make(bad, bad_rows=Policy.SKIP), tmp_path / "out", say=said.append)
    assert any(f"1 row left out (1 {reason})" in text for text in said)
    (left,) = map(json.loads, (tmp_path / "out" / "rejects.jsonl").read_text().splitlines())
    assert left["id"] == bad["id"]
    assert left["reason"] == reason


def test_who_writes_unk_means_it(make: Make, tmp_path: Path):
    talk = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "an <unk> one"}]
    run(make({"id": "x", "conversations": talk}), tmp_path / "out")
    assert (tmp_path / "out" / "rejects.jsonl").read_text() == ""


def test_broken_pictures_stop_or_are_skipped_with_their_rows_alone(
    make: Make, pictures: Path, tmp_path: Path
):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:60])
    torn = row(0, image="torn.png")  # its id is that of a good row
    with pytest.raises(ImageError, match="the picture of row 'row0' cannot be used: .*torn.png"):
        run(make(torn, images=str(folder)), tmp_path / "stop")
    run(make(torn, images=str(folder), bad_images=Policy.SKIP), tmp_path / "skip")
    (left,) = map(json.loads, (tmp_path / "skip" / "rejects.jsonl").read_text().splitlines())
    assert (left["id"], left["reason"]) == ("row0", "broken picture")
    with pytest.raises(ConfigError, match="'row5': no such picture .*none.png.*--bad-images skip"):
        run(make(row(10, image="none.png"), images=str(folder)), tmp_path / "gone")


def test_pictures_need_a_folder(make: Make, write: Write, tmp_path: Path):
    with pytest.raises(ConfigError, match="row 'row0' has a picture and no folder .* give --images"):
        run(make(images=""), tmp_path / "out")
    with pytest.raises(NotFoundError, match="no folder of pictures at"):
        run(make(images=str(tmp_path / "none")), tmp_path / "out")
    run(make(data=(str(write(row(1, image=None), row(2, image=None))),), images=""), tmp_path / "text")


def test_nothing_left_to_learn_from(make: Make, write: Write, tmp_path: Path):
    bad = write({"id": "x", "conversations": []})
    with pytest.raises(ConfigError, match="none of the 1 rows of .* is left to learn from"):
        run(make(data=(str(bad),), bad_rows=Policy.SKIP), tmp_path / "out")
    with pytest.raises(NotFoundError, match="no data file"):
        run(make(data=(str(tmp_path / "none.json"),)), tmp_path / "out")


# --- model and projector ----------------------------------------------------------------------------------


def test_a_decoder_alone_needs_a_tower_and_a_whole_model_none(make: Make, base: Path, tmp_path: Path):
    alone = tmp_path / "vicuna"
    alone.mkdir()
    (alone / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="a decoder alone .*; name the tower .* --vision-tower"):
        run(make(model=str(alone)), tmp_path / "out")
    with pytest.raises(
        ConfigError, match="a whole Llava model with its own tower; leave --vision-tower clip"
    ):
        run(make(vision_tower="clip"), tmp_path / "out")


def test_a_projector_comes_from_anywhere(base: Path, tmp_path: Path):
    linear = material.find_projector(base)
    write_projector(linear, tmp_path / "llava-13b-pretrain.bin")
    again = material.find_projector(tmp_path / "llava-13b-pretrain.bin")
    assert torch.equal(again.weight, linear.weight)
    model: Any = hf.load_llava(base)
    material.put_projector(model, material.RANDOM, seed=1)
    fresh = model.model.multi_modal_projector.linear_1.weight.clone()
    assert not torch.equal(fresh, linear.weight)
    material.put_projector(model, material.RANDOM, seed=1)
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, fresh)
    material.put_projector(model, str(tmp_path / "llava-13b-pretrain.bin"))
    assert torch.equal(model.model.multi_modal_projector.linear_1.weight, linear.weight)


def test_a_projector_that_is_none_or_another_is_an_error(base: Path, tmp_path: Path):
    model = hf.load_llava(base)
    with pytest.raises(NotFoundError, match="no projector at"):
        material.put_projector(model, str(tmp_path / "none"))
    other = material.projectors.Linear(weight=torch.zeros(64, 16), bias=torch.zeros(64))
    write_projector(other, tmp_path / "other.bin")
    with pytest.raises(ModelError, match=r"other.bin is \[64, 16\] and this model's is \[64, 32\]"):
        material.put_projector(model, str(tmp_path / "other.bin"))
    with home.claimed(tmp_path / "run"), pytest.raises(ModelError, match="has not finished; go on with"):
        material.put_projector(model, str(tmp_path / "run"))


def test_a_layer_that_the_tower_lacks_is_an_error(base: Path):
    with pytest.raises(ConfigError, match="feature_layer is -9 and the tower has 2 layers; give -3 to 2"):
        material.load_model(str(base), feature_layer=-9)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": ""}, "no model is named"),
        ({"data": ()}, "no data is named"),
        ({"peak_tflops": -1.0}, "peak_tflops is -1.0"),
    ],
)
def test_jobs_that_cannot_work_are_errors(change: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        Job(**({"stage": stage(), "model": "m", "data": ("d",)} | change))


@pytest.mark.parametrize(
    ("asked", "precision", "deterministic", "gpu", "chosen"),
    [
        (Attention.AUTO, Precision.BF16, False, False, "eager"),
        (Attention.AUTO, Precision.BF16, False, True, "varlen"),
        (Attention.AUTO, Precision.BF16, True, True, "sdpa"),
        (Attention.AUTO, Precision.FP32, False, True, "sdpa"),
        (Attention.FLEX, Precision.FP32, True, True, "flex"),
        (Attention.VARLEN, Precision.FP32, True, False, "varlen"),
        (Attention.VARLEN, Precision.BF16, False, True, "varlen"),
        (Attention.SDPA, Precision.BF16, True, True, "sdpa"),
    ],
)
def test_the_attention_goes_with_machine_and_precision(
    asked: Attention,
    precision: Precision,
    deterministic: bool,
    gpu: bool,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert material.attention_for(asked, precision, deterministic) == chosen


@pytest.mark.parametrize(("longest", "chosen"), [(0, "eager"), (1023, "eager"), (1024, "varlen")])
def test_long_packs_are_attended_row_by_row_on_a_cpu(
    longest: int, chosen: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert material.attention_for(Attention.AUTO, Precision.FP32, True, longest=longest) == chosen
    assert material.attention_for(Attention.EAGER, Precision.FP32, longest=longest) == "eager"


def test_a_job_with_long_packs_learns_the_same(make: Make, tmp_path: Path):
    found = {
        name: run(make(attention=name, stage_of=stage(max_length=1024, steps=3)), tmp_path / name).ticks
        for name in (Attention.AUTO, Attention.EAGER)
    }
    auto, eager = ([tick.loss for tick in ticks] for ticks in found.values())
    assert auto == pytest.approx(eager, rel=1e-5)


def test_an_attention_that_cannot_train_here_is_an_error(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="flex cannot train on a CPU.*choose eager, sdpa or varlen"):
        material.attention_for(Attention.FLEX, Precision.BF16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="varlen are summed in any order on a GPU; choose sdpa or eager"):
        material.attention_for(Attention.VARLEN, Precision.BF16, deterministic=True)


def test_a_model_that_writes_pictures_otherwise_is_sent_to_its_own_processor(
    base: Path, make: Make, tmp_path: Path
):
    folder = tmp_path / "hf"
    shutil.copytree(base, folder)
    for path in folder.iterdir():
        if path.suffix in (".json", ".jinja"):
            path.write_text(path.read_text().replace("<im_patch>", "<image>"))
    with pytest.raises(ModelError, match="no token <im_patch>.*llavar train lora-hub --model"):
        run(make(model=str(folder)), tmp_path / "run")


def test_runs_of_before_attention_had_a_name_go_on(make: Make, tmp_path: Path):
    record = make()
    job.record(record, tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["attention"] == "auto"
    (tmp_path / "config.json").write_text(json.dumps(document | {"attention": ""}))
    assert read_job(tmp_path) == record
    (tmp_path / "config.json").write_text(json.dumps(document | {"attention": "flash"}))
    with pytest.raises(
        ConfigError, match="attention: Input should be 'auto', 'eager', 'sdpa', 'flex' or 'va"
    ):
        read_job(tmp_path)


def test_held_out_rows_that_cannot_be_used_are_reported_like_those_of_training(
    make: Make, write: Write, tmp_path: Path
):
    bad = row(0) | {"id": "odd", "conversations": [{"from": "gpt", "value": "x"}]}
    held = write(row(0), row(2), bad, name="held.json")
    said: list[str] = []
    wanted = make(validate=(str(held),), validate_every=2, bad_rows=Policy.SKIP)
    run(wanted, tmp_path / "out", say=said.append)
    left = (tmp_path / "out" / "validation_rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in left] == ["odd"]
    assert (tmp_path / "out" / "rejects.jsonl").read_text() == ""
    assert any("2 rows, " in text and "validation_rejects.jsonl" in text for text in said)


# --- numbers ----------------------------------------------------------------------------------------------


def test_recomputation_changes_no_number(make: Make, tmp_path: Path):
    plain, again = stage(parts=BOTH), stage(parts=BOTH, recompute=True)
    run(make(stage_of=plain), tmp_path / "plain")
    run(make(stage_of=again), tmp_path / "again")
    assert log(tmp_path / "plain") == log(tmp_path / "again")


def test_packed_and_padded_steps_hold_the_same_rows_and_give_the_same_losses(make: Make, tmp_path: Path):
    run(make(stage_of=stage(parts=BOTH, epochs=2)), tmp_path / "packed")
    run(make(stage_of=stage(parts=BOTH, epochs=2, packing=False)), tmp_path / "padded")
    one, other = log(tmp_path / "packed"), log(tmp_path / "padded")
    assert [entry[1:] for entry in one] == [pytest.approx(entry[1:], rel=1e-4) for entry in other]


def test_the_tower_is_trained_if_it_has_a_rate(make: Make, base: Path, tmp_path: Path):
    run(make(stage_of=stage(parts={TOWER: PartConfig(lr=1e-2)}, recompute=True)), tmp_path / "out")
    names = changed(base, tmp_path / "out" / "model")
    assert names
    assert all(name.startswith("vision_tower.") for name in names)


def test_memory_that_does_not_suffice_is_found_out_before_the_first_step(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def too_much(model: Any, batch: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(llava, "answer_loss", too_much)
    with pytest.raises(ConfigError, match="does not fit into the memory of cpu; lower --micro-batch"):
        run(make(), tmp_path / "out")
    assert not home.has_begun(tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_run(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compute = llava.answer_loss
    monkeypatch.setattr(llava, "answer_loss", lambda m, b: compute(m, b) * torch.nan)
    with pytest.raises(LlavarError, match="the loss is nan at step 0"):
        run(make(stage_of=stage(packing=False)), tmp_path / "out")
    assert not home.has_begun(tmp_path / "out")


PINNED = (
    *(5.14962, 5.0163, 4.87739, 4.64763, 4.71928, 4.59169, 4.51631, 4.36249, 4.42088, 4.31433),
    *(4.22395, 4.11334, 4.10079, 4.1494, 4.00053, 4.08424, 4.01918, 3.94966, 3.87116, 4.10562),
)
"""Losses of twenty steps in fp32. A change that is not meant to alter numbers alters none of these."""


def test_numbers_do_not_change(make: Make, tmp_path: Path):
    pinned = stage(parts=BOTH, steps=20, packing=False, like_lengths=False)
    run(make(stage_of=pinned, attention=Attention.EAGER), tmp_path / "out")
    assert [loss for _, loss, _ in log(tmp_path / "out")] == pytest.approx(list(PINNED), rel=1e-4)


@pytest.mark.parametrize("attention", [Attention.SDPA, Attention.VARLEN])
def test_packed_rows_are_learned_from_alike_with_every_attention(
    make: Make, tmp_path: Path, attention: Attention
):
    packed = stage(parts=BOTH, micro_batch=4, steps=4)
    run(make(stage_of=packed, attention=Attention.EAGER), tmp_path / "eager")
    run(make(stage_of=packed, attention=attention), tmp_path / "other")
    plain, other = (log(tmp_path / name) for name in ("eager", "other"))
    assert [loss for _, loss, _ in other] == pytest.approx([loss for _, loss, _ in plain], rel=1e-5)


def reference(wanted: Job, epochs: int) -> tuple[list[float], Any]:
    """The original's loop in few lines: stock forward with labels, its mean over micro-batches, AdamW."""
    loaded = material.load_model(wanted.model)
    model = loaded.module
    rows = material.read_rows(wanted.data, wanted.images, loaded, max_length=128).encoded
    feed = llava.FeedConfig(batch=4, parts=2, capacity=128, packing=False, like_lengths=False)
    source = PixelFolder(Path(wanted.images), transform=loaded.transform, size=loaded.image_size)
    order = llava.InstructionObjective(model, rows, source, feed, pad_id=0)
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if "vision_tower" not in name and "linear_2" not in name
    ]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
    steps = epochs * order.steps_per_epoch
    losses: list[float] = []
    for step in range(steps):
        warm = -(-3 * steps // 100)
        done = (step - warm) / max(1, steps - warm)
        factor = step / warm if step < warm else 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item())
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * factor
        parts = order.layout(step)
        total = tokens = 0.0
        for part in parts:
            chosen = [rows[number] for (number,) in part]
            longest = max(map(len, chosen))
            ids, labels, mask = (torch.full((len(chosen), longest), fill) for fill in (0, -100, 0))
            for place, one in enumerate(chosen):
                ids[place, : len(one)] = torch.tensor(one.ids)
                labels[place, : len(one)] = torch.tensor(one.labels)
                mask[place, : len(one)] = 1
            names = [name for one in chosen for name in one.images]
            pixels = source.get(names) if names else None
            given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": pixels}
            loss = model(**given, use_cache=False).loss
            (loss / len(parts)).backward()
            count = int((labels[:, 1:] != -100).sum())
            total, tokens = total + loss.item() * count, tokens + count
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / tokens)
    return losses, model


def test_parity_settings_give_the_losses_of_a_plain_loop(make: Make, tmp_path: Path):
    same = {name: PartConfig(lr=1e-3) for name in (PROJECTOR, DECODER)}
    parity = stage(
        parts=same,
        epochs=3,
        packing=False,
        like_lengths=False,
        mean=Mean.BATCH,
        schedule=Schedule.TRAINER,
    )
    wanted = make(stage_of=parity, saved_as=SavedAs.FP32)
    run(wanted, tmp_path / "out")
    losses, model = reference(wanted, epochs=3)
    assert [loss for _, loss, _ in log(tmp_path / "out")] == pytest.approx(losses, rel=1e-4)
    ours: Any = hf.load_llava(tmp_path / "out" / "model")
    for name, parameter in model.named_parameters():
        assert torch.allclose(ours.get_parameter(name), parameter, atol=2e-4), name


def test_the_mean_over_batches_is_another_one(make: Make, tmp_path: Path):
    token, batch = (stage(parts=BOTH, packing=False, mean=mean) for mean in Mean)
    run(make(stage_of=token), tmp_path / "token")
    run(make(stage_of=batch), tmp_path / "batch")
    one, other = log(tmp_path / "token"), log(tmp_path / "batch")
    assert one[0][1] == other[0][1]
    assert one[1:] != other[1:]


def test_epochs_become_steps(make: Make, tmp_path: Path):
    half = run(make(stage_of=stage(epochs=0.5)), tmp_path / "half")
    assert half.steps == 2
    assert replace(stage(), epochs=2.0).epochs == 2
