from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from llavar.errors import ModelError
from llavar.train import checkpoint
from llavar.train.checkpoint import Checkpoint


def trained(seed: int = 0, width: int = 3) -> tuple[nn.Linear, torch.optim.AdamW]:
    """A layer that has made one step."""
    torch.manual_seed(seed)
    layer = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(4, width)).square().sum().backward()
    optimizer.step()
    return layer, optimizer


def state(step: int, seed: int = 0) -> Checkpoint:
    layer, optimizer = trained(seed)
    weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    return Checkpoint(
        step=step, fingerprint="f", weights=weights, optimizer=optimizer.state_dict(), unlogged=(0.1 + 0.2, 7)
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path):
    saved = state(12)
    path = checkpoint.save(saved, tmp_path / "saves")
    assert path == tmp_path / "saves" / "step-00000012.pt"
    found = checkpoint.newest(tmp_path / "saves")
    assert found is not None
    assert (found.step, found.fingerprint, tuple(found.unlogged)) == (12, "f", (0.1 + 0.2, 7))
    layer, optimizer = trained(seed=5)
    checkpoint.restore(found, dict(layer.named_parameters()), optimizer)
    assert all(torch.equal(p, saved.weights[name]) for name, p in layer.named_parameters())
    before, after = saved.optimizer["state"], optimizer.state_dict()["state"]
    assert after.keys() == before.keys()
    for index, moments in before.items():
        assert all(torch.equal(after[index][name], tensor) for name, tensor in moments.items())


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (5, 10, 15, 100):
        checkpoint.save(state(step), tmp_path)
    assert files(tmp_path) == ["step-00000015.pt", "step-00000100.pt"]
    checkpoint.save(state(101), tmp_path, keep=1)
    assert files(tmp_path) == ["step-00000101.pt"]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 101


def test_without_a_checkpoint_there_is_none(tmp_path: Path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


DAMAGE = {
    "torn in the middle": lambda data: data[: len(data) // 2],
    "torn at the end": lambda data: data[:-20],
    "torn at the start": lambda data: data[:10],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "zeros after a start": lambda data: data[:100] + bytes(len(data) - 100),
    "text": lambda data: b"this is no checkpoint\n" * 9,
    "another pickle": lambda data: pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_passed_over_for_the_one_before(kind: str, tmp_path: Path):
    checkpoint.save(state(5), tmp_path)
    last = checkpoint.save(state(10), tmp_path)
    last.write_bytes(DAMAGE[kind](last.read_bytes()))
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 5
    # Kept under another name, so that it takes no place among the newest and can be looked at.
    assert files(tmp_path) == ["step-00000005.pt", "step-00000010.unreadable"]


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {"step": "x", "fingerprint": "", "weights": {}}])
def test_a_file_of_something_else_is_passed_over(content: object, tmp_path: Path):
    torch.save(content, tmp_path / "step-00000007.pt")
    assert checkpoint.newest(tmp_path) is None


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    checkpoint.save(state(5), tmp_path)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        checkpoint.newest(tmp_path)
    assert files(tmp_path) == ["step-00000005.pt"]


def test_a_file_that_would_run_code_is_not_loaded(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"step": 1, "weights": Bomb()}, tmp_path / "step-00000001.pt")
    assert checkpoint.newest(tmp_path) is None
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_gets_its_name_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    renamed: list[tuple[str, int]] = []
    replace_file = Path.replace

    def watched(self: Path, target: Path) -> Path:
        assert not target.exists()
        renamed.append((target.name, torch.load(self, weights_only=True)["step"]))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    checkpoint.save(state(5), tmp_path)
    assert renamed == [("step-00000005.pt", 5)]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint.save(state(5), tmp_path)

    def full(content: object, file: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(state(10), tmp_path)
    assert files(tmp_path) == ["step-00000005.pt"]


def test_what_a_kill_left_half_written_is_removed_by_the_next_save(tmp_path: Path):
    (tmp_path / "step-00000004.partial").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) is None
    checkpoint.save(state(5), tmp_path)
    assert files(tmp_path) == ["step-00000005.pt"]


def test_what_several_processes_left_half_written_is_in_nobodys_way(tmp_path: Path):
    for name in ("step-00000005.partial", "step-00000003.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__0_0.distcp").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) is None
    checkpoint.save(state(5), tmp_path)
    assert files(tmp_path) == ["step-00000005.pt"]


def test_a_folder_without_its_description_is_passed_over(tmp_path: Path):
    checkpoint.save(state(5), tmp_path)
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / "step-00000009" / "moment.json").write_text("[1, 2]")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 5
    assert files(tmp_path) == ["step-00000005.pt", "step-00000009.unreadable"]


def test_both_kinds_count_among_the_newest(tmp_path: Path):
    for step in (1, 2):
        (tmp_path / f"step-{step:08d}").mkdir()
    checkpoint.save(state(3), tmp_path, keep=2)
    assert files(tmp_path) == ["step-00000002", "step-00000003.pt"]


def test_another_model_is_refused_and_left_as_it_was():
    layer, optimizer = trained(seed=1, width=4)
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    with pytest.raises(ModelError, match=r"weight in the checkpoint is \(2, 3\), this run's is \(2, 4\)"):
        checkpoint.restore(state(3), dict(layer.named_parameters()), optimizer)
    with pytest.raises(ModelError, match="other tensors than this run \\(bias ...\\); use a new folder"):
        checkpoint.restore(state(3), {"weight": layer.weight}, optimizer)
    renamed = replace(state(3), weights={"w": layer.weight, "bias": layer.bias})
    with pytest.raises(ModelError, match="w, weight"):
        checkpoint.restore(renamed, dict(layer.named_parameters()), optimizer)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())


def test_finished_runs_can_be_cleared(tmp_path: Path):
    checkpoint.save(state(5), tmp_path / "saves")
    checkpoint.clear(tmp_path / "saves")
    checkpoint.clear(tmp_path / "saves")
    assert not (tmp_path / "saves").exists()
