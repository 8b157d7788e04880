"""The parts of the export to llama.cpp: scores of pieces, templates for marks, rounding."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from llavar import chat
from llavar.errors import ModelError
from llavar.models.export.base import OutType
from llavar.models.export.ggml import files
from llavar.models.export.ggml.template import for_marks, strips
from llavar.models.export.ggml.tensors import Part
from llavar.models.export.ggml.vocabulary import vocabulary
from llavar.models.tokenizer import TextTokenizer, from_sentencepiece, nano_tokenizer

gguf = pytest.importorskip("gguf")

LETTERS = "abc "
TURNS = [
    {"role": "user", "content": "Q<__media_x1__>"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "<__media_x2__><__media_x3__>R > S"},
]


def of_pieces(pieces: list[str], **how: Any) -> TextTokenizer:
    """A tokenizer of single characters and added pieces."""
    listed = ["<unk>", "<s>", "</s>", *LETTERS]
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(listed)}, merges=[], unk_token="<unk>"))
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in listed[:3]])
    backend.add_tokens([AddedToken(t, normalized=False, **how) for t in pieces])
    return TextTokenizer(backend=backend, bos="<s>", eos="</s>", pad="<unk>", unk="<unk>")


def rendered(source: str, messages: list[Any]) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True
    )


# ---------------------------------------------------------------- scores


@settings(deadline=None, max_examples=150)
@given(
    pieces=st.lists(st.text(LETTERS, min_size=2, max_size=5), unique=True, max_size=5),
    text=st.text(LETTERS, max_size=20),
)
def test_any_pieces_are_found_as_the_tokenizer_does_or_refused(pieces: list[str], text: str):
    tokenizer = of_pieces(pieces)
    with suppress(ModelError):
        words = vocabulary(Path("model"), tokenizer, tokenizer.vocab_size)
        assert words.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("pieces", [["ab", "ba"], ["aaa"], ["aba"]])
def test_pieces_that_overlap_in_a_circle_are_refused(pieces: list[str]):
    tokenizer = of_pieces(pieces)
    with pytest.raises(ModelError, match="overlap in a circle"):
        vocabulary(Path("model"), tokenizer, tokenizer.vocab_size)


def test_pieces_that_strip_are_refused():
    tokenizer = of_pieces(["ab"], lstrip=True)
    with pytest.raises(ModelError, match="strip or normalize"):
        vocabulary(Path("model"), tokenizer, tokenizer.vocab_size)


def test_a_tokenizer_without_a_start_is_refused():
    tokenizer = TextTokenizer(backend=of_pieces([]).backend, bos=None, eos="</s>", pad=None, unk="<unk>")
    with pytest.raises(ModelError, match="without bos_token"):
        vocabulary(Path("model"), tokenizer, tokenizer.vocab_size)


def test_a_tokenizer_of_another_kind_is_refused(families: Any, tmp_path: Path):
    backend = families.save_tokenizer(tmp_path, "llama3")
    tokenizer = TextTokenizer(backend=backend, bos="<|begin_of_text|>", eos="<|eot_id|>", pad=None, unk=None)
    with pytest.raises(ModelError, match="no tokenizer.model"):
        vocabulary(tmp_path, tokenizer, tokenizer.vocab_size)


def test_a_damaged_tokenizer_model_is_refused(tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="Git LFS pointer"):
        vocabulary(tmp_path, nano_tokenizer(), 200)
    (tmp_path / "tokenizer.model").write_bytes(b"\x00\x01 no model")
    with pytest.raises(ModelError, match="no readable sentencepiece model"):
        vocabulary(tmp_path, nano_tokenizer(), 200)


def test_a_hole_behind_the_pieces_is_refused(tiny_sentencepiece: bytes, tmp_path: Path):
    """Added tokens whose ids do not follow those of ``tokenizer.model``."""
    (tmp_path / "tokenizer.model").write_bytes(tiny_sentencepiece)
    document = json.loads(from_sentencepiece(tmp_path / "tokenizer.model").backend.to_str())
    document["model"]["vocab"]["<hole>"] = max(document["model"]["vocab"].values()) + 9
    backend = Tokenizer.from_str(json.dumps(document))
    tokenizer = TextTokenizer(backend=backend, bos="<s>", eos="</s>", pad=None, unk="<unk>")
    with pytest.raises(ModelError):
        vocabulary(tmp_path, tokenizer, tokenizer.vocab_size)


# ---------------------------------------------------------------- templates


def test_marks_stand_between_the_tokens_on_lines_of_their_own():
    tokenizer = nano_tokenizer()
    assert not strips(tokenizer, chat.IMAGE_PATCH)
    said = rendered(for_marks(tokenizer, chat.IMAGE_PATCH), TURNS)
    assert said.startswith("<s>You are LLaVA")
    assert said.endswith(
        " USER: Q\n<im_start><__media_x1__><im_end> ASSISTANT: A</s>"
        "USER: <im_start><__media_x2__><im_end>\n<im_start><__media_x3__><im_end>\nR > S ASSISTANT:"
    )


def test_blanks_that_the_tokens_strip_are_not_written(tiny_sentencepiece: bytes, tmp_path: Path):
    (tmp_path / "tokenizer.model").write_bytes(tiny_sentencepiece)
    tokenizer = from_sentencepiece(tmp_path / "tokenizer.model")
    source = chat.jinja_source(chat.get("llava_v1"))
    tokenizer = TextTokenizer(
        backend=tokenizer.backend, bos="<s>", eos="</s>", pad=None, unk="<unk>", chat_template=source
    )
    assert strips(tokenizer, chat.IMAGE_PATCH)
    turns = [{"role": "user", "content": " Q \n<__media_x1__>  "}, *TURNS[1:]]
    said = rendered(for_marks(tokenizer, chat.IMAGE_PATCH), turns)
    assert said.endswith(
        " USER:  Q<im_start><__media_x1__><im_end>ASSISTANT: A</s>"
        "USER:<im_start><__media_x2__><im_end><im_start><__media_x3__><im_end>R > S ASSISTANT:"
    )


def test_text_alone_is_written_as_ever():
    tokenizer = nano_tokenizer()
    turns = [{"role": "user", "content": "Q"}]
    assert rendered(for_marks(tokenizer, chat.IMAGE_PATCH), turns) == rendered(tokenizer.chat_template, turns)


# ---------------------------------------------------------------- files


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-6, 1e-2, 1.0, 300.0]))
@pytest.mark.parametrize("kept", list(OutType))
def test_rounding_stays_within_half_a_step(
    tmp_path_factory: pytest.TempPathFactory, kept: OutType, seed: int, scale: float
):
    values = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)) * scale
    part = Part(name="x", shape=(3, 64), kept=kept, make=lambda: values)
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    told: list[int] = []
    files.write(path, "llama", {"a.number": 0.1, "a.list": [0.1, 0.2], "a.flag": True}, [part], told.append)
    assert told == [part.nbytes]
    found = files.compare(path, {"a.number": 0.1, "a.list": [0.1, 0.2], "a.flag": True}, [part])
    assert (found.tensors, found.equal) == (1, int(kept is OutType.F32))
    for wrong in ({"a.number": 0.2}, {"a.flag": False}, {"a.list": [0.1]}, {"a.nothing": 1}):
        with pytest.raises(ModelError, match="is not what was written"):
            files.compare(path, wrong, [part])
    other = Part(name="x", shape=(3, 64), kept=kept, make=lambda: values + scale + 1e-3)
    with pytest.raises(ModelError, match="x differs by"):
        files.compare(path, {}, [other])
    turned = Part(name="x", shape=(64, 3), kept=kept, make=lambda: values.T)
    with pytest.raises(ModelError, match="another shape or type"):
        files.compare(path, {}, [turned])
    with pytest.raises(ModelError, match="names of the tensors"):
        files.compare(path, {}, [part, Part(name="y", shape=(1,), kept=kept, make=lambda: values[0, :1])])


def test_arrays_are_contiguous_fp32():
    part = Part(name="x", shape=(2, 3), kept=OutType.F16, make=lambda: torch.ones(3, 2).half().T)
    array = part.array()
    assert array.dtype == np.float32
    assert array.flags["C_CONTIGUOUS"]
