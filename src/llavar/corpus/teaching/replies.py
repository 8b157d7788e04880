"""Every reply that was ever paid for, in one SQLite file; and the limits of what may be spent."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from llavar.errors import BudgetError, ConfigError, DataError, StorageError
from llavar.llm import Reply, whole

STORE = Path("teach") / "replies.sqlite"
"""In the folder of a corpus."""
_COLUMNS = "text, model, prompt_tokens, completion_tokens, finish, cost"


class Paid(NamedTuple):
    """A reply and what it cost when it was asked for."""

    reply: Reply
    cost: float


class Spent(NamedTuple):
    """What all replies of a corpus have cost so far."""

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def plus(self, more: Spent) -> Spent:
        return Spent(
            self.replies + more.replies,
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
            self.cost + more.cost,
        )


class Replies:
    """Replies by the hash of what was asked. May be used from many threads, and by two processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT, model TEXT,"
                " prompt_tokens INTEGER, completion_tokens INTEGER, finish TEXT, cost REAL) WITHOUT ROWID"
            )
            self._spent = self._sum()
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path} holds no replies of a teacher ({error}); move it away, and they are asked for anew"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._base.close()

    def get(self, key: str) -> Paid | None:
        """The reply to a request, or None if there is none yet."""
        with self._lock:
            row = self._base.execute(f"SELECT {_COLUMNS} FROM replies WHERE key=?", (key,)).fetchone()
        if row is None:
            return None
        text, model, prompt_tokens, completion_tokens, finish, cost = row
        reply = Reply(
            text=text,
            model=model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            finish=finish,
            seconds=0.0,
            cached=True,
        )
        return Paid(reply, cost)

    def put(self, key: str, reply: Reply, cost: float) -> Paid:
        """Keep a reply, and give what is kept: the first one, if two came."""
        numbers = (reply.prompt_tokens, reply.completion_tokens)
        row = (key, whole(reply.text), whole(reply.model), *numbers, whole(reply.finish), cost)
        with self._lock:
            try:
                done = self._base.execute("INSERT OR IGNORE INTO replies VALUES (?,?,?,?,?,?,?)", row)
            except sqlite3.OperationalError as error:
                raise StorageError(f"a reply of the teacher cannot be kept ({error}); make room") from error
            if done.rowcount:
                self._spent = self._spent.plus(Spent(1, *numbers, cost))
        kept = self.get(key)
        assert kept is not None, f"the reply {key} was not kept"
        return kept

    @property
    def spent(self) -> Spent:
        """The sum of all replies; of those that another process adds meanwhile, nothing is known here."""
        with self._lock:
            return self._spent

    def _sum(self) -> Spent:
        row = self._base.execute(
            "SELECT COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost) FROM replies"
        ).fetchone()
        return Spent(*(value or 0 for value in row))


def spent_in(root: Path) -> Spent:
    """What the teacher of the corpus in ``root`` has cost so far."""
    if not (root / STORE).is_file():
        return Spent()
    with Replies(root / STORE) as replies:
        return replies.spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Money for a million tokens of what is asked and of what is answered, in any currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("prompt", "completion"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"the price of {name} tokens is {getattr(self, name)}; give money for a million of them"
                )

    def of(self, reply: Reply) -> float:
        """What a reply costs."""
        return self.money(reply.prompt_tokens, reply.completion_tokens)

    def money(self, prompt_tokens: int, completion_tokens: int) -> float:
        return round((prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6, 9)


def counted(reply: Reply, size: int) -> Reply:
    """A reply whose tokens are known: where a server tells none, bytes are counted, which are more."""
    if reply.prompt_tokens or reply.completion_tokens:
        return reply
    return Reply(
        text=reply.text,
        model=reply.model,
        prompt_tokens=size,
        completion_tokens=len(reply.text.encode()),
        finish=reply.finish,
        seconds=reply.seconds,
    )


class Bound(NamedTuple):
    """The most that a request may cost."""

    cost: float
    tokens: int


class Purse:
    """Stops asking when the corpus has cost what it may.

    Requests under way count with the most they may cost. Where the rest might not do for one more, it waits
    for those under way, and the last ones go alone: the limit is passed by one reply at most.
    """

    def __init__(self, replies: Replies, *, max_cost: float | None, max_total: int | None) -> None:
        self._replies, self._max_cost, self._max_total = replies, max_cost, max_total
        self._changed = threading.Condition()
        self._held: list[Bound] = []

    @contextmanager
    def paying(self, bound: Bound) -> Generator[None]:
        """What is asked inside is paid for. Raises :class:`BudgetError` if nothing is left."""
        with self._changed:
            self._check()
            while self._held and not self._has_room(bound):
                self._changed.wait()
                self._check()
            self._held.append(bound)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(bound)
                self._changed.notify_all()

    def _has_room(self, bound: Bound) -> bool:
        spent = self._replies.spent
        cost = spent.cost + bound.cost + sum(held.cost for held in self._held)
        tokens = spent.tokens + bound.tokens + sum(held.tokens for held in self._held)
        return (self._max_cost is None or cost <= self._max_cost) and (
            self._max_total is None or tokens <= self._max_total
        )

    def _check(self) -> None:
        spent = self._replies.spent
        for used, limit, what in (
            (spent.cost, self._max_cost, "money (max_cost)"),
            (spent.tokens, self._max_total, "tokens (budget_tokens)"),
        ):
            if limit is not None and used >= limit:
                raise BudgetError(
                    f"the teacher's budget of {limit:g} in {what} is used up: {used:g} spent on "
                    f"{spent.replies} replies, which are kept; raise it in the recipe and run again to go on"
                )
