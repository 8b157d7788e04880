"""The runner: stages over shards of items, stopped and gone on with at any moment, byte for byte the same.

The folder of a corpus holds, for each stage, its shards as Parquet files of items and of those rejected, and
a manifest of what is done (:mod:`llavar.corpus.manifest`). A shard is computed again only when its key
changes: the hash of the stage's name, version and settings and of the items that go in. So a changed setting
redoes what depends on it, and no more: a stage whose input comes out equal after all is not touched.

Where an item is dear, its outcome goes to a journal as soon as it is known, so that a kill costs the items
that were being computed and nothing else. Files are written aside and renamed; the manifest is told last.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from llavar.corpus.crew import Loss, Lost
from llavar.corpus.crews import Crews, LocalCrews
from llavar.corpus.item import Item, Rejected
from llavar.corpus.journal import Journal
from llavar.corpus.keys import key_of
from llavar.corpus.manifest import Manifest, ShardRecord, StageSummary, summed
from llavar.corpus.open_shard import OnStep, OpenShard, Progress, Step, Wanted, is_because
from llavar.corpus.parquet import Table
from llavar.corpus.remade import Remade
from llavar.corpus.reuse import Reuse
from llavar.corpus.scanning import SCAN, Entry, outcomes_of, shards_of
from llavar.corpus.stage import GatherStage, Outcome, RowStage, ShardStage, Source, Stage
from llavar.errors import ConfigError, DataError, NotFoundError
from llavar.records import Reject

STAGES = "stages"
MANIFEST = "manifest.sqlite"
DECISION = "decision.bin"
_JOURNAL = ".journal"
_LAST = "-last"
"""Ends the key of a source's last shard: without it the source was not read to its end."""
_FORMAT = 3
"""Raised when items are stored in another way: all shards are then made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a corpus is computed. ``shard_rows`` decides which items share a file; the rest only time."""

    shard_rows: int = 1000
    workers: int | None = None
    """Processes for stages that work item by item; None takes one per CPU."""
    crews: Crews = field(default_factory=LocalCrews)
    """Where these processes are."""
    retry: frozenset[str] = frozenset()
    """Items that were left out for one of these reasons are tried again."""

    def __post_init__(self) -> None:
        if not 1 <= self.shard_rows <= 100_000:
            raise ConfigError(f"shard_rows is {self.shard_rows}; give 1 to 100000, 1000 for example")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; give at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run has made, and how to read it (:meth:`Corpus.items`)."""

    stages: tuple[StageSummary, ...]

    @property
    def kept(self) -> int:
        """Items that came through all stages."""
        return self.stages[-1].kept


class Corpus:
    """The folder of a corpus: computes its stages, and reads what they left."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._items, self._rejected = Table(Item), Table(Rejected)

    def run(
        self,
        source: Source,
        stages: Sequence[Stage],
        *,
        settings: RunSettings | None = None,
        until: str | None = None,
        on_step: OnStep | None = None,
    ) -> RunSummary:
        """Compute what is not done yet, stage after stage; with ``until``, no further than that stage.

        Raises:
            ConfigError: another process computes this corpus, two stages have one name, or ``until`` is none.
            LlavarError: whatever a stage raises while it loads; what it raises on an item is a reject.
        """
        settings = settings or RunSettings()
        names = [SCAN, *(stage.name for stage in stages)]
        if len(set(names)) < len(names):
            raise ConfigError(f"two stages have one name among {', '.join(names)}; rename one")
        last = len(stages) if until is None else _place(names, until)
        with self.claimed(), Manifest(self.root / MANIFEST) as manifest:
            known = {stage.name: stage for stage in stages}
            run = _Run(self, manifest, settings, on_step or (lambda _step: None), known, manifest.chain())
            manifest.set_chain(names)
            summaries = [run.scan(source)]
            for before, stage in zip(names, stages[:last], strict=False):
                summaries.append(run.stage(stage, before))
            return RunSummary(stages=tuple(summaries))

    def behind(
        self, source: Source, stages: Sequence[Stage], *, settings: RunSettings | None = None
    ) -> str | None:
        """The first stage that a run would compute; None where all is done."""
        with Manifest(self.root / MANIFEST) as manifest:
            run = _Run(self, manifest, settings or RunSettings(), lambda _step: None)
            return run.behind(source, [SCAN, *(stage.name for stage in stages)], stages)

    def chain(self) -> tuple[StageSummary, ...]:
        """What each stage of the last run has made so far, in their order."""
        with Manifest(self.root / MANIFEST) as manifest:
            return tuple(summed(name, manifest.records(name), computed=0) for name in manifest.chain())

    def items(self, stage: str) -> Iterator[list[Item]]:
        """The items that a stage kept, a shard at a time, in order."""
        for shard in self.shards(stage):
            yield self._items.read(self.path(stage, shard))

    def rejected(self, stage: str) -> Iterator[list[Rejected]]:
        """The items that ended in a stage, a shard at a time, in order."""
        for shard in self.shards(stage):
            yield self._rejected.read(rejects_of(self.path(stage, shard)))

    def path(self, stage: str, shard: int) -> Path:
        """The file of a shard."""
        return self.root / STAGES / stage / f"{shard:06d}.parquet"

    def files(self, stage: str, shard: int) -> tuple[Path, Path]:
        """The files of a shard: of items, and of those rejected."""
        path = self.path(stage, shard)
        return path, rejects_of(path)

    def shards(self, stage: str) -> list[int]:
        """The numbers of the shards of a stage that are done, in order."""
        with Manifest(self.root / MANIFEST) as manifest:
            return [record.shard for record in manifest.records(stage)]

    def write(self, path: Path, outcomes: Sequence[Outcome], items: Sequence[Item]) -> tuple[int, str]:
        """Replace the files of a shard; how many items are kept, and the hash of their file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [outcome for outcome in outcomes if isinstance(outcome, Item)]
        ended = [
            Rejected(reject=outcome, item=item)
            for outcome, item in zip(outcomes, items, strict=True)
            if isinstance(outcome, Reject)
        ]
        self._rejected.write(rejects_of(path), ended)
        self._items.write(path, kept)
        with path.open("rb") as file:
            return len(kept), hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, path: Path) -> list[Item]:
        return self._items.read(path)

    def outcomes(self, stage: str, shard: int) -> list[Outcome]:
        """What came of the items of a shard, those that were kept first."""
        path, rejects = self.files(stage, shard)
        return [*self._items.read(path), *(one.reject for one in self._rejected.read(rejects))]

    @contextmanager
    def claimed(self) -> Generator[None]:
        """Keep the folder to this process; a process that was killed has lost it.

        Raises:
            ConfigError: another process has it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another process computes the corpus in {self.root}; wait for it, or name another --out"
                ) from None
            yield


