"""What keeps the cost of asking down: a budget, and a cache of replies."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llavar.errors import BudgetError, ConfigError, DataError, NotFoundError
from llavar.llm.protocol import Reply, whole

_ENTRY = b'{"key": "'
"""How a line of the cache begins."""


class Budget:
    """How much may be asked, shared by any number of clients and threads.

    Every request that is sent counts, retries included. Tokens are those that servers report, of the prompt
    and the reply; for a server that reports none, the characters sent and the reply's limit are counted,
    which is more. Calls under way when the tokens run out still finish, so that with N threads the limit can
    be passed by N replies.
    """

    def __init__(self, *, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        for name, limit in (("max_requests", max_requests), ("max_tokens", max_tokens)):
            if limit is not None and limit < 0:
                raise ConfigError(f"Budget.{name} is {limit}; it must be at least 0, or None for no limit")
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._requests = 0
        self._tokens = 0

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return self._requests

    @property
    def tokens(self) -> int:
        """Tokens spent so far."""
        return self._tokens

    def take(self) -> None:
        """Count one request, or raise :class:`BudgetError` if none is left."""
        with self._lock:
            for used, limit, what in (
                (self._requests, self._max_requests, "requests"),
                (self._tokens, self._max_tokens, "tokens"),
            ):
                if limit is not None and used >= limit:
                    raise BudgetError(
                        f"the budget of {limit} {what} is used up; what was answered is kept, "
                        "so run the same again with a new budget to go on"
                    )
            self._requests += 1

    def add_tokens(self, n: int) -> None:
        """Count tokens of one reply."""
        with self._lock:
            self._tokens += n


class Cache:
    """Replies of earlier calls in a file of JSON lines, found by everything that decides them.

    Only successful replies are kept. Each is appended at once as one line; a line that was torn by a crash is
    passed over. The API key is neither part of the address nor stored.
    Raises :class:`DataError` for a file that is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._replies = dict(_stored(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def get(self, key: str) -> Reply | None:
        with self._lock:
            return self._replies.get(key)

    def put(self, key: str, reply: Reply) -> None:
        stored = {
            "text": reply.text,
            "model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "finish": reply.finish,
            "seconds": round(reply.seconds, 3),
        }
        line = json.dumps({"key": key, "reply": stored}) + "\n"
        with self._lock:
            if self._file >= 0:
                self._replies[key] = replace(reply, cached=True)
                os.write(self._file, line.encode())

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1


def _stored(path: Path) -> Iterator[tuple[str, Reply]]:
    if path.is_dir():
        raise NotFoundError(f"{path} is a folder; name a file for the cache of replies")
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        torn = line.startswith(_ENTRY) or _ENTRY.startswith(line)
        try:
            entry: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            if torn:
                continue
            raise DataError(f"line {number} of {path} is no entry of a cache; name another file") from error
        try:
            reply = Reply(**entry["reply"], cached=True)
            yield str(entry["key"]), replace(reply, text=whole(reply.text))
        except (TypeError, KeyError, AttributeError) as error:
            raise DataError(f"line {number} of {path} is no entry of a cache; name another file") from error
