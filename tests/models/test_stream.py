"""Safetensors written as a stream: what stock readers see, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from llavar.errors import ModelError
from llavar.models import stored, stream
from llavar.models.stream import Planned


def planned(name: str, tensor: torch.Tensor, parts: int = 0) -> Planned:
    made = tensor if not parts else list(tensor.reshape(-1).split(max(1, tensor.numel() // parts)))
    return Planned(name=name, shape=tuple(tensor.shape), dtype=tensor.dtype, make=lambda: made)


def _bytes(tensor: torch.Tensor) -> list[int]:
    return tensor.reshape(-1).view(torch.uint8).tolist()


@settings(deadline=None, max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6),
    dtypes=st.lists(st.sampled_from(list(stored.DTYPES)), min_size=6, max_size=6),
    parts=st.integers(0, 3),
)
def test_stock_readers_read_what_was_written(
    shapes: list[list[int]], dtypes: list[torch.dtype], parts: int, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("stream")
    tensors = {
        f"layer.{number}": (torch.randn(shape) * 10).to(dtype)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False))
    }
    files = stream.write(folder, [planned(name, tensor, parts) for name, tensor in tensors.items()])
    found = load_file(folder / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert _bytes(found[name]) == _bytes(tensor)
    data = (folder / "model.safetensors").read_bytes()
    assert files == (
        stream.WrittenFile(name="model.safetensors", size=len(data), sha256=hashlib.sha256(data).hexdigest()),
    )
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_scalars_keep_their_value(tmp_path: Path):
    stream.write(tmp_path, [planned("a", torch.tensor(2.5)), planned("b", torch.tensor(7))])
    found = load_file(tmp_path / "model.safetensors")
    assert (found["a"].item(), found["b"].item(), found["a"].shape) == (2.5, 7, torch.Size([]))


def test_checksums_are_left_out_on_request(tmp_path: Path):
    (file,) = stream.write(tmp_path, [planned("a", torch.zeros(3))], checksums=False)
    assert file.sha256 is None
    assert file.size == (tmp_path / "model.safetensors").stat().st_size


def test_transposed_tensors_are_written_in_their_order(tmp_path: Path):
    tensor = torch.arange(6.0).view(2, 3).T
    stream.write(tmp_path, [planned("a", tensor)])
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], tensor)


def test_shards_obey_the_limit_and_have_an_index(tmp_path: Path):
    tensors = {f"layer.{number}": torch.full((500,), float(number)) for number in range(7)}
    files = stream.write(tmp_path, [planned(n, t) for n, t in tensors.items()], max_shard_bytes=6000)
    assert len(files) == 4
    assert all((tmp_path / file.name).stat().st_size == file.size <= 6000 for file in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 7 * 2000
    assert {name: int(file[6:11]) for name, file in index["weight_map"].items()} == {
        f"layer.{number}": number // 2 + 1 for number in range(7)
    }
    found = stored.open_tensors(tmp_path)
    assert all(torch.equal(found[name].load(), tensor) for name, tensor in tensors.items())


def test_one_tensor_is_held_at_a_time(tmp_path: Path):
    alive: list[int] = []

    def plan(number: int) -> Planned:
        def make() -> torch.Tensor:
            alive.append(number)
            return torch.full((3,), float(number))

        return Planned(name=f"t.{number}", shape=(3,), dtype=torch.float32, make=make)

    plans = [plan(number) for number in range(5)]
    assert alive == []
    told: list[tuple[int, int]] = []
    stream.write(tmp_path, plans, progress=lambda done, total: told.append((done, total)))
    assert alive == [0, 1, 2, 3, 4]
    assert told == [(12 * number, 60) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (torch.zeros(3, dtype=torch.float16), "planned as torch.float32"),
        (torch.zeros(4), r"and is torch.float32 \[4\]"),
        ([torch.zeros(1), torch.zeros(1)], "planned with 12 bytes and has 8"),
        ([torch.zeros(3), torch.zeros(1)], "planned with 12 bytes and has 16"),
    ],
)
def test_what_was_not_planned_is_refused(made: torch.Tensor, message: str, tmp_path: Path):
    plan = Planned(name="a", shape=(3,), dtype=torch.float32, make=lambda: made)
    with pytest.raises(ModelError, match=message):
        stream.write(tmp_path, [plan])


def test_an_error_while_making_reaches_the_caller(tmp_path: Path):
    def make() -> torch.Tensor:
        raise ZeroDivisionError

    plans = [planned("a", torch.zeros(3)), Planned(name="b", shape=(1,), dtype=torch.float32, make=make)]
    with pytest.raises(ZeroDivisionError):
        stream.write(tmp_path, plans)


def test_limits_and_names(tmp_path: Path):
    with pytest.raises(ModelError, match="a needs .* bytes and a file may have 1500; raise max_shard_bytes"):
        stream.write(tmp_path, [planned("a", torch.zeros(200))], max_shard_bytes=1500)
    with pytest.raises(ModelError, match="two tensors are to be written as 'a'"):
        stream.write(tmp_path, [planned("a", torch.zeros(1))] * 2)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 5, 5))
    with pytest.raises(ModelError, match="GB are free; make room"):
        stream.write(tmp_path, [planned("a", torch.zeros(200))])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_one_sentence():
    plans = [planned("a", torch.zeros(1 << 16)), planned("b", torch.zeros(1 << 16))]
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ModelError, match="No space left on device"):
        stream.write_file(full, plans)
