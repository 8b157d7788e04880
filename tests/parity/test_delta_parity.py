"""A merge against the one recorded from the original's apply_delta, bit for bit; and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llavar.models import delta, stored


@pytest.fixture
def recorded(shared_data: Path) -> Path:
    folder = shared_data / "parity" / "delta" / "v1_start_end"
    if not folder.is_dir():
        pytest.skip(f"the recorded delta merge is not at {folder}")
    return folder


def test_a_merge_equals_the_original(recorded: Path, tmp_path: Path) -> None:
    result = delta.apply(recorded / "base", recorded / "delta", tmp_path / "out")
    expected = load_file(recorded / "merged_expected.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert (result.tensors, result.summed, result.exact, result.dropped) == (25, 23, 0, ())
    for name in ("config.json", "tokenizer.model", "added_tokens.json"):
        assert (tmp_path / "out" / name).read_bytes() == (recorded / "delta" / name).read_bytes()


def test_the_delta_of_the_recorded_merge_leads_back_to_it(recorded: Path, tmp_path: Path) -> None:
    merged, again = tmp_path / "merged", tmp_path / "again"
    delta.apply(recorded / "base", recorded / "delta", merged)
    delta.make(recorded / "base", merged, tmp_path / "delta")
    delta.apply(recorded / "base", tmp_path / "delta", again)
    first, second = stored.open_tensors(merged), stored.open_tensors(again)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.load(), second[name].load()), name


def test_made_differences_are_those_of_the_original(recorded: Path, tmp_path: Path) -> None:
    # The recorded delta is fp16(target) - fp16(base); where the sum with it gives the target, the target is
    # known, and the difference made from it must be one that gives the same target.
    delta.apply(recorded / "base", recorded / "delta", tmp_path / "merged")
    delta.make(recorded / "base", tmp_path / "merged", tmp_path / "delta")
    given = stored.open_tensors(recorded / "delta")
    made = stored.open_tensors(tmp_path / "delta")
    base = stored.open_tensors(recorded / "base")
    target = stored.open_tensors(tmp_path / "merged")
    for name, tensor in made.items():
        if name.endswith("inv_freq"):
            continue  # the original rounds both sides to float16 here and so loses the target's float32
        ours = tensor.load()
        assert given[name].shape == tensor.shape
        rows = base[name].shape[0] if name in base else 0
        assert torch.equal(ours[rows:], given[name].load()[rows:]), name  # absolute: the same
        if rows:
            wanted = target[name].load()[:rows] - base[name].load()
            assert torch.equal(ours[:rows], wanted), name
