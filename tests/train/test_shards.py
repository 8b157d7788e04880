"""Checkpoints as folders of parts: here of one process, which writes them as each of many does."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llavar.errors import ModelError, StorageError
from llavar.train import checkpoint, shards
from llavar.train.moment import Moment
from llavar.train.world import World

Trained = tuple[dict[str, nn.Parameter], torch.optim.AdamW]
PART = "__0_0.distcp"


def trained(seed: int = 0) -> Trained:
    """A layer that has made one step."""
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return dict(layer.named_parameters()), optimizer


def moment(step: int) -> Moment:
    return Moment(step=step, fingerprint="f", unlogged=(0.1 + 0.2, 7), processes=1)


def save(step: int, folder: Path, *, seed: int = 0, keep: int = 2) -> Trained:
    parameters, optimizer = trained(seed)
    shards.save(moment(step), parameters, optimizer, folder, World(), keep=keep)
    return parameters, optimizer


def newest(folder: Path) -> shards.Shards:
    found = checkpoint.newest(folder)
    assert isinstance(found, shards.Shards)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back_bit_by_bit(tmp_path: Path):
    before, optimizer = save(12, tmp_path)
    found = newest(tmp_path)
    assert (found.step, found.fingerprint, found.unlogged, found.processes) == (12, "f", (0.1 + 0.2, 7), 1)
    after, fresh = trained(seed=5)
    checkpoint.restore(found, after, fresh)
    for name, parameter in before.items():
        assert torch.equal(after[name], parameter)
        ours, theirs = fresh.state[after[name]], optimizer.state[parameter]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[kind], tensor) for kind, tensor in theirs.items())


def test_what_had_no_gradient_yet_has_no_moments(tmp_path: Path):
    parameters, optimizer = trained()
    del optimizer.state[parameters["bias"]]
    shards.save(moment(1), parameters, optimizer, tmp_path, World())
    after, fresh = trained(seed=5)
    fresh.state.clear()
    checkpoint.restore(newest(tmp_path), after, fresh)
    assert set(fresh.state) == {after["weight"]}


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (5, 10, 15, 100):
        save(step, tmp_path)
    assert names(tmp_path) == ["step-00000015", "step-00000100"]
    assert names(tmp_path / "step-00000100") == [".metadata", PART, "moment.json"]


def test_a_checkpoint_gets_its_name_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rename, seen = Path.rename, []

    def watched(self: Path, target: Path) -> Path:
        if target.name == "step-00000005":
            seen.append(json.loads((self / "moment.json").read_text())["files"].keys())
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    save(5, tmp_path)
    assert seen == [{".metadata", PART}]
    assert newest(tmp_path).step == 5


def test_what_a_kill_left_half_written_is_removed_by_the_next_save(tmp_path: Path):
    (tmp_path / "step-00000004.partial").mkdir()
    (tmp_path / "step-00000005.partial").mkdir()
    (tmp_path / "step-00000005.partial" / ".metadata").write_bytes(b"half")
    assert checkpoint.newest(tmp_path) is None
    save(5, tmp_path)
    assert names(tmp_path) == ["step-00000005"]


def test_a_full_disk_is_named_and_what_was_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(5, tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("unexpected pos 704 vs 598") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(
            StorageError, match="process 0 could not write its part .*No space left on device"
        ):
            save(10, tmp_path)
    assert newest(tmp_path).step == 5
    save(15, tmp_path)
    assert names(tmp_path) == ["step-00000005", "step-00000015"]


@pytest.mark.parametrize("name", [PART, ".metadata", "moment.json"])
@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_damaged_part_is_passed_over_for_the_checkpoint_before(name: str, damage: str, tmp_path: Path):
    save(4, tmp_path)
    save(6, tmp_path)
    part = tmp_path / "step-00000006" / name
    data = part.read_bytes()
    part.unlink()
    if damage == "torn":
        part.write_bytes(data[: len(data) // 2])
    assert newest(tmp_path).step == 4
    assert names(tmp_path) == ["step-00000004", "step-00000006.unreadable"]


def test_files_elsewhere_are_not_asked_for(tmp_path: Path):
    save(6, tmp_path)
    path = tmp_path / "step-00000006" / "moment.json"
    about = json.loads(path.read_text())
    size = (tmp_path / "step-00000006" / PART).stat().st_size
    path.write_text(json.dumps({**about, "files": {f"../step-00000006/{PART}": size}}))
    assert checkpoint.newest(tmp_path) is None


def test_what_turns_out_to_be_damaged_changes_nothing_and_is_set_aside(tmp_path: Path):
    save(4, tmp_path, seed=1)
    save(6, tmp_path)
    part = tmp_path / "step-00000006" / PART
    part.write_bytes(bytes(part.stat().st_size))
    parameters, optimizer = trained(seed=2)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer.state.clear()
    with pytest.raises(ModelError, match="step-00000006 is damaged .* was set aside; .* checkpoint before"):
        checkpoint.restore(newest(tmp_path), parameters, optimizer)
    assert all(torch.equal(parameter, before[name]) for name, parameter in parameters.items())
    assert not optimizer.state
    assert newest(tmp_path).step == 4
    checkpoint.restore(newest(tmp_path), parameters, optimizer)
    assert torch.equal(parameters["weight"], trained(seed=1)[0]["weight"])


def test_a_description_that_would_run_code_is_not_read(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "exploded",))

    save(6, tmp_path)
    folder = tmp_path / "step-00000006"
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    about = json.loads((folder / "moment.json").read_text())
    about["files"][".metadata"] = (folder / ".metadata").stat().st_size
    (folder / "moment.json").write_text(json.dumps(about))
    parameters, optimizer = trained()
    with pytest.raises(ModelError, match="only tensors are described there"):
        checkpoint.restore(newest(tmp_path), parameters, optimizer)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_that_may_not_be_read_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save(5, tmp_path)
    found = newest(tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        checkpoint.restore(found, *trained())
    assert names(tmp_path) == ["step-00000005"]


def test_another_model_is_refused(tmp_path: Path):
    save(5, tmp_path)
    parameters, optimizer = trained()
    other = parameters | {"weight": nn.Parameter(torch.ones(2, 4))}
    with pytest.raises(ModelError, match=r"weight in the checkpoint is \(2, 3\), this run's is \(2, 4\)"):
        checkpoint.restore(newest(tmp_path), other, optimizer)
    with pytest.raises(ModelError, match="other tensors than this run"):
        checkpoint.restore(newest(tmp_path), {"weight": parameters["weight"]}, optimizer)
