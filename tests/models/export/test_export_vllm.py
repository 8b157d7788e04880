"""The export to vLLM, and vLLM itself where ``LLAVAR_VLLM_PYTHON`` names a Python that has it."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavar.errors import ModelError
from llavar.images import CLIP, Tiles, Transform
from llavar.models import _hf as hf
from llavar.models.build import build
from llavar.models.convert import Options as Convert
from llavar.models.convert import from_llava
from llavar.models.export.base import Options, Order
from llavar.models.export.run import run
from llavar.models.export.source import open_source
from llavar.models.export.targets.vllm import TARGET
from llavar.models.folder import read_document, write_document
from llavar.models.processor import read_tiles, read_transform
from llavar.models.shape import ProjectorLayout
from llavar.models.tokenizer import load_tokenizer
from llavar.study.nano import weights

NANO = weights.folder("nano")
BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "engines.py"


def test_the_script_starts_it_safely(tmp_path: Path):
    """A stand-in for ``vllm`` tells what it was started with, in a folder with a blank in its name."""
    done = run(NANO, tmp_path / "my nano", "vllm")
    fake = tmp_path / "bin" / "vllm"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "redirects=$VLLM_MEDIA_URL_ALLOW_REDIRECTS"\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    told = subprocess.run(
        [str(done.folder / "serve.sh"), "--api-key", "a b"], env=environment, capture_output=True, text=True
    )
    redirects, *arguments = told.stdout.splitlines()
    assert redirects == "redirects=0"
    assert arguments[:2] == ["serve", str(done.folder)]
    assert arguments[-2:] == ["--api-key", "a b"]
    given = dict(zip(arguments[2:-2:2], arguments[3:-2:2], strict=True))
    assert given["--host"] == "127.0.0.1"
    assert given["--served-model-name"] == "my nano"
    assert json.loads(given["--limit-mm-per-prompt"]) == {"image": 4}
    assert given["--allowed-media-domains"].endswith(".invalid"), "no domain, so data URLs alone"
    assert "--hf-overrides" not in given
    assert done.command == f"sh '{done.folder}/serve.sh'"


def test_heads_that_no_kernel_takes(families: Any, tmp_path: Path):
    decoder = families.make_decoder(tmp_path / "d", "llama3", hidden=48)  # 4 heads of 12
    build(str(decoder), str(families.make_tower(tmp_path / "t", "clip")), tmp_path / "m")
    with pytest.raises(ModelError, match="attention heads of 12.*multiples of 8 up to 256"):
        run(tmp_path / "m", tmp_path / "out", "vllm")
    assert not (tmp_path / "out").exists()


def test_heads_that_a_cpu_does_not_take_and_a_narrow_decoder(
    originals: Any, tiny_sentencepiece: bytes, tmp_path: Path
):
    original = originals.make_original(tmp_path / "in" / "llava", tiny_sentencepiece, text=32, vision=24)
    identity = Convert(layout=ProjectorLayout.IDENTITY, self_test=False)
    from_llava(original.folder, tmp_path / "m", options=identity)
    said: list[str] = []
    done = run(tmp_path / "m", tmp_path / "out", "vllm", say=said.append)
    assert any("attention heads of 8, so this needs a GPU" in note for note in done.notes)
    assert any("layout identity" in line for line in said)
    spelt = read_document(done.folder, "config.json")["projector_hidden_act"]
    assert spelt == "torch.nn.modules.linear.Identity", "so that vLLM needs no override"
    assert done.checked.figures["logit_difference"] is not None


def test_fit_becomes_pad_and_is_told(tmp_path: Path):
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    document = read_document(folder, "preprocessor_config.json")
    document.pop("do_pad")
    write_document(folder, "preprocessor_config.json", {**document, "llavar_transform": "fit"})
    done = run(folder, tmp_path / "out", "vllm")
    assert read_transform(done.folder) is Transform.PAD
    assert any("transform fit" in note for note in done.notes)
    assert "transform fit" in (done.folder / "README.md").read_text()
    hub = run(folder, tmp_path / "hub", "hub")
    assert read_transform(hub.folder) is Transform.FIT, "on the hub the model's own is kept"


@pytest.mark.parametrize("to", ["vllm", "sglang", "gguf", "hub"])
def test_tiles_are_kept_and_told(tmp_path: Path, to: str):
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    document = read_document(folder, "preprocessor_config.json")
    write_document(folder, "preprocessor_config.json", {**document, "llavar_tiles": str(Tiles.parse("2x2"))})
    done = run(folder, tmp_path / "out", to)
    assert any("sees a picture in tiles (2x2" in note for note in done.notes) is (to != "hub")
    if to != "gguf":
        assert read_tiles(done.folder) == Tiles.parse("2x2")


def test_sglang_is_said_not_to_have_been_run(tmp_path: Path):
    done = run(NANO, tmp_path / "out", "sglang")
    assert any("was not run in SGLang" in note for note in done.notes)
    lines = (done.folder / "serve.sh").read_text()
    assert "--host 127.0.0.1" in lines
    assert '--chat-template "$here/chat_template.jinja"' in lines
    assert read_document(done.folder, "config.json")["image_aspect_ratio"] == "pad", "else it cuts tiles"


def test_sglang_refuses_other_decoders(families: Any, tmp_path: Path):
    decoder = families.make_decoder(tmp_path / "d", "qwen3")
    build(str(decoder), str(families.make_tower(tmp_path / "t", "clip")), tmp_path / "m")
    with pytest.raises(ModelError, match="qwen3 decoder.*llama, mistral, qwen2"):
        run(tmp_path / "m", tmp_path / "out", "sglang")


def test_nothing_is_asked_of_a_model_that_runs():
    notes = TARGET.notes(Order(source=open_source(NANO), options=Options(), name="nano"))
    assert not any("GPU" in note for note in notes)


# ---------------------------------------------------------------- the engine itself


def pixels_of(uri: str) -> torch.Tensor:
    """A picture of the tower's own size, normalised; nothing is resized."""
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")
    array = (np.asarray(picture, dtype=np.float32) / 255 - np.float32(CLIP.mean)) / np.float32(CLIP.std)
    return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())


