"""What is trained, at which rate, and in which numbers, as a user says it on the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from llavar.cli import main
from llavar.models import folder as folders
from llavar.train import checkpoint, loop
from llavar.train.job import run
from llavar.train.look import Sample, Watched

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, ``rows.json``, ``held.json`` and pictures, made by the script that kills runs."""
    spec = importlib.util.spec_from_file_location("kill_train", ROOT / "benchmarks" / "kill_train.py")
    assert spec is not None
    assert spec.loader is not None
    kills: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = kills
    spec.loader.exec_module(kills)
    folder = tmp_path_factory.mktemp("tiny")
    kills.make_material(folder)
    return folder


Train = Callable[..., int]


@pytest.fixture
def train(tiny: Path) -> Train:
    """Trains into a folder; returns the exit status."""

    def begin(recipe: str, out: Path, *more: object) -> int:
        argv = ["train", recipe, "--model", tiny / "tiny", "--data", tiny / "rows.json", "--images", tiny]
        argv += [
            "--out",
            out,
            "--steps",
            "4",
            "--batch",
            "4",
            "--micro-batch",
            "2",
            "--log-every",
            "1",
            *more,
        ]
        return main([str(item) for item in argv])

    return begin


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return folders.read_tensors(folders.open_weights(folder))


def changed(tiny: Path, out: Path) -> set[str]:
    """The parts of the model that training changed."""
    before, after = stored(tiny / "tiny"), stored(out / "model")
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


