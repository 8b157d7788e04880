"""The export to llama.cpp, and llama.cpp itself where ``LLAVAR_LLAMA_SERVER`` names its server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llavar.errors import MissingExtraError, ModelError
from llavar.models import _hf as hf
from llavar.models.build import build
from llavar.models.convert import Options as Convert
from llavar.models.convert import from_llava
from llavar.models.export.base import Options, OutType
from llavar.models.export.ggml import files
from llavar.models.export.ggml.tensors import OFFSET, interleaved
from llavar.models.export.ggml.vocabulary import Kind, TokenType, Vocabulary, vocabulary
from llavar.models.export.run import run
from llavar.models.shape import ProjectorLayout
from llavar.models.tokenizer import TextTokenizer, load_tokenizer, nano_tokenizer
from llavar.study.nano import weights

gguf = pytest.importorskip("gguf")

NANO = weights.folder("nano")
F32 = Options(outtype=OutType.F32)


@pytest.fixture
def tiny(originals: Any, tiny_sentencepiece: bytes, tmp_path: Path) -> Path:
    """A small LLaVAR in the stock layout, with its ``tokenizer.model``."""
    original = originals.make_original(tmp_path / "in" / "llava", tiny_sentencepiece, text=64, vision=32)
    from_llava(original.folder, tmp_path / "tiny", options=Convert(self_test=False))
    return tmp_path / "tiny"


def words_of(folder: Path) -> Vocabulary:
    tokenizer = load_tokenizer(folder)
    return vocabulary(folder, tokenizer, tokenizer.vocab_size)


NANO_WORDS = words_of(NANO)
NANO_TOKENIZER = nano_tokenizer()


def stored(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in reader.tensors
    }


def value(path: Path, key: str) -> Any:
    return gguf.GGUFReader(path).get_field(key).contents()


# ---------------------------------------------------------------- tensors


def halves(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )


def pairs(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    first, second = x[..., 0::2], x[..., 1::2]
    return torch.stack(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    ).flatten(-2)


def test_queries_turned_in_pairs_meet_as_those_turned_in_halves():
    heads, width, columns = 3, 8, 5
    stream = torch.Generator().manual_seed(0)
    query, key = (torch.randn(heads * width, columns, generator=stream) for _ in range(2))
    given = torch.randn(columns, generator=stream)
    angle = torch.rand(width // 2, generator=stream)
    q, k = ((w @ given).view(heads, width) for w in (query, key))
    wanted = (halves(q, angle) * halves(k, -angle)).sum(-1)
    q, k = ((interleaved(w, heads) @ given).view(heads, width) for w in (query, key))
    assert torch.allclose((pairs(q, angle) * pairs(k, -angle)).sum(-1), wanted, atol=1e-5)


def test_values_of_the_files_are_the_models(tmp_path: Path):
    done = run(NANO, tmp_path / "nano", "gguf", F32)
    assert [file.name for file in done.files] == ["README.md", "mmproj-nano.gguf", "nano.gguf", "serve.sh"]
    source = {name: tensor.float().numpy() for name, tensor in load_file(NANO / "model.safetensors").items()}
    text, seen = stored(done.folder / "nano.gguf"), stored(done.folder / "mmproj-nano.gguf")
    assert len(text) + len(seen) == done.checked.figures["tensors"] == done.checked.figures["tensors_equal"]
    base = "language_model.model."
    assert np.array_equal(text["token_embd.weight"], source[f"{base}embed_tokens.weight"])
    assert np.array_equal(text["output.weight"], source["language_model.lm_head.weight"])
    assert np.array_equal(text["blk.3.ffn_down.weight"], source[f"{base}layers.3.mlp.down_proj.weight"])
    assert np.array_equal(text["blk.1.attn_v.weight"], source[f"{base}layers.1.self_attn.v_proj.weight"])
    query = text["blk.0.attn_q.weight"]
    wanted = source[f"{base}layers.0.self_attn.q_proj.weight"]
    assert not np.array_equal(query, wanted)
    assert np.array_equal(query[:2], wanted[[0, 32]]), "the halves of a head of 64 side by side"
    tower = "vision_tower.vision_model."
    assert np.array_equal(seen["v.class_embd"], source[f"{tower}embeddings.class_embedding"])
    assert np.array_equal(seen["v.blk.2.ffn_up.bias"], source[f"{tower}encoder.layers.2.mlp.fc1.bias"])
    assert "v.post_ln.weight" not in seen, "nothing is normalised before the projector"
    assert value(done.folder / "mmproj-nano.gguf", "clip.vision.feature_layer") == [4]


def test_the_single_layer_passes_through_gelu(tmp_path: Path):
    done = run(NANO, tmp_path / "nano", "gguf", F32)
    seen = {
        name: torch.from_numpy(array.copy())
        for name, array in stored(done.folder / "mmproj-nano.gguf").items()
    }
    state = load_file(NANO / "model.safetensors")
    weight, bias = (state[f"multi_modal_projector.linear_1.{kind}"].float() for kind in ("weight", "bias"))
    given = torch.randn(50, weight.shape[1], generator=torch.Generator().manual_seed(0))
    hidden = torch.nn.functional.gelu(given @ seen["mm.0.weight"].T + seen["mm.0.bias"], approximate="tanh")
    found = hidden @ seen["mm.2.weight"].T + seen["mm.2.bias"]
    wanted = given @ weight.T + bias
    assert float(wanted.abs().max()) < OFFSET - 10
    assert float((found - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize(("outtype", "bits"), [(None, 16), (OutType.F16, 16), (OutType.Q8_0, 8.5)])
def test_types_and_sizes(tmp_path: Path, outtype: OutType | None, bits: float):
    done = run(NANO, tmp_path / "nano", "gguf", Options(outtype=outtype))
    text = next(file for file in done.files if file.name == "nano.gguf")
    values = sum(tensor.size for tensor in stored(done.folder / "nano.gguf").values())
    assert text.size == pytest.approx(values * bits / 8, rel=0.03)
    assert 0 < float(done.checked.figures["difference"] or 0) < (1e-3 if bits == 16 else 1e-2)
    assert value(done.folder / "nano.gguf", "general.file_type") == (1 if bits == 16 else 7)


def test_the_layer_that_llama_cpp_takes_by_itself_is_not_named(tiny: Path, tmp_path: Path):
    done = run(tiny, tmp_path / "out", "gguf", F32)
    path = done.folder / "mmproj-out.gguf"
    assert gguf.GGUFReader(path).get_field("clip.vision.feature_layer") is None, "the last but one"
    assert value(path, "clip.vision.block_count") == 3
    assert value(path, "clip.projector_type") == "mlp"
    assert value(done.folder / "out.gguf", "llama.attention.head_count") == 4
    assert value(done.folder / "out.gguf", "tokenizer.ggml.model") == "llama"


def test_values_beyond_f16_are_refused(tmp_path: Path):
    folder = tmp_path / "nano"
    shutil.copytree(NANO, folder)
    state = load_file(folder / "model.safetensors")
    state["language_model.lm_head.weight"][0, 0] = 1e5
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelError, match="lm_head.weight that f16 cannot; export it with --outtype f32"):
        run(folder, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()
    assert run(folder, tmp_path / "out", "gguf", F32).size > 0


def test_a_damaged_file_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = files.write

    def spoil(path: Path, *arguments: Any) -> None:
        real(path, *arguments)
        with path.open("r+b") as file:
            file.seek(-5000, os.SEEK_END)
            file.write(b"\x3f" * 64)

    monkeypatch.setattr(files, "write", spoil)
    with pytest.raises(ModelError, match="does not pass its check: nano.gguf: .* differs"):
        run(NANO, tmp_path / "nano", "gguf")
    assert [*tmp_path.iterdir()] == []


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llavar\[gguf\]'"):
        run(NANO, tmp_path / "out", "gguf")


def test_other_decoders_are_refused(families: Any, tmp_path: Path):
    decoder = families.make_decoder(tmp_path / "d", "qwen2")
    build(str(decoder), str(families.make_tower(tmp_path / "t", "clip")), tmp_path / "m")
    with pytest.raises(ModelError, match="is no CLIP tower with a plain Llama decoder"):
        run(tmp_path / "m", tmp_path / "out", "gguf")


# ---------------------------------------------------------------- vocabulary


def test_llamas_vocabulary_keeps_scores_and_types(tiny: Path):
    words = words_of(tiny)
    assert words.kind is Kind.MERGES
    assert words.types[:3] == (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL)
    assert words.types[3] is TokenType.BYTE
    assert words.tokens[-3:] == ("<im_patch>", "<im_start>", "<im_end>")
    assert words.types[-3:] == (TokenType.CONTROL,) * 3
    assert (words.bos, words.eos, words.unk, words.leading_blank) == (1, 2, 0, True)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=60))
def test_llamas_ids_are_llama_cpps(llama_words: tuple[Vocabulary, TextTokenizer], text: str):
    words, tokenizer = llama_words
    assert [words.bos, *words.encode(text)] == tokenizer.encode(text)


@pytest.fixture(scope="module")
def llama_words(
    tiny_sentencepiece: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Vocabulary, TextTokenizer]:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "tokenizer.model").write_bytes(tiny_sentencepiece)
    tokenizer = load_tokenizer(folder)
    return vocabulary(folder, tokenizer, tokenizer.vocab_size), tokenizer


PIECES = [
    token.content
    for token in NANO_TOKENIZER.backend.get_added_tokens_decoder().values()
    if token.content != "<unk>"
]
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12) | st.just("\n")


@settings(deadline=None, max_examples=120)
@given(st.lists(st.sampled_from(PIECES) | ASCII, max_size=8).map("".join))
def test_nanos_ids_are_llama_cpps_in_ascii(text: str):
    wanted = NANO_TOKENIZER.encode(text)
    assert NANO_WORDS.encode(text) == (wanted[1:] if not text.startswith("<s>") else wanted)


@pytest.mark.parametrize("text", ["What is the", "What does the word", "Is the words", "Which wordss lines"])
def test_overlapping_pieces_are_taken_from_the_left(text: str):
    """Two pieces of one length overlap in the first two: cut out by length, either could be taken."""
    assert NANO_WORDS.encode(text) == NANO_TOKENIZER.encode(text)[1:]


def test_rows_without_a_token_are_unused(tiny_sentencepiece: bytes, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(tiny_sentencepiece)
    tokenizer = load_tokenizer(tmp_path)
    words = vocabulary(tmp_path, tokenizer, tokenizer.vocab_size + 3)
    assert words.types[-3:] == (TokenType.UNUSED,) * 3
    assert len(set(words.tokens)) == len(words.tokens) == len(words.scores) == tokenizer.vocab_size + 3
    with pytest.raises(ModelError, match=f"an embedding of {tokenizer.vocab_size - 1} rows"):
        vocabulary(tmp_path, tokenizer, tokenizer.vocab_size - 1)


def test_without_tokenizer_model_a_llama_is_refused(tiny: Path, tmp_path: Path):
    (tiny / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match="no tokenizer.model, without which llama.cpp finds other tokens"):
        run(tiny, tmp_path / "out", "gguf")


def test_prompts_that_would_be_encoded_otherwise_are_refused(tiny: Path, tmp_path: Path):
    """A tokenizer.json that somebody saved with other rules, beside the tokenizer.model of the model."""
    document = json.loads((tiny / "tokenizer.json").read_text())
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    (tiny / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="would encode a prompt of .* otherwise than its tokenizer does"):
        run(tiny, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- llama.cpp itself


@contextmanager
def serving(program: str, folder: Path) -> Iterator[httpx.Client]:
    """A server on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = f"{Path(program).parent}:{os.environ['PATH']}"
    libraries = f"{Path(program).parent}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    command = [str(folder / "serve.sh"), "--port", str(port), "-t", "1", "-c", "1024", "--no-warmup"]
    with (
        (folder.parent / "log").open("wb") as log,
        subprocess.Popen(
            command,
            env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries},
            stdout=log,
            stderr=log,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        try:
            for _ in range(300):
                try:
                    if client.get("/health").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.poll() is None, (folder.parent / "log").read_text()[-2000:]
                time.sleep(0.2)
            yield client
        finally:
            process.terminate()


def test_llama_cpp_encodes_and_answers_text_as_the_model_does(tmp_path: Path):
    program = os.environ.get("LLAVAR_LLAMA_SERVER")
    if not program:
        pytest.skip("LLAVAR_LLAMA_SERVER names no llama-server")
    done = run(NANO, tmp_path / "nano", "gguf", F32)
    model: Any = hf.load_llava(NANO)
    tokenizer = load_tokenizer(NANO)
    questions = ("What is the word?", "Read everything.", "How many circles do you see?")
    with serving(program, done.folder) as client:
        for text in (*questions, "What does the word", " <im_start>Is the words\n"):
            asked = {"content": text, "parse_special": True}
            assert client.post("/tokenize", json=asked).json()["tokens"] == tokenizer.encode(text)[1:]
        for question in questions:
            messages = [{"role": "user", "content": question}]
            ids = tokenizer.encode(
                hf.stock_tokenizer(NANO).apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            )
            given = torch.tensor([ids])
            made = model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), max_new_tokens=16, do_sample=False
            )
            asked = {"messages": messages, "temperature": 0, "max_tokens": 16}
            found = client.post("/v1/chat/completions", json=asked).json()
            assert found["usage"]["prompt_tokens"] == len(ids)
            answer = tokenizer.decode(made[0, len(ids) :].tolist())
            assert found["choices"][0]["message"]["content"].strip() == answer.strip()


def test_the_layout_of_the_projector_does_not_matter(
    originals: Any, tiny_sentencepiece: bytes, tmp_path: Path
):
    original = originals.make_original(tmp_path / "in" / "llava", tiny_sentencepiece, text=64, vision=32)
    found: list[dict[str, Any]] = []
    for layout in (ProjectorLayout.FOLD, ProjectorLayout.IDENTITY):
        from_llava(original.folder, tmp_path / layout, options=Convert(layout=layout, self_test=False))
        run(tmp_path / layout, tmp_path / f"{layout}-out", "gguf", F32)
        found.append(stored(tmp_path / f"{layout}-out" / f"mmproj-{layout}-out.gguf"))
    one, two = found
    assert all(np.array_equal(one[name], two[name]) for name in one)
