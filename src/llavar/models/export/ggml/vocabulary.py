"""Vocabularies as llama.cpp keeps them, and encoding as it does it, so that ids can be compared before use.

Two kinds of tokenizers have a counterpart there. ``tokenizer.model`` files of LLaMA are its ``llama``: pairs
are merged by score. A tokenizer of single characters and whole added pieces, as nano's, is its ``t5``: the
pieces' scores are chosen here so that the best path takes the leftmost and longest piece, as tokenizers do.
(As user-defined tokens they would be cut out in the order of their length, which is another thing.)
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from llavar.errors import ModelError
from llavar.models.tokenizer import TextTokenizer, from_sentencepiece

BLANK = "\u2581"
_UNKNOWN_PENALTY = 10.0
_EXACT = 2**24
"""Whole numbers up to here are exact in a float of 32 bits."""


class Kind(StrEnum):
    """How llama.cpp finds tokens; the value is what a file says as ``tokenizer.ggml.model``."""

    MERGES = "llama"
    BEST_PATH = "t5"


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Tokens by id, with a score and a type each.

    ``leading_blank`` puts a blank before every stretch of text between special tokens.
    """

    kind: Kind
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[TokenType, ...]
    bos: int
    eos: int
    unk: int
    pad: int
    leading_blank: bool

    def encode(self, text: str) -> list[int]:
        """The ids of a stretch of text as llama.cpp finds them, special tokens read, no ``<s>`` put first."""
        return _Encoder(self).encode(text)


def vocabulary(folder: Path, tokenizer: TextTokenizer, rows: int) -> Vocabulary:
    """The vocabulary of a model folder, with unused tokens up to ``rows``, which the embedding has.

    Raises:
        ModelError: llama.cpp has no tokenizer that gives the same ids.
    """
    model = folder / "tokenizer.model"
    if model.is_file():
        return _from_sentencepiece(model, tokenizer, rows)
    document: Any = json.loads(tokenizer.backend.to_str())
    if document["model"].get("type") == "BPE" and not document["model"].get("merges"):
        return _from_characters(folder, tokenizer, document, rows)
    raise ModelError(
        f"{folder} has no tokenizer.model, without which llama.cpp finds other tokens than the model was "
        "trained with; copy the one of its LLaMA into the folder, or use llavar serve or the export to vllm"
    )


def _special_ids(folder: Path, tokenizer: TextTokenizer) -> dict[str, int]:
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "unk": tokenizer.unk_id}
    missing = [name for name, index in ids.items() if index is None]
    if missing:
        raise ModelError(
            f"{folder} has a tokenizer without {missing[0]}_token, which llama.cpp needs; name it in "
            "tokenizer_config.json"
        )
    found = {name: index for name, index in ids.items() if index is not None}
    pad = tokenizer.pad_id
    return {**found, "pad": found["unk"] if pad is None else pad}


def _filled(tokens: Sequence[str], rows: int, folder: Path) -> list[str]:
    if len(tokens) > rows:
        raise ModelError(
            f"{folder} has {len(tokens)} tokens and an embedding of {rows} rows; take both from the same "
            "checkpoint"
        )
    return [*tokens, *(f"[UNUSED_{index}]" for index in range(len(tokens), rows))]


# ---------------------------------------------------------------- from tokenizer.model


def _from_sentencepiece(model: Path, tokenizer: TextTokenizer, rows: int) -> Vocabulary:
    import sentencepiece

    from_sentencepiece(model, ())  # refuses what is damaged, a pointer, or not LLaMA's
    reader: Any = sentencepiece.SentencePieceProcessor(model_proto=model.read_bytes())
    size = int(reader.GetPieceSize())
    tokens = [str(reader.IdToPiece(index)) for index in range(size)]
    scores = [float(reader.GetScore(index)) for index in range(size)]
    types = [_piece_type(reader, index) for index in range(size)]
    for index in range(size, tokenizer.vocab_size):
        token = tokenizer.backend.id_to_token(index)
        if token is None:
            raise ModelError(
                f"{model.parent} has no token of the id {index}, which lies behind those of tokenizer.model; "
                "take both tokenizer files from the same checkpoint"
            )
        tokens.append(token)
        scores.append(-1000.0)
        types.append(TokenType.CONTROL)
    filled = _filled(tokens, rows, model.parent)
    empty = rows - len(tokens)
    return Vocabulary(
        kind=Kind.MERGES,
        tokens=tuple(filled),
        scores=(*scores, *[-1000.0] * empty),
        types=(*types, *[TokenType.UNUSED] * empty),
        leading_blank=True,
        **_special_ids(model.parent, tokenizer),
    )


