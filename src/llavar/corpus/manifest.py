"""What has been done of a corpus, in SQLite: a row for each shard of each stage.

A shard counts as done only when its row says so, and the row is written after the files. It is marked as
begun before its files are touched, so that no row ever vouches for files of other settings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Self

from llavar.errors import DataError

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """A shard that is done. ``key`` is of stage, settings and input; ``sha256`` of the items it holds."""

    stage: str
    shard: int
    key: str
    sha256: str
    rows: int
    kept: int
    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """What a stage has made. ``computed`` counts the shards of this run, ``seconds`` is of all of them."""

    stage: str
    shards: int
    computed: int
    rows: int
    kept: int
    seconds: float


def summed(stage: str, records: Sequence[ShardRecord], *, computed: int) -> StageSummary:
    """What the records of a stage amount to."""
    return StageSummary(
        stage=stage,
        shards=len(records),
        computed=computed,
        rows=sum(record.rows for record in records),
        kept=sum(record.kept for record in records),
        seconds=round(sum(record.seconds for record in records), 3),
    )


class Manifest:
    """The records of a corpus folder. One process writes at a time (the runner holds a lock)."""

    def __init__(self, path: Path) -> None:
        try:
            self._base = sqlite3.connect(path, isolation_level=None)
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            self._prepare(path, version)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path} is no manifest ({error}); remove it: shards are then made anew"
            ) from error

    def _prepare(self, path: Path, version: int) -> None:
        if version not in (0, _VERSION):
            raise DataError(
                f"{path} is of version {version}, and this llavar writes {_VERSION}; use the other"
            )
        self._base.execute("PRAGMA synchronous=FULL")
        self._base.execute(
            "CREATE TABLE IF NOT EXISTS shards (stage TEXT, shard INTEGER, key TEXT, sha256 TEXT,"
            " rows INTEGER, kept INTEGER, seconds REAL, attempts INTEGER,"
            " PRIMARY KEY (stage, shard)) WITHOUT ROWID"
        )
        self._base.execute("CREATE TABLE IF NOT EXISTS chain (place INTEGER PRIMARY KEY, stage TEXT)")
        self._base.execute(f"PRAGMA user_version={_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def set_chain(self, stages: Sequence[str]) -> None:
        """Remember which stages the corpus has, in their order."""
        self._base.execute("BEGIN IMMEDIATE")
        self._base.execute("DELETE FROM chain")
        self._base.executemany("INSERT INTO chain VALUES (?,?)", enumerate(stages))
        self._base.execute("COMMIT")

    def chain(self) -> tuple[str, ...]:
        """The stages of the last run, in their order."""
        return tuple(str(row[0]) for row in self._base.execute("SELECT stage FROM chain ORDER BY place"))

    def find(self, stage: str, shard: int, key: str) -> ShardRecord | None:
        """The record of a shard that is done under ``key``."""
        row = self._base.execute(
            "SELECT * FROM shards WHERE stage=? AND shard=? AND key=? AND sha256<>''", (stage, shard, key)
        ).fetchone()
        return None if row is None else _record(row)

    def begin(self, stage: str, shard: int, key: str) -> int:
        """Note that the files of a shard are about to change; how many times this key has been begun."""
        row = self._base.execute(
            "SELECT attempts FROM shards WHERE stage=? AND shard=? AND key=?", (stage, shard, key)
        ).fetchone()
        attempts = 1 if row is None else int(row[0]) + 1
        empty = (stage, shard, key, "", 0, 0, 0.0, attempts)
        self._base.execute("INSERT OR REPLACE INTO shards VALUES (?,?,?,?,?,?,?,?)", empty)
        return attempts

    def done(self, record: ShardRecord) -> None:
        """Vouch for the files of a shard."""
        self._base.execute("INSERT OR REPLACE INTO shards VALUES (?,?,?,?,?,?,?,?)", astuple(record))

    def cut(self, stage: str, count: int) -> None:
        """Forget shards from ``count`` on: the stage has fewer now."""
        self._base.execute("DELETE FROM shards WHERE stage=? AND shard>=?", (stage, count))

    def records(self, stage: str) -> list[ShardRecord]:
        """All shards of a stage that are done, in order."""
        rows = self._base.execute(
            "SELECT * FROM shards WHERE stage=? AND sha256<>'' ORDER BY shard", (stage,)
        ).fetchall()
        return [_record(row) for row in rows]


def _record(row: tuple[object, ...]) -> ShardRecord:
    names = (field.name for field in fields(ShardRecord))
    return ShardRecord(**dict(zip(names, row, strict=True)))  # pyright: ignore[reportArgumentType]
