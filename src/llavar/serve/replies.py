"""From pieces of answers to what the protocol calls completions and chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llavar.generate.dialogue import Chance, Finish, Piece
from llavar.serve.schema import (
    Answer,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    FinishReason,
    Logprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
)

_LEAST = -9999.0
"""Stands for the logarithm of 0, which JSON cannot hold."""


@dataclass(slots=True, kw_only=True)
class _Written:
    """One answer so far."""

    texts: list[str] = field(default_factory=list[str])
    chances: list[Chance] = field(default_factory=list[Chance])
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    begun: bool = False


class Reply:
    """The ``n`` answers to one request."""

    def __init__(self, *, id: str, model: str, created: int, n: int, logprobs: bool) -> None:
        self._id, self._model, self._created, self._logprobs = id, model, created, logprobs
        self._answers = [_Written() for _ in range(n)]

    @property
    def usage(self) -> Usage:
        prompt = max(answer.prompt_tokens for answer in self._answers)
        completion = sum(answer.completion_tokens for answer in self._answers)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def add(self, index: int, piece: Piece) -> None:
        """Keep a piece for :attr:`completion`."""
        answer = self._count(index, piece)
        answer.texts.append(piece.text)
        answer.chances.extend(piece.chances)

    @property
    def completion(self) -> Completion:
        """All of it, once every answer has ended."""
        choices = [
            Choice(
                index=index,
                message=Answer(content="".join(answer.texts)),
                logprobs=_logprobs(answer.chances) if self._logprobs else None,
                finish_reason=answer.finish or "stop",
            )
            for index, answer in enumerate(self._answers)
        ]
        return Completion(
            id=self._id, created=self._created, model=self._model, choices=choices, usage=self.usage
        )

    def chunks(self, index: int, piece: Piece) -> Iterator[Chunk]:
        """What a piece adds to a stream; it is not kept. The first one of an answer says who speaks."""
        answer = self._count(index, piece)
        if not answer.begun:
            answer.begun = True
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))
        if piece.text or (self._logprobs and piece.chances):
            logprobs = _logprobs(piece.chances) if self._logprobs else None
            yield self._chunk(ChunkChoice(index=index, delta=Delta(content=piece.text), logprobs=logprobs))
        if answer.finish:
            yield self._chunk(ChunkChoice(index=index, delta=Delta(), finish_reason=answer.finish))

    def last_chunk(self) -> Chunk:
        """The one with the counts, for clients that ask for it."""
        return Chunk(id=self._id, created=self._created, model=self._model, choices=[], usage=self.usage)

    def _chunk(self, choice: ChunkChoice) -> Chunk:
        return Chunk(id=self._id, created=self._created, model=self._model, choices=[choice])

    def _count(self, index: int, piece: Piece) -> _Written:
        answer = self._answers[index]
        answer.prompt_tokens = max(answer.prompt_tokens, piece.prompt_tokens)
        answer.completion_tokens = max(answer.completion_tokens, piece.completion_tokens)
        if piece.finish is not None:
            answer.finish = "length" if piece.finish is Finish.LENGTH else "stop"
        return answer


def _logprobs(chances: list[Chance] | tuple[Chance, ...]) -> Logprobs:
    return Logprobs(
        content=[
            TokenLogprob(
                token=chance.text,
                logprob=max(chance.logprob, _LEAST),
                bytes=list(chance.text.encode("utf-8", "replace")),
                top_logprobs=[
                    TopLogprob(
                        token=text, logprob=max(value, _LEAST), bytes=list(text.encode("utf-8", "replace"))
                    )
                    for text, value in chance.top
                ],
            )
            for chance in chances
        ]
    )
