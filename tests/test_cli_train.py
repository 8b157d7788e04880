"""``llavar train`` as a user types it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llavar.cli import main
from llavar.cli import train_plan as command
from llavar.train import job as jobs
from llavar.train.config import Mean, Policy, Precision, Recompute, Shard
from llavar.train.job import Job, read_job


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    talk = [{"from": "human", "value": "<image>\nRead."}, {"from": "gpt", "value": "AB"}]
    text = [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]
    listed = [{"id": str(n), "image": "a.png", "conversations": talk} for n in range(3)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*listed, {"id": "text", "conversations": text}]))
    Image.new("RGB", (20, 10), "white").save(tmp_path / "a.png")
    return path


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that would have been run."""
    found: list[Job] = []

    def note(job: Job, out: Path, **_: Any) -> None:
        found.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run", note)
    return found


def sentence(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert main(["train", *map(str, argv)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err.splitlines()[-1]


def test_nano_is_trained_and_goes_on(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    base = ["train", "nano-stage1", "--data", str(rows), "--images", str(tmp_path), "--out", str(out)]
    assert main([*base, "--epochs", "2", "--batch", "2", "--micro-batch", "1", "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["steps"], document["resumed_at"], document["model"]) == (4, 0, str(out / "model"))
    assert "projector " in said.err
    assert read_job(out).images == str(tmp_path)
    assert main(["train", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 4
    assert "goes on with the settings it has; leave --lr out" in sentence(capsys, out, "--lr", "1e-3")
    assert "epochs is 2.0 there and 3.0 here" in sentence(
        capsys, *base[1:], "--epochs", 3, "--batch", 2, "--micro-batch", 1
    )


def test_flags_change_what_the_recipe_says(rows: Path, tmp_path: Path, caught: list[Job]):
    flags = "--steps 7 --batch 8 --max-length 300 --precision fp32 --mean batch --no-packing --recompute "
    flags += "--lr 1e-4 --lr tower=1e-6 --weight-decay decoder=0.1 "
    flags += "--muon decoder=0.02 --freeze projector --seed 3 --keep 1 "
    flags += "--bad-rows skip --transform crop --warmup 0.1 --clip 0 --save-every 9 --log-every 2"
    argv = ["train", "llavar-13b-stage2", "--model", "vicuna", "--data", str(rows), "--out", "r"]
    assert main([*argv, *flags.split()]) == 130
    (job,) = caught
    stage = job.stage
    assert (stage.steps, stage.batch, stage.micro_batch, stage.max_length) == (7, 8, 4, 300)
    assert (stage.precision, stage.mean, stage.packing, stage.recompute) == (
        Precision.FP32,
        Mean.BATCH,
        False,
        Recompute.FULL,
    )
    assert {name: (p.lr, p.weight_decay, p.muon) for name, p in stage.parts.items()} == {
        "decoder": (1e-4, 0.1, 0.02),
        "tower": (1e-6, 0.0, 0.0),
    }
    assert (stage.seed, stage.keep, stage.warmup, stage.clip) == (3, 1, 0.1, 0.0)
    assert (stage.save_every, stage.log_every) == (9, 2)
    assert (job.bad_rows, job.bad_images, job.transform) == (Policy.SKIP, Policy.STOP, "crop")
    assert (job.model, job.data, job.recipe) == ("vicuna", (str(rows),), "llavar-13b-stage2")


def test_paths_are_written_down_whole(
    rows: Path, tmp_path: Path, caught: list[Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    flags = ["--data", "rows.json", "--images", ".", "--projector", "random", "--out", "r"]
    assert main(["train", "nano-stage1", *flags]) == 130
    (job,) = caught
    assert (job.data, job.images, job.projector) == ((str(rows),), str(tmp_path), "random")
    assert Path(job.model).name == "nano"


def test_data_files_are_mixed(rows: Path, tmp_path: Path, caught: list[Job], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mix.json").write_text(json.dumps([{"path": "rows.json", "cap": 2}]))
    flags = [
        "--data",
        "rows.json",
        "--data",
        "rows.json:weight=0.5,epochs=2,images=.",
        "--mixture",
        "mix.json",
    ]
    assert main(["train", "nano-stage1", *flags, "--out", "r"]) == 130
    first, second, third = caught[0].data
    assert first == str(rows)
    assert second == f"{rows}:weight=0.5,epochs=2,images={tmp_path}"
    assert third == f"{rows}:cap=2"


def test_workers_are_no_setting_of_a_run(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def trained(out: str, *flags: str) -> list[object]:
        argv = ["train", "nano-stage1", "--data", f"{rows}:epochs=2", "--images", str(tmp_path)]
        assert main([*argv, "--batch", "4", "--micro-batch", "2", "--out", str(tmp_path / out), *flags]) == 0
        lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in map(json.loads, lines)]

    assert trained("alone") == trained("helped", "--workers", "1")
    assert main(["train", str(tmp_path / "helped"), "--workers", "2"]) == 0
    assert "All 2 steps were finished before." in capsys.readouterr().err


def test_a_small_batch_makes_the_micro_batch_small(rows: Path, caught: list[Job]):
    main(["train", "nano-stage1", "--data", str(rows), "--out", "r", "--batch", "3"])
    assert (caught[0].stage.batch, caught[0].stage.micro_batch) == (3, 3)


WRONG = {
    "a recipe that is none": (
        ["llavar-13b"],
        "neither a recipe nor the folder of a run; recipes are llavar-13b",
    ),
    "a folder that is no run": (["."], "holds no run: there is no config.json"),
    "no data": (["nano-stage1"], "training needs --data"),
    "no out": (["nano-stage1", "--data", "x.json"], "training needs --out"),
    "no model": (["llavar-7b-stage1", "--data", "x.json", "--out", "r"], "needs a model to start from"),
    "two durations": (["nano-stage1", "--steps", "3", "--epochs", "1"], "--steps and --epochs both say"),
    "a rate that is none": (["nano-stage1", "--lr", "fast"], "--lr 'fast' is no number, nor PART=NUMBER"),
    "a rate too high": (["nano-stage1", "--lr", "3"], "lr is 3.0; it must lie above 0 and be at most 1"),
    "a part that is none": (["nano-stage1", "--lr", "head=1e-3"], "no part 'head'; it has tower, projector"),
    "decay of what is frozen": (
        ["nano-stage1", "--weight-decay", "tower=0.1"],
        "tower is not trained; give it",
    ),
    "muon for what is frozen": (["nano-stage1", "--muon", "decoder=0.1"], "decoder is not trained; give it"),
    "a rate of muon too high": (["nano-stage1", "--muon", "2"], "muon is 2.0; it is a learning rate"),
    "nothing to train": (["nano-stage1", "--freeze", "projector"], "no part is trained"),
    "a micro-batch too large": (
        ["nano-stage1", "--batch", "4", "--micro-batch", "5"],
        "micro_batch is 5 and",
    ),
    "planning without a plan": (
        ["nano-stage1", "--data", "x.json", "--out", "r", "--gpus", "2"],
        "--gpus is for planning; add --plan",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_work_is_one_sentence(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    argv, expected = WRONG[kind]
    assert expected in sentence(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_needs_neither_data_nor_model(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "llavar-13b-stage2", "--plan", "--gpus", "8", "--memory", "80GB"]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "13,015,895,040 parameters  trained",
        "303,507,456 parameters  frozen",
        "optimizer      13.1 GB",
        "fits          as configured",
        "237.4 GB  does not fit  micro-batch 1, recomputation, the whole model on each GPU (--shard none)",
        "4.2 h on 8 GPUs at 40% of 989 TFLOP/s",
        "Assumed: 173,512 rows of 900 tokens",
        "the decoder divided among 8",
    ):
        assert expected in shown
    assert "GPU hours" not in shown


def test_a_plan_for_several_sizes_has_a_line_for_each(capsys: pytest.CaptureFixture[str]):
    flags = "train llavar-13b-stage2 --plan --gpus 8 64 512 --price 2.5 --bandwidth 40GB"
    assert main(flags.split()) == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines() if line.strip().startswith(("8 ", "64 ", "512 "))]
    assert [line[:3] for line in lines] == [["8", "32", "4"], ["64", "64", "1"], ["512", "512", "1"]]
    assert "85  0.941 s, 0.304 s for 91.1 GB a GPU" in shown
    assert "exchange at 300 GB/s for each GPU in a machine of 8, 40 GB/s between them" in shown
    assert main([*flags.split(), "--json"]) == 0
    sheet = json.loads(capsys.readouterr().out)["sheet"]
    assert [row["gpus"] for row in sheet] == [8, 64, 512]
    assert sheet[0]["cost"] == pytest.approx(2.5 * 8 * sheet[0]["seconds"] / 3600)


def test_what_processes_hold_and_compute_twice_can_be_said(rows: Path, caught: list[Job]):
    base = ["--model", "vicuna", "--data", str(rows), "--out", "r"]
    for given in (
        "nano-stage2 --shard full --recompute selective --compile",
        "nano-stage2 --recompute",
        "nano-stage2",
        "llavar-7b-stage2",
        "llavar-7b-stage2 --no-compile --shard none --recompute none",
        "llavar-13b-stage2-lora",
    ):
        assert main(["train", *given.split(), *base]) == 130
    assert [(job.stage.shard, job.stage.recompute, job.stage.compiled) for job in caught[:5]] == [
        (Shard.FULL, Recompute.SELECTIVE, True),
        (Shard.NONE, Recompute.FULL, False),
        (Shard.NONE, Recompute.NONE, False),
        (Shard.FULL, Recompute.SELECTIVE, False),
        (Shard.NONE, Recompute.NONE, False),
    ]
    assert caught[5].stage.shard is Shard.NONE


def test_a_plan_as_an_object(capsys: pytest.CaptureFixture[str]):
    flags = "train llavar-7b-stage1 --plan --json --memory 40GB --peak-tflops 312 --mfu 0.5 --micro-batch 2"
    assert main(flags.split()) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["machine"] == {"gpus": 1, "memory": 40e9, "peak": 312e12, "mfu": 0.5}
    assert document["trained"] == ["projector"]
    assert document["options"][0]["fits"] is True


@pytest.mark.parametrize(
    ("text", "count"), [("80GB", 80e9), ("80", 80e9), ("24g", 24e9), ("512MB", 512e6), ("1.5G", 1.5e9)]
)
def test_amounts_of_memory(text: str, count: float):
    assert command.size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "lots", "-3GB", "0", "nan", "inf", "1TB5"])
def test_amounts_that_are_none(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="no amount of memory"):
        command.size(text)


def test_both_stages_from_a_decoder_and_a_tower(rows: Path, tmp_path: Path, families: Any):
    decoder, tower = tmp_path / "decoder", tmp_path / "tower"
    families.make_decoder(decoder, "qwen2")
    families.make_tower(tower, "clip")
    first, second = tmp_path / "s1", tmp_path / "s2"
    few = [
        "--data",
        str(rows),
        "--images",
        str(tmp_path),
        "--steps",
        "1",
        "--batch",
        "2",
        "--micro-batch",
        "1",
    ]
    parts = ["--model", str(decoder), "--vision-tower", str(tower)]
    assert main(["train", "llavar-7b-stage1", *few, *parts, "--out", str(first)]) == 0
    assert (first / "start" / "config.json").is_file()
    assert (first / "mm_projector.bin").is_file()
    # The second stage names no model: it begins where the first did, with what that trained.
    assert main(["train", "llavar-7b-stage2", *few, "--projector", str(first), "--out", str(second)]) == 0
    assert read_job(second).model == str(first / "start")
    assert (second / "model" / "config.json").is_file()
    assert not (second / "start").exists()