PARTS = {
    "stage 1": ("nano-stage1", "", {"multi_modal_projector"}),
    "stage 2": ("nano-stage2", "", {"multi_modal_projector", "language_model"}),
    "decoder alone": ("nano-stage2", "--freeze projector", {"language_model"}),
    "tower too": (
        "nano-stage1",
        "--lr projector=2e-3 --lr tower=1e-3 --weight-decay tower=0.05",
        {"multi_modal_projector", "vision_tower"},
    ),
    "with Muon": (
        "nano-stage2",
        "--lr 1e-3 --muon decoder=0.02",
        {"multi_modal_projector", "language_model"},
    ),
    "all three": (
        "nano-stage2",
        "--lr 1e-3 --lr tower=1e-4",
        {"multi_modal_projector", "vision_tower", "language_model"},
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_the_parts_that_are_named_are_trained_and_saved_and_no_other(
    kind: str, train: Train, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe, flags, expected = PARTS[kind]
    assert train(recipe, tmp_path / "out", *flags.split()) == 0
    assert changed(tiny, tmp_path / "out") == expected
    saved = checkpoint.newest(tmp_path / "out" / "checkpoints")
    assert saved is not None
    part_of = {"vision_tower": "tower", "multi_modal_projector": "projector", "language_model": "decoder"}
    assert {name.split("/")[0] for name in saved.weights} == {part_of[name] for name in expected}


def test_the_table_tells_counts_rates_and_what_is_frozen(
    train: Train, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--lr", "projector=3e-3", "--lr", "tower=1e-4", "--weight-decay", "tower=0.05")
    assert train("nano-stage1", tmp_path / "out", *flags) == 0
    table = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert ["tower", "21,472", "0.0001", "0.05"] in table
    assert ["projector", "2,112", "0.003", "0"] in table
    assert ["decoder", "84,416", "frozen"] in table


def test_a_run_with_muon_goes_on_bit_identically(train: Train, tmp_path: Path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    assert train("nano-stage2", whole, "--muon", "0.02") == 0

    def interrupted(optimizer: Any, step: int, config: Any) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return set_rate(optimizer, step, config)

    set_rate = loop.optim.set_rate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.optim, "set_rate", interrupted)
        assert train("nano-stage2", halved, "--muon", "0.02") == 130
    assert len(losses(halved)) == 2
    assert main(["train", str(halved)]) == 0
    assert losses(halved) == losses(whole)
    weights = stored(whole / "model")
    assert all(torch.equal(value, weights[name]) for name, value in stored(halved / "model").items())


def test_what_is_frozen_and_given_a_rate_is_a_contradiction(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert train("nano-stage2", tmp_path / "out", "--freeze", "tower", "--lr", "tower=1e-4") == 2
    said = capsys.readouterr().err
    assert "--lr tower=1e-4 trains what --freeze keeps as it is; give one of them" in said
    assert not (tmp_path / "out").exists()
    assert train("nano-stage2", tmp_path / "out", "--freeze", "tower") == 0


def test_masters_and_moments_are_fp32_and_reduced_losses_are_close(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[dict[str, torch.dtype]] = []
    compute = loop._add_gradients

    def watched(objective: Any, step: Any, *rest: Any) -> float:
        named = {name: next(iter(part.values())).dtype for name, part in objective.parts().items()}
        seen.append(named)
        return compute(objective, step, *rest)

    monkeypatch.setattr(loop, "_add_gradients", watched)
    for precision in ("fp32", "bf16"):
        assert train("nano-stage2", tmp_path / precision, "--precision", precision, "--steps", 8) == 0
    full, reduced = seen[0], seen[-1]
    assert set(full.values()) == {torch.float32}
    assert reduced == {"tower": torch.bfloat16, "projector": torch.float32, "decoder": torch.float32}
    one, other = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert one != other
    assert one == pytest.approx(other, rel=5e-3)
    saved = checkpoint.newest(tmp_path / "bf16" / "checkpoints")
    assert saved is not None
    moments = [tensor for state in saved.optimizer["state"].values() for tensor in state.values()]
    assert {tensor.dtype for tensor in (*saved.weights.values(), *moments)} == {torch.float32}
    # Masters hold what bf16 cannot: steps much smaller than its resolution are not lost.
    assert any(not torch.equal(t, t.bfloat16().float()) for t in saved.weights.values())


def test_deterministic_mode_is_on_for_the_run_alone(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen: list[tuple[bool, str | None]] = []
    compute = loop._add_gradients

    def watched(*given: Any) -> float:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return compute(*given)

    monkeypatch.setattr(loop, "_add_gradients", watched)
    assert train("nano-stage1", tmp_path / "one", "--deterministic") == 0
    assert set(seen) == {(True, ":4096:8")}
    assert not torch.are_deterministic_algorithms_enabled()
    assert train("nano-stage1", tmp_path / "two") == 0
    assert seen[-1][0] is False
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


# --- looks and trackers, as a job has them ----------------------------------------------------------------


def test_looks_and_a_tracker_change_no_number(
    train: Train, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def watcher(model: Any, data: str, out: Path, say: Any) -> Any:
        def ask() -> Watched:
            torch.manual_seed(4)
            weight = model.module.model.multi_modal_projector.linear_1.weight
            sample = Sample(
                id="1", image="a", question="?", references=("A",), answer=f"{weight.sum():.6f}", score=1.0
            )
            return Watched(metric="anls", score=1.0, samples=(sample,))

        return ask

    import llavar.study.training

    monkeypatch.setattr(llavar.study.training, "watcher", watcher)
    assert train("nano-stage2", tmp_path / "plain") == 0
    held = ("--validate", tiny / "held.json", "--validate-every", "3", "--watch", "2")
    assert train("nano-stage2", tmp_path / "seen", *held) == 0
    assert losses(tmp_path / "plain") == losses(tmp_path / "seen")
    plain, seen = (stored(tmp_path / name / "model") for name in ("plain", "seen"))
    assert all(torch.equal(tensor, seen[name]) for name, tensor in plain.items())
    looks = [json.loads(line) for line in (tmp_path / "seen" / "validation.jsonl").read_text().splitlines()]
    assert [(look["step"], look["loss"] is not None, look["score"]) for look in looks] == [
        *((0, True, 1.0), (2, False, 1.0), (3, True, None), (4, True, 1.0))
    ]
    answers = [json.loads(line) for line in (tmp_path / "seen" / "samples.jsonl").read_text().splitlines()]
    assert len({answer["answer"] for answer in answers}) == len(answers) == 3


WRONG = {
    "how often without rows": (["--validate-every", "3"], "--validate and --validate-every go together"),
    "questions that are never asked": (["--watch-data", "."], "--watch-data .* give --watch N"),
    "held-out rows that are not there": (["--validate", "none.json"], "none.json"),
    "a folder without questions": (["--watch", "2", "--watch-data", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_looked_at_is_one_sentence(
    kind: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags, expected = WRONG[kind]
    assert train("nano-stage1", tmp_path / "out", *flags) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("llavar: ")
    pattern = expected.split(" .* ")
    assert all(part in last for part in pattern), last


def test_who_cannot_ask_says_so(train: Train, tmp_path: Path, tiny: Path):
    from dataclasses import replace

    from llavar.errors import ConfigError
    from llavar.train.job import read_job

    assert train("nano-stage1", tmp_path / "out") == 0
    job = replace(read_job(tmp_path / "out"), watch_every=2)
    with pytest.raises(ConfigError, match="asked questions, and nothing here can"):
        run(job, tmp_path / "other")