def test_vllm_answers_as_the_model_does(tmp_path: Path):
    python = os.environ.get("LLAVAR_VLLM_PYTHON")
    if not python:
        pytest.skip("LLAVAR_VLLM_PYTHON names no Python that has vLLM")
    spec = importlib.util.spec_from_file_location("engines", BENCHMARK)
    assert spec
    assert spec.loader
    engines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engines)
    done = run(NANO, tmp_path / "nano", "vllm")
    images = engines.pictures(96)
    asked = [{"question": q, "image": i} for q, i in zip(engines.QUESTIONS, images, strict=True)]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    environment.pop("PYTHONPATH", None)
    told = subprocess.run(
        [python, str(BENCHMARK), "--child", str(done.folder)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    line = next((text for text in told.stdout.splitlines() if text.startswith(engines.MARK)), None)
    assert line, told.stderr[-3000:]
    rows = json.loads(line.removeprefix(engines.MARK))["rows"]
    model: Any = hf.load_llava(NANO)
    tokenizer = load_tokenizer(NANO)
    for question, image, row in zip(engines.QUESTIONS, images, rows, strict=True):
        picture = "<im_start>" + "<im_patch>" * 144 + "<im_end>"
        text = hf.stock_tokenizer(NANO).apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": question}, {"type": "image"}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        ids = tokenizer.encode(text.replace("<im_start><im_patch><im_end>", picture))
        assert row["prompt"] == ids
        given = torch.tensor([ids])
        made = model.generate(
            input_ids=given,
            pixel_values=pixels_of(image),
            attention_mask=torch.ones_like(given),
            max_new_tokens=engines.TOKENS,
            do_sample=False,
        )
        assert row["answer"] == made[0, len(ids) :].tolist()
