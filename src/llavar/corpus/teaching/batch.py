"""Requests and replies in files: OpenAI's batch format, which ``vllm run-batch`` reads and writes as well."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from llavar.corpus.item import Item
from llavar.corpus.teaching.lesson import Request
from llavar.corpus.teaching.replies import STORE, Replies, counted
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.errors import DataError, NotFoundError, StorageError
from llavar.llm import Reply, whole

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one file; OpenAI takes no more than 50 000 requests and 200 MB."""
_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Files of requests, and how many requests are in them."""

    files: tuple[Path, ...]
    requests: int


class Unanswered(NamedTuple):
    """An item whose request has no usable answer in a file of results."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenUp:
    """What became of a file of results. ``waiting`` items want a further request: write a batch again."""

    answers: int
    known: int
    unanswered: tuple[Unanswered, ...]
    faults: tuple[str, ...]
    waiting: int


def write_batch(
    stage: EndpointTeachStage, shards: Iterable[list[Item]], path: Path, *, most: int = MOST_REQUESTS
) -> Written:
    """The requests that have no answer yet, the next one of each item, in as many files as are needed.

    Raises:
        StorageError: a file cannot be written.
    """
    files = _Files(path, most)
    seen: set[str] = set()
    with Replies(stage.root / STORE) as replies, files:
        for _, request in _waiting(stage, shards, replies):
            if request.key not in seen:  # pictures of which the same is known share an answer
                seen.add(request.key)
                files.add(_line(request, stage.teacher.limit_name))
    return Written(files=tuple(files.paths), requests=len(seen))


def read_batch(stage: EndpointTeachStage, shards: Iterable[list[Item]], path: Path) -> TakenUp:
    """Keep the answers in a file of results. ``shards`` are gone through twice.

    Raises:
        NotFoundError: there is no such file.
        DataError: none of its lines is a result.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {str(path)!r}; name the results of a batch")
    with Replies(stage.root / STORE) as replies:
        waiting = [(id, request) for id, request in _waiting(stage, shards, replies)]
        asked = {request.key: request for _, request in waiting}
        reasons: dict[str, str] = {}
        faults: list[str] = []
        answers = known = 0
        for number, line in enumerate(_lines(path), start=1):
            found = _result(line)
            if isinstance(found, str):
                faults.append(f"line {number}: {found}")
            elif found.key not in asked:
                known += replies.get(found.key) is not None
                if replies.get(found.key) is None:
                    faults.append(f"line {number}: {found.key[:50]!r} was not asked for by this corpus")
            elif isinstance(found.answer, str):
                reasons[found.key] = found.answer
            else:
                answers += 1
                reply = counted(found.answer, asked[found.key].size)
                replies.put(found.key, reply, stage.teacher.prices.of(reply))
        if faults and not (answers or known or reasons):
            raise DataError(f"{path} holds no results of this corpus ({faults[0]}); name the right file")
        unanswered = tuple(
            Unanswered(id, reasons.get(request.key, "no line in the results"))
            for id, request in waiting
            if replies.get(request.key) is None
        )
        left = sum(1 for _ in _waiting(stage, shards, replies))
    return TakenUp(
        answers=answers,
        known=known,
        unanswered=unanswered,
        faults=tuple(faults),
        waiting=left - len(unanswered),
    )


def _waiting(
    stage: EndpointTeachStage, shards: Iterable[list[Item]], replies: Replies
) -> Iterator[tuple[str, Request]]:
    for items in shards:
        for item in items:
            found = stage.step(item, replies)
            if isinstance(found, Request):
                yield item.id, found


# ------------------------------------------------------------------------------------------ writing


def _line(request: Request, limit_name: str) -> bytes:
    body = request.body(limit_name)
    line = {"custom_id": request.key, "method": "POST", "url": _PATH, "body": body}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


class _Files:
    """FILE.jsonl, FILE-2.jsonl, ...: each within the limits, written aside and renamed at the end."""

    def __init__(self, path: Path, most: int) -> None:
        self._path, self._most = path, most
        self._file: IO[bytes] | None = None
        self._rows = self._bytes = 0
        self.paths: list[Path] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close()
        for path in self.paths:
            if kind is None:
                _aside(path).replace(path)
            else:
                _aside(path).unlink(missing_ok=True)

    def add(self, line: bytes) -> None:
        if self._file is None or self._rows >= self._most or self._bytes + len(line) > MOST_BYTES:
            self._next()
        assert self._file is not None
        self._file.write(line)
        self._rows, self._bytes = self._rows + 1, self._bytes + len(line)

    def _next(self) -> None:
        self._close()
        number = len(self.paths) + 1
        path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _aside(path).open("wb")
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error.strerror}); name another file") from error
        self.paths.append(path)
        self._rows = self._bytes = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


# ------------------------------------------------------------------------------------------ reading


class _Result(NamedTuple):
    """A line of results: what it answers, and the reply or why there is none."""

    key: str
    answer: Reply | str


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


def _result(line: bytes) -> _Result | str:
    """A result, or what is wrong with the line."""
    try:
        found: Any = json.loads(line)
        key = str(found["custom_id"])
    except (ValueError, RecursionError):
        return "it is no JSON"
    except (KeyError, TypeError):
        return "it has no custom_id"
    response: Any = found.get("response") or {}
    try:
        return _Result(key, _reply(response["body"]))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        said: object = found.get("error") or response or "neither an answer nor an error"
        return _Result(key, whole(said if isinstance(said, str) else json.dumps(said))[:200])


def _reply(body: dict[str, Any]) -> Reply:
    choice: dict[str, Any] = body["choices"][0]
    content, finish = choice["message"]["content"], str(choice.get("finish_reason") or "")
    if content is None and finish not in ("length", "content_filter"):
        raise ValueError("no text")
    usage: dict[str, Any] = body.get("usage") or {}
    prompt, completion = (max(0, int(usage.get(n) or 0)) for n in ("prompt_tokens", "completion_tokens"))
    return Reply(
        text=whole(str(content or "")),
        model=whole(str(body.get("model") or "")),
        prompt_tokens=prompt,
        completion_tokens=completion,
        finish=finish,
        seconds=0.0,
    )
