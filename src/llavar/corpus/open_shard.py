"""A shard while it is computed: what it wants, what is known of it so far, how far its stage is."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from llavar.corpus.crew import Loss, Lost
from llavar.corpus.item import Item
from llavar.corpus.journal import Journal
from llavar.corpus.stage import Outcome
from llavar.records import Reject


class Failure(StrEnum):
    """Why the runner itself rejects an item."""

    FAILED = "the stage failed on it"
    TIME_LIMIT = "it took longer than the time limit"
    DIED = "the process died on it"
    GONE = "its file was removed and cannot be had again"


_FAILURES = {
    Loss.FAILED: Failure.FAILED,
    Loss.TIME_LIMIT: Failure.TIME_LIMIT,
    Loss.DIED: Failure.DIED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far a stage is, in items of all its shards; ``note`` is to be shown, or empty.

    ``total`` is 0 while the source is read: nobody knows how many there are.
    """

    stage: str
    done: int
    total: int
    rejected: int = 0
    note: str = ""


OnStep = Callable[[Step], None]


def is_because(outcome: Outcome, stage: str, reasons: Container[str]) -> bool:
    """Whether an item ended in a stage for one of these reasons, or goes on without its row."""
    said = (outcome,) if isinstance(outcome, Reject) else outcome.notes
    return any(one.stage == stage and one.reason in reasons for one in said)


@dataclass(frozen=True, slots=True)
class Wanted:
    shard: int
    key: str
    rows: int


@dataclass(slots=True)
class Progress:
    """Counts items of a stage over its shards."""

    stage: str
    on_step: OnStep
    total: int
    done: int = 0
    rejected: int = 0

    def skip(self, count: int) -> None:
        self.done += count
        self._say("")

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        if isinstance(outcome, Reject):
            self.rejected += 1
        self._say(f"{outcome.id}: {outcome.reason}" if isinstance(outcome, Reject) else "")

    def _say(self, note: str) -> None:
        self.on_step(
            Step(stage=self.stage, done=self.done, total=self.total, rejected=self.rejected, note=note)
        )


@dataclass(slots=True)
class OpenShard:
    """A shard that is being computed."""

    stage: str
    want: Wanted
    items: list[Item]
    journal: Journal | None
    """None where computing again costs less than writing down."""
    progress: Progress
    attempts: int
    outcomes: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    started: float = field(default_factory=time.perf_counter)

    @property
    def missing(self) -> list[int]:
        return [index for index in range(len(self.items)) if index not in self.outcomes]

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.items)

    def restore(self, is_tried: Callable[[Outcome], bool]) -> None:
        """Take up what an earlier run had found out, the latest of an item, but for what is tried again."""
        for index, outcome in self.journal.load() if self.journal is not None else ():
            if index < len(self.items) and outcome.id == self.items[index].id:
                self.outcomes[index] = outcome
        self.outcomes = {index: outcome for index, outcome in self.outcomes.items() if not is_tried(outcome)}
        for outcome in self.outcomes.values():
            self.progress.add(outcome)

    def lose(self, lost: Iterable[tuple[int, str]]) -> None:
        """Items whose files cannot be had again, and why."""
        for index, why in lost:
            id = self.items[index].id
            self.add(index, Reject(id=id, stage=self.stage, reason=Failure.GONE, detail=why))

    def add(self, index: int, result: Outcome | Lost) -> None:
        if isinstance(result, Lost):
            reason = _FAILURES[result.why]
            result = Reject(
                id=self.items[index].id, stage=self.stage, reason=reason.value, detail=result.detail
            )
        assert result.id == self.items[index].id, f"{self.stage} gave {result.id} for {self.items[index].id}"
        self.outcomes[index] = result
        if self.journal is not None:
            self.journal.add(index, result)
        self.progress.add(result)
