"""Checkpoint folders from strangers: what is refused and how; what is written, atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llavar.errors import FetchError, ModelError, NotFoundError
from llavar.models import folder as folders

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"lm_head.weight": torch.arange(6.0).view(2, 3)}, folder / folders.WEIGHTS)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("model.language_model.layers.0.x", "language_model.model.layers.0.x"),
        ("model.language_model.model.layers.0.x", "language_model.model.layers.0.x"),
        ("language_model.model.model.norm.weight", "language_model.model.norm.weight"),
        ("language_model.model.norm.weight", "language_model.model.norm.weight"),
        ("vision_tower.encoder.layers.0.x", "vision_tower.vision_model.encoder.layers.0.x"),
        ("model.vision_tower.vision_model.encoder.x", "vision_tower.vision_model.encoder.x"),
        ("vision_tower.patch_positional_embedding.x", "vision_tower.patch_positional_embedding.x"),
        ("model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"),
        ("language_model.model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("vision_tower.vision_model.embeddings.position_ids", None),
    ],
)
def test_names_become_those_of_the_hub(name: str, hub: str | None):
    assert folders.hub_key(name) == hub
    if hub is not None:
        assert folders.hub_key(hub) == hub


def test_resolve_takes_a_folder_and_refuses_the_rest(model: Path):
    assert folders.resolve(model) == model
    assert folders.resolve(str(model)) == model
    with pytest.raises(ModelError, match="is a file; name the folder"):
        folders.resolve(model / "config.json")
    for wrong in ("nothing", "a/b/c", "../up", "a/..", "-x/y", "", "a b/c"):
        with pytest.raises(NotFoundError, match="not a hub id"):
            folders.resolve(wrong)


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", _refuse)
    with pytest.raises(FetchError, match="some/model.*no route"):
        folders.resolve("some/model")


def _refuse(*args: object, **kwargs: object) -> str:
    raise OSError("no route")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "holds a list"),
        (LFS, r"Git LFS pointer of \d+ bytes"),
        ("\udcff", "is not valid JSON"),
    ],
)
def test_documents_that_are_none(model: Path, text: str, message: str):
    (model / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=message):
        folders.read_document(model, "config.json")


def test_a_missing_or_huge_document(model: Path):
    with pytest.raises(ModelError, match="index.json cannot be read"):
        folders.read_document(model, folders.INDEX)
    os.truncate(model / "config.json", 65 << 20)
    with pytest.raises(ModelError, match="68157440 bytes; at most"):
        folders.read_document(model, "config.json")


def test_headers_are_read_and_named(model: Path):
    weights = folders.open_weights(model)
    assert weights["language_model.lm_head.weight"].shape == (2, 3)
    tensors = folders.read_tensors(weights, torch.bfloat16)
    assert tensors["language_model.lm_head.weight"].dtype == torch.bfloat16
    assert tensors["language_model.lm_head.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_integers_keep_their_type(model: Path):
    save_file({"x": torch.tensor([3])}, model / folders.WEIGHTS)
    assert folders.read_tensors(folders.open_weights(model), torch.float32)["x"].dtype == torch.int64


def test_damaged_weights(model: Path):
    path = model / folders.WEIGHTS
    whole = path.read_bytes()
    for data, message in (
        (whole[:-4], "damaged or truncated"),
        (b"", "damaged or truncated"),
        (b"\xff" * 64, "damaged or truncated"),
        (LFS.encode(), "git lfs pull"),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=message):
            folders.open_weights(model)


def test_missing_weights(model: Path):
    (model / folders.WEIGHTS).unlink()
    with pytest.raises(ModelError, match="neither model.safetensors nor"):
        folders.open_weights(model)
    (model / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pytorch_model-00001-of-00002.bin; only safetensors"):
        folders.open_weights(model)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", "..\\x.safetensors"]
)
def test_an_index_must_stay_in_its_folder(model: Path, name: str):
    (model / folders.INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ModelError, match="only .safetensors beside it"):
        folders.open_weights(model)


def test_an_index_without_its_shard_or_map(model: Path):
    (model / folders.INDEX).write_text(json.dumps({"weight_map": {"x": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match="model-00002-of-00002.safetensors is missing"):
        folders.open_weights(model)
    for empty in ({}, {"weight_map": []}, {"weight_map": {}}):
        (model / folders.INDEX).write_text(json.dumps(empty))
        with pytest.raises(ModelError, match="has no weight_map"):
            folders.open_weights(model)


def test_one_tensor_under_two_names(model: Path):
    twice = {"lm_head.weight": torch.zeros(1), "language_model.lm_head.weight": torch.zeros(1)}
    save_file(twice, model / folders.WEIGHTS)
    with pytest.raises(ModelError, match="holds too"):
        folders.open_weights(model)


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=12), limit=st.integers(3000, 6000))
def test_shards_hold_everything_once_and_keep_their_limit(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
):
    folder = tmp_path_factory.mktemp("shards")
    tensors = {f"t{i:02d}": torch.full((size,), float(i)) for i, size in enumerate(sizes)}
    folders.write_weights(tensors, folder, limit)
    files = sorted(folder.glob("*.safetensors"))
    assert all(path.stat().st_size <= limit for path in files)
    assert len(files) == 1 or (folder / folders.INDEX).exists()
    read = folders.read_tensors(folders.open_weights(folder))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_tensor_larger_than_a_file(tmp_path: Path):
    with pytest.raises(ModelError, match="big needs 4131 bytes and a file may have 3000"):
        folders.write_weights({"big": torch.zeros(1000)}, tmp_path, 3000)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_folder(model: Path):
    before = sorted(path.name for path in model.iterdir())
    with pytest.raises(KeyboardInterrupt):
        _interrupted_write(model)
    assert (model / "config.json").read_text() == "{}"
    assert sorted(path.name for path in model.iterdir()) == before
    assert [path.name for path in model.parent.iterdir()] == ["model"]


def _interrupted_write(model: Path) -> None:
    with folders.replacing(model) as aside:
        (aside / "config.json").write_text("half")
        raise KeyboardInterrupt


def test_replacing_by_a_path_through_itself(model: Path):
    with folders.replacing(model / ".." / model.name) as aside:
        (aside / "config.json").write_text('{"a": 1}')
    assert (model / "config.json").read_text() == '{"a": 1}'
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_replacing_through_a_link_keeps_the_link(model: Path):
    for name, target in (("link", model), ("dangling", model.with_name("new"))):
        link = model.with_name(name)
        link.symlink_to(target)
        with folders.replacing(link) as aside:
            (aside / "config.json").write_text('{"a": 1}')
        assert link.is_symlink()
        assert (target / "config.json").read_text() == '{"a": 1}'
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_replacing_keeps_what_was_not_written(model: Path):
    (model / "README.md").write_text("card")
    (model / folders.INDEX).write_text("{}")
    with folders.replacing(model) as aside:
        save_file({"x": torch.ones(1)}, aside / "model-00001-of-00001.safetensors")
        (aside / "config.json").write_text('{"a": 1}')
    assert sorted(path.name for path in model.iterdir()) == [
        "README.md",
        "config.json",
        "model-00001-of-00001.safetensors",
    ]
    assert (model / "config.json").read_text() == '{"a": 1}'
    assert load_file(model / "model-00001-of-00001.safetensors")["x"].item() == 1


def test_a_new_folder_with_parents_appears_whole_and_readable(tmp_path: Path):
    with folders.replacing(tmp_path / "a" / "b") as aside:
        (aside / "config.json").write_text("{}")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="is no model folder"), folders.replacing(tmp_path):
        pytest.fail("the block must not run")
    assert (tmp_path / "thesis.tex").exists()