def existing(root: Path) -> Corpus:
    """The corpus in a folder.

    Raises:
        NotFoundError: there is none.
    """
    if not (root / MANIFEST).is_file():
        raise NotFoundError(f"{root} holds no corpus: there is no {MANIFEST}; name the --out of a run")
    return Corpus(root)


def rejects_of(path: Path) -> Path:
    """The file of those rejected beside the file of a shard."""
    return path.with_suffix(".rejects.parquet")


@dataclass(slots=True)
class _Run:
    """One call of :meth:`Corpus.run`."""

    corpus: Corpus
    manifest: Manifest
    settings: RunSettings
    on_step: OnStep
    stages: Mapping[str, Stage] = field(default_factory=dict[str, Stage])
    old: Sequence[str] = ()
    """The stages of the last run, until they are put aside."""

    # ------------------------------------------------------------------------------------------ the source

    def scan(self, source: Source) -> StageSummary:
        """The source's items in shards of ``shard_rows``, read once; all of it again if it has changed."""
        key = self._key(source)
        if self._is_scanned(key):
            return summed(SCAN, self.manifest.records(SCAN), computed=0)
        self._put_aside(SCAN, SCAN)
        self.manifest.cut(SCAN, 0)
        shards = rows = 0
        for entries, is_last in shards_of(source.items(), self.settings.shard_rows):
            self._scanned(shards, key + (_LAST if is_last else ""), entries)
            shards, rows = shards + 1, rows + len(entries)
            self.on_step(Step(stage=SCAN, done=rows, total=0))
        if not rows:
            raise DataError("the source has no items; name a folder or a table that holds some")
        self._trim(SCAN, shards)
        return summed(SCAN, self.manifest.records(SCAN), computed=shards)

    def _put_aside(self, stage: str, before: str, *, itself: bool = False) -> None:
        """Keep what the last run made behind a stage whose shards are about to change.

        What the stage itself has made is of use too if ``itself``, or if another stage stood before it: its
        own settings have not changed then.
        """
        old, self.old = list(self.old), ()
        first = old.index(before) if before in old else 0
        if stage in old[1:] and not itself and old[old.index(stage) - 1] == before:
            first = old.index(stage)
        elif stage in old[1:]:
            first = old.index(stage) - 1
        Reuse(self.corpus.root).keep_chain(self.manifest, old[first:], self.corpus.files)

    def _key(self, source: Source) -> str:
        return key_of(_FORMAT, SCAN, source.settings, source.fingerprint(), self.settings.shard_rows)

    def _is_scanned(self, key: str) -> bool:
        records = self.manifest.records(SCAN)
        return bool(records) and records[-1].key == key + _LAST

    def _scanned(self, shard: int, key: str, entries: Sequence[Entry]) -> None:
        started = time.perf_counter()
        outcomes, items = outcomes_of(entries)
        kept, digest = self.corpus.write(self.corpus.path(SCAN, shard), outcomes, items)
        seconds = round(time.perf_counter() - started, 3)
        self.manifest.done(
            ShardRecord(
                stage=SCAN,
                shard=shard,
                key=key,
                sha256=digest,
                rows=len(outcomes),
                kept=kept,
                seconds=seconds,
                attempts=1,
            )
        )

    # ------------------------------------------------------------------------------------------ a stage

    def stage(self, stage: Stage, before: str) -> StageSummary:
        """All shards of a stage that are not done under their key."""
        base, wanted = self._wanted(stage, before)
        again = self._again(stage, wanted)
        missing = [want for want in wanted if want.shard in again or not self._is_done(stage.name, want)]
        if missing:
            self._put_aside(stage.name, before, itself=bool(again))
        self._trim(stage.name, len(wanted))
        progress = Progress(stage.name, self.on_step, total=sum(want.rows for want in wanted))
        progress.skip(sum(want.rows for want in wanted) - sum(want.rows for want in missing))
        if missing:
            self._compute(stage, before, missing, progress, base)
        Reuse(self.corpus.root).clear(stage.name)
        return summed(stage.name, self.manifest.records(stage.name), computed=len(missing))

    def behind(self, source: Source, names: Sequence[str], stages: Sequence[Stage]) -> str | None:
        """The first stage that is not done; what comes after it follows from it."""
        if not self._is_scanned(self._key(source)):
            return SCAN
        for before, stage in zip(names, stages, strict=False):
            if not all(self._is_done(stage.name, want) for want in self._wanted(stage, before)[1]):
                return stage.name
        return None

    def _again(self, stage: Stage, wanted: Sequence[Wanted]) -> set[int]:
        """Shards that are done, with items that are to be tried again."""
        if not self.settings.retry or isinstance(stage, GatherStage):
            return set()
        done = [want.shard for want in wanted if self._is_done(stage.name, want)]
        is_tried, outcomes = self._is_tried(stage), partial(self.corpus.outcomes, stage.name)
        return {shard for shard in done if any(map(is_tried, outcomes(shard)))}

    def _is_tried(self, stage: Stage) -> Callable[[Outcome], bool]:
        return partial(is_because, stage=stage.name, reasons=self.settings.retry)

    def _wanted(self, stage: Stage, before: str) -> tuple[str, list[Wanted]]:
        """What the keys of a stage begin with, and the shards that it should have under which keys."""
        given = self.manifest.records(before)
        base = key_of(_FORMAT, stage.name, stage.version, stage.settings)
        if isinstance(stage, GatherStage):
            base = key_of(base, [record.sha256 for record in given])
        return base, [Wanted(record.shard, key_of(base, record.sha256), record.kept) for record in given]

    def _is_done(self, stage: str, want: Wanted) -> bool:
        is_known = self.manifest.find(stage, want.shard, want.key) is not None
        return is_known and all(path.is_file() for path in self.corpus.files(stage, want.shard))

    def _compute(
        self, stage: Stage, before: str, missing: Sequence[Wanted], progress: Progress, base: str
    ) -> None:
        if isinstance(stage, GatherStage):
            self._gather(stage, before, missing, progress, base)
            return
        opened = (self._open(stage, before, want, progress) for want in missing)
        if isinstance(stage, ShardStage):
            for shard in opened:
                self._each(shard, stage)
        elif isinstance(stage, RowStage):
            self._rows(opened, stage)
        else:
            raise ConfigError(f"the stage {stage.name!r} is of no known kind")

    def _gather(
        self, stage: GatherStage, before: str, missing: Sequence[Wanted], progress: Progress, base: str
    ) -> None:
        judge = stage.judge(self._decision(stage, before, base))
        for want in missing:
            shard = self._open(stage, before, want, progress)
            for index, outcome in enumerate(judge(shard.items)):
                shard.add(index, outcome)
            self.finish(shard)

    def _decision(self, stage: GatherStage, before: str, base: str) -> bytes:
        """Decided once for all shards, and kept: its first line is the key it was made under."""
        path = self.corpus.root / STAGES / stage.name / DECISION
        if path.is_file():
            head, _, decision = path.read_bytes().partition(b"\n")
            if head.decode(errors="replace") == base:
                return decision
        decision = stage.decide(_Again(partial(self.corpus.items, before)))
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_bytes(base.encode() + b"\n" + decision)
        aside.replace(path)
        return decision

    def _each(self, shard: OpenShard, stage: ShardStage) -> None:
        missing = shard.missing
        if missing:
            for place, outcome in stage.run([shard.items[index] for index in missing]):
                shard.add(missing[place], outcome)
        self.finish(shard)

    def _rows(self, opened: Iterator[OpenShard], stage: RowStage) -> None:
        """Item by item. Shards follow each other without a pause: processes take from the next one."""
        running: dict[int, OpenShard] = {}

        def tasks() -> Iterator[tuple[tuple[int, int], Item]]:
            for shard in opened:
                if not shard.missing:
                    self.finish(shard)
                    continue
                running[shard.want.shard] = shard
                for index in shard.missing:
                    yield (shard.want.shard, index), shard.items[index]

        with ExitStack() as stack:
            for (number, index), result in self._results(stage, tasks(), stack):
                shard = running[number]
                shard.add(index, result)
                if shard.complete:
                    self.finish(running.pop(number))

    def _results(
        self, stage: RowStage, tasks: Iterator[tuple[tuple[int, int], Item]], stack: ExitStack
    ) -> Iterator[tuple[tuple[int, int], Outcome | Lost]]:
        if stage.time_limit is None:
            work = stage.maker()()
            for key, item in tasks:
                yield key, _tried(work, item)
            return
        settings = self.settings
        crew = settings.crews.crew(stage.maker(), workers=settings.workers, time_limit=stage.time_limit)
        yield from stack.enter_context(crew).results(tasks)

    def _open(self, stage: Stage, before: str, want: Wanted, progress: Progress) -> OpenShard:
        attempts = self.manifest.begin(stage.name, want.shard, want.key)
        items = self.corpus.read(self.corpus.path(before, want.shard))
        path = self.corpus.path(stage.name, want.shard).with_suffix(_JOURNAL)
        is_cheap = isinstance(stage, GatherStage) or (
            isinstance(stage, RowStage) and stage.time_limit is None
        )
        journal = None if is_cheap else Journal(path, want.key)
        shard = OpenShard(stage.name, want, items, journal, progress, attempts)
        is_tried = self._is_tried(stage)
        shard.restore(is_tried)
        if not isinstance(stage, GatherStage):
            base = key_of(_FORMAT, stage.name, stage.version, stage.settings)
            known = Reuse(self.corpus.root).outcomes(stage, want.shard, items, partial(key_of, base))
            for index, outcome in known:
                if index not in shard.outcomes and not is_tried(outcome):
                    shard.add(index, outcome)
            remade, missing = Remade(self.stages, self._read, self._results), shard.missing
            lost = remade.downloads(before, [items[index] for index in missing])
            shard.lose((missing[place], why) for place, why in lost)
            if not is_cheap or stage.name == list(self.stages)[-1]:  # rows need their pictures
                left = {index: items[index] for index in shard.missing}
                shard.lose(remade.pictures(stage.name, want.shard, left))
        return shard

    def _read(self, stage: str, shard: int) -> list[Item]:
        return self.corpus.read(self.corpus.path(stage, shard))

    def finish(self, shard: OpenShard) -> None:
        """Write the files of a shard, then vouch for them."""
        assert shard.complete, f"{shard.stage} gave {len(shard.outcomes)} outcomes of {len(shard.items)}"
        path = self.corpus.path(shard.stage, shard.want.shard)
        outcomes = [shard.outcomes[index] for index in range(len(shard.items))]
        kept, digest = self.corpus.write(path, outcomes, shard.items)
        self.manifest.done(
            ShardRecord(
                stage=shard.stage,
                shard=shard.want.shard,
                key=shard.want.key,
                sha256=digest,
                rows=len(shard.items),
                kept=kept,
                seconds=round(time.perf_counter() - shard.started, 3),
                attempts=shard.attempts,
            )
        )
        if shard.journal is not None:
            shard.journal.remove()

    def _trim(self, stage: str, count: int) -> None:
        """Forget the shards of a stage from ``count`` on, and remove their files."""
        self.manifest.cut(stage, count)
        for path in (self.corpus.root / STAGES / stage).glob("[0-9]*"):
            if int(path.name[:6]) >= count:
                path.unlink()


@dataclass(frozen=True, slots=True)
class _Again:
    """Shards that can be gone through more than once: each time they are read anew."""

    read: Callable[[], Iterator[list[Item]]]

    def __iter__(self) -> Iterator[list[Item]]:
        return self.read()


def _tried(work: Callable[[Item], Outcome], item: Item) -> Outcome | Lost:
    try:
        return work(item)
    except Exception as error:  # noqa: BLE001 - one item must not end the run
        return Lost(why=Loss.FAILED, detail=f"{type(error).__name__}: {error}"[:500])


def _place(names: Sequence[str], until: str) -> int:
    if until not in names:
        raise ConfigError(f"there is no stage {until!r} to stop after; the stages are {', '.join(names)}")
    return names.index(until)
