"""The steps from what is known of a picture to a conversation, whoever answers the requests, and when.

A lesson is a generator: it gives requests and is sent replies. Driven by a client it runs through; driven by
the replies that are there already it stops at the first request without one, which can then go into a batch
file. Every request differs from the ones before it, so that each reply is kept under its own hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple

from llavar.corpus.teaching.draft import Draft, Fault, FaultReason, read_draft, read_verdicts
from llavar.corpus.teaching.evidence import Evidence
from llavar.corpus.teaching.faults import faults
from llavar.corpus.teaching.prompt import Prompt
from llavar.corpus.teaching.replies import Paid
from llavar.llm import Message, Reply

_LOOKS = 2
"""Requests for a second look, of which the first may be answered with what is no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonSettings:
    """How a teacher is asked; everything here decides what comes out."""

    model: str
    temperature: float = 1.0
    max_tokens: int = 1500
    tries: int = 3
    second_look: bool = False
    look_temperature: float = 0.0
    max_text: int = 4000


class Request(NamedTuple):
    """One thing to ask the model."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float

    @property
    def key(self) -> str:
        """The hash under which its reply is kept: of the messages, the model and the settings."""
        return hashlib.sha256(json.dumps(self.body(), sort_keys=True).encode()).hexdigest()[:40]

    def body(self, limit_name: str = "max_tokens") -> dict[str, object]:
        """As chat completions have it."""
        return {
            "model": self.model,
            "messages": [message.document() for message in self.messages],
            limit_name: self.max_tokens,
            "temperature": self.temperature,
        }

    @property
    def size(self) -> int:
        """Bytes of its messages, of which no token has less than one."""
        return sum(len(message.text.encode()) for message in self.messages)


class Taken(NamedTuple):
    """How a lesson ended: a conversation or what is wrong, and all that was paid for it."""

    result: Draft | Fault
    paid: tuple[Paid, ...]


Steps = Generator[Request, Reply, Draft | Fault]


def take(steps: Steps, answer: Callable[[Request], Paid | None]) -> Taken | Request:
    """Go through a lesson as far as there are answers; the first request without one ends it."""
    paid: list[Paid] = []
    try:
        request = next(steps)
        while (got := answer(request)) is not None:
            paid.append(got)
            request = steps.send(got.reply)
        return request
    except StopIteration as end:
        return Taken(end.value, tuple(paid))


def lesson(prompt: Prompt, evidence: Evidence, settings: LessonSettings) -> Steps:
    """A conversation that passes all checks, or why there is none."""
    if not any(evidence.readings):
        return Fault(FaultReason.NOTHING_READ)
    if evidence.chars > settings.max_text:
        return Fault(
            FaultReason.TOO_MUCH, f"{evidence.chars} characters, at most {settings.max_text} are allowed"
        )
    draft = yield from _drafted(prompt, evidence, settings)
    if isinstance(draft, Fault) or not settings.second_look:
        return draft
    return (yield from _looked_at(prompt, evidence, draft, settings))


def _drafted(prompt: Prompt, evidence: Evidence, settings: LessonSettings) -> Steps:
    messages = prompt.messages(evidence)
    result = Fault(FaultReason.NO_REPLY)
    for _ in range(settings.tries):
        reply = yield Request(settings.model, messages, settings.max_tokens, settings.temperature)
        found = read_draft(reply)
        result = found if isinstance(found, Fault) else next(faults(found, evidence), found)
        if isinstance(result, Draft) or result.reason == FaultReason.REFUSED:
            return result
        messages = prompt.again(messages, reply.text, result)
    return result


def _looked_at(prompt: Prompt, evidence: Evidence, draft: Draft, settings: LessonSettings) -> Steps:
    """The turns before the first that is not supported: those after it may build on it."""
    messages = prompt.look_messages(evidence, draft)
    result = Fault(FaultReason.NO_REPLY)
    for _ in range(_LOOKS):
        reply = yield Request(settings.model, messages, settings.max_tokens, settings.look_temperature)
        found = read_verdicts(reply, len(draft.turns))
        if not isinstance(found, Fault):
            count = (*found.supported, False).index(False)
            return Draft(turns=draft.turns[:count]) if count else Fault(FaultReason.LOOK, draft.texts[0][:80])
        result = Fault(found.reason, f"second look: {found.detail}")
        messages = prompt.again(messages, reply.text, found)
    return result
