"""Checkpoints from strangers: every way they are stored reads; nothing in them runs; each defect is named."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llavar.errors import ModelError, NotFoundError
from llavar.models import stored

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n"
TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float16).view(3, 4),
    "b.weight": torch.arange(6, dtype=torch.bfloat16),
    "c.weight": torch.tensor(3.5),
    "d.ids": torch.arange(4),
    "e.empty": torch.zeros(0, 5),
}


class Touch:
    """A pickle that makes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def save(path: Path, names: list[str]) -> None:
    tensors = {name: TENSORS[name] for name in names}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def write_index(folder: Path, index: str, table: dict[str, str]) -> None:
    document = {"metadata": {"total_size": "a lie"}, "weight_map": table}
    (folder / index).write_text(json.dumps(document))


def expect_all(path: Path) -> None:
    found = stored.open_tensors(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].name, found[name].shape) == (name, tuple(tensor.shape))
        assert found[name].dtype == tensor.dtype
        assert (found[name].numel, found[name].nbytes) == (tensor.numel(), tensor.nbytes)
        loaded = found[name].load()
        assert loaded.dtype == tensor.dtype
        assert torch.equal(loaded, tensor)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_one_file_reads_as_a_folder_and_by_itself(name: str, tmp_path: Path):
    save(tmp_path / name, list(TENSORS))
    expect_all(tmp_path)
    expect_all(tmp_path / name)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("stem", "suffix", "index"),
    [("pytorch_model", "bin", stored.BIN_INDEX), ("model", "safetensors", "model.safetensors.index.json")],
)
def test_shards_read_with_and_without_their_index(
    stem: str, suffix: str, index: str, indexed: bool, tmp_path: Path
):
    names = list(TENSORS)
    files = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    save(tmp_path / files[0], names[:2])
    save(tmp_path / files[1], names[2:])
    if indexed:
        write_index(tmp_path, index, {name: files[number > 1] for number, name in enumerate(names)})
    expect_all(tmp_path)
    (tmp_path / files[1]).unlink()
    with pytest.raises(ModelError, match=f"incomplete: {files[1]} is missing"):
        stored.open_tensors(tmp_path)


def test_safetensors_are_taken_where_both_formats_are(tmp_path: Path):
    save(tmp_path / "model.safetensors", ["a.weight"])
    (tmp_path / "pytorch_model.bin").write_bytes(b"never looked at")
    assert list(stored.open_tensors(tmp_path)) == ["a.weight"]


def test_the_order_is_that_of_the_file(tmp_path: Path):
    names = [f"layer.{number}" for number in range(20)]
    torch.save({name: torch.zeros(64) for name in reversed(names)}, tmp_path / "x.bin")
    assert list(stored.open_tensors(tmp_path / "x.bin")) == names[::-1]


def test_transposed_and_shared_tensors_and_parameters_read(tmp_path: Path):
    base = torch.arange(6.0).view(2, 3)
    held = {"t": base.T, "row": base[1], "p": torch.nn.Parameter(base)}
    torch.save(held, tmp_path / "x.bin")
    found = stored.open_tensors(tmp_path / "x.bin")
    assert {name: tensor.load().tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in held.items()
    }
    assert not found["p"].load().requires_grad


def test_files_from_before_torch_1_6_read_in_any_order_and_again(tmp_path: Path):
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    expect_all(tmp_path)
    found = stored.open_tensors(tmp_path)
    for name in [*reversed(TENSORS), *TENSORS]:
        assert torch.equal(found[name].load(), TENSORS[name])


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_never_runs_code(new: bool, tmp_path: Path):
    trap = tmp_path / "touched"
    torch.save({"a": Touch(trap)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match=r"holds (posix|nt)\.system, and only tensors are read"):
        stored.open_tensors(tmp_path)
    assert not trap.exists()


def test_a_bare_pickle_never_runs_code(tmp_path: Path):
    trap = tmp_path / "touched"
    (tmp_path / "x.bin").write_bytes(pickle.dumps({"a": Touch(trap)}))
    with pytest.raises(ModelError):
        stored.open_tensors(tmp_path / "x.bin")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files_say_so(name: str, kept: float, tmp_path: Path):
    save(tmp_path / name, list(TENSORS))
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ModelError, match=r"is damaged or truncated at \d+ bytes"):
        stored.open_tensors(tmp_path)


