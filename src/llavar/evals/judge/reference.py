"""Reference answers by a text model that is told what the picture shows, as LLaVA made those of qa90."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from llavar.errors import DataError, FetchError
from llavar.evals.judge.files import Asked, read_rows
from llavar.evals.judge.log import Log
from llavar.evals.judge.run import HOPELESS, Judged, Progress, silent
from llavar.llm import Client, Message, Reply, many

SYSTEM = (
    "You answer questions about an image as if you saw it. You are given what is in it: sentences that "
    "describe it, and possibly the text that is written in it, or objects with their bounding boxes as "
    "[x1, y1, x2, y2] in shares of its width and height. Answer from this alone and do not invent anything. "
    "Never mention that you were given a description, sentences, OCR or coordinates."
)


def reference_prompt(asked: Asked) -> str:
    """The user turn that asks for a reference answer."""
    return f"[Context]\n{asked.context.text}\n\n[Question]\n{asked.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    asked: Asked
    model: str
    max_tokens: int
    temperature: float

    @property
    def messages(self) -> tuple[Message, ...]:
        return (
            Message(role="system", text=SYSTEM),
            Message(role="user", text=reference_prompt(self.asked)),
        )

    @property
    def key(self) -> str:
        """A digest of all that decides the answer."""
        content = [SYSTEM, reference_prompt(self.asked), self.model, self.temperature, self.max_tokens]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def answer_all(
    questions: Sequence[Asked],
    client: Client,
    *,
    out: Path,
    max_tokens: int = 1024,
    temperature: float = 0.0,
    workers: int = 8,
    progress: Progress | None = None,
) -> Judged:
    """Append an answer to each question to ``out``, in LLaVA's format, as soon as there is one.

    Questions that ``out`` already answers are not asked again. One that fails leaves no row: the next run
    asks it again. Raises as :func:`~llavar.evals.judge.run.judge` does.
    """
    planned = [
        _Request(asked=asked, model=client.endpoint.model, max_tokens=max_tokens, temperature=temperature)
        for asked in questions
    ]
    done = _earlier(out, {str(request.asked.id): request.key for request in planned})
    todo = [request for request in planned if str(request.asked.id) not in done]
    report = progress or silent
    kept, failed, error = len(planned) - len(todo), 0, ""
    with Log(out) as log:
        report(kept, len(planned))

        def work(request: _Request) -> None:
            log.append(_row(request, _ask(request, client)))

        for number, result in enumerate(many(work, todo, workers=workers), 1):
            failed += result.error is not None
            error = str(result.error or error)
            if number == failed == HOPELESS:
                raise FetchError(f"the first {HOPELESS} requests all failed, the last so: {error}")
            report(kept + number, len(planned))
    return Judged(asked=len(todo), kept=kept, failed=failed, error=error)


def _ask(request: _Request, client: Client) -> Reply:
    def ask(fresh: bool) -> Reply:
        return client.chat(
            request.messages, max_tokens=request.max_tokens, temperature=request.temperature, fresh=fresh
        )

    reply = ask(fresh=False)
    if reply.cached and not reply.text.strip():
        reply = ask(fresh=True)  # an empty answer is a failure, which a cache must not keep alive
    if not reply.text.strip():
        raise FetchError(
            f"the answer to question {request.asked.id!r} is empty ({reply.finish or 'no reason given'}); "
            "allow more tokens, or ask another model"
        )
    return reply


def _row(request: _Request, reply: Reply) -> dict[str, object]:
    """An answer row as LLaVA writes it; what it was made from and by whom is in ``metadata``."""
    return {
        "question_id": request.asked.id,
        "text": reply.text,
        "category": request.asked.category,
        "answer_id": request.key,
        "model_id": reply.model,
        "metadata": {
            "asked": request.model,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "finish": reply.finish,
            "key": request.key,
        },
    }


def _earlier(out: Path, keys: Mapping[str, str]) -> set[str]:
    """The ids that ``out`` answers, all of them by the same model from the same contexts."""
    done: set[str] = set()
    for row, place in read_rows(out, log=True) if out.exists() else ():
        name, metadata = str(row.get("question_id")), row.get("metadata")
        key = cast(dict[str, object], metadata).get("key") if isinstance(metadata, dict) else None
        if name not in keys or key != keys[name]:
            raise DataError(
                f"{place} answers another question, from another context, with other settings or by another "
                "model; name another file with --out, or delete this one"
            )
        done.add(name)
    return done
