"""Stages for tests of the runner, importable by name in worker processes. The caption of an item decides."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from llavar.corpus.item import Item, Origin
from llavar.corpus.stage import Judge, Outcome
from llavar.errors import ModelError
from llavar.records import Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """A source of ``count`` items; every tenth entry is none."""

    count: int

    @dataclass(frozen=True)
    class Settings:
        count: int

    @property
    def settings(self) -> object:
        return self.Settings(self.count)

    def fingerprint(self) -> str:
        return str(self.count)

    def items(self) -> Iterator[Outcome]:
        for number in range(self.count):
            if number % 10 == 9:
                yield Reject(id=f"n{number}", stage="scan", reason="a tenth")
            else:
                yield Item(id=f"n{number}", origin=Origin(source="numbers", caption=str(number)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Settings of all stages here; ``note`` changes what comes out."""

    note: str = ""


def traced(name: str, item: Item) -> None:
    """Leave a line for each item that is computed, where a test asked for it."""
    if "RUNNER_TRACE" in os.environ:
        with Path(os.environ["RUNNER_TRACE"]).open("a") as file:
            file.write(f"{name} {item.id}\n")
    time.sleep(float(os.environ.get("RUNNER_PAUSE", "0")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Describes each item; hangs, dies, fails or rejects where its caption is in the list."""

    settings: Tell = Tell()
    time_limit: float | None = 20.0
    hangs: str = "-1"
    dies: str = "-1"
    fails: str = "-1"
    name: ClassVar[str] = "row"
    version: int = 1

    def maker(self) -> Row:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.described

    def described(self, item: Item) -> Outcome:
        traced(self.name, item)
        caption = item.origin.caption
        if caption == self.hangs:
            time.sleep(600)
        if caption == self.dies:
            os._exit(3)
        if caption == self.fails:
            raise RuntimeError("cannot be described")
        if caption.endswith("3"):
            return Reject(id=item.id, stage=self.name, reason="ends in 3", detail=caption)
        return replace(item, description=f"{self.settings.note}{caption}")


class Unloadable(Row):
    def __call__(self) -> Callable[[Item], Outcome]:
        raise ModelError("its file is not there; get it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """Takes a shard at once and answers in the opposite order."""

    settings: Tell = Tell()
    name: ClassVar[str] = "many"
    version: ClassVar[int] = 1

    def run(self, items: Sequence[Item]) -> Iterator[tuple[int, Outcome]]:
        for place in reversed(range(len(items))):
            traced(self.name, items[place])
            item = items[place]
            yield place, replace(item, description=f"{item.description}, {self.settings.note}many")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Rejects every item whose number shares its last digit with an earlier one of all shards."""

    settings: Tell = Tell()
    name: ClassVar[str] = "whole"
    version: ClassVar[int] = 1

    def decide(self, shards: Iterable[list[Item]]) -> bytes:
        first: dict[str, str] = {}
        for items in shards:
            for item in items:
                traced(self.name, item)
                first.setdefault(item.origin.caption[-1], item.id)
        return json.dumps(first).encode()

    def judge(self, decision: bytes) -> Judge:
        first = json.loads(decision)
        return lambda items: [
            item
            if first[item.origin.caption[-1]] == item.id
            else Reject(id=item.id, stage=self.name, reason="seen before", detail=self.settings.note)
            for item in items
        ]


def digest(root: Path) -> str:
    """Of all finished files of a corpus, by name and content; decisions of the whole included."""
    held = hashlib.sha256()
    for path in sorted((root / "stages").rglob("*.parquet")):
        held.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return held.hexdigest()
