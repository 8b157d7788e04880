"""Runs that cannot go on end with a sentence, and go on bit by bit once what was wrong is put right."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from llavar.cli import main
from llavar.models import _hf_sharded as streamed
from llavar.train import home, llava, loop, metrics

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    """The script that kills runs: it makes a tiny model with rows, and compares two runs."""
    spec = importlib.util.spec_from_file_location("kill_train", ROOT / "benchmarks" / "kill_train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(kills: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, ``rows.json`` and pictures."""
    folder = tmp_path_factory.mktemp("tiny")
    kills.make_material(folder)
    return folder


Train = Callable[..., int]


@pytest.fixture
def train(tiny: Path) -> Train:
    """Trains into a folder by the command line; returns its exit status."""

    def begin(out: Path, *more: str, data: Path | None = None, images: Path | None = None) -> int:
        argv = [
            "train",
            "nano-stage2",
            "--model",
            str(tiny / "tiny"),
            "--data",
            str(data or tiny / "rows.json"),
        ]
        argv += ["--images", str(images or tiny), "--out", str(out), "--steps", "9", "--batch", "4"]
        argv += ["--micro-batch", "2", "--save-every", "3", "--log-every", "1", "--keep", "9"]
        return main([*argv, *more])

    return begin


@pytest.fixture
def whole(train: Train, tmp_path: Path) -> Path:
    """The run to which nothing happened."""
    assert train(tmp_path / "whole") == 0
    return tmp_path / "whole"


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], None]) -> None:
    """Let something happen in the middle of step ``number`` (from 0): its batches are there already."""
    compute = loop._add_gradients

    def struck(objective: Any, step: Any, *rest: Any) -> float:
        if step.number == number:
            do()
        return compute(objective, step, *rest)

    monkeypatch.setattr(loop, "_add_gradients", struck)