def _piece_type(reader: Any, index: int) -> TokenType:
    if reader.IsUnknown(index):
        return TokenType.UNKNOWN
    if reader.IsControl(index):
        return TokenType.CONTROL
    if reader.IsByte(index):
        return TokenType.BYTE
    return TokenType.UNUSED if reader.IsUnused(index) else TokenType.NORMAL


# ---------------------------------------------------------------- from single characters


def _from_characters(
    folder: Path, tokenizer: TextTokenizer, document: Mapping[str, Any], rows: int
) -> Vocabulary:
    added = {int(token["id"]): token for token in document["added_tokens"]}
    listed: list[str] = []
    for index in range(tokenizer.vocab_size):
        token = tokenizer.backend.id_to_token(index)
        if token is None or (index not in added and len(token) != 1):
            raise ModelError(
                f"{folder} has the token {token!r:.40} of the id {index}, which is neither one character nor "
                "an added token, so llama.cpp cannot find it as the tokenizer does; use llavar serve"
            )
        listed.append(token)
    pieces = [str(t["content"]) for t in added.values() if not t["special"]]
    if any(t["lstrip"] or t["rstrip"] or t["normalized"] or t["single_word"] for t in added.values()):
        raise ModelError(
            f"{folder} has added tokens that strip or normalize the text around them, which llama.cpp does "
            "not; use llavar serve"
        )
    scores = _piece_scores(folder, pieces)
    special = {index for index, token in added.items() if token["special"]}
    ids = _special_ids(folder, tokenizer)
    filled = _filled(listed, rows, folder)
    types = [_character_type(index, special, ids["unk"], len(listed)) for index in range(rows)]
    return Vocabulary(
        kind=Kind.BEST_PATH,
        tokens=tuple(t if i in special else t.replace(" ", BLANK) for i, t in enumerate(filled)),
        scores=tuple(
            scores.get(token, -1.0) if types[i] is TokenType.NORMAL else 0.0 for i, token in enumerate(filled)
        ),
        types=tuple(types),
        leading_blank=False,
        **ids,
    )


def _character_type(index: int, special: set[int], unk: int, size: int) -> TokenType:
    if index >= size:
        return TokenType.UNUSED
    if index == unk:
        return TokenType.UNKNOWN
    return TokenType.CONTROL if index in special else TokenType.NORMAL


def _piece_scores(folder: Path, pieces: Sequence[str]) -> dict[str, float]:
    """Scores by which the best path over characters (-1 each) takes leftmost and longest pieces.

    Taking a piece instead of its characters gains ``score + length``. That of a piece exceeds the sum over
    all pieces that may begin within it, so nothing that begins later, or is shorter, is worth leaving it.

    Raises:
        ModelError: pieces overlap in a circle, or in chains too long for the format's floats.
    """
    gains: dict[str, int] = {}

    def gain(piece: str, above: tuple[str, ...]) -> int:
        if piece in above:
            raise ModelError(
                f"{folder} has pieces that overlap in a circle ({' / '.join(above)!r:.80}), which llama.cpp "
                "cannot find as the tokenizer does; use llavar serve"
            )
        if piece not in gains:
            gains[piece] = 1 + sum(gain(other, (*above, piece)) for other in _rivals(piece, pieces))
        return gains[piece]

    for piece in pieces:
        if gain(piece, ()) > _EXACT:
            raise ModelError(f"{folder} has pieces that overlap in too many ways for GGUF; use llavar serve")
    return {piece: float(gains[piece] - len(piece)) for piece in pieces}


