"""What the doctor says of environments and of checkpoints, sound ones and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from llavar.errors import ModelError, NotFoundError
from llavar.models.build import build
from llavar.models.convert import from_llava
from llavar.models.tokenizer import load_tokenizer
from llavar.study.doctor import Diagnosis, Finding, Kind, Level, diagnose, findings
from llavar.study.doctor.checkpoint import examine
from llavar.study.nano import weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture(scope="module")
def parts(families: Any, tiny_sentencepiece: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor")
    families.make_llama(root / "llama", tiny_sentencepiece)
    families.make_decoder(root / "qwen", "qwen2")
    families.make_tower(root / "clip", "clip")
    families.make_tower(root / "siglip", "siglip")
    build(root / "llama", root / "clip", root / "plain")
    build(root / "qwen", root / "siglip", root / "foreign")
    return root


@pytest.fixture
def original(originals: Any, tiny_sentencepiece: bytes, tmp_path: Path) -> Path:
    return originals.make_original(tmp_path / "llava-v1", tiny_sentencepiece).folder


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def found(path: Path, level: Level | None = None) -> list[Finding]:
    return [finding for finding in examine(path).findings if level in (None, finding.level)]


def texts(path: Path, level: Level) -> str:
    return "\n".join(f"{one.subject}: {one.text} -> {one.remedy}" for one in found(path, level))


# Checkpoints in order.


def test_kinds(parts: Path, original: Path, tmp_path: Path):
    converted = tmp_path / "converted"
    from_llava(original, converted, vision_tower=original.parent / "tower")
    for path, kind in (
        (weights.folder("nano"), Kind.STOCK),
        (parts / "plain", Kind.STOCK),
        (parts / "foreign", Kind.STOCK),
        (converted, Kind.STOCK),
        (original, Kind.ORIGINAL),
        (parts / "llama", Kind.LLAMA),
        (parts / "qwen", Kind.DECODER),
        (parts / "clip", Kind.TOWER),
        (parts / "siglip", Kind.TOWER),
    ):
        assert examine(path).kind is kind
        assert texts(path, Level.PROBLEM) == ""
        assert any(finding.subject == "weights" for finding in found(path, Level.OK))


def test_a_sound_model_says_how_it_is_used(parts: Path):
    said = {finding.subject: finding.text for finding in found(parts / "plain")}
    assert said["use"].startswith("conversation llava_v1, image transform pad, 4 tokens a picture")
    assert "self-test gives the ids it should" in said["tokenizer"]
    assert examine(parts / "plain").nbytes == 4 * 84040


def test_what_to_do_with_an_original(original: Path):
    notes = texts(original, Level.NOTE)
    assert f"llavar convert from-llava {original} --vision-tower" in notes
    assert "tower, found at" in texts(original, Level.OK)


def test_a_delta_is_known_by_its_norms(original: Path):
    state = torch.load(original / "pytorch_model.bin", weights_only=True)
    torch.save({name: tensor * 0.01 for name, tensor in state.items()}, original / "pytorch_model.bin")
    assert examine(original).kind is Kind.DELTA
    assert "--base LLAMA" in texts(original, Level.NOTE)


def test_a_projector_alone(tmp_path: Path):
    tensors = {"model.mm_projector.weight": torch.zeros(48, 16), "model.mm_projector.bias": torch.zeros(48)}
    folder = tmp_path / "stage1"
    folder.mkdir()
    torch.save(tensors, folder / "mm_projector.bin")
    for path in (folder, folder / "mm_projector.bin"):
        assert examine(path).kind is Kind.PROJECTOR
        assert "from a tower of width 16 to a decoder of width 48" in texts(path, Level.NOTE)


def test_files_that_are_no_model(tmp_path: Path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "some.bin")
    assert "1 tensors, such as 'a'" in texts(tmp_path / "some.bin", Level.NOTE)
    torch.save({"model.mm_projector.0.weight": torch.zeros(3, 3)}, tmp_path / "later.bin")
    assert "it has two layers" in texts(tmp_path / "later.bin", Level.PROBLEM)
    (tmp_path / "junk.bin").write_bytes(b"junk")
    assert "damaged or truncated" in texts(tmp_path / "junk.bin", Level.PROBLEM)
    (tmp_path / "evil.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")
    assert examine(tmp_path / "evil.bin").kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("files", "kind", "sentence"),
    [
        ({"consolidated.00.pth": b"x", "params.json": b"{}"}, Kind.META, "convert_llama_weights_to_hf.py"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"x"}, Kind.ADAPTER, "merge-lora"),
        ({"readme.txt": b"x"}, Kind.UNKNOWN, "config.json cannot be read"),
        ({}, Kind.UNKNOWN, "holds no weights"),
        ({"config.json": b'{"model_type": "gpt2"}'}, Kind.UNKNOWN, "model_type 'gpt2' is not known here"),
        ({"config.json": b"[]"}, Kind.UNKNOWN, "holds a list"),
    ],
)
def test_other_folders(files: dict[str, bytes], kind: Kind, sentence: str, tmp_path: Path):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert examine(tmp_path).kind is kind
    assert sentence in texts(tmp_path, Level.NOTE) + texts(tmp_path, Level.PROBLEM)


def test_a_pipe_is_not_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device" in texts(tmp_path / "pipe", Level.PROBLEM)


def test_metas_file_alone(tmp_path: Path):
    (tmp_path / "consolidated.00.pth").write_bytes(b"x")
    assert examine(tmp_path / "consolidated.00.pth").kind is Kind.META


# Checkpoints that are broken, one way each.


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(POINTER)


def _truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def _missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **changes)


def _processor(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "processor_config.json", **changes)


def _plain_tokens(folder: Path) -> None:
    """The image tokens as transformers 5 adds them: without stripping."""
    told = json.loads((folder / "tokenizer.json").read_text())
    for token in told["added_tokens"]:
        token["lstrip"] = token["rstrip"] = False
    (folder / "tokenizer.json").write_text(json.dumps(told))


def _as_transformers_makes_it(folder: Path) -> None:
    """With the pre-tokenizer that its version 5 forces upon a LLaMA: a blank is lost after ``</s>``."""
    told = json.loads((folder / "tokenizer.json").read_text())
    forced = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    told |= {"normalizer": None, "pre_tokenizer": forced}
    (folder / "tokenizer.json").write_text(json.dumps(told))


def _one_token_more(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.backend.add_tokens([AddedToken("more")])
    tokenizer.save(folder)


BROKEN = [
    (_pointer, "model.safetensors: a Git LFS pointer, not the file -> run 'git lfs pull'"),
    (_truncated, "damaged or truncated"),
    (_missing_shard, "model-00002-of-00002.safetensors is missing"),
    (_no_config, "config.json cannot be read"),
    (_config(image_seq_length=575), "image_seq_length 575, and its tower gives 4 -> write 4"),
    (_config(image_token_index=3), "image_token_index 3, and <im_patch> is 340 -> write 340"),
    (_config(image_token_index=9999), "image_token_index 9999"),
    (_config(vision_feature_layer=7), "7 is no hidden state of a tower of 3 layers -> write -2"),
    (_config(vision_config={"model_type": "clip_vision_model"}), "shapes: "),
    (_config(text_config=3), "cannot make a model of this configuration"),
    (_processor(patch_size=16), "patch_size 16, and by config.json it is 14"),
    (_processor(num_additional_image_tokens=0), "num_additional_image_tokens 0, and by config.json it is 1"),
    (_processor(vision_feature_select_strategy="full"), "vision_feature_select_strategy 'full'"),
    (_without("processor_config.json"), "processor_config.json is missing"),
    (_without("preprocessor_config.json"), "preprocessor_config.json is missing"),
    (_without("tokenizer_config.json"), "carries no chat template"),
    (_plain_tokens, "<im_patch> does not strip the white space around it"),
    (_as_transformers_makes_it, "tokenizer.json and tokenizer.model give different ids"),
    (_one_token_more, "it has 344 tokens, and the embedding 343 rows"),
]


@pytest.mark.parametrize(("damage", "sentence"), BROKEN, ids=[sentence[:40] for _, sentence in BROKEN])
def test_broken_models(damage: Callable[[Path], None], sentence: str, parts: Path, tmp_path: Path):
    folder = copied(parts / "plain", tmp_path / "model")
    if sentence.startswith("carries no chat"):
        (folder / "chat_template.jinja").unlink()
    damage(folder)
    assert sentence in texts(folder, Level.PROBLEM)
    assert all(finding.remedy for finding in found(folder, Level.PROBLEM))


def test_a_tower_without_a_class_token_gives_all_its_patches(parts: Path, tmp_path: Path):
    folder = copied(parts / "foreign", tmp_path / "model")
    edit(folder, vision_feature_select_strategy="default")
    assert "drops the first patch" in texts(folder, Level.PROBLEM)


@pytest.mark.parametrize(
    ("changes", "level", "sentence"),
    [
        ({"rms_norm_eps": 1e-5, "max_position_embeddings": 4096}, Level.NOTE, "LLaMA-2 (rms_norm_eps 1e-05"),
        ({"bos_token_id": 0, "eos_token_id": 1}, Level.NOTE, "early, wrong conversion of LLaMA (decapoda)"),
        ({"vocab_size": 32000}, Level.PROBLEM, "vocab_size 32000, and the tensors have 340"),
        ({"num_hidden_layers": 3}, Level.PROBLEM, "num_hidden_layers 3, and the tensors have 2"),
    ],
)
def test_llamas(changes: dict[str, object], level: Level, sentence: str, parts: Path, tmp_path: Path):
    folder = copied(parts / "llama", tmp_path / "llama")
    edit(folder, **changes)
    assert sentence in texts(folder, level)


@pytest.mark.parametrize(
    ("named", "level", "sentence"),
    [
        (
            "../elsewhere/clip",
            Level.PROBLEM,
            "'../elsewhere/clip' is a relative path from where training ran",
        ),
        ("/data/clip", Level.PROBLEM, "'/data/clip' is a path, and nothing is there"),
        ("openai/clip-vit-large-patch14", Level.NOTE, "fetched from the hub when it is needed"),
        (None, Level.PROBLEM, "names none (mm_vision_tower is None)"),
        ("x" * 2000, Level.PROBLEM, "names none"),
        (7, Level.PROBLEM, "names none (mm_vision_tower is 7)"),
    ],
)
def test_towers_of_originals(named: object, level: Level, sentence: str, original: Path):
    edit(original, mm_vision_tower=named)
    assert sentence in texts(original, level)


def test_an_original_without_its_projector(original: Path):
    state = torch.load(original / "pytorch_model.bin", weights_only=True)
    kept = {name: tensor for name, tensor in state.items() if "mm_projector" not in name}
    torch.save(kept, original / "pytorch_model.bin")
    assert "there is no model.mm_projector.weight" in texts(original, Level.PROBLEM)


def test_an_original_with_an_empty_configuration(original: Path):
    (original / "config.json").write_text("{}")
    assert "model_type is None, and llava was expected" in texts(original, Level.PROBLEM)


# The environment.


def level_of(subject: str, found: Diagnosis) -> tuple[Level, str, str]:
    (one,) = (finding for finding in found.environment if finding.subject == subject)
    return one.level, one.text, one.remedy


def test_this_environment_is_in_order():
    found = diagnose()
    said = {finding.subject for finding in found.findings}
    assert {"python", "torch", "transformers", "sentencepiece", "accelerator", "disk", "memory"} <= said
    assert level_of("transformers", found)[0] is Level.OK
    assert found.document()["path"] is None


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("5.16.4", Level.PROBLEM),
        ("5.17.0", Level.OK),
        ("5.99", Level.OK),
        ("6.0.0", Level.PROBLEM),
        ("", Level.PROBLEM),
    ],
)
def test_transformers_in_range(version: str, level: Level, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment_module(), "_version", lambda name: version)
    said = environment_module()._transformers()
    assert said.level is level
    assert bool(said.remedy) == (level is Level.PROBLEM)


def environment_module() -> Any:
    import importlib

    return importlib.import_module("llavar.study.doctor.environment")


@pytest.mark.parametrize(
    ("version", "failure", "level", "text"),
    [
        ("", "", Level.OK, "not installed, and not needed"),
        ("0.28.0+cpu", "", Level.OK, "0.28.0+cpu, not needed"),
        (
            "0.28.0",
            "RuntimeError: operator torchvision::nms does not exist",
            Level.PROBLEM,
            "nms does not exist",
        ),
    ],
)
def test_torchvision(version: str, failure: str, level: Level, text: str, monkeypatch: pytest.MonkeyPatch):
    module = environment_module()
    monkeypatch.setattr(module, "_version", lambda name: version)
    monkeypatch.setattr(module, "_import_failure", lambda package: failure)
    monkeypatch.setattr(torch.version, "cuda", None)
    (said,) = module._torchvision()
    assert said.level is level
    assert text in said.text
    assert ("built for CUDA" in said.text) == bool(failure)


def test_imports_are_tried_in_a_fresh_process():
    failure = environment_module()._import_failure
    assert failure("json") == ""
    assert "No module named" in failure("no_such_module")


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch):
    module = environment_module()
    monkeypatch.setattr(module, "_version", lambda name: "")
    said = module._package("sentencepiece", "tokenizer.model of LLaMA")
    assert (said.level, said.remedy) == (Level.PROBLEM, "pip install sentencepiece")
    assert module._protobuf().level is Level.NOTE


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_a_gpu_that_torch_does_not_use(cuda: str | None, monkeypatch: pytest.MonkeyPatch):
    module = environment_module()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(module, "has_nvidia", lambda: True)
    said = [finding for finding in module._torch() if finding.subject == "accelerator"]
    assert said[0].level is Level.PROBLEM
    assert ("driver" if cuda else "CUDA build") in said[0].remedy


def test_a_torch_that_cannot_be_imported():
    def broken() -> Any:
        raise OSError("libtorch.so: cannot open shared object file")
        yield

    (said,) = environment_module()._guarded("torch", broken)
    assert said.level is Level.PROBLEM
    assert "libtorch.so" in said.text


def test_a_model_that_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch):
    module = environment_module()
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 30)
    (said,) = module.room(4 << 30)
    assert (said.level, "--quantize" in said.remedy) == (Level.NOTE, True)
    (fits,) = module.room(1 << 29)
    assert fits.level is Level.OK
    assert list(module.room(0)) == []
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert list(module.room(1 << 40)) == []
    assert module._memory().level is Level.NOTE


# What comes out.


def test_sentences_are_taken_apart_at_their_remedy():
    said = findings.from_error("x", ModelError("a is 1; b is 2; do c"))
    assert (said.text, said.remedy) == ("a is 1; b is 2", "do c")
    assert findings.from_error("x", ModelError("all of it")).text == "all of it"


def test_nothing_there(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is nothing at"):
        diagnose(tmp_path / "none")


def test_the_document_holds_every_finding(parts: Path):
    found = diagnose(parts / "plain")
    told: Any = json.loads(json.dumps(found.document()))
    assert (told["kind"], told["problems"]) == ("Llava in the stock layout", 0)
    assert len(told["findings"]) == len(found.findings)
    assert all(one.keys() == {"level", "subject", "text", "remedy"} for one in told["findings"])