def test_a_loss_that_is_no_number(
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    compute = llava.answer_loss
    with monkeypatch.context() as patch:
        odd = lambda model, batch: compute(model, batch) * torch.nan  # noqa: E731
        before_step(patch, 5, lambda: patch.setattr(llava, "answer_loss", odd))
        assert train(tmp_path / "out") == 2
    assert "the loss is nan at step 5; lower the learning rate or look" in sentence(capsys)
    assert kills.checkpoint_steps(tmp_path / "out") == [3, 5]
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, which plays a full disk")
def test_a_disk_that_is_full_when_a_checkpoint_is_due(
    train: Train, whole: Path, kills: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "step-00000003.partial").symlink_to("/dev/full")
    assert train(out) == 2
    said = sentence(capsys)
    assert f"{out} cannot be written: No space left on device" in said
    assert "MB are free there" in said
    # The way out of an error saves the step once more, and by then there is room.
    assert f"make room and start llavar train {out}: it goes on after step 3" in said
    assert train(out) == 0
    assert kills.differences(whole, out) == []


def test_a_disk_that_stays_full_keeps_the_checkpoint_before(
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    write = torch.save

    def full(state: Any, file: Any) -> None:
        if state["step"] > 3:
            file.write(b"half of it")
            raise RuntimeError("unexpected pos 704 vs 598") from OSError(
                errno.ENOSPC, "No space left on device"
            )
        write(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert train(tmp_path / "out") == 2
    assert "No space left on device" in (said := sentence(capsys))
    assert said.endswith("it goes on after step 3")
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000003.pt"]
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []


def test_a_disk_that_is_full_when_the_log_is_written(
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def torn(tick: metrics.Tick, path: Path) -> None:
        if tick.step == 5:
            with path.open("a") as file:
                file.write('{"step": 5, "lo')
            raise OSError(errno.ENOSPC, "No space left on device")
        append(tick, path)

    append = metrics.append
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "append", torn)
        assert train(tmp_path / "out") == 2
    assert sentence(capsys).endswith("it goes on after step 3")
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []


def test_a_disk_that_is_full_when_the_model_is_written(
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(streamed, "save", full)
        assert train(tmp_path / "out") == 2
    assert sentence(capsys).endswith("it goes on after step 9")
    (tmp_path / "out" / ".model.left").mkdir()  # as a kill leaves it
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []
    assert not (tmp_path / "out" / ".model.left").exists()


def test_being_told_to_end(
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with monkeypatch.context() as patch:
        before_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(tmp_path / "out") == 130
    assert "interrupted; the same command goes on" in sentence(capsys)
    assert kills.checkpoint_steps(tmp_path / "out") == [3, 4]
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []


def test_a_picture_that_is_gone_in_the_middle_of_a_run(
    tiny: Path,
    train: Train,
    whole: Path,
    kills: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    folder, away = tmp_path / "pictures", tmp_path / "away"
    folder.mkdir()
    for path in tiny.glob("*.png"):
        shutil.copy(path, folder)
    with monkeypatch.context() as patch:
        before_step(patch, 4, lambda: folder.rename(away) and None)
        assert train(tmp_path / "out", images=folder) == 2
    said = sentence(capsys)
    assert "the picture of row '" in said
    assert "--bad-images skip" in said
    assert kills.checkpoint_steps(tmp_path / "out") == [3, 5]
    away.rename(folder)
    assert train(tmp_path / "out", images=folder) == 0
    assert kills.differences(whole, tmp_path / "out") == []


def test_rows_without_a_supervised_token_are_known_before_the_first_step(
    tiny: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = json.loads((tiny / "rows.json").read_text())
    rows[3]["conversations"][0]["value"] += " Really?" * 200  # the answer is cut off
    rows[3]["id"] = "long"
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows))
    assert train(tmp_path / "out", "--max-length", "128", data=data) == 2
    assert "1 row cannot be used: 'long': " in (said := sentence(capsys))
    assert "--bad-rows skip" in said
    assert not home.has_begun(tmp_path / "out")
    assert train(tmp_path / "out", "--max-length", "128", "--bad-rows", "skip", data=data) == 0


def test_a_checkpoint_of_other_shapes(
    train: Train, whole: Path, kills: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "model")
    newest = out / "checkpoints" / "step-00000009.pt"
    state = torch.load(newest, weights_only=True)
    state["weights"]["projector/weight"] = state["weights"]["projector/weight"][:, :-1].clone()
    torch.save(state, newest)
    assert train(out) == 2
    assert "projector/weight in the checkpoint is (64, 31), this run's is (64, 32)" in sentence(capsys)
    newest.unlink()
    assert train(out) == 0
    assert kills.differences(whole, out) == []


def test_two_runs_in_one_folder(
    train: Train, whole: Path, kills: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with home.claimed(tmp_path / "out"):
        assert train(tmp_path / "out") == 2
        assert f"is in use: process {os.getpid()} trains there" in sentence(capsys)
    assert train(tmp_path / "out") == 0
    assert kills.differences(whole, tmp_path / "out") == []


def test_three_kills_change_nothing(tmp_path: Path):
    """The script of the fifty kills, with three."""
    argv = ["--kills", "3", "--stage", "2", "--workers", "0", "--out", str(tmp_path / "found.json")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill_train.py"), *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["kills"], found["bit_identical"]) == (3, True)
    assert sum(found["moments"].values()) == 3


def test_what_differs_is_found(whole: Path, kills: ModuleType, tmp_path: Path):
    assert kills.differences(whole, whole) == []
    for name in ("log", "missing", "checkpoint", "weights"):
        shutil.copytree(whole, tmp_path / name)
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    entry = json.loads(lines[4])
    lines[4] = json.dumps({**entry, "loss": entry["loss"] * (1 + 1e-15)})
    (tmp_path / "log" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "missing" / "checkpoints" / "step-00000006.pt").unlink()
    path = tmp_path / "checkpoint" / "checkpoints" / "step-00000006.pt"
    state = torch.load(path, weights_only=True)
    next(iter(state["optimizer"]["state"].values()))["step"] += 1
    torch.save(state, path)
    (weights,) = (tmp_path / "weights" / "model").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    found = {n: kills.differences(whole, tmp_path / n) for n in ("log", "missing", "checkpoint", "weights")}
    assert found["log"][0].startswith("the log, at {'step': 5")
    assert found["missing"] == ["checkpoints [6] are missing"]
    assert found["checkpoint"] == ["checkpoints/step-00000006.pt"]
    assert found["weights"] == ["model/model.safetensors"]