def _rivals(piece: str, pieces: Sequence[str]) -> Iterator[str]:
    """Pieces that can begin within ``piece``, once for each place where they can."""
    for start in range(len(piece)):
        rest = piece[start:]
        for other in pieces:
            fits = rest.startswith(other) or (start > 0 and other.startswith(rest))
            # A piece that can begin within itself is its own rival: both places would gain as much.
            if fits and (start > 0 or other != piece):
                yield other


# ---------------------------------------------------------------- encoding


class _Encoder:
    """llama.cpp's two algorithms, from ``tokenizer_st_partition`` and the sessions of its tokenizers."""

    def __init__(self, words: Vocabulary) -> None:
        self._words = words
        self._ids = {token: index for index, token in enumerate(words.tokens)}
        apart = (TokenType.CONTROL, TokenType.UNKNOWN)
        specials = [words.tokens[i] for i, kind in enumerate(words.types) if kind in apart]
        specials.sort(key=lambda token: -len(token.encode()))
        self._special = re.compile("(" + "|".join(map(re.escape, specials)) + ")")
        self._longest = max(map(len, words.tokens))
        self._specials = frozenset(specials)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        after_special = True
        for part in self._special.split(text):
            if part in self._specials:
                ids.append(self._ids[part])
                after_special = True
            elif part:
                blank = " " if self._words.leading_blank and after_special else ""
                given = (blank + part).replace(" ", BLANK)
                ids += self._merged(given) if self._words.kind is Kind.MERGES else self._best_path(given)
                after_special = False
        return ids

    def _merged(self, text: str) -> list[int]:
        """Neighbours become one token, the best score first, the leftmost of equal ones."""
        parts: list[str] = list(text)
        following = [*range(1, len(parts)), -1]
        before = [-1, *range(len(parts) - 1)]
        waiting: list[tuple[float, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            index = self._ids.get(parts[left] + parts[right]) if left >= 0 and right >= 0 else None
            if index is not None:
                size = len(parts[left]) + len(parts[right])
                heapq.heappush(waiting, (-self._words.scores[index], left, right, size))

        for left in range(len(parts) - 1):
            offer(left, left + 1)
        while waiting:
            _, left, right, size = heapq.heappop(waiting)
            if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != size:
                continue
            parts[left] += parts[right]
            parts[right] = ""
            following[left] = following[right]
            if following[right] >= 0:
                before[following[right]] = left
            offer(before[left], left)
            offer(left, following[left])
        return [index for part in parts if part for index in self._or_bytes(part)]

    def _or_bytes(self, part: str) -> list[int]:
        if part in self._ids:
            return [self._ids[part]]
        return [self._ids.get(f"<0x{byte:02X}>", self._words.unk) for byte in part.encode()]

    def _best_path(self, text: str) -> list[int]:
        """The path of the highest sum of scores; unknown characters in a row are one token."""
        unknown = min(self._words.scores) - _UNKNOWN_PENALTY
        best: list[tuple[float, int, int]] = [(0.0, -1, -1), *[(float("-inf"), -1, -1)] * len(text)]
        for start in range(len(text)):
            total = best[start][0]
            steps = [(1, self._words.unk, unknown)] if text[start] not in self._ids else []
            for end in range(start + 1, min(len(text), start + self._longest) + 1):
                index = self._ids.get(text[start:end])
                if index is not None and self._words.types[index] is TokenType.NORMAL:
                    steps.append((end - start, index, self._words.scores[index]))
            for size, index, score in steps:
                if total + score > best[start + size][0]:
                    best[start + size] = (total + score, index, start)
        ids: list[int] = []
        end = len(text)
        while end > 0:
            _, index, start = best[end]
            if not (ids and index == ids[-1] == self._words.unk):
                ids.append(index)
            end = start
        return ids[::-1]
