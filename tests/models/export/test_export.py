"""Exports from beginning to end: what every target has in common."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llavar.errors import ConfigError, LlavarError, ModelError, NotFoundError, StorageError
from llavar.images import Transform
from llavar.models import export
from llavar.models.build import build
from llavar.models.convert import Options as Convert
from llavar.models.convert import from_llava
from llavar.models.export import run as running
from llavar.models.export.base import Options, OutType
from llavar.models.export.run import run
from llavar.models.export.source import open_source
from llavar.models.folder import read_document
from llavar.models.shape import ProjectorLayout
from llavar.study.nano import weights

NANO = weights.folder("nano")
STOCK = ("vllm", "sglang", "hub")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Nano exported to a target, once."""
    done: dict[str, Any] = {}

    def exported(to: str) -> Any:
        if to not in done:
            done[to] = run(NANO, tmp_path_factory.mktemp("out") / f"nano-{to}", to)
        return done[to]

    return exported


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A copy of nano to be spoilt."""
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    return folder


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / name).read_text())
    change(document)
    (folder / name).write_text(json.dumps(document))


def test_every_module_of_a_target_is_found():
    assert {"gguf", "hub", "sglang", "vllm"} <= set(export.names())
    for name in export.names():
        assert export.load(name).takes <= {
            *("--outtype", "--license", "--base-model", "--dataset"),
            *("--push", "--private", "--max-shard-bytes"),
        }
    with pytest.raises(ConfigError, match=r"no export to 'ollama'.*gguf"):
        export.load("ollama")


@pytest.mark.parametrize("to", STOCK)
def test_a_folder_in_the_stock_layout(exported: Callable[[str], Any], to: str):
    done = exported(to)
    config = read_document(done.folder, "config.json")
    assert config["projector_hidden_act"] == "gelu", "folded, so that engines need no override"
    assert config["image_aspect_ratio"] == "pad"
    assert done.checked.figures["logit_difference"] < 2e-4
    assert done.checked.figures["tensors_equal"] == len(load_file(NANO / "model.safetensors")) - 4
    processor = read_document(done.folder, "processor_config.json")
    assert processor["image_token"] == "<im_patch>"
    assert processor["num_additional_image_tokens"] == 1
    assert read_document(done.folder, "preprocessor_config.json")["do_pad"] is True
    template = (done.folder / "chat_template.jinja").read_text()
    assert template.startswith("{{ bos_token }}"), "vLLM adds none"


@pytest.mark.parametrize("to", STOCK)
def test_files_sizes_and_checksums(exported: Callable[[str], Any], to: str):
    done = exported(to)
    for file in done.files:
        data = (done.folder / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
    there = {path.name for path in done.folder.iterdir()}
    assert there == {*(file.name for file in done.files), "checksums.sha256"}
    document = json.loads(json.dumps(done.document()))
    assert document["bytes"] == sum(file.size for file in done.files)
    assert document["to"] == to
    assert done.checked.sentence in (done.folder / "README.md").read_text()


def test_what_is_exported_can_be_exported(exported: Callable[[str], Any], tmp_path: Path):
    again = run(exported("vllm").folder, tmp_path / "again", "hub")
    one, two = (load_file(folder / "model.safetensors") for folder in (exported("hub").folder, again.folder))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_projector_of_two_layers_stays_as_it_is(families: Any, tmp_path: Path):
    decoder = families.make_decoder(tmp_path / "d", "qwen2")
    tower = families.make_tower(tmp_path / "t", "siglip")
    build(str(decoder), str(tower), tmp_path / "m", projector="mlp")
    done = run(tmp_path / "m", tmp_path / "out", "hub")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("m", "out"))
    assert one.keys() == two.keys(), "tied embeddings stay tied"
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert done.checked.figures["logit_difference"] == 0.0
    assert "two layers, as in LLaVA-1.5" in (tmp_path / "out" / "README.md").read_text()


def test_shards(tmp_path: Path):
    done = run(NANO, tmp_path / "out", "hub", Options(max_shard_bytes=4_000_000))
    shards = [file for file in done.files if file.name.endswith(".safetensors")]
    assert len(shards) > 1
    assert all(file.size <= 4_000_000 for file in shards)


# ---------------------------------------------------------------- refused


def test_a_folder_that_holds_files_is_refused(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="holds files already"):
        run(NANO, out, "hub")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (out / "mine.txt").unlink()
    assert run(NANO, out, "hub").size > 0


def test_a_file_in_the_place_of_the_folder(tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ModelError, match="is a file"):
        run(NANO, tmp_path / "out", "vllm")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("to", ["vllm", "gguf"])
def test_an_original_is_sent_to_its_conversion(
    originals: Any, tiny_sentencepiece: bytes, tmp_path: Path, to: str
):
    original = originals.make_original(tmp_path / "in" / "llava", tiny_sentencepiece)
    with pytest.raises(ModelError, match="llavar convert from-llava .*llava --out NEW.*--base LLAMA"):
        run(original.folder, tmp_path / "out", to)


def test_other_models_and_none(nano: Path, tmp_path: Path):
    with pytest.raises(NotFoundError, match="no model folder"):
        run(tmp_path / "nothing", tmp_path / "out", "vllm")
    edit(nano, "config.json", lambda document: document.update(model_type="llama"))
    with pytest.raises(ModelError, match="holds a 'llama' and a llava was expected"):
        run(nano, tmp_path / "out", "vllm")


@pytest.mark.parametrize(
    ("to", "options", "flag"),
    [
        ("vllm", Options(outtype=OutType.F32), "--outtype"),
        ("gguf", Options(push="a/b"), "--push"),
        ("gguf", Options(max_shard_bytes=10**6), "--max-shard-bytes"),
        ("sglang", Options(license="mit"), "--license"),
    ],
)
def test_an_option_that_means_nothing_there(tmp_path: Path, to: str, options: Options, flag: str):
    with pytest.raises(ConfigError, match=f"{flag} means nothing for --to {to}"):
        run(NANO, tmp_path / "out", to, options)


def test_a_full_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(running.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="0.1 GB are to be written .* 0.0 GB are free"):
        run(NANO, tmp_path / "new" / "out", "vllm")
    assert not (tmp_path / "new").exists()


def test_weights_that_do_not_fit_their_configuration(nano: Path, tmp_path: Path):
    edit(nano, "config.json", lambda document: document["text_config"].update(num_hidden_layers=5))
    with pytest.raises(ModelError, match=r"does not fit its config.json.*layers.4"):
        run(nano, tmp_path / "out", "vllm")


def test_quantized_weights_are_refused(nano: Path, tmp_path: Path):
    state = load_file(nano / "model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    state[name] = torch.zeros(state[name].shape, dtype=torch.int8)
    save_file(state, nano / "model.safetensors")
    with pytest.raises(ModelError, match="as int8; floating point was expected"):
        run(nano, tmp_path / "out", "hub")


def test_a_model_without_a_chat_template(nano: Path, tmp_path: Path):
    (nano / "chat_template.jinja").unlink()
    edit(nano, "tokenizer_config.json", lambda document: document.pop("chat_template"))
    with pytest.raises(ModelError, match="no chat template"):
        run(nano, tmp_path / "out", "vllm")


def test_what_does_not_pass_its_check_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from llavar.models.export import stock

    real = stock.write

    def spoil(folder: Path, *arguments: Any, **named: Any) -> Any:
        written = real(folder, *arguments, **named)
        state = load_file(folder / "model.safetensors")
        state["language_model.model.norm.weight"][3] += 0.5
        save_file(state, folder / "model.safetensors")
        return written

    monkeypatch.setattr(stock, "write", spoil)
    with pytest.raises(ModelError, match=r"does not pass its check: language_model.model.norm.weight"):
        run(NANO, tmp_path / "out", "vllm")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'{"text_config": 3}', b"{}"])
def test_hostile_documents_end_in_a_sentence(nano: Path, tmp_path: Path, name: str, content: bytes):
    (nano / name).write_bytes(content)
    if name == "preprocessor_config.json" and content in (b"{}", b'{"text_config": 3}'):
        assert open_source(nano).transform is Transform.CROP
        return
    with pytest.raises(LlavarError):
        run(nano, tmp_path / "out", "vllm")
    assert not (tmp_path / "out").exists()


def test_private_says_nothing_alone():
    with pytest.raises(ConfigError, match="say --push OWNER/NAME too"):
        Options(private=True)


def test_a_narrow_decoder_keeps_its_layout(originals: Any, tiny_sentencepiece: bytes, tmp_path: Path):
    original = originals.make_original(tmp_path / "in" / "llava", tiny_sentencepiece, text=32, vision=24)
    from_llava(
        original.folder, tmp_path / "m", options=Convert(layout=ProjectorLayout.IDENTITY, self_test=False)
    )
    for to in ("sglang", "hub"):
        run(tmp_path / "m", tmp_path / to, to)
        assert read_document(tmp_path / to, "config.json")["projector_hidden_act"] == "linear"
        assert (tmp_path / to / "tokenizer.model").read_bytes() == tiny_sentencepiece