def test_a_truncated_old_file_says_so(tmp_path: Path):
    torch.save(TENSORS, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(data[:-20])
    with pytest.raises(ModelError, match="is damaged or truncated"):
        stored.open_tensors(tmp_path / "x.bin")


def test_pointers_are_named(tmp_path: Path):
    for name in ("pytorch_model.bin", "tokenizer.model"):
        (tmp_path / name).write_text(POINTER)
    with pytest.raises(ModelError, match=r"pytorch_model.bin is a Git LFS pointer of \d+ bytes"):
        stored.open_tensors(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"tokenizer.model is a Git LFS pointer"):
        stored.copy_companions(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([torch.zeros(2)], "holds a list; a dictionary of tensors was expected"),
        ({"a": {"b": torch.zeros(2)}}, "holds a dict at 'a'"),
        ({"a": 3}, "holds a int at 'a'"),
        ({1: torch.zeros(2)}, "names a tensor 1"),
        ({"a": torch.zeros(2).to_sparse()}, "plain dense ones are read"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "holds 'a' as complex64"),
        ({"a": torch.zeros(2, device="meta")}, "plain dense ones are read"),
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "more than it holds of it"),
        ({}, "holds no tensors"),
    ],
)
def test_what_is_no_flat_dictionary_of_tensors_is_refused(held: object, message: str, tmp_path: Path):
    torch.save(held, tmp_path / "x.bin")
    with pytest.raises(ModelError, match=message):
        stored.open_tensors(tmp_path / "x.bin")


def test_a_compressed_zip_is_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "x.bin")
    with (
        zipfile.ZipFile(tmp_path / "x.bin") as source,
        zipfile.ZipFile(tmp_path / "y.bin", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ModelError, match="is compressed"):
        stored.open_tensors(tmp_path / "y.bin")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"a.weight": "../x.bin"}, "points to '../x.bin'"),
        ({"a.weight": "/etc/passwd.bin"}, "points to '/etc/passwd.bin'"),
        ({"a.weight": "sub\\x.bin"}, "points to"),
        ({"a.weight": "x.pt"}, "only .bin beside it are read"),
        ({"a.weight": "none.bin"}, "none.bin is missing"),
        ({"a.weight": f"{'x' * 300}.bin"}, "only .bin beside it are read"),
        ({"a.weight": "x.bin", "z": "x.bin"}, "has 'z' in x.bin, which lacks it"),
        ({"a.weight": "x.bin", "b.weight": "y.bin", "c.weight": "x.bin"}, "has 'c.weight' in x.bin"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_is_compared_with_the_files(table: object, message: str, tmp_path: Path):
    save(tmp_path / "x.bin", ["a.weight"])
    save(tmp_path / "y.bin", ["b.weight", "c.weight"])
    (tmp_path / stored.BIN_INDEX).write_text(json.dumps({"weight_map": table}))
    with pytest.raises(ModelError, match=message):
        stored.open_tensors(tmp_path)


def test_a_tensor_twice_is_an_error(tmp_path: Path):
    for number in (1, 2):
        save(tmp_path / f"model-0000{number}-of-00002.safetensors", ["a.weight"])
    with pytest.raises(ModelError, match=r"'a.weight', which model-00001-of-00002.safetensors holds too"):
        stored.open_tensors(tmp_path)


def test_shards_must_be_one_whole_set(tmp_path: Path):
    save(tmp_path / "model-00001-of-00002.safetensors", ["a.weight"])
    save(tmp_path / "model-00003-of-00003.safetensors", ["b.weight"])
    with pytest.raises(ModelError, match="mixes shards of 2 and of 3"):
        stored.open_tensors(tmp_path)
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    save(tmp_path / "model.safetensors", ["b.weight"])
    with pytest.raises(ModelError, match="there twice; remove one"):
        stored.open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("consolidated.00.pth", "Meta's own format; .* convert_llama_weights_to_hf.py"),
        ("adapter_config.json", "LoRA adapter, not a model; merge it first"),
        ("model.gguf", "model.gguf, which is not read"),
        ("readme.md", "holds no weights: neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_what_holds_no_weights_is_named(name: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text("x")
    with pytest.raises(ModelError, match=message):
        stored.open_tensors(tmp_path)


def test_metas_file_by_itself_is_named_too(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "consolidated.01.pth")
    with pytest.raises(ModelError, match="convert_llama_weights_to_hf.py"):
        stored.open_tensors(tmp_path / "consolidated.01.pth")


def test_nothing_there(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no checkpoint"):
        stored.open_tensors(tmp_path / "none")


def test_companions_are_copied_and_others_are_not(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("config.json", "tokenizer.model", "run.py"):
        (tmp_path / name).write_text(name)
    assert stored.copy_companions(tmp_path, out) == ["config.json", "tokenizer.model"]
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "tokenizer.model"]
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(ModelError, match=r"tokenizer.json cannot be read"):
        stored.copy_companions(tmp_path, out)


def test_out_must_not_be_an_input_nor_hold_old_weights(tmp_path: Path):
    base = tmp_path / "base"
    base.mkdir()
    stored.check_out(tmp_path / "new", base)
    with pytest.raises(ModelError, match="is read and would be written"):
        stored.check_out(tmp_path / "base" / ".." / "base", base)
    (base / "pytorch_model.bin").write_text("x")
    with pytest.raises(ModelError, match=r"holds pytorch_model.bin, which would stay"):
        stored.check_out(base, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file and a folder is written"):
        stored.check_out(tmp_path / "file", base)
    with pytest.raises(ModelError, match="exists and is no model folder"):
        stored.check_out(tmp_path, base)
