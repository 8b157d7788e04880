"""The tokenizer of a checkpoint under examination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavar import chat
from llavar.errors import LlavarError, ModelError
from llavar.models.stored import LazyTensor
from llavar.models.tokenizer import TextTokenizer, from_sentencepiece, load_tokenizer
from llavar.study.doctor.findings import Finding, from_error, note, ok, problem

EMBEDDING = "model.embed_tokens.weight"
_PROBE = "Read  it\n"
_TEXT = "What  does the sign say?\n    It says: open from 9 to 17, caf\u00e9 </s> x"
"""Double blanks, an indentation and a special token: where tokenizers of other makings differ."""

_AROUND = (f"{_PROBE}{chat.IMAGE_PATCH}\nnow", f"{_PROBE.strip()}{chat.IMAGE_PATCH}now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A folder under examination; ``config`` and ``tensors`` are empty where they cannot be read."""

    folder: Path
    config: Mapping[str, object]
    tensors: Mapping[str, LazyTensor]


def tokenizer_of(case: Case) -> tuple[TextTokenizer | None, list[Finding]]:
    rows = case.tensors.get(EMBEDDING) or case.tensors.get(f"language_model.{EMBEDDING}")
    bare = not (case.folder / "tokenizer.json").is_file()
    try:
        if bare and (case.folder / "tokenizer.model").is_file():
            tokenizer = _bare(case, rows)
        else:
            tokenizer = load_tokenizer(case.folder)
    except LlavarError as error:
        return None, [from_error("tokenizer", error)]
    found: list[Finding] = []
    if rows is not None and tokenizer.vocab_size > rows.shape[0]:
        found.append(
            problem(
                "tokenizer",
                f"it has {tokenizer.vocab_size} tokens, and the embedding {rows.shape[0]} rows",
                "take tokenizer and weights from the same checkpoint",
            )
        )
    elif rows is not None and tokenizer.vocab_size < rows.shape[0]:
        spare = rows.shape[0] - tokenizer.vocab_size
        found.append(note("tokenizer", f"{spare} rows of the embedding belong to no token"))
    return tokenizer, found


def _bare(case: Case, rows: LazyTensor | None) -> TextTokenizer:
    """A ``tokenizer.model`` with as many tokens of LLaVA's as the embedding has rows for."""
    if (case.folder / "added_tokens.json").is_file() or rows is None:
        return load_tokenizer(case.folder)
    new = rows.shape[0] - from_sentencepiece(case.folder / "tokenizer.model", ()).vocab_size
    if new <= 0:
        return from_sentencepiece(case.folder / "tokenizer.model", ())
    return load_tokenizer(case.folder, v0=new in (2, 4), start_end=new > 2)


def self_test(case: Case, tokenizer: TextTokenizer) -> Iterator[Finding]:
    """A fixed prompt: one ``<s>``, image tokens that strip, and the ids of the sentencepiece file."""
    ids = tokenizer.encode(_PROBE)
    bos = tokenizer.bos_id
    wrong: list[str] = []
    if bos is not None and (ids[:1] != [bos] or ids.count(bos) != 1):
        wrong.append(f"a text gets {ids.count(bos)} {tokenizer.bos} where 1 at its start is right")
    if tokenizer.lookup(chat.IMAGE_PATCH) is not None and _is_sentencepiece(tokenizer):
        with_space, without = (tokenizer.encode(text) for text in _AROUND)
        if with_space != without:
            wrong.append(
                f"{chat.IMAGE_PATCH} does not strip the white space around it, as it did in the original"
            )
    model = case.folder / "tokenizer.model"
    if (case.folder / "tokenizer.json").is_file() and model.is_file():
        try:
            exact = from_sentencepiece(model, ()).encode(_TEXT)
        except ModelError:
            exact = None  # of another family
        if exact not in (None, tokenizer.encode(_TEXT)):
            wrong.append("tokenizer.json and tokenizer.model give different ids")
    for text in wrong:
        yield problem(
            "tokenizer", text, "convert the checkpoint again with llavar convert, from its original"
        )
    if not wrong:
        yield ok("tokenizer", f"{tokenizer.vocab_size} tokens; the self-test gives the ids it should")


def _is_sentencepiece(tokenizer: TextTokenizer) -> bool:
    model: Any = tokenizer.backend.model
    return bool(getattr(model, "byte_fallback", False))
