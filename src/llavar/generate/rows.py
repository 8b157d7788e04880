"""One answer under way, and the choice of the next token of many of them."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from llavar.errors import LlavarError, ModelError
from llavar.generate.decode import draw
from llavar.generate.dialogue import Asked, Chance, Finish, OnPiece, Piece
from llavar.generate.features import Pixels
from llavar.generate.prefixes import Keys
from llavar.generate.prompting import Prepared
from llavar.generate.spelling import Speller
from llavar.models.tokenizer import TextTokenizer


class Row:
    """An answer that waits or runs; also its ticket.

    ``names`` are fingerprints of its pictures. ``limit`` bounds its tokens. ``freed`` is called, from any
    thread, when it is cancelled.
    """

    def __init__(
        self,
        asked: Asked,
        prepared: Prepared,
        names: Sequence[str],
        pixels: dict[str, Pixels],
        speller: Speller,
        *,
        limit: int,
        on_piece: OnPiece,
        freed: Callable[[Row], None],
    ) -> None:
        self.decoding, self.top_logprobs = asked.decoding, asked.top_logprobs  # not its pictures
        self.ids, self.places = prepared.ids, prepared.places
        self.names, self.pixels = list(names), pixels
        self.keys = _keys(prepared, names)
        self.limit = limit
        self.made: list[int] = []
        self.cancelled = threading.Event()
        self.ended = False
        self._speller, self._on_piece, self._freed = speller, on_piece, freed
        self._random = random.Random(answer_seed(asked, names))
        self._chances: list[tuple[int, Chance]] = []  # where its token begins, and the token

    def cancel(self) -> None:
        self.cancelled.set()
        self._freed(self)

    @property
    def greedy(self) -> bool:
        return self.decoding.greedy

    def names_after(self, known: int) -> list[str]:
        """The pictures that stand after the first ``known`` tokens."""
        return [name for name, place in zip(self.names, self.places, strict=True) if place[0] >= known]

    def uniform(self) -> float:
        """The next number of the row's own stream, in [0, 1)."""
        return self._random.random()

    @property
    def all_keys(self) -> Keys:
        """Of the tokens whose keys and values have been computed: the last one made has not been seen."""
        return np.concatenate([self.keys, np.array(self.made[:-1], dtype=np.int64)])

    def take(self, token: int, end: int | None, chance: Chance | None) -> Finish | None:
        """Take one more token; whether the answer has ended with it, and why."""
        self.made.append(token)
        if token == end:
            return Finish.STOP
        if chance is not None:
            self._chances.append((self._speller.length, chance))
        if self._speller.add(token):
            return Finish.STOP
        return Finish.LENGTH if len(self.made) >= self.limit else None

    def tell(self) -> None:
        """Hand out what can be."""
        text = self._speller.take()
        if text:
            self._send(text, None, None)

    def end(self, finish: Finish, error: LlavarError | None = None) -> None:
        """Hand out the rest. What was made is not lost where something went wrong."""
        self.ended = True
        self._send(self._speller.finish(), finish, error)

    def _send(self, text: str, finish: Finish | None, error: LlavarError | None) -> None:
        cut = self._speller.cut
        chances = tuple(chance for start, chance in self._chances if cut is None or start < cut)
        self._chances = []
        piece = Piece(
            text=text,
            chances=chances,
            prompt_tokens=len(self.ids),
            completion_tokens=len(self.made),
            finish=finish,
            error=error,
        )
        try:
            self._on_piece(piece)
        except Exception:  # noqa: BLE001 - whoever listens is broken, so nobody is left to answer
            self.cancelled.set()


def _keys(prepared: Prepared, names: Sequence[str]) -> Keys:
    keys = np.array(prepared.ids, dtype=np.int64)
    for name, (start, end) in zip(names, prepared.places, strict=True):
        keys[start:end] = -1 - (int(name[:16], 16) >> 2)
    return keys


def answer_seed(asked: Asked, names: Sequence[str]) -> int:
    """The seed of an answer's own stream of random numbers: of the seed, the id and the dialogue."""
    pictures = iter(names)
    turns = [
        [said.role.value, [part if isinstance(part, str) else [next(pictures)] for part in said.parts]]
        for said in asked.dialogue.turns
    ]
    content = json.dumps([asked.decoding.seed, asked.id, asked.dialogue.system, turns])
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")


# --- the next tokens ------------------------------------------------------------------------------------


def choose(rows: Sequence[Row], logits: Tensor) -> list[int | None]:
    """The next token of each row from logits (R, V); None where the model gave no numbers."""
    tokens = logits.argmax(-1)
    drawn = [place for place, row in enumerate(rows) if not row.greedy]
    best = logits.gather(1, tokens[:, None])[:, 0]
    usable = torch.isfinite(best)
    if drawn:
        tokens[drawn] = _drawn([rows[place] for place in drawn], logits[drawn])
    numbers = cast("list[int]", torch.where(usable, tokens, -1).tolist())  # pyright: ignore[reportUnknownMemberType]
    return [None if token < 0 else token for token in numbers]


def _drawn(rows: Sequence[Row], logits: Tensor) -> Tensor:
    decodings = [row.decoding for row in rows]
    temperature = torch.tensor([d.temperature for d in decodings], device=logits.device)[:, None]
    top_p = torch.tensor([d.top_p for d in decodings], device=logits.device, dtype=torch.float64)[:, None]
    uniform = torch.tensor([row.uniform() for row in rows], device=logits.device, dtype=torch.float64)
    return draw(logits.float() / temperature.clamp(min=1e-4), top_p, uniform)


def chances(
    rows: Sequence[Row], tokens: Sequence[int | None], logits: Tensor, tokenizer: TextTokenizer
) -> list[Chance | None]:
    """The log probabilities that rows asked for, from logits (R, V)."""
    found: list[Chance | None] = [None] * len(rows)
    for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        count = row.top_logprobs
        if count is None or token is None:
            continue
        logs = logits[place].double().log_softmax(-1)
        values, order = logs.topk(min(count, len(logs)))
        spelt = [_spelt(tokenizer, int(index)) for index in order]
        top = tuple((text, float(value)) for text, value in zip(spelt, values, strict=True))
        found[place] = Chance(text=_spelt(tokenizer, token), logprob=float(logs[token]), top=top)
    return found


def _spelt(tokenizer: TextTokenizer, token: int) -> str:
    try:
        return tokenizer.piece(token)
    except ModelError:  # models have rows beyond their tokenizer's vocabulary
        return ""
